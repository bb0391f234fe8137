//! Legacy sessions: the only place that reads or writes `Mcp-Session-Id`, and the one that knows
//! which sessions live, and which of their calls still await an answer.
//!
//! Never lets an id out in clear, into a log or an answer that is not the client's own. Until
//! sessions can move between pods, the id passes unchanged.

pub mod heir;
pub mod ids;
pub mod peers;
pub mod place;
mod session;
pub mod token;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, StatusCode, Uri};
use tokio::time::Instant;

pub use self::session::{Call, Session};

/// The header that carries a legacy session's id (MCP 2025-03-26 to 2025-11-25).
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Most sessions that are known at once; beyond, the ones that were idle longest are forgotten,
/// which costs them nothing but what is pending.
const MAX_SESSIONS: usize = 16 * 1024;
/// Longest id that is kept track of, in bytes. A longer one passes all the same.
const MAX_ID: usize = 1024;
/// How long a session without a request is remembered.
const SESSION_AGE: Duration = Duration::from_hours(1);

#[derive(Default)]
struct Table {
    /// By `Mcp-Session-Id`.
    by_id: HashMap<Box<str>, Arc<Session>>,
    /// By the path and query to which the clients of an HTTP+SSE stream POST.
    by_endpoint: HashMap<Box<str>, Arc<Session>>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    /// How many there are, so that a request looks for one only where it may find it.
    endpoints: AtomicUsize,
    pending: Arc<AtomicUsize>,
}

/// The table of sessions. Clones share it.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Shared>);

impl Sessions {
    /// The session that a request belongs to: by its header, or since it is `POSTed` where an open
    /// HTTP+SSE stream said.
    #[must_use]
    pub fn of(&self, request: &HeaderMap, target: &Uri) -> Option<Arc<Session>> {
        if let Some(id) = request.get(SESSION_ID) {
            // The specification allows visible ASCII only; anything else is the server's to refuse.
            return Some(self.by_id(id.to_str().ok()?));
        }
        if self.0.endpoints.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let table = self.table();
        let session = table.by_endpoint.get(target.path_and_query()?.as_str())?;
        session.used();
        Some(Arc::clone(session))
    }

    fn by_id(&self, id: &str) -> Arc<Session> {
        let mut table = self.table();
        if let Some(session) = table.by_id.get(id) {
            session.used();
            return Arc::clone(session);
        }
        let session = Arc::new(Session::new(id, false, &self.0.pending));
        if id.len() <= MAX_ID && has_room(&mut table.by_id) {
            table.by_id.insert(id.into(), Arc::clone(&session));
        }
        session
    }

    /// Learns from the head of an answer: the session that it opens, or that the request's one is
    /// over (404; some servers answer 400).
    #[must_use]
    pub fn answered(
        &self,
        session: Option<&Arc<Session>>,
        status: StatusCode,
        answer: &HeaderMap,
    ) -> Option<Arc<Session>> {
        match session {
            None if status.is_success() => {
                let id = answer.get(SESSION_ID).and_then(|id| id.to_str().ok());
                return id.map(|id| self.by_id(id));
            }
            Some(session) if status == StatusCode::NOT_FOUND => self.end(session),
            Some(session) if status == StatusCode::BAD_REQUEST => {
                // Where others use the session, it may be about this request alone.
                let mut table = self.table();
                if Arc::strong_count(session) <= 2 && !session.has_pending() {
                    self.remove(&mut table, session);
                }
            }
            _ => {}
        }
        None
    }

    /// Opens the session of an HTTP+SSE stream: `endpoint` is what the server named, and `path`
    /// that of the stream itself.
    #[must_use]
    pub fn open_endpoint(&self, path: &str, endpoint: &str) -> Option<Arc<Session>> {
        let target = resolve(path, endpoint)?;
        let session = Arc::new(Session::new(&target, true, &self.0.pending));
        let mut table = self.table();
        // As many as there are open streams: each ends its own.
        table.by_endpoint.insert(target.into(), Arc::clone(&session));
        self.0.endpoints.store(table.by_endpoint.len(), Ordering::Relaxed);
        Some(session)
    }

    /// The session is over: nothing of it awaits anything.
    pub fn end(&self, session: &Arc<Session>) {
        self.remove(&mut self.table(), session);
    }

    fn remove(&self, table: &mut Table, session: &Arc<Session>) {
        session.end();
        let known = if session.is_endpoint() { &mut table.by_endpoint } else { &mut table.by_id };
        // Its place may be another's by now.
        if known.get(session.id()).is_some_and(|known| Arc::ptr_eq(known, session)) {
            known.remove(session.id());
        }
        self.0.endpoints.store(table.by_endpoint.len(), Ordering::Relaxed);
    }

