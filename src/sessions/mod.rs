//! Legacy sessions: the only place that reads or writes `Mcp-Session-Id`, and the one that knows
//! which sessions live, and which of their calls still await an answer.
//!
//! Never lets an id out in clear, into a log or an answer that is not the client's own.

mod endpoint;
pub mod heir;
pub mod ids;
pub mod keys;
pub mod peers;
mod pending;
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

use ahash::RandomState;
use http::{HeaderMap, HeaderName, StatusCode, Uri, uri::PathAndQuery};
use tokio::time::Instant;

use self::{
    ids::Opening,
    keys::Keys,
    session::{All, New},
    token::{MAX_TOKEN, Token},
};
pub use self::{pending::Call, session::Session};
use crate::config::value::Roaming;

/// The header that carries a legacy session's id (MCP 2025-03-26 to 2025-11-25).
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Most sessions that are known at once; beyond, the ones that were idle longest are forgotten,
/// which costs them nothing but what is pending.
const MAX_SESSIONS: usize = 16 * 1024;
/// Most bytes of what their clients call them, forged or not; the same.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most tokens of other pods that are kept as read, and the longest of them. Beyond, all are read
/// anew.
const MAX_READ: usize = 1024;
const MAX_READ_LENGTH: usize = 2 * 1024;
/// How long a session without a request is remembered.
const SESSION_AGE: Duration = Duration::from_hours(1);
/// The same, where nobody else knows what the server calls it.
const REOPENED_AGE: Duration = Duration::from_hours(24);

#[derive(Default)]
struct Table {
    /// By what clients send as `Mcp-Session-Id`.
    by_text: HashMap<Arc<str>, Arc<Session>, RandomState>,
    /// By the path and query to which the clients of an HTTP+SSE stream POST.
    by_endpoint: HashMap<Arc<str>, Arc<Session>, RandomState>,
    /// What was read lately in the tokens of other pods, so that not each request has it read anew.
    elsewhere: HashMap<Box<str>, Arc<Token>, RandomState>,
}

struct Shared {
    roaming: Roaming,
    /// Our pod's UID; empty where there is none.
    pod: Box<str>,
    keys: Mutex<Keys>,
    table: Mutex<Table>,
    /// How many there are, so that a request looks for one only where it may find it.
    endpoints: AtomicUsize,
    all: Arc<All>,
}

/// The table of sessions. Clones share it.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

/// What a request belongs to.
pub enum Found {
    /// No session.
    Nothing,
    /// One that our server knows, or may.
    Here(Arc<Session>),
    /// One that was opened in another pod.
    Elsewhere(Arc<Token>),
}

impl Default for Sessions {
    /// Outside Kubernetes.
    fn default() -> Self {
        Self::new(Roaming::default(), "")
    }
}

impl Sessions {
    /// `pod`: our UID, or nothing outside Kubernetes.
    #[must_use]
    pub fn new(roaming: Roaming, pod: &str) -> Self {
        Self(Arc::new(Shared {
            roaming,
            pod: pod.into(),
            keys: Mutex::default(),
            table: Mutex::default(),
            endpoints: AtomicUsize::new(0),
            all: Arc::default(),
        }))
    }

    #[must_use]
    pub fn roaming(&self) -> Roaming {
        self.0.roaming
    }

