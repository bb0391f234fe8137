//! What a handler may know of, and tell about, the connection that a request came on.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{self, Poll},
};

use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};

use crate::drain::handle::Open;

type Tunnel = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One client connection.
pub struct Context {
    pub remote: SocketAddr,
    /// The client's address as `X-Forwarded-For` writes it.
    client: HeaderValue,
    has_greeted: AtomicBool,
    is_told: AtomicBool,
    has_session: AtomicBool,
    busy: AtomicUsize,
    tunnel: Mutex<Option<Tunnel>>,
    /// Where the drain counts it.
    seen: Option<Open>,
}

/// Counts one exchange of a connection as under way until dropped.
pub(super) struct Busy(Arc<Context>);

/// A body whose exchange is under way as long as it lives.
pub struct Tracked<B> {
    body: B,
    _busy: Busy,
}

impl Context {
    #[must_use]
    pub fn new(remote: SocketAddr, seen: Option<Open>) -> Self {
        let text = remote.ip().to_canonical().to_string();
        Self {
            remote,
            has_greeted: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            client: HeaderValue::from_str(&text)
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            has_session: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            tunnel: Mutex::new(None),
            seen,
        }
    }

    /// The address for `X-Forwarded-For`; `None` where the sender has told whose client it is.
    #[must_use]
    pub fn client(&self) -> Option<&HeaderValue> {
        (!self.is_told.load(Relaxed)).then_some(&self.client)
    }

    /// Whoever is at the other end knows which pod this is, as sidecars do.
    pub fn greets(&self) {
        self.has_greeted.store(true, Relaxed);
    }

    /// Whether it is still to be found out that this is the sidecar of a pod.
    #[must_use]
    pub fn awaits_belief(&self) -> bool {
        self.has_greeted.load(Relaxed) && !self.is_told.load(Relaxed)
    }

    /// Whoever is at the other end tells for whom it asks, and is believed.
    pub fn tells_client(&self) {
        self.is_told.store(true, Relaxed);
    }

    /// The connection is another sidecar's.
    pub fn is_no_client(&self) {
        if let Some(seen) = &self.seen {
            seen.is_no_arrival();
        }
    }

    /// The connection carries a live session: it is never told to go elsewhere.
    pub fn carries_session(&self) {
        self.has_session.store(true, Relaxed);
    }

    #[must_use]
    pub fn has_session(&self) -> bool {
        self.has_session.load(Relaxed)
    }

    /// What the connection's task does once HTTP has ended on it with an upgrade.
    pub fn after_upgrade(&self, tunnel: impl Future<Output = ()> + Send + 'static) {
        // What comes from here on is no head, also before the client has heard of it.
        self.busy.fetch_add(1, Relaxed);
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(tunnel));
    }

    /// Whether an exchange is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed) > 0
    }

    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Relaxed);
        Busy(Arc::clone(self))
    }

    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

impl<B> Tracked<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body + Unpin> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
