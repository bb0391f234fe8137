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
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::request_body::RequestBody;
use crate::{
    pool::{self, BoxedIo, Connecting, Pool},
    sessions::peers::{Peer, Peers},
    telemetry::Metrics,
};

/// Between sidecars. In a request: what its sender takes the session for. In the first request of
/// a connection, and its answer: which pod is meant, and which one answers. In an answer: that the
/// session is not here.
pub const PEER: HeaderName = HeaderName::from_static("ebbtide-peer");

/// Longest that a peer may take to answer the first request of a connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);
/// Most calls that are sent to one peer at once; its own pool bounds how many of them run.
const MAX_CALLS: usize = 1024;
/// Longest head of an answer to the first request, in bytes.
const MAX_HELLO: usize = 1024;

/// Longest wait for the first list of pods.
const FIRST_LIST: Duration = Duration::from_secs(3);
/// How long an owner that gave a session away is not asked again.
const REFUSED_AGE: Duration = Duration::from_mins(1);
const MAX_REFUSED: usize = 1024;

/// Opens a connection to an address.
pub type Dial = Box<dyn Fn(SocketAddr) -> Connecting + Send + Sync>;

/// The other pods, and the connections to them.
pub struct PeerPools {
    dial: Arc<Dial>,
    limits: pool::Limits,
    known: watch::Receiver<Option<Arc<Peers>>>,
    metrics: Arc<Metrics>,
    /// By UID.
    pools: Mutex<HashMap<Box<str>, PeerPool>>,
    /// The sessions that were given away, and when their owners said so.
    refused: Mutex<HashMap<Box<str>, Instant>>,
}

struct PeerPool {
    address: SocketAddr,
    pool: Pool<RequestBody>,
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
            refused: Mutex::default(),
        }
    }

    /// The pods that are known now.
    #[must_use]
    pub fn known(&self) -> Arc<Peers> {
        self.known.borrow().clone().unwrap_or_default()
    }

    /// Waits, not for long, until somebody can tell which pods there are: to a pod that has just
    /// started every session seems to be gone.
    pub async fn until_known(&self) {
        let mut known = self.known.clone();
        drop(timeout(FIRST_LIST, known.wait_for(Option::is_some)).await);
    }

    /// Whether the owner of a session has said lately that it gave it away.
    #[must_use]
    pub fn was_refused(&self, text: &str) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(text).is_some_and(|at| at.elapsed() < REFUSED_AGE)
    }

    /// The owner of a session has given it away: it need not be asked again.
    pub fn refused(&self, text: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MAX_REFUSED {
            refused.retain(|_, at| at.elapsed() < REFUSED_AGE);
        }
        if refused.len() < MAX_REFUSED {
            refused.insert(text.into(), Instant::now());
        }
    }

    /// The connections to one of them.
    #[must_use]
    pub fn pool(&self, uid: &str, peer: Peer) -> Pool<RequestBody> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pools.get(uid).filter(|known| known.address == peer.address) {
            return known.pool.clone();
        }
        let (dial, address, pod) = (Arc::clone(&self.dial), peer.address, Arc::<str>::from(uid));
        let connector = Box::new(move || -> Pin<Box<dyn Future<Output = _> + Send>> {
            let (connecting, pod) = (dial(address), Arc::clone(&pod));
            Box::pin(async move { hello(connecting.await?, &pod).await })
        });
        let pool = Pool::new(connector, self.limits, &self.metrics.peer_pool);
        pools.insert(uid.into(), PeerPool { address, pool: pool.clone() });
        pool
    }

    /// Closes what was idle for too long, and all that leads to pods which are gone; for ever.
    pub async fn reap(self: Arc<Self>) {
        loop {
            sleep(self.limits.idle_timeout.max(Duration::from_secs(1)) / 2).await;
            let known = self.known();
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            pools.retain(|uid, _| known.get(uid).is_some());
            pools.values().for_each(|known| known.pool.reap_once());
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
    request.headers().get(PEER).filter(|_| is_hello)
}

/// Whether `ours` is the pod that is meant.
pub fn greet(meant: &HeaderValue, ours: &str) -> Response<()> {
    let mut response = Response::new(());
    if !ours.is_empty() && meant == ours {
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(PEER, meant.clone());
    } else {
        *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    }
    response
}
