//! One HTTP/1.1 connection to the upstream, driven by whoever uses it: no task and no channel of
//! its own (performance: a spawned driver costs two wake-ups per request).
//!
//! Never decides whether a request may be sent again; [`SendError`] says what is known.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{BoxedIo, Budget, Closed, Outgoing, counts::Tally};

/// A connection, and whether it had served an exchange before.
pub struct Connection<B: Outgoing> {
    sender: http1::SendRequest<B>,
    /// Boxed, since the connection moves through many futures, each of which would hold room.
    driver: Box<http1::Connection<TokioIo<BoxedIo>, B>>,
    ended: bool,
    reused: bool,
    /// Set while nobody uses it and bytes, or a close, have come.
    disturbed: Arc<Disturbed>,
    counted: Counted,
}

/// Notes that the upstream did something on an idle connection: so whoever wants to use it asks
/// this flag, and polls the connection only if it is set.
#[derive(Default)]
struct Disturbed(AtomicBool);

impl Wake for Disturbed {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// A request without a response.
#[derive(Debug)]
pub struct SendError<B> {
    pub cause: hyper::Error,
    /// The request, when not a byte of it was written.
    pub unsent: Option<Box<Request<B>>>,
}

impl<B: Outgoing> Connection<B> {
    pub(super) async fn open(
        io: BoxedIo,
        budget: Budget,
        tally: Arc<Tally>,
    ) -> hyper::Result<Self> {
        let mut builder = http1::Builder::new();
        if budget == Budget::Streams {
            // Ten thousand open streams pay for their buffers all day; a call for a moment.
            builder.read_buf_exact_size(Some(STREAM_READ_BUFFER));
        }
        let (sender, driver) = builder.handshake(TokioIo::new(io)).await?;
        tally.created();
        let counted = Counted { tally, closing: Closed::Abandoned };
        let driver = Box::new(driver);
        let disturbed = Arc::default();
        Ok(Self { sender, driver, ended: false, reused: false, disturbed, counted })
    }

    /// Whether it had served an exchange before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn mark_reused(&mut self) {
        self.reused = true;
    }

    /// Closes it, and says why; dropping it counts as [`Closed::Abandoned`].
    pub fn close(mut self, reason: Closed) {
        self.counted.closing = reason;
    }

    /// Whether the last exchange has ended on both sides, and the connection may be kept. From
    /// here on it notes what the upstream does on it.
    pub fn is_idle(&mut self) -> bool {
        self.disturbed.0.store(false, Relaxed);
        let waker = Waker::from(Arc::clone(&self.disturbed));
        self.poll_driver(&mut Context::from_waker(&waker));
        !self.ended && self.sender.is_ready()
    }

    /// Whether the next request may be written on an idle connection: the upstream did not close,
    /// and no stray byte came.
    pub fn is_ready(&mut self) -> bool {
        !self.disturbed.0.load(Relaxed) || self.is_idle()
    }

    /// Moves bytes both ways as far as they go now. Whoever awaits the response or reads its body
    /// has to call this from the same `poll`.
    pub fn poll_driver(&mut self, context: &mut Context<'_>) {
        // How it ended reaches the user through the response or its body.
        self.ended = self.ended || Pin::new(&mut *self.driver).poll(context).is_ready();
    }

    /// Sends a request and resolves with the head of its answer. Dropping the future spoils the
    /// connection.
    ///
    /// # Errors
    /// The connection broke, or what came is not HTTP.
    pub async fn send(
        &mut self,
        request: Box<Request<B>>,
    ) -> Result<Response<Incoming>, SendError<B>> {
        let Self { sender, driver, ended, .. } = self;
        // Boxed, too: hyper's future has room for the request, in case that it gives it back.
        let mut response = Box::pin(sender.try_send_request(*request));
        std::future::poll_fn(move |context| {
            *ended = *ended || Pin::new(&mut **driver).poll(context).is_ready();
            match response.as_mut().poll(context) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(mut error)) => {
                    let unsent = error.take_message().map(Box::new);
                    Poll::Ready(Err(SendError { cause: error.into_error(), unsent }))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Turns an upgraded connection into its bare stream, with what was read beyond the head.
    /// The connection counts as open until `Upgraded` is dropped.
    #[must_use]
    pub fn into_upgraded(self) -> Upgraded {
        let Self { driver, counted, .. } = self;
        let parts = driver.into_parts();
        let mut counted = counted;
        counted.closing = Closed::Stream;
        Upgraded { io: parts.io.into_inner(), read: parts.read_buf, counted }
    }
}

/// The bare stream of a connection that was upgraded.
pub struct Upgraded {
    pub io: BoxedIo,
    /// Bytes of the new protocol that came with the answer's head.
    pub read: Bytes,
    pub counted: Counted,
}

/// Counts the connection as closed when dropped.
pub struct Counted {
    tally: Arc<Tally>,
    closing: Closed,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.tally.closed(self.closing);
    }
}

/// Bytes read at once from a stream.
const STREAM_READ_BUFFER: usize = 2048;
