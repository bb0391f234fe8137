//! Connections to the sidecars of the other pods behind our Services: one bounded pool for each.
//!
//! Never sends a request to what has not said that it is the sidecar of that very pod: addresses
//! are given to other pods, and a request carries its client's rights.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ahash::RandomState;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout},
};

use super::request_body::RequestBody;
use crate::{
    pool::{self, BoxedIo, Budget, Closed, Connecting, Pool},
    sessions::{
        ids,
        peers::{Peer, Peers},
    },
    telemetry::Metrics,
};

/// Between sidecars. In a request: what its sender takes the session for. In the first request of
/// a connection, and its answer: which pod is meant, and which one answers. The same where a pod is
/// asked for a session: the answer says what it has of it. In any other answer: that the session is
/// not here, and which pod may have it.
pub const PEER: HeaderName = HeaderName::from_static("ebbtide-peer");

/// What is said of a session that a pod was asked for.
const HERE: &str = "here";
const BUSY: &str = "busy";

/// Longest that a peer may take to answer the first request of a connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);
/// Most calls that are sent to one peer at once; its own pool bounds how many of them run.
const MAX_CALLS: usize = 1024;
/// Longest head of an answer to the first request, in bytes.
const MAX_HELLO: usize = 1024;

/// Longest wait for the first list of pods.
const FIRST_LIST: Duration = Duration::from_secs(3);
/// How long it is remembered where a session was found that is not where it was opened: each time
/// its owner is asked again, it may have become reachable.
const PLACE_AGE: Duration = Duration::from_mins(1);
const MAX_PLACES: usize = 16 * 1024;
/// Most peers that are asked for a session, those first that would have been its heirs lately.
const MAX_ASKED: usize = 16;
/// Most questions that are on their way at once.
const MAX_QUESTIONS: usize = 64;
/// How long a peer that could not be reached is not tried again: else each request, of however many
/// sessions, would wait for it in turn.
const MISSED_AGE: Duration = Duration::from_secs(1);

/// Opens a connection to an address.
pub type Dial = Box<dyn Fn(SocketAddr) -> Connecting + Send + Sync>;

/// The other pods, and the connections to them.
pub struct PeerPools {
    dial: Arc<Dial>,
    limits: pool::Limits,
    known: watch::Receiver<Option<Arc<Peers>>>,
    metrics: Arc<Metrics>,
    /// By UID.
    pools: Mutex<HashMap<Box<str>, PeerPool, RandomState>>,
    /// Where sessions were found, and when, by the hash of what their clients call them.
    places: Mutex<HashMap<u64, (Arc<str>, Instant)>>,
    hashes: RandomState,
    questions: Semaphore,
}

/// What a pod has of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    No,
    /// A call is in flight; the next one is to begin elsewhere.
    Busy,
    Here,
}

struct PeerPool {
    address: SocketAddr,
    pool: Pool<RequestBody>,
    /// When it could not be reached last.
    missed: Option<Instant>,
}

impl PeerPools {
    /// `known`: the pods behind our Services, our own among them; `None` until somebody can tell.
    /// `limits`: those of the pool of
    /// connections to our own server.
    #[must_use]
    pub fn new(
        dial: Dial,
        limits: pool::Limits,
        known: watch::Receiver<Option<Arc<Peers>>>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let limits = pool::Limits {
            max_connections: MAX_CALLS,
            acquire_timeout: limits.acquire_timeout.min(REACH_TIMEOUT),
            tries_again: false,
            ..limits
        };
        let metrics = Arc::clone(metrics);
        Self {
            dial: Arc::new(dial),
            limits,
            known,
            metrics,
            pools: Mutex::default(),
            places: Mutex::default(),
            hashes: RandomState::new(),
            questions: Semaphore::new(MAX_QUESTIONS),
        }
    }

    /// The pods that are known now.
    #[must_use]
    pub fn known(&self) -> Arc<Peers> {
        self.known.borrow().clone().unwrap_or_default()
    }

    /// Whether another pod than `ours` is ready, so that it can be sent what comes here late.
    #[must_use]
    pub fn has_other(&self, ours: &str) -> bool {
        self.known().heir("", |uid| uid == ours).is_some()
    }

