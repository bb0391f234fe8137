//! SIGTERM, SIGINT and SIGQUIT, told to the drain; SIGHUP, SIGUSR1 and SIGUSR2, passed on to the server.
//!
//! Never ends anything itself.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

use crate::drain::{DrainHandle, handle::Event};

/// The signals, caught from the moment this exists.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    /// # Errors
    /// The system refuses a handler.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the next that asks for the end.
    pub async fn next(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            // The stop signal of some images.
            _ = self.quit.recv() => "SIGQUIT",
        };
        tracing::info!(signal = name, "signal");
    }

    /// Tells the drain of each, for ever; and `again` of all but the first, and of those that come
    /// when the drain is over.
    pub async fn run(mut self, drain: DrainHandle, again: Arc<Notify>) {
        let mut is_first = true;
        loop {
            self.next().await;
            drain.tell(Event::Signal).await;
            if !is_first || drain.is_over() {
                again.notify_one();
            }
            is_first = false;
        }
    }
}
