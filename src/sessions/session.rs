//! One session: what its server calls it, what of it is in flight, and which of its calls still
//! await an answer though their exchange is over: the client left, the server lets it come back
//! (2025-11-25), or answers on another stream (HTTP+SSE).
//!
//! Never waits for a call longer than [`PENDING_AGE`] while nobody is there to hear its answer, and
//! never for more than [`MAX_PENDING`].

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

use super::lock;
use crate::mcp::message::IdKey;

/// How long a call is waited for while no client is there. Clients that come back do so within
/// seconds; one that died never does.
pub(super) const PENDING_AGE: Duration = Duration::from_mins(1);
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

struct State {
    last_used: Instant,
    over: bool,
    pending: Vec<Call>,
    /// Calls whose server is gone: their client is to hear that no answer comes.
    unanswered: Vec<Call>,
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
            over: false,
            pending: Vec::new(),
            unanswered: Vec::new(),
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
        let mut state = lock(&self.state);
        let pending = std::mem::take(&mut state.pending);
        self.count(pending.len(), 0);
        state.unanswered.extend(pending);
        state.unanswered.truncate(MAX_PENDING);
    }

    #[must_use]
    pub fn has_unanswered(&self) -> bool {
        !lock(&self.state).unanswered.is_empty()
    }

    /// The calls that get no answer; whoever takes them tells their client.
    #[must_use]
    pub fn take_unanswered(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.state).unanswered)
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
        !lock(&self.state).pending.is_empty()
    }

    /// The calls that await an answer, the oldest first.
    #[must_use]
    pub fn pending(&self) -> Vec<Call> {
        lock(&self.state).pending.clone()
    }

    /// The calls that await an answer; whoever takes them answers them.
    #[must_use]
    pub fn take_pending(&self) -> Vec<Call> {
        let mut state = lock(&self.state);
        let taken = std::mem::take(&mut state.pending);
        self.count(taken.len(), 0);
        taken
    }

    /// These calls await an answer from now on. An id that is used again takes the older one's
    /// place.
    pub fn pend(&self, calls: impl IntoIterator<Item = Call>) {
        let mut state = lock(&self.state);
        if state.over {
            return;
        }
        let before = state.pending.len();
        for call in calls {
            state.pending.retain(|known| known.key != call.key);
            if state.pending.len() == MAX_PENDING {
                state.pending.remove(0);
            }
            if self.all.pending.load(Ordering::Relaxed) + state.pending.len()
                >= before + MAX_ALL_PENDING
            {
                break;
            }
            state.pending.push(call);
        }
        self.count(before, state.pending.len());
    }

    /// The call with this id is answered, or nobody awaits it any more; whether it was pending.
    pub fn settle(&self, id: &str) -> bool {
        let key = IdKey::of(id);
        let mut state = lock(&self.state);
        let before = state.pending.len();
        state.pending.retain(|call| call.key != key);
        // Its server only seemed to be gone.
        state.unanswered.retain(|call| call.key != key);
        self.count(before, state.pending.len());
        state.pending.len() < before
    }

    /// A client is there to hear the calls that had been left by then.
    pub fn hears(&self, left_by: Instant) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        for call in state.pending.iter_mut().filter(|call| call.since <= left_by) {
            call.heard = now;
        }
    }

    pub(super) fn used(&self) {
        lock(&self.state).last_used = Instant::now();
    }

    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.duration_since(lock(&self.state).last_used)
    }

    pub(super) fn end(&self) {
        lock(&self.state).over = true;
        drop((self.take_pending(), self.take_unanswered()));
    }

    pub(super) fn expire(&self, now: Instant) {
        let mut state = lock(&self.state);
        let before = state.pending.len();
        let is_awaited = |call: &Call| now.duration_since(call.heard) < PENDING_AGE;
        state.pending.retain(is_awaited);
        state.unanswered.retain(is_awaited);
        self.count(before, state.pending.len());
    }

    fn count(&self, before: usize, after: usize) {
        if after >= before {
            self.all.pending.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.all.pending.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

impl Drop for Session {
    /// Nobody can answer what is pending in a session that nobody knows.
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.text.len(), Ordering::Relaxed);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.all.pending.fetch_sub(state.pending.len(), Ordering::Relaxed);
    }
}