    /// Whether somebody can tell which pods there are.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.known.borrow().is_some()
    }

    /// Waits for that, not for long: to a pod that has just started every session seems to be gone.
    pub async fn until_known(&self) {
        let mut known = self.known.clone();
        drop(timeout(FIRST_LIST, known.wait_for(Option::is_some)).await);
    }

    /// The pod where the session was found lately, if it may still have it.
    #[must_use]
    pub fn place(&self, text: &str) -> Option<Box<str>> {
        let places = lock(&self.places);
        // Most often every session is where it was opened.
        if places.is_empty() {
            return None;
        }
        let (uid, at) = places.get(&self.hashes.hash_one(text))?.clone();
        drop(places);
        // One that ends gives it away.
        let may_have_it = self.known().get(&uid).is_some_and(|peer| !peer.terminating);
        (may_have_it && at.elapsed() < PLACE_AGE).then(|| (*uid).into())
    }

    /// The session was found there.
    pub fn has_place(&self, text: &str, uid: &str) {
        let key = self.hashes.hash_one(text);
        let mut places = lock(&self.places);
        let is_fresh = |at: &Instant| at.elapsed() < PLACE_AGE;
        if places.get(&key).is_some_and(|(known, at)| **known == *uid && is_fresh(at)) {
            return;
        }
        if places.len() >= MAX_PLACES {
            places.retain(|_, (_, at)| is_fresh(at));
        }
        if places.len() < MAX_PLACES {
            places.insert(key, (uid.into(), Instant::now()));
        }
    }

    /// The peer that has the session, though it is neither where it was opened nor its heir: that
    /// one may have come later. All are asked at once. `out`: those that need not be. `is_call`:
    /// the request that looks for it would begin a call.
    pub async fn holder(
        &self,
        text: &str,
        ours: &str,
        out: &[Box<str>],
        is_call: bool,
    ) -> Option<Box<str>> {
        let known = self.known();
        let is_out = |uid: &str| uid == ours || out.iter().any(|out| &**out == uid);
        let asked = known.holders(text, is_out).into_iter().take(MAX_ASKED);
        let asked = asked.filter_map(|uid| Some((uid, known.get(uid)?)));
        let mut answers: FuturesUnordered<_> = asked
            .map(|(uid, peer)| async move { (uid, self.ask(text, uid, *peer).await) })
            .collect();
        let first = async {
            while let Some((uid, held)) = answers.next().await {
                if held == Held::Here || (held == Held::Busy && !is_call) {
                    return Some(uid.into());
                }
            }
            None
        };
        timeout(REACH_TIMEOUT, first).await.ok().flatten()
    }

    /// What the peer has of the session; nothing where it cannot be asked.
    async fn ask(&self, text: &str, uid: &str, peer: Peer) -> Held {
        let Ok(_asks) = self.questions.acquire().await else { return Held::No };
        if self.is_missed(uid) {
            return Held::No;
        }
        let pool = self.pool(uid, peer);
        let Ok(mut slot) = pool.acquire(Budget::Calls).await else { return Held::No };
        // Once more where the connection was older than the peer's patience.
        for is_first in [true, false] {
            let connected = if is_first { slot.connection().await } else { slot.fresh().await };
            if connected.is_err() {
                self.misses(uid);
            }
            let Some((mut connection, question)) = connected.ok().zip(question(text, uid)) else {
                return Held::No;
            };
            if let Ok(answer) = connection.send(question).await {
                slot.release(connection);
                return read_held(&answer, uid);
            }
            connection.close(Closed::Error);
        }
        Held::No
    }

    /// Whether the peer could not be reached just now.
    #[must_use]
    pub fn is_missed(&self, uid: &str) -> bool {
        let missed = lock(&self.pools).get(uid).and_then(|known| known.missed);
        missed.is_some_and(|at| at.elapsed() < MISSED_AGE)
    }

    /// The peer could not be reached.
    pub fn misses(&self, uid: &str) {
        if let Some(known) = lock(&self.pools).get_mut(uid) {
            known.missed = Some(Instant::now());
        }
    }

    /// The connections to one of them.
    #[must_use]
    pub fn pool(&self, uid: &str, peer: Peer) -> Pool<RequestBody> {
        let mut pools = lock(&self.pools);
        if let Some(known) = pools.get(uid).filter(|known| known.address == peer.address) {
            return known.pool.clone();
        }
        let (dial, address, pod) = (Arc::clone(&self.dial), peer.address, Arc::<str>::from(uid));
        let connector = Box::new(move || -> Pin<Box<dyn Future<Output = _> + Send>> {
            let (connecting, pod) = (dial(address), Arc::clone(&pod));
            Box::pin(async move { hello(connecting.await?, &pod).await })
        });
        let pool = Pool::new(connector, self.limits, &self.metrics.peer_pool);
        pools.insert(uid.into(), PeerPool { address, pool: pool.clone(), missed: None });
        pool
    }

    /// Closes what was idle for too long, and all that leads to pods which are gone; for ever.
    pub async fn reap(self: Arc<Self>) {
        loop {
            sleep(self.limits.idle_timeout.max(Duration::from_secs(1)) / 2).await;
            let known = self.known();
            let mut pools = lock(&self.pools);
            pools.retain(|uid, _| known.get(uid).is_some());
            for known in pools.values() {
                known.pool.reap();
            }
        }
    }
}