    /// The server that knew them is gone: what is pending is not answered any more.
    pub fn forget(&self) {
        let mut table = self.table();
        for session in table.by_id.values().chain(table.by_endpoint.values()) {
            drop(session.take_pending());
        }
        // It may only seem to be gone, to new connections: those in use end with their exchanges.
        table.by_id.retain(|_, session| is_in_use(session));
        table.by_endpoint.retain(|_, session| is_in_use(session));
        self.0.endpoints.store(table.by_endpoint.len(), Ordering::Relaxed);
    }

    /// Forgets what is too old to be waited for.
    pub fn expire(&self) {
        let now = Instant::now();
        let mut table = self.table();
        let Table { by_id, by_endpoint } = &mut *table;
        for session in by_id.values().chain(by_endpoint.values()) {
            session.expire(now);
        }
        by_id.retain(|_, session| {
            is_in_use(session) || session.has_pending() || session.idle(now) < SESSION_AGE
        });
    }

    #[must_use]
    pub fn len(&self) -> usize {
        let table = self.table();
        table.by_id.len() + table.by_endpoint.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls that await an answer and have no exchange of their own any more.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.pending.load(Ordering::Relaxed)
    }

    /// Those calls, each with the hash of its session.
    #[must_use]
    pub fn pending_calls(&self) -> Vec<(Call, String)> {
        if self.pending() == 0 {
            return Vec::new();
        }
        let table = self.table();
        let sessions = table.by_id.values().chain(table.by_endpoint.values());
        sessions
            .flat_map(|session| session.pending().into_iter().map(|call| (call, session.hash())))
            .collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0.table)
    }
}

/// Whether there is room for one more. Where there is none, forgets an eighth of those that no
/// exchange uses, the ones that were idle longest.
fn has_room(sessions: &mut HashMap<Box<str>, Arc<Session>>) -> bool {
    if sessions.len() < MAX_SESSIONS {
        return true;
    }
    let now = Instant::now();
    let unused = sessions.values().filter(|session| !is_in_use(session));
    let mut ages: Vec<Duration> = unused.map(|session| session.idle(now)).collect();
    if ages.is_empty() {
        return false;
    }
    let keep = ages.len() - ages.len().div_ceil(8);
    let (_, oldest, _) = ages.select_nth_unstable(keep);
    let oldest = *oldest;
    sessions.retain(|_, session| {
        let stays = is_in_use(session) || session.idle(now) < oldest;
        if !stays {
            session.end();
        }
        stays
    });
    true
}

/// Whether an exchange holds it: were it forgotten, the next request would open another one beside
/// it, and neither would know what is in flight in the other. Asked under the table's lock, since
/// only the table gives it to one more.
fn is_in_use(session: &Arc<Session>) -> bool {
    Arc::strong_count(session) > 1
}

/// The path and query of an `endpoint` event: a URL, an absolute path, or one relative to the
/// stream's own (HTTP+SSE 2024-11-05).
fn resolve(path: &str, endpoint: &str) -> Option<String> {
    let is_whole = endpoint.starts_with('/') || endpoint.contains("://");
    let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
    let text = if is_whole { endpoint.to_owned() } else { format!("{folder}{endpoint}") };
    let target: Uri = text.parse().ok()?;
    target.path_and_query().map(ToString::to_string)
}

