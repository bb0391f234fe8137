//! One session: what its server calls it, whether the server knows it, and what of it is in flight.
//!
//! Never ends by itself: the table forgets it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{
    lock,
    pending::{Call, Pending},
};
use crate::mcp::message::IdKey;

struct State {
    last_used: Instant,
    calls: Pending,
    /// What the server calls it; nothing where clients POST to an endpoint.
    id: Option<HeaderValue>,
    /// Whether the server has to open it first.
    lost: bool,
    /// Whether what the server calls it is not what its token says.
    reopened: bool,
    /// Whether another pod has it by now.
    given: bool,
    /// Whether no stream was opened since the server opened it anew.
    fresh: bool,
    /// What its client is told then: the methods of notifications.
    news: Vec<&'static str>,
}

/// A legacy session, shared by the table and by its exchanges.
pub struct Session {
    /// What its clients call it: the `Mcp-Session-Id` that they send, or the path and query to
    /// which they POST.
    text: Arc<str>,
    endpoint: bool,
    /// Whether the server calls it otherwise.
    renamed: bool,
    /// Whether it can be opened anew, here or in another pod.
    movable: AtomicBool,
    /// Whether its client has ended it.
    terminated: AtomicBool,
    /// Exchanges in flight that have an end.
    finite: AtomicUsize,
    /// The incarnation of the server that knew it last; 0 where none is known to.
    incarnation: AtomicU32,
    state: Mutex<State>,
    /// Held by whoever opens it anew: when that failed last.
    opening: tokio::sync::Mutex<Option<Instant>>,
    all: Arc<All>,
}

/// What all sessions take together.
#[derive(Default)]
pub(super) struct All {
    /// Pending calls.
    pub pending: AtomicUsize,
    /// What their clients call them, in bytes.
    pub bytes: AtomicUsize,
}

/// What the table has to know of a new one.
pub(super) struct New<'a> {
    pub text: &'a str,
    /// What the server calls it; `None` for an endpoint.
    pub id: Option<&'a str>,
    pub movable: bool,
    pub lost: bool,
}

impl Session {
    pub(super) fn new(new: &New<'_>, all: &Arc<All>) -> Self {
        all.bytes.fetch_add(new.text.len(), Ordering::Relaxed);
        let state = State {
            last_used: Instant::now(),
            calls: Pending::default(),
            id: new.id.and_then(|id| HeaderValue::from_str(id).ok()),
            lost: new.lost,
            given: false,
            reopened: false,
            fresh: false,
            news: Vec::new(),
        };
        Self {
            text: new.text.into(),
            endpoint: new.id.is_none(),
            renamed: new.id.is_some_and(|id| id != new.text),
            movable: AtomicBool::new(new.movable),
            terminated: AtomicBool::new(false),
            finite: AtomicUsize::new(0),
            incarnation: AtomicU32::new(0),
            state: Mutex::new(state),
            opening: tokio::sync::Mutex::default(),
            all: Arc::clone(all),
        }
    }

