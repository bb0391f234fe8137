//! The ticket of one exchange: whoever holds it keeps the exchange in flight.
//!
//! Never says by itself how the exchange ends: whoever ends it does.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use super::{Ending, Entry, Shared, lock};
use crate::{
    mcp::{Class, message::Envelope},
    telemetry::metrics::Outcome,
};

/// Holds one exchange in flight until dropped. Not Clone: one exchange ends once.
#[must_use = "dropping the ticket ends the exchange"]
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry>,
    pub(super) key: usize,
    pub(super) outcome: Outcome,
}

impl Ticket {
    #[must_use]
    pub fn class(&self) -> Class {
        self.entry.class()
    }

    /// The body has told, or the answer has, what the head could not.
    pub fn reclassify(&mut self, class: Class) {
        let before = self.class();
        if before == class {
            return;
        }
        self.entry.class.store(class as u8, Ordering::Relaxed);
        if !class.is_stream() {
            self.entry.is_no_stream();
        }
        self.shared.gauge(before).fetch_sub(1, Ordering::Relaxed);
        self.shared.gauge(class).fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.reclassified(before, class);
        self.shared.changed.notify_one();
    }

    /// A number of its own, for spreading.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.entry.sequence
    }

    /// Where the request's body is noted as it passes.
    #[must_use]
    pub fn entry(&self) -> Arc<Entry> {
        Arc::clone(&self.entry)
    }

    /// What the request's body has told so far.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope> {
        lock(&self.entry.peek).envelope()
    }

    /// The head of the answer is on its way.
    pub fn answered(&self) {
        self.entry.answered.store(1, Ordering::Relaxed);
    }

    /// The answer is passed on as it comes, which may take long.
    pub fn may_last(&self) {
        lock(&self.entry.peek).shrink();
    }

    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.entry.ending()
    }

    /// Ready when the exchange is to end; else the task is woken when it is.
    pub fn poll_ending(&self, context: &mut Context<'_>) -> Poll<Ending> {
        if let Some(ending) = self.entry.ending() {
            return Poll::Ready(ending);
        }
        let mut waker = lock(&self.entry.waker);
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        drop(waker);
        // The word may have come between the first look and the waker.
        self.entry.ending().map_or(Poll::Pending, Poll::Ready)
    }

    /// What the exchange counts as when the ticket is dropped; abandoned unless said.
    pub fn will_be(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let class = self.class();
        let took = self.entry.began.elapsed();
        self.shared.metrics.finished(class, self.outcome, took);
        self.shared.totals[self.outcome as usize].fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.entries).remove(self.key);
        self.shared.account(&self.entry, self.outcome);
        self.shared.gauge(class).fetch_sub(1, Ordering::Relaxed);
        self.shared.changed.notify_one();
    }
}
