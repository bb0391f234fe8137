//! One HTTP/1.1 connection to the upstream, driven by whoever uses it: no task and no channel of
//! its own (performance: a spawned driver costs two wake-ups per request).
//!
//! Never decides whether a request may be sent again; [`SendError`] says what is known. Never reads
//! more than somebody has asked for: that is the back-pressure.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    task::unconstrained,
};

use super::{
    BoxedIo, Closed, ExchangeError, Outgoing,
    counts::Tally,
    http1::{Decoder, Part},
    sending::Sending,
};

/// Most bytes read at once. On the stack: what waits for bytes holds no buffer, and what came is
/// kept in as much room as it needs.
const READ: usize = 16 * 1024;

/// Most bytes read at once of a body of which more came than [`READ`]: straight into the memory
/// in which it is handed on.
const READ_MUCH: usize = 64 * 1024;

/// A connection, and whether it had served an exchange before. Boxed, since it moves through many
/// futures, each of which would hold room.
pub struct Connection<B: Outgoing>(Box<Inner<B>>);

struct Inner<B: Outgoing> {
    io: BoxedIo,
    sending: Sending<B>,
    answer: Decoder,
    /// Why the rest of the request could not be written: what counts is whether an answer comes.
    unwritten: Option<io::Error>,
    /// Whether the last read has left some.
    much: bool,
    /// Whether reading failed, or gave what is no answer.
    failed: bool,
    reused: bool,
    counted: Counted,
}

/// A request without a response.
#[derive(Debug)]
pub struct SendError<B> {
    pub cause: ExchangeError,
    /// The request, when not a byte of it was written.
    pub unsent: Option<Box<Request<B>>>,
    /// The request, when some of it was, and not all: the rest of its body can still be read.
    pub begun: Option<Box<Request<B>>>,
}

impl<B: Outgoing> Connection<B> {
    pub(super) fn new(io: BoxedIo, tally: Arc<Tally>) -> Self {
        tally.created();
        Self(Box::new(Inner {
            io,
            sending: Sending::default(),
            answer: Decoder::default(),
            unwritten: None,
            much: false,
            failed: false,
            reused: false,
            counted: Counted { tally, closing: Closed::Abandoned },
        }))
    }

    /// Whether it had served an exchange before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.0.reused
    }

    pub(super) fn mark_reused(&mut self) {
        self.0.reused = true;
    }

    /// Closes it, and says why; dropping it counts as [`Closed::Abandoned`].
    pub fn close(mut self, reason: Closed) {
        self.0.counted.closing = reason;
    }

    /// Whether the last exchange has ended on both sides, and the connection may be kept.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let inner = &*self.0;
        !inner.failed
            && inner.unwritten.is_none()
            && inner.sending.is_done()
            && inner.answer.is_idle()
    }

    /// Whether the next request may be written on an idle connection: the upstream did not close,
    /// and no stray byte came.
    pub fn is_ready(&mut self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let mut buffer = ReadBuf::uninit(&mut byte);
        let io = &mut self.0.io;
        // Asked out of turn: a task that has used up its turn would never hear of the close.
        let read = pin!(unconstrained(poll_fn(|context| {
            Pin::new(&mut *io).poll_read(context, &mut buffer)
        })));
        read.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends a request and resolves with the head of its answer. Dropping the future spoils the
    /// connection.
    ///
    /// # Errors
    /// The connection broke, or what came is not HTTP.
    pub async fn send(&mut self, request: Box<Request<B>>) -> Result<Response<()>, SendError<B>> {
        self.send_and(request, false).await
    }

    /// The same. `keeps`: the request is kept, so that [`Connection::take_sent`] gives it back.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub async fn send_and(
        &mut self,
        request: Box<Request<B>>,
        keeps: bool,
    ) -> Result<Response<()>, SendError<B>> {
        let inner = &mut *self.0;
        inner.answer.begin(*request.method() == Method::HEAD);
        inner.sending.begin(request, keeps);
        match poll_fn(|context| inner.poll_head(context)).await {
            Ok(response) => Ok(response),
            Err(cause) => {
                inner.failed = true;
                let cause = match (cause, inner.unwritten.take()) {
                    (ExchangeError::Incomplete, Some(error)) => error.into(),
                    (cause, _) => cause,
                };
                let (request, is_begun) = inner.sending.abandon();
                let (unsent, begun) = if is_begun { (None, request) } else { (request, None) };
                Err(SendError { cause, unsent, begun })
            }
        }
    }

    /// The request that was kept, if all of it was sent.
    #[must_use]
    pub fn take_sent(&mut self) -> Option<Box<Request<B>>> {
        self.0.sending.take_sent()
    }

    /// Lets go of it: what is not needed any more is not held as long as the answer takes.
    pub fn drop_sent(&mut self) {
        self.0.sending.drop_sent();
    }

    /// Gives up the request that is under way, and with it the connection; what of it was not sent.
    #[must_use]
    pub fn take_unfinished(&mut self) -> Option<Box<Request<B>>> {
        self.0.failed = true;
        self.0.sending.abandon().0
    }

    /// The next frame of the answer's body; `None` after its last.
    ///
    /// # Errors
    /// The connection broke, or what came is not HTTP.
    pub fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        let inner = &mut *self.0;
        let polled = ready!(inner.poll_body(context)).transpose();
        inner.failed |= matches!(polled, Some(Err(_)));
        Poll::Ready(polled)
    }

    /// Whether the answer's body has no frame left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.answer.is_over()
    }

    /// Whether the answer's body tells by itself where it ends; else it ends with the connection,
    /// however that ended.
    #[must_use]
    pub fn is_framed(&self) -> bool {
        self.0.answer.is_framed()
    }

    /// What is known of the length of the rest of the answer's body.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.0.answer.size_hint()
    }

    /// Turns an upgraded connection into its bare stream, with what was read beyond the head.
    /// The connection counts as open until `Upgraded` is dropped.
    #[must_use]
    pub fn into_upgraded(self) -> Upgraded {
        let Inner { io, answer, mut counted, .. } = *self.0;
        counted.closing = Closed::Stream;
        Upgraded { io, read: answer.into_unread(), counted }
    }
}