/// Held for a few lines, never across an await; nothing panics while holding it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(id: &str) -> HeaderMap {
        HeaderMap::from_iter([(SESSION_ID, id.parse().unwrap())])
    }

    fn call(id: &str) -> Call {
        Call::new(id.into(), "tools/call".into(), None)
    }

    /// Whether the session is over once it was answered so.
    fn told(sessions: &Sessions, session: &Arc<Session>, status: StatusCode) -> bool {
        assert!(sessions.answered(Some(session), status, &HeaderMap::new()).is_none());
        sessions.is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_pending_until_it_is_answered_cancelled_too_old_or_over() {
        let sessions = Sessions::default();
        let target = Uri::from_static("/mcp");
        let session = sessions.of(&headers("a"), &target).unwrap();
        for id in ["1", "\"2\"", "3", "4"] {
            session.pend([call(id)]);
        }
        session.pend([call("1")]);
        assert_eq!(sessions.pending(), 4);
        assert!(session.settle("1") && !session.settle("1") && session.settle(" \"\\u0032\""));
        assert_eq!(sessions.pending(), 2);
        assert_eq!(sessions.pending_calls()[0].0.id, "3");
        tokio::time::advance(session::PENDING_AGE).await;
        session.pend([call("5")]);
        sessions.expire();
        assert_eq!(sessions.pending(), 1);
        assert!(told(&sessions, &session, StatusCode::NOT_FOUND));
        assert_eq!((sessions.pending(), sessions.len()), (0, 0));
        // What ends after its session has, is not waited for.
        session.pend([call("6")]);
        assert_eq!(sessions.pending(), 0);
    }

    #[tokio::test]
    async fn sessions_open_and_end_by_what_the_server_says() {
        let sessions = Sessions::default();
        let opened = sessions.answered(None, StatusCode::OK, &headers("a")).unwrap();
        assert_eq!(sessions.len(), 1);
        let target = Uri::from_static("/mcp");
        let session = sessions.of(&headers("a"), &target).unwrap();
        // Another exchange uses it, be it a stream: this request is bad, the session may not be.
        assert!(!told(&sessions, &session, StatusCode::BAD_REQUEST));
        drop(opened);
        session.pend([call("1")]);
        assert!(!told(&sessions, &session, StatusCode::BAD_REQUEST));
        session.settle("1");
        assert!(told(&sessions, &session, StatusCode::BAD_REQUEST));
    }

    /// What one end says is not said of a session that has taken its place.
    #[tokio::test]
    async fn a_session_ends_no_other() {
        let sessions = Sessions::default();
        let target = Uri::from_static("/m");
        let first = sessions.open_endpoint("/sse", "/m").unwrap();
        let second = sessions.open_endpoint("/sse", "/m").unwrap();
        first.pend([call("1")]);
        sessions.end(&first);
        assert_eq!(sessions.pending(), 0);
        assert!(Arc::ptr_eq(&second, &sessions.of(&HeaderMap::new(), &target).unwrap()));
    }

    /// It is in nobody's way: neither is it waited for, nor does it make a second one of its id.
    #[tokio::test(start_paused = true)]
    async fn what_is_in_use_is_not_forgotten_and_what_nobody_knows_is_not_pending() {
        let sessions = Sessions::default();
        let target = Uri::from_static("/mcp");
        let listening = sessions.of(&headers("a"), &target).unwrap();
        tokio::time::advance(SESSION_AGE).await;
        sessions.expire();
        for number in 0..MAX_SESSIONS {
            drop(sessions.of(&headers(&number.to_string()), &target));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(Arc::ptr_eq(&listening, &sessions.of(&headers("a"), &target).unwrap()));
        let long = sessions.of(&headers(&"x".repeat(MAX_ID + 1)), &target).unwrap();
        long.pend([call("1")]);
        assert_eq!(sessions.pending(), 1);
        drop(long);
        assert_eq!(sessions.pending(), 0);
    }

    #[tokio::test]
    async fn the_pending_calls_of_all_sessions_are_bounded() {
        let sessions = Sessions::default();
        let target = Uri::from_static("/mcp");
        let all: Vec<_> = (0..1000)
            .map(|number| sessions.of(&headers(&number.to_string()), &target).unwrap())
            .collect();
        for session in &all {
            session.pend((0..100).map(|id| call(&id.to_string())));
            assert!(session.pending().len() <= 64);
        }
        assert_eq!(sessions.pending(), 16 * 1024);
        sessions.forget();
        assert_eq!((sessions.pending(), sessions.len()), (0, 1000));
        drop(all);
        sessions.forget();
        assert!(sessions.is_empty());
    }

    #[tokio::test]
    async fn a_post_finds_the_session_of_its_stream() {
        let sessions = Sessions::default();
        let none = HeaderMap::new();
        let target = Uri::from_static("/messages?id=1");
        assert!(sessions.of(&none, &target).is_none());
        let opened = sessions.open_endpoint("/sse", "/messages?id=1").unwrap();
        assert!(Arc::ptr_eq(&opened, &sessions.of(&none, &target).unwrap()));
        assert!(sessions.of(&none, &Uri::from_static("/messages?id=2")).is_none());
        sessions.end(&opened);
        assert!(sessions.of(&none, &target).is_none());
        for (path, endpoint, expected) in [
            ("/a/sse", "/m", Some("/m")),
            ("/a/sse", "m?x=1", Some("/a/m?x=1")),
            ("/a/sse", "http://h:1/m?x", Some("/m?x")),
            ("/sse", "a b", None),
        ] {
            assert_eq!(resolve(path, endpoint).as_deref(), expected, "{endpoint}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_forgets_the_idle_ones_first() {
        let sessions = Sessions::default();
        let target = Uri::from_static("/mcp");
        sessions.of(&headers("first"), &target).unwrap().pend([call("1")]);
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in 0..MAX_SESSIONS + 100 {
            drop(sessions.of(&headers(&number.to_string()), &target));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(sessions.len() <= MAX_SESSIONS, "{}", sessions.len());
        assert_eq!(sessions.pending(), 0);
        let long = "x".repeat(MAX_ID + 1);
        let before = sessions.len();
        assert!(sessions.of(&headers(&long), &target).is_some());
        assert_eq!(sessions.len(), before);
        tokio::time::advance(SESSION_AGE).await;
        sessions.expire();
        assert!(sessions.is_empty());
    }
}
