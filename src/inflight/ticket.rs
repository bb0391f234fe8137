//! The ticket of one exchange: whoever holds it keeps the exchange in flight.
//!
//! Never says by itself how the exchange ends: whoever ends it does.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use super::{Ending, Entry, Note, Release, Shared, lock};
use crate::{
    mcp::{Class, message::Envelope},
    sessions::{Call, Session},
    telemetry::metrics::Outcome,
};

/// Holds one exchange in flight until dropped. Not Clone: one exchange ends once.
#[must_use = "dropping the ticket ends the exchange"]
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry>,
    pub(super) key: usize,
    pub(super) outcome: Outcome,
    /// The request is on its way to the server, and its answer has not passed.
    pub(super) owes: bool,
}

impl Ticket {
    #[must_use]
    pub fn class(&self) -> Class {
        self.entry.class()
    }

    /// The answer has told what the head could not.
    pub fn reclassify(&mut self, class: Class) {
        self.entry.is_told();
        self.shared.reclassify(&self.entry, class);
    }

    /// A number of its own, for spreading.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.entry.sequence
    }

    /// Where the request's body is noted as it passes.
    #[must_use]
    pub fn note(&self) -> Note {
        Note { shared: Arc::clone(&self.shared), entry: Arc::clone(&self.entry) }
    }

    /// What the request's body has told so far.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope> {
        lock(&self.entry.peek).envelope()
    }

    /// The params of the `initialize` that the request's body is, as JSON text.
    #[must_use]
    pub fn initialize(&self) -> Option<String> {
        lock(&self.entry.peek).initialize().map(str::to_owned)
    }

    /// The session that the exchange belongs to.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.entry.session()
    }

    /// The path of an exchange that is no JSON-RPC message.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        Some(self.entry.target.as_deref()?.split_once(' ')?.1)
    }

    /// Whether the answer still has to pass.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.owes
    }

    /// The answer has told which session the exchange belongs to.
    pub fn belongs_to(&self, session: &Arc<Session>) {
        // With the class held still: a finite exchange is counted by its session.
        let _held = lock(&self.entry.peek);
        let is_finite = !self.class().is_stream();
        // Set once: a stream names its endpoint once.
        if self.entry.session.set(Arc::clone(session)).is_ok() && is_finite {
            session.begin();
        }
    }

    /// The request is about to be sent: from now on the server may act on it.
    pub fn delivers(&mut self) {
        self.owes = true;
        // The answer comes on another stream, maybe before this exchange is over.
        if let Some(session) = self.session().filter(|session| session.is_endpoint()) {
            let calls = self.calls();
            self.entry.pends.store(calls.is_empty(), Ordering::Relaxed);
            session.pend(calls);
        }
    }

    /// The answer has passed, or its place is taken.
    pub fn settled(&mut self) {
        self.owes = false;
    }

    /// The server will not answer: what was to come on another stream is not awaited.
    pub fn refused(&mut self) {
        let was_sent = std::mem::take(&mut self.owes);
        let session = self.session().filter(|session| was_sent && session.is_endpoint());
        if let Some(session) = session {
            self.entry.pends.store(false, Ordering::Relaxed);
            for call in self.calls() {
                session.settle(&call.id);
            }
            self.shared.changed.notify_one();
        }
    }

    /// An answer to a pending call of the session has passed on this stream.
    pub fn passes_answer(&self, id: &str) {
        if self.session().is_some_and(|session| session.settle(id)) {
            self.shared.changed.notify_one();
        }
    }

    /// The requests of the body that await an answer, as far as it was seen: without those that
    /// the client gave up.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.entry.calls()
    }

    /// How many of them the client gave up.
    #[must_use]
    pub fn cancelled(&self) -> usize {
        lock(&self.entry.cancelled).len()
    }

    /// Whether all of the message was seen.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        lock(&self.entry.peek).scanner().is_complete()
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
        self.poll_word(context, |_| true)
    }

    /// The same, for what has been told to end as a stream, and takes its time.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<Ending> {
        self.poll_word(context, |ending| ending != Ending::Stream)
    }

    fn poll_word(&self, context: &mut Context<'_>, is_it: fn(Ending) -> bool) -> Poll<Ending> {
        let word = || self.entry.ending().filter(|ending| is_it(*ending));
        if let Some(ending) = word() {
            return Poll::Ready(ending);
        }
        let mut waker = lock(&self.entry.waker);
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        drop(waker);
        // The word may have come between the first look and the waker.
        word().map_or(Poll::Pending, Poll::Ready)
    }

    /// There is something of the answer for the client to take, or there is not.
    pub fn offers(&self, something: bool) {
        self.entry.offers(something);
    }

    /// What ends the exchange where its client does not take the answer, of which there is some.
    pub fn is_released_by(&mut self, release: Release) {
        // Set once: an exchange has one answer.
        drop(self.entry.release.set(release));
        self.offers(true);
    }

    /// What the exchange counts as when the ticket is dropped; abandoned unless said.
    pub fn will_be(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // What of the body is noted later changes nothing.
        self.entry.is_told();
        let class = self.class();
        if let Some(session) = self.entry.session() {
            // A legacy server works on when its client leaves, and may let it come back.
            let ended_early = matches!(self.outcome, Outcome::Abandoned | Outcome::Completed);
            let is_call = matches!(class, Class::Call | Class::Initialize);
            if self.owes && ended_early && is_call && !session.is_endpoint() {
                session.pend(self.calls());
            }
            if !class.is_stream() {
                session.finish();
            } else if class == Class::Stream && session.is_endpoint() {
                // Its calls were to be answered here.
                self.shared.sessions.end(session);
            }
        }
        let took = self.entry.began.elapsed();
        self.shared.metrics.finished(class, self.outcome, took);
        self.shared.totals[self.outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.shared.account(&self.entry, self.outcome);
        self.shared.gauge(class).fetch_sub(1, Ordering::Relaxed);
        // Last: who finds nothing in flight finds all of it accounted for.
        lock(&self.shared.entries).remove(self.key);
        self.shared.changed.notify_one();
    }
}
