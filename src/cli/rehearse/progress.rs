//! What happens, on stderr, while a rehearsal runs: one line that is written anew on a terminal,
//! else one now and then.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use crate::cli::load::ledger::Ledger;

const ON_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(2);

/// Shows until dropped. `state`: what the rehearsal is at.
pub async fn show(ledger: &Ledger, state: watch::Receiver<String>) {
    let terminal = std::io::stderr().is_terminal();
    let interval = if terminal { ON_TERMINAL } else { ELSEWHERE };
    loop {
        sleep(interval).await;
        let line = line(ledger, &state.borrow());
        if terminal {
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }
}

/// Takes the line away, where there is one.
pub fn clear() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K");
    }
}

fn line(ledger: &Ledger, state: &str) -> String {
    let record = ledger.note();
    let seconds = ledger.elapsed().as_secs_f64();
    let ok = record.calls.len() - record.lost;
    let line = format!(
        "{seconds:6.1} s  {ok} calls ok, {} lost, {} in flight, {} sessions lost  {state}",
        record.lost, record.in_flight, record.sessions.lost
    );
    line.trim_end().to_owned()
}
