//! The load of the demo: ten clients that call short and long tools without pause.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use crate::cli::load::{Load, Plan, ledger::Ledger, target::Target, work::Work};

/// How long a client waits for an answer. Real ones wait for a minute.
const PATIENCE: Duration = Duration::from_secs(4);

/// Six clients without a session, and four with one.
pub fn start(port: u16, ledger: &Arc<Ledger>) -> Load {
    let tool = |name: &str, milliseconds: u64| Work::Tool {
        name: name.into(),
        arguments: json!({ "milliseconds": milliseconds }),
    };
    let plan = Plan {
        target: Arc::new(Target::on_loopback(port)),
        modern: 6,
        legacy: 4,
        works: vec![
            tool("search", 120),
            tool("search", 220),
            tool("search", 320),
            tool("report", 1500),
        ],
        pause: Duration::from_millis(25),
        timeout: PATIENCE,
    };
    Load::start(plan, ledger)
}