impl<B: Outgoing> Inner<B> {
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, ExchangeError>> {
        self.poll_sending(context)?;
        loop {
            if let Some(response) = self.answer.head()? {
                return Poll::Ready(Ok(response));
            }
            if !ready!(self.poll_read(context))? {
                return Poll::Ready(Err(ExchangeError::Incomplete));
            }
        }
    }

    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, ExchangeError>> {
        if self.failed {
            return Poll::Ready(Ok(None));
        }
        // The answer came before the whole request was out, and goes on if that breaks off.
        if self.poll_sending(context).is_err() {
            self.unwritten = Some(io::ErrorKind::BrokenPipe.into());
        }
        loop {
            match self.answer.body()? {
                Part::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Part::Trailers(trailers) => {
                    return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
                }
                Part::End => return Poll::Ready(Ok(None)),
                Part::More => {}
            }
            if !ready!(self.poll_read(context))? && !self.answer.close() {
                return Poll::Ready(Err(ExchangeError::Incomplete));
            }
        }
    }

    /// Moves the request on. Where the upstream does not take it, an answer may still come.
    ///
    /// # Errors
    /// Its body broke off.
    fn poll_sending(&mut self, context: &mut Context<'_>) -> Result<(), ExchangeError> {
        if self.unwritten.is_none()
            && !self.sending.is_done()
            && let Poll::Ready(Err(error)) = self.sending.poll(&mut self.io, context)
        {
            match error {
                ExchangeError::Io(error) => self.unwritten = Some(error),
                other => return Err(other),
            }
        }
        Ok(())
    }

    /// Reads once; whether anything came before the end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let bytes = if std::mem::take(&mut self.much) {
            let mut bytes = BytesMut::with_capacity(READ_MUCH);
            ready!(pin!(self.io.read_buf(&mut bytes)).poll(context))?;
            self.much = bytes.len() >= READ;
            // What nobody reads for a while may not hold far more room than it needs.
            let full = bytes.len() > READ_MUCH / 2;
            if full { bytes.freeze() } else { Bytes::copy_from_slice(&bytes) }
        } else {
            let mut room = [const { MaybeUninit::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
            self.much = buffer.filled().len() == READ;
            Bytes::copy_from_slice(buffer.filled())
        };
        let came = !bytes.is_empty();
        self.answer.feed(bytes);
        Poll::Ready(Ok(came))
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