    /// Our pod's UID; empty where there is none.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.0.pod
    }

    /// How tokens are spelled from now on.
    pub fn set_keys(&self, keys: Keys) {
        *lock(&self.0.keys) = keys;
        self.table().elsewhere.clear();
    }

    /// The token that a client has sent; `None` where it is none of ours.
    #[must_use]
    pub fn token(&self, text: &str) -> Option<Token> {
        if self.0.roaming == Roaming::Off { None } else { Token::parse(text, &lock(&self.0.keys)) }
    }

    /// The session that a request belongs to: by its header, or since it is `POSTed` where an open
    /// HTTP+SSE stream said.
    #[must_use]
    pub fn of(&self, request: &HeaderMap, target: &Uri) -> Found {
        if let Some(id) = ids::only(request) {
            // The specification allows visible ASCII only; anything else is the server's to refuse.
            return id.to_str().map_or(Found::Nothing, |text| self.by_text(text));
        }
        if self.0.endpoints.load(Ordering::Relaxed) == 0 || request.contains_key(SESSION_ID) {
            return Found::Nothing;
        }
        let table = self.table();
        let path = target.path_and_query().map(PathAndQuery::as_str);
        let Some(session) = path.and_then(|path| table.by_endpoint.get(path)) else {
            return Found::Nothing;
        };
        session.used();
        Found::Here(Arc::clone(session))
    }

    fn by_text(&self, text: &str) -> Found {
        let table = self.table();
        if let Some(session) = table.by_text.get(text) {
            session.used();
            return Found::Here(Arc::clone(session));
        }
        if let Some(token) = table.elsewhere.get(text) {
            return Found::Elsewhere(Arc::clone(token));
        }
        drop(table);
        match self.token(text) {
            Some(token) if token.pod() != self.pod() => Found::Elsewhere(self.read(text, token)),
            Some(token) => Found::Here(self.keep(&self.of_token(text, &token, false))),
            None => {
                Found::Here(self.keep(&New { text, id: Some(text), movable: false, lost: false }))
            }
        }
    }

    fn read(&self, text: &str, token: Token) -> Arc<Token> {
        let token = Arc::new(token);
        if text.len() <= MAX_READ_LENGTH {
            let known = &mut self.table().elsewhere;
            if known.len() >= MAX_READ {
                known.clear();
            }
            known.insert(text.into(), Arc::clone(&token));
        }
        token
    }

    /// The session that clients call so, if it was seen here.
    #[must_use]
    pub fn known(&self, text: &str) -> Option<Arc<Session>> {
        self.table().by_text.get(text).cloned()
    }

    /// The session of a token that was made elsewhere, to be opened here.
    #[must_use]
    pub fn adopt(&self, text: &str, token: &Token) -> Arc<Session> {
        self.keep(&self.of_token(text, token, true))
    }

    fn of_token<'a>(&self, text: &'a str, token: &'a Token, lost: bool) -> New<'a> {
        let movable = self.0.roaming == Roaming::Reopen && token.params().is_some();
        New { text, id: Some(token.id()), movable, lost }
    }

    /// The one that is known, or this new one.
    fn keep(&self, new: &New<'_>) -> Arc<Session> {
        let mut table = self.table();
        if let Some(session) = table.by_text.get(new.text) {
            return Arc::clone(session);
        }
        let session = Arc::new(Session::new(new, &self.0.all));
        if new.text.len() <= MAX_TOKEN && has_room(&mut table.by_text, &self.0.all) {
            table.by_text.insert(Arc::clone(session.name()), Arc::clone(&session));
        }
        session
    }

    /// The server has opened a session, if its answer says so; from here on the answer has the
    /// client's word for it. `params`: those of the client's `initialize`, as JSON text;
    /// `version`: the one that the server agreed to, where it is known.
    #[must_use]
    pub fn opened(
        &self,
        answer: &mut HeaderMap,
        params: Option<&str>,
        version: Option<&str>,
    ) -> Option<Arc<Session>> {
        let id = ids::only(answer)?.to_str().ok()?.to_owned();
        let params = params.filter(|_| self.0.roaming == Roaming::Reopen);
        let token = (self.0.roaming != Roaming::Off)
            .then(|| ids::made(&id, Opening { pod: self.pod(), params, version }))
            .flatten();
        let Some(token) = token else {
            let new = New { text: &id, id: Some(&id), movable: false, lost: false };
            return Some(self.keep(&new));
        };
        let text = token.text(&lock(&self.0.keys));
        let session = self.keep(&self.of_token(&text, &token, false));
        ids::as_named(answer, &session);
        Some(session)
    }

    /// Learns from the head of an answer that the request's session is over (404; some servers
    /// answer 400), where it cannot be opened anew.
    pub fn answered(&self, session: &Arc<Session>, status: StatusCode) {
        if session.is_terminated() {
            // It stays known as that.
        } else if status == StatusCode::NOT_FOUND {
            self.end(session);
        } else if status == StatusCode::BAD_REQUEST {
            // Where others use the session, it may be about this request alone.
            let mut table = self.table();
            if Arc::strong_count(session) <= 2 && !session.has_pending() {
                self.remove(&mut table, session);
            }
        }
    }

    /// Opens the session of an HTTP+SSE stream: `endpoint` is what the server named, and `path`
    /// that of the stream itself.
    #[must_use]
    pub fn open_endpoint(&self, path: &str, endpoint: &str) -> Option<Arc<Session>> {
        let target = endpoint::resolve(path, endpoint)?;
        let new = New { text: &target, id: None, movable: false, lost: false };
        let session = Arc::new(Session::new(&new, &self.0.all));
        let mut table = self.table();
        // As many as there are open streams: each ends its own.
        table.by_endpoint.insert(Arc::clone(session.name()), Arc::clone(&session));
        self.0.endpoints.store(table.by_endpoint.len(), Ordering::Relaxed);
        Some(session)
    }

    /// The client has ended the session. It stays known, so that it is not opened anew.
    pub fn terminate(&self, session: &Arc<Session>) {
        session.terminate();
    }

    /// The session is over: nothing of it awaits anything.
    pub fn end(&self, session: &Arc<Session>) {
        self.remove(&mut self.table(), session);
    }

    fn remove(&self, table: &mut Table, session: &Arc<Session>) {
        session.end();
        let known = if session.is_endpoint() { &mut table.by_endpoint } else { &mut table.by_text };
        // Its place may be another's by now.
        if known.get(session.text()).is_some_and(|known| Arc::ptr_eq(known, session)) {
            known.remove(session.text());
        }
        self.0.endpoints.store(table.by_endpoint.len(), Ordering::Relaxed);
    }

    /// The server that knew them is gone: what is pending is not answered any more.
    pub fn forget(&self) {
        let mut table = self.table();
        for session in table.by_text.values().chain(table.by_endpoint.values()) {
            session.loses_pending();
        }
        // It may only seem to be gone, to new connections: those in use end with their exchanges.
        // Those that can be opened anew are, once the next server does not know them.
        table.by_text.retain(|_, session| is_in_use(session) || session.is_movable());
        table.by_endpoint.retain(|_, session| is_in_use(session));
        self.0.endpoints.store(table.by_endpoint.len(), Ordering::Relaxed);
    }

    /// Forgets what is too old to be waited for.
    pub fn expire(&self) {
        let now = Instant::now();
        let mut table = self.table();
        let Table { by_text, by_endpoint, elsewhere } = &mut *table;
        elsewhere.clear();
        for session in by_text.values().chain(by_endpoint.values()) {
            session.expire(now);
        }
        by_text.retain(|_, session| {
            let age = if session.is_reopened() { REOPENED_AGE } else { SESSION_AGE };
            is_in_use(session) || session.has_pending() || session.idle(now) < age
        });
    }

    #[must_use]
    pub fn len(&self) -> usize {
        let table = self.table();
        let live = table.by_text.values().filter(|session| !session.is_terminated()).count();
        live + table.by_endpoint.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls that await an answer and have no exchange of their own any more.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.all.pending.load(Ordering::Relaxed)
    }

    /// Those of them whose client is there to hear the answer, or was a few seconds ago.
    #[must_use]
    pub fn awaited(&self) -> usize {
        if self.pending() == 0 {
            return 0;
        }
        let (now, table) = (Instant::now(), self.table());
        let sessions = table.by_text.values().chain(table.by_endpoint.values());
        sessions.map(|session| session.awaited(now)).sum()
    }

    /// Those calls, each with the hash of its session.
    #[must_use]
    pub fn pending_calls(&self) -> Vec<(Call, String)> {
        if self.pending() == 0 {
            return Vec::new();
        }
        let table = self.table();
        let sessions = table.by_text.values().chain(table.by_endpoint.values());
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
fn has_room(sessions: &mut HashMap<Arc<str>, Arc<Session>, RandomState>, all: &All) -> bool {
    if sessions.len() < MAX_SESSIONS && all.bytes.load(Ordering::Relaxed) <= MAX_BYTES {
        return true;
    }
    let now = Instant::now();
    // Those that were opened anew last: nobody else knows what their server calls them.
    let of = |reopened: bool| {
        let unused = sessions.values().filter(|session| !is_in_use(session));
        let unused = unused.filter(|session| session.is_reopened() == reopened);
        unused.map(|session| session.idle(now)).collect::<Vec<Duration>>()
    };
    let mut ages = of(false);
    let reopened = ages.is_empty();
    if reopened {
        ages = of(true);
    }
    if ages.is_empty() {
        return false;
    }
    let keep = ages.len() - ages.len().div_ceil(8);
    let (_, oldest, _) = ages.select_nth_unstable(keep);
    let oldest = *oldest;
    sessions.retain(|_, session| {
        let stays =
            is_in_use(session) || session.is_reopened() != reopened || session.idle(now) < oldest;
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

/// Held for a few lines, never across an await; nothing panics while holding it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{token::MAX_PARAMS, *};

    fn headers(id: &str) -> HeaderMap {
        HeaderMap::from_iter([(SESSION_ID, id.parse().unwrap())])
    }

    fn call(id: &str) -> Call {
        Call::new(id.into(), "tools/call".into(), None)
    }

    /// Whether the session is over once it was answered so.
    fn told(sessions: &Sessions, session: &Arc<Session>, status: StatusCode) -> bool {
        sessions.answered(session, status);
        sessions.is_empty()
    }

    /// The session that our server knows by what clients call `id`.
    fn here(sessions: &Sessions, id: &str) -> Arc<Session> {
        match sessions.of(&headers(id), &Uri::from_static("/mcp")) {
            Found::Here(session) => session,
            Found::Nothing | Found::Elsewhere(_) => panic!("{id} is not here"),
        }
    }

    fn by_target(sessions: &Sessions, target: &'static str) -> Option<Arc<Session>> {
        match sessions.of(&HeaderMap::new(), &Uri::from_static(target)) {
            Found::Here(session) => Some(session),
            Found::Nothing | Found::Elsewhere(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_pending_until_it_is_answered_cancelled_too_old_or_over() {
        let sessions = Sessions::default();
        let session = here(&sessions, "a");
        for id in ["1", "\"2\"", "3", "4"] {
            session.pend([call(id)]);
        }
        session.pend([call("1")]);
        assert_eq!(sessions.pending(), 4);
        assert!(session.settle("1") && !session.settle("1") && session.settle(" \"\\u0032\""));
        assert_eq!(sessions.pending(), 2);
        assert_eq!(sessions.pending_calls()[0].0.id, "3");
        tokio::time::advance(pending::PENDING_AGE).await;
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
        let mut answer = headers("a");
        let opened = sessions.opened(&mut answer, None, None).unwrap();
        assert_eq!(sessions.len(), 1);
        let session = here(&sessions, answer[SESSION_ID].to_str().unwrap());
        assert!(Arc::ptr_eq(&opened, &session));
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
        let first = sessions.open_endpoint("/sse", "/m").unwrap();
        let second = sessions.open_endpoint("/sse", "/m").unwrap();
        first.pend([call("1")]);
        sessions.end(&first);
        assert_eq!(sessions.pending(), 0);
        assert!(Arc::ptr_eq(&second, &by_target(&sessions, "/m").unwrap()));
    }

    /// It is in nobody's way: neither is it waited for, nor does it make a second one of its id.
    #[tokio::test(start_paused = true)]
    async fn what_is_in_use_is_not_forgotten_and_what_nobody_knows_is_not_pending() {
        let sessions = Sessions::default();
        let listening = here(&sessions, "a");
        tokio::time::advance(SESSION_AGE).await;
        sessions.expire();
        for number in 0..MAX_SESSIONS {
            drop(here(&sessions, &number.to_string()));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(Arc::ptr_eq(&listening, &here(&sessions, "a")));
        let long = here(&sessions, &"x".repeat(MAX_TOKEN + 1));
        long.pend([call("1")]);
        assert_eq!(sessions.pending(), 1);
        drop(long);
        assert_eq!(sessions.pending(), 0);
    }

    #[tokio::test]
    async fn the_pending_calls_of_all_sessions_are_bounded() {
        let sessions = Sessions::default();
        let all: Vec<_> = (0..1000).map(|number| here(&sessions, &number.to_string())).collect();
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
        assert!(by_target(&sessions, "/messages?id=1").is_none());
        let opened = sessions.open_endpoint("/sse", "/messages?id=1").unwrap();
        assert!(Arc::ptr_eq(&opened, &by_target(&sessions, "/messages?id=1").unwrap()));
        assert!(by_target(&sessions, "/messages?id=2").is_none());
        sessions.end(&opened);
        assert!(by_target(&sessions, "/messages?id=1").is_none());
    }

    /// A server that could not be reached may answer all the same.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_after_all_leaves_nothing_to_be_told() {
        let sessions = Sessions::default();
        let session = here(&sessions, "a");
        session.pend([call("1"), call("2")]);
        sessions.forget();
        assert!(!session.settle("1.0") && session.has_unanswered());
        assert_eq!(session.take_unanswered(), [call("2")]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_forgets_the_idle_ones_first() {
        let sessions = Sessions::default();
        here(&sessions, "first").pend([call("1")]);
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in 0..MAX_SESSIONS + 100 {
            drop(here(&sessions, &number.to_string()));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(sessions.len() <= MAX_SESSIONS, "{}", sessions.len());
        assert_eq!(sessions.pending(), 0);
        let before = sessions.len();
        drop(here(&sessions, &"x".repeat(MAX_TOKEN + 1)));
        assert_eq!(sessions.len(), before);
        for number in 0..MAX_SESSIONS {
            drop(here(&sessions, &format!("{number:0MAX_TOKEN$}")));
        }
        let bytes = sessions.0.all.bytes.load(Ordering::Relaxed);
        assert!((MAX_BYTES / 2..=MAX_BYTES + MAX_TOKEN).contains(&bytes), "{bytes}");
        tokio::time::advance(SESSION_AGE).await;
        sessions.expire();
        assert!(sessions.is_empty());
    }

    fn ids(headers: &HeaderMap) -> Vec<&str> {
        let ids = headers.get_all(SESSION_ID).iter();
        ids.map(|id| str::from_utf8(id.as_bytes()).unwrap()).collect()
    }

    fn of_pod(pod: &str) -> Sessions {
        Sessions::new(Roaming::Reopen, pod)
    }

    /// What the client hears of an answer with these ids.
    fn opened(sessions: &Sessions, server: &[&str]) -> HeaderMap {
        let mut answer = HeaderMap::new();
        for id in server {
            answer.append(SESSION_ID, http::HeaderValue::from_bytes(id.as_bytes()).unwrap());
        }
        drop(sessions.opened(&mut answer, Some("{}"), Some("2025-06-18")));
        answer
    }

    #[tokio::test]
    async fn what_tokens_of_other_pods_say_is_kept_for_a_while_and_bounded() {
        let sessions = of_pod("u-1");
        let with = |id: &str, params: &str| {
            let token = Token::new("u-2", id, "2025-06-18", Some(params)).unwrap();
            match sessions.of(&headers(&token.text(&Keys::default())), &Uri::default()) {
                Found::Elsewhere(token) => token,
                _ => panic!("{id} is not elsewhere"),
            }
        };
        let elsewhere = |id: &str| with(id, "{}");
        let first = elsewhere("a");
        assert_eq!(first.id(), "a");
        assert!(Arc::ptr_eq(&first, &elsewhere("a")));
        // A key may be gone by then.
        sessions.set_keys(Keys::default());
        assert!(!Arc::ptr_eq(&first, &elsewhere("a")));
        for number in 0..3 * MAX_READ {
            elsewhere(&format!("b{number}"));
            assert!(sessions.table().elsewhere.len() <= MAX_READ);
        }
        sessions.expire();
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_PARAMS - 8));
        assert_eq!(with("a", &large).params(), Some(&*large));
        assert!(sessions.table().elsewhere.is_empty());
    }

    #[tokio::test]
    async fn a_session_has_its_token_outside_and_its_id_inside() {
        let sessions = of_pod("u-1");
        let answer = opened(&sessions, &["abc"]);
        let text = ids(&answer)[0];
        let token = Token::parse(text, &Keys::default()).unwrap();
        assert_eq!((token.pod(), token.id(), token.version()), ("u-1", "abc", "2025-06-18"));
        assert_eq!(token.params(), Some("{}"));
        // Its next request, and what the server says to that; also once all is forgotten.
        for sessions in [sessions, of_pod("u-1")] {
            let session = here(&sessions, text);
            let mut request = headers(text);
            ids::to_server(&mut request, &session);
            assert_eq!(ids(&request), ["abc"]);
            ids::to_client(&mut request, &session);
            assert_eq!(ids(&request), [text]);
            let mut other = headers("other");
            ids::to_client(&mut other, &session);
            assert_eq!(ids(&other), ["other"]);
        }
        // To another pod it is elsewhere, until that one opens it.
        let other = of_pod("u-2");
        assert!(matches!(other.of(&headers(text), &Uri::default()), Found::Elsewhere(_)));
        let adopted = other.adopt(text, &token);
        assert!(adopted.is_lost() && Arc::ptr_eq(&adopted, &here(&other, text)));
        adopted.opened("new".parse().unwrap(), Vec::new());
        let mut request = headers(text);
        ids::to_server(&mut request, &here(&other, text));
        assert_eq!(ids(&request), ["new"]);
    }

    #[tokio::test]
    async fn what_is_not_ours_stays_as_it_is() {
        let sessions = of_pod("u-1");
        let token = ids(&opened(&sessions, &["abc"]))[0].to_owned();
        for id in ["abc", "e1.", "e1.abc", "a b", &token[1..], &format!("{token}A"), ""] {
            let session = here(&sessions, id);
            let mut message = headers(id);
            ids::to_server(&mut message, &session);
            assert_eq!(ids(&message), [id]);
            // It began before us, and keeps its name.
            ids::to_client(&mut message, &session);
            assert_eq!(ids(&message), [id]);
        }
        let found = |headers: &HeaderMap| sessions.of(headers, &Uri::default());
        for twice in [["abc", "abc"], [&*token, &*token], ["abc", &*token]] {
            let mut request = HeaderMap::new();
            for id in twice {
                request.append(SESSION_ID, id.parse().unwrap());
            }
            assert!(matches!(found(&request), Found::Nothing));
            assert_eq!(ids(&opened(&sessions, &twice)), twice);
        }
        // No token can carry these.
        for id in ["", "a b", "\u{fc}", &*"x".repeat(1025)] {
            assert_eq!(ids(&opened(&sessions, &[id])), [id]);
        }
        let off = Sessions::new(Roaming::Off, "u-1");
        assert_eq!(ids(&opened(&off, &["abc"])), ["abc"]);
        let mut request = headers(&token);
        ids::to_server(&mut request, &here(&off, &token));
        assert_eq!(ids(&request), [token]);
    }

    /// Behind another ebbtide each takes off what it has put on.
    #[tokio::test]
    async fn a_token_in_a_token_is_taken_apart_once() {
        let (near, far) = (of_pod("u-1"), of_pod("u-2"));
        let inner = opened(&near, &["abc"]);
        let outer = opened(&far, &ids(&inner));
        let mut request = outer.clone();
        ids::to_server(&mut request, &here(&far, ids(&outer)[0]));
        assert_eq!(ids(&request), ids(&inner));
        ids::to_server(&mut request, &here(&near, ids(&inner)[0]));
        assert_eq!(ids(&request), ["abc"]);
    }
}