    /// What its clients call it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.text
    }

    /// What the server calls it; nothing where clients POST to an endpoint.
    #[must_use]
    pub fn id(&self) -> Option<HeaderValue> {
        lock(&self.state).id.clone()
    }

    /// Whether the server calls it otherwise than its clients do: whether its id is a token of ours.
    #[must_use]
    pub fn is_renamed(&self) -> bool {
        self.renamed
    }

    /// Whether it can be opened anew, here or in another pod.
    #[must_use]
    pub fn is_movable(&self) -> bool {
        self.movable.load(Ordering::Relaxed)
    }

    /// Its client has ended it: nobody opens it anew.
    pub(super) fn terminate(&self) {
        self.movable.store(false, Ordering::Relaxed);
        self.terminated.store(true, Ordering::Relaxed);
        self.end();
    }

    pub(super) fn is_terminated(&self) -> bool {
        self.terminated.load(Ordering::Relaxed)
    }

    /// Whether the server has to open it before it serves it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        lock(&self.state).lost
    }

    /// This incarnation of the server knows it.
    pub fn is_known_to(&self, incarnation: u32) {
        self.incarnation.store(incarnation, Ordering::Relaxed);
    }

    /// Whether an earlier incarnation of the server knew it, so that this one cannot.
    #[must_use]
    pub fn is_unknown_to(&self, incarnation: u32) -> bool {
        let known = self.incarnation.load(Ordering::Relaxed);
        known != 0 && known != incarnation
    }

    /// Whether nobody but us knows what the server calls it.
    #[must_use]
    pub fn is_reopened(&self) -> bool {
        lock(&self.state).reopened
    }

    /// Whether another pod has it by now.
    #[must_use]
    pub fn is_given(&self) -> bool {
        lock(&self.state).given
    }

    /// Whether another pod has it from now on; whether that is news.
    pub fn give(&self, given: bool) -> bool {
        std::mem::replace(&mut lock(&self.state).given, given) != given
    }

    /// One at a time opens it anew: the others wait, and find it open, or when that failed.
    pub async fn opening(&self) -> tokio::sync::MutexGuard<'_, Option<Instant>> {
        self.opening.lock().await
    }

    /// The server has opened it anew, and calls it `id`; `news`: what its client is to be told.
    pub fn opened(&self, id: HeaderValue, news: Vec<&'static str>) {
        self.loses_pending();
        let mut state = lock(&self.state);
        (state.id, state.lost, state.fresh, state.news) = (Some(id), false, true, news);
        (state.reopened, state.given) = (true, false);
    }

    /// Who could have answered what is pending is gone.
    pub fn loses_pending(&self) {
        lock(&self.state).calls.lose(&self.all.pending);
    }

    #[must_use]
    pub fn has_unanswered(&self) -> bool {
        lock(&self.state).calls.has_unanswered()
    }

    /// The calls that get no answer; whoever takes them tells their client.
    #[must_use]
    pub fn take_unanswered(&self) -> Vec<Call> {
        lock(&self.state).calls.take_unanswered()
    }

    /// Whether no stream was opened since the server opened the session anew: no event of before
    /// can be resumed.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        lock(&self.state).fresh
    }

    /// A stream is open: what its client is to be told on it.
    #[must_use]
    pub fn take_news(&self) -> Vec<&'static str> {
        let mut state = lock(&self.state);
        state.fresh = false;
        std::mem::take(&mut state.news)
    }

    /// Whether its calls are answered on the stream that named their endpoint (HTTP+SSE).
    #[must_use]
    pub fn is_endpoint(&self) -> bool {
        self.endpoint
    }

    /// The first 12 hexadecimal digits of the SHA-256 of what its clients call it, which is a
    /// secret. The same in every pod.
    #[must_use]
    pub fn hash(&self) -> String {
        let digest = Sha256::digest(self.text.as_bytes());
        let start = digest.iter().take(6).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        format!("{start:012x}")
    }

    /// An exchange that has an end begins.
    pub fn begin(&self) {
        self.finite.fetch_add(1, Ordering::Relaxed);
    }

    /// An exchange that has an end is over.
    pub fn finish(&self) {
        self.finite.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether something is pending, or more than `own` exchanges with an end are in flight.
    #[must_use]
    pub fn is_busy(&self, own: usize) -> bool {
        self.finite.load(Ordering::Relaxed) > own || self.has_pending()
    }

    #[must_use]
    pub fn has_pending(&self) -> bool {
        !lock(&self.state).calls.pending().is_empty()
    }

    pub(super) fn awaited(&self, now: Instant) -> usize {
        lock(&self.state).calls.awaited(now)
    }

    /// The calls that await an answer, the oldest first.
    #[must_use]
    pub fn pending(&self) -> Vec<Call> {
        lock(&self.state).calls.pending().to_vec()
    }

    /// The calls that await an answer; whoever takes them answers them.
    #[must_use]
    pub fn take_pending(&self) -> Vec<Call> {
        lock(&self.state).calls.take(&self.all.pending)
    }

    /// These calls await an answer from now on. An id that is used again takes the older one's
    /// place.
    pub fn pend(&self, calls: impl IntoIterator<Item = Call>) {
        lock(&self.state).calls.pend(calls, &self.all.pending);
    }

    /// The call with this id is answered, or nobody awaits it any more; whether it was pending.
    pub fn settle(&self, id: &str) -> bool {
        lock(&self.state).calls.settle(&IdKey::of(id), &self.all.pending)
    }

    /// A client is there to hear the calls that had been left by then.
    pub fn hears(&self, left_by: Instant) {
        lock(&self.state).calls.hears(left_by);
    }

    pub(super) fn used(&self) {
        lock(&self.state).last_used = Instant::now();
    }

    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.duration_since(lock(&self.state).last_used)
    }

    pub(super) fn end(&self) {
        lock(&self.state).calls.end(&self.all.pending);
    }

    pub(super) fn expire(&self, now: Instant) {
        lock(&self.state).calls.expire(now, &self.all.pending);
    }
}

impl Drop for Session {
    /// Nobody can answer what is pending in a session that nobody knows.
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.text.len(), Ordering::Relaxed);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.calls.end(&self.all.pending);
    }
}
