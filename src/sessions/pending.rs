//! The calls of one session that still await an answer though their exchange is over: the client
//! left, the server lets it come back (2025-11-25), or answers on another stream (HTTP+SSE).
//!
//! Never waits for a call longer than [`PENDING_AGE`] while nobody is there to hear its answer, and
//! never for more than [`MAX_PENDING`].

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::mcp::message::IdKey;

/// How long a call is waited for while no client is there. Clients that come back do so within
/// seconds; one that died never does.
pub(super) const PENDING_AGE: Duration = Duration::from_mins(1);
/// How soon a client comes back that does.
const COMES_BACK: Duration = Duration::from_secs(10);
/// Most calls of one session that are waited for; beyond, the oldest is given up.
const MAX_PENDING: usize = 64;
/// Most calls of all sessions that are waited for; beyond, no more are.
const MAX_ALL_PENDING: usize = 16 * 1024;

/// A call that awaits an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The JSON-RPC id, as JSON text.
    pub id: String,
    /// The same, to be compared.
    pub key: IdKey,
    pub method: String,
    /// `params.name`.
    pub name: Option<String>,
    /// When its exchange ended.
    pub since: Instant,
    /// When its client was last there to hear the answer.
    heard: Instant,
}

impl Call {
    #[must_use]
    pub fn new(id: String, method: String, name: Option<String>) -> Self {
        let since = Instant::now();
        Self { key: IdKey::of(&id), id, method, name, since, heard: since }
    }
}

/// Each change is counted in `all`: the calls of all sessions that are pending.
#[derive(Default)]
pub(super) struct Pending {
    calls: Vec<Call>,
    /// Calls whose server is gone: their client is to hear that no answer comes.
    unanswered: Vec<Call>,
    over: bool,
}

impl Pending {
    /// The oldest first.
    pub fn pending(&self) -> &[Call] {
        &self.calls
    }

    /// How many of them somebody may come back for soon.
    pub fn awaited(&self, now: Instant) -> usize {
        let is_awaited = |call: &&Call| now.duration_since(call.heard) < COMES_BACK;
        self.calls.iter().filter(is_awaited).count()
    }

    pub fn has_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    pub fn take_unanswered(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.unanswered)
    }

    pub fn take(&mut self, all: &AtomicUsize) -> Vec<Call> {
        all.fetch_sub(self.calls.len(), Relaxed);
        std::mem::take(&mut self.calls)
    }

    pub fn lose(&mut self, all: &AtomicUsize) {
        let lost = self.take(all);
        self.unanswered.extend(lost);
        self.unanswered.truncate(MAX_PENDING);
    }

    pub fn pend(&mut self, calls: impl IntoIterator<Item = Call>, all: &AtomicUsize) {
        for call in calls {
            self.keep(|known| known.key != call.key, all);
            if self.over || all.load(Relaxed) >= MAX_ALL_PENDING {
                break;
            }
            if self.calls.len() == MAX_PENDING {
                self.calls.remove(0);
                all.fetch_sub(1, Relaxed);
            }
            self.calls.push(call);
            all.fetch_add(1, Relaxed);
        }
    }

    pub fn settle(&mut self, id: &IdKey, all: &AtomicUsize) -> bool {
        let before = self.calls.len();
        self.keep(|call| call.key != *id, all);
        // Its server only seemed to be gone.
        self.unanswered.retain(|call| call.key != *id);
        self.calls.len() < before
    }

    pub fn hears(&mut self, left_by: Instant) {
        let now = Instant::now();
        for call in self.calls.iter_mut().filter(|call| call.since <= left_by) {
            call.heard = now;
        }
    }

    pub fn expire(&mut self, now: Instant, all: &AtomicUsize) {
        let is_awaited = |call: &Call| now.duration_since(call.heard) < PENDING_AGE;
        self.keep(is_awaited, all);
        self.unanswered.retain(is_awaited);
    }

    /// Nothing is awaited any more, nor will be.
    pub fn end(&mut self, all: &AtomicUsize) {
        self.over = true;
        drop((self.take(all), self.take_unanswered()));
    }

    fn keep(&mut self, keeps: impl Fn(&Call) -> bool, all: &AtomicUsize) {
        let before = self.calls.len();
        self.calls.retain(keeps);
        all.fetch_sub(before - self.calls.len(), Relaxed);
    }
}
