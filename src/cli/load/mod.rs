//! A load of MCP clients of both eras against one URL, and a ledger of what became of every call.
//! What `demo` and `rehearse` share.
//!
//! Never knows why it is done, and never says how it went: it only calls.

mod caller;
mod client;
mod connection;
pub mod ledger;
pub mod outcome;
mod stream;
pub mod target;
pub mod work;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use tokio::sync::watch;

use self::{client::Client, ledger::Ledger, outcome::Era, target::Target, work::Work};
use crate::tasks::Group;

/// The longest event that is read.
const EVENT_BOUND: usize = 16 << 20;

/// Who calls what.
pub struct Plan {
    pub target: Arc<Target>,
    /// How many clients of each era.
    pub modern: usize,
    pub legacy: usize,
    /// What each client calls, in turn.
    pub works: Vec<Work>,
    /// Between an answer and the next call.
    pub pause: Duration,
    /// How long a client waits for an answer.
    pub timeout: Duration,
}

/// Clients that call; dropped, they end at once.
pub struct Load {
    clients: Group,
    stop: watch::Sender<bool>,
}

impl Load {
    pub fn start(plan: Plan, ledger: &Arc<Ledger>) -> Self {
        let mut clients = Group::default();
        let (stop, stopped) = watch::channel(false);
        let plan = Arc::new(plan);
        for number in 0..plan.modern + plan.legacy {
            let era = if number < plan.modern { Era::Modern } else { Era::Legacy };
            let client = Client::new(&plan, ledger, stopped.clone(), era, number);
            clients.spawn("client", client.run());
        }
        Self { clients, stop }
    }

    /// No further call begins; those under way go on to their end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the last client to end, which is before [`Load::stop`] only when one is broken.
    ///
    /// # Errors
    /// A client's task panicked.
    pub async fn ended(&mut self) -> Result<()> {
        while let Some(ended) = self.clients.ended().await {
            if let Some(panic) = ended.panic {
                bail!("a client of the load panicked, which is a bug of ebbtide: {panic}");
            }
        }
        Ok(())
    }

    /// Breaks off what is still under way; the ledger has it as unfinished then.
    pub async fn break_off(self) {
        self.clients.shut_down().await;
    }
}