/// Asks who is there.
async fn hello(mut io: BoxedIo, pod: &str) -> io::Result<BoxedIo> {
    let request = format!("OPTIONS * HTTP/1.1\r\nhost: {pod}\r\n{PEER}: {pod}\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        // Nothing follows such an answer, so that no byte of another one is taken.
        if head.len() > MAX_HELLO || io.read_buf(&mut head).await? == 0 {
            return Err(stranger(pod));
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.split("\r\n");
    let is_well = lines.next().is_some_and(|line| line.starts_with("HTTP/1.1 204"));
    let names_it = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case(PEER.as_str()) && value.trim() == pod);
    if is_well && names_it { Ok(io) } else { Err(stranger(pod)) }
}

fn stranger(pod: &str) -> io::Error {
    io::Error::other(format!("what answers there is not the sidecar of the pod {pod}"))
}

/// The pod that the sender of the first request of a connection means.
pub fn greeted<B>(request: &Request<B>) -> Option<&HeaderValue> {
    let is_hello = *request.method() == Method::OPTIONS && request.uri().path() == "*";
    is_hello.then(|| request.headers().get(PEER)).flatten()
}

/// Whether `ours` is the pod that is meant, and what it has of the session that it was asked for.
pub fn greet(meant: &HeaderValue, ours: &str, held: Held) -> Response<()> {
    let mut response = Response::new(());
    if ours.is_empty() || meant != ours {
        *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        return response;
    }
    let value = match held {
        Held::No => Some(meant.clone()),
        Held::Busy => HeaderValue::from_str(&format!("{ours} {BUSY}")).ok(),
        Held::Here => HeaderValue::from_str(&format!("{ours} {HERE}")).ok(),
    };
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(PEER, value.unwrap_or_else(|| meant.clone()));
    response
}

/// What an answer to [`question`] says.
fn read_held(answer: &Response<()>, uid: &str) -> Held {
    let value = answer.headers().get(PEER).and_then(|value| value.to_str().ok());
    match value.and_then(|text| text.split_once(' ')) {
        Some((pod, HERE)) if pod == uid => Held::Here,
        Some((pod, BUSY)) if pod == uid => Held::Busy,
        _ => Held::No,
    }
}

/// Asks a pod for a session.
fn question(text: &str, uid: &str) -> Option<Box<Request<RequestBody>>> {
    let mut request = Box::new(Request::new(RequestBody::empty()));
    *request.method_mut() = Method::OPTIONS;
    *request.uri_mut() = Uri::from_static("*");
    let meant = HeaderValue::from_str(uid).ok()?;
    request.headers_mut().insert(header::HOST, meant.clone());
    request.headers_mut().insert(PEER, meant);
    ids::set(request.headers_mut(), Some(&HeaderValue::from_str(text).ok()?));
    Some(request)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
