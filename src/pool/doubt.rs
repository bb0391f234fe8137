//! Whether the upstream's process may be about to end: it has just broken a connection, and a
//! process that ends closes its connections one by one.
//!
//! Never says that it has ended (`incarnation` does), and never holds anybody for longer than it
//! takes to look.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// How long a process may take to end once its connections broke. Starting one takes longer.
pub(super) const ENDING: Duration = Duration::from_millis(20);

/// How long who was found to listen after all is not doubted again: a server that breaks connections
/// now and then, or a client that makes it do so, holds nobody up for more than a look per second.
const TRUST: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Whether somebody looks: where nobody does, nobody waits.
    is_looked_at: AtomicBool,
    doubtful: AtomicBool,
    trusted_until: Mutex<Option<Instant>>,
    raised: Notify,
    settled: Notify,
}

impl Doubt {
    /// The upstream has broken a connection.
    pub fn raise(&self) {
        self.doubt();
        self.raised.notify_one();
    }

    fn doubt(&self) {
        let is_trusted = self.trusted_until().is_some_and(|until| Instant::now() < until);
        if self.is_looked_at.load(Relaxed) && !is_trusted {
            self.doubtful.store(true, Relaxed);
        }
    }

    /// Waits for a connection to break. For one waiter, who settles it.
    pub async fn raised(&self) {
        self.is_looked_at.store(true, Relaxed);
        self.raised.notified().await;
        // It may have broken while the last one was settled.
        self.doubt();
    }

    /// The process has had the time to end. Whether there was a doubt.
    pub fn settle(&self) -> bool {
        let was_doubtful = self.doubtful.swap(false, Relaxed);
        self.settled.notify_waiters();
        was_doubtful
    }

    /// It still listens.
    pub fn trust(&self) {
        *self.trusted_until() = Some(Instant::now() + TRUST);
    }

    pub fn is_raised(&self) -> bool {
        self.doubtful.load(Relaxed)
    }

    /// Waits until it is settled, if it is raised; no longer than that may take.
    pub async fn settled(&self) {
        let settled = self.settled.notified();
        if self.is_raised() {
            drop(timeout(ENDING, settled).await);
        }
    }

    fn trusted_until(&self) -> MutexGuard<'_, Option<Instant>> {
        // Nothing panics while holding it.
        self.trusted_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
