//! The request's body on its way to the upstream: noted as it passes, read ahead only where
//! somebody has to know what the message is, or that it comes at all, and kept only where it may
//! have to be sent again.
//!
//! Never keeps more than it read ahead, and [`KEPT`] bytes, and never waits for a client that has
//! stopped sending.

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use crate::inflight::Note;

pub type FrameResult = Result<Frame<Bytes>, BodyError>;

/// Why the rest of a body does not come.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    #[error("nothing more of it came for {0:?}, which is as long as header_timeout allows")]
    Stalled(Duration),
}

/// Most parts of a body that are read before it is forwarded.
const READ_AHEAD_FRAMES: usize = 1024;

/// Most bytes of a body that are kept so that it can be sent again; one that is no larger is there
/// before anybody makes room for it.
const KEPT: usize = 64 * 1024;

/// The largest first part that is copied.
const COPIED: usize = 4096;

/// What was sent, so that it can be sent again.
#[derive(Default)]
struct Kept {
    /// Copied where it is small, so that the read buffer that it came in can be used again; a large
    /// one fills its own.
    first: Bytes,
    /// Copied, so that no other read buffer lives on in it.
    rest: Vec<u8>,
    /// It was too much, or no plain bytes.
    lost: bool,
}

impl Kept {
    fn note(&mut self, frame: &Frame<Bytes>) {
        match frame.data_ref() {
            Some(data) if !self.lost && self.len() + data.len() <= KEPT => {
                if self.len() == 0 {
                    self.first = if data.len() <= COPIED {
                        Bytes::copy_from_slice(data)
                    } else {
                        data.clone()
                    };
                } else {
                    self.rest.extend_from_slice(data);
                }
            }
            _ => *self = Self { lost: true, ..Self::default() },
        }
    }

    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { [&*self.first, &*self.rest].concat().into() }
    }
}

/// A request's body. What passes is noted for whoever has to name or answer the exchange.
pub struct RequestBody {
    incoming: Option<Incoming>,
    /// Longest that its next part may take.
    patience: Duration,
    /// Runs only while a part is awaited.
    timer: Option<Pin<Box<Sleep>>>,
    note: Option<Note>,
    ahead: Ahead,
    kept: Option<Box<Kept>>,
}

/// What was read ahead: most often one part, for which no queue is made.
#[derive(Default)]
struct Ahead {
    first: Option<Frame<Bytes>>,
    more: VecDeque<Frame<Bytes>>,
}

impl Ahead {
    fn push(&mut self, frame: Frame<Bytes>) {
        if self.first.is_none() {
            self.first = Some(frame);
        } else {
            self.more.push_back(frame);
        }
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        let next = self.more.pop_front();
        std::mem::replace(&mut self.first, next)
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn bytes(&self) -> usize {
        self.first.iter().chain(&self.more).filter_map(Frame::data_ref).map(Bytes::len).sum()
    }

    /// Whether that is as much as is read before a body is forwarded.
    fn is_full(&self, most: usize) -> bool {
        self.bytes() >= most || self.more.len() >= READ_AHEAD_FRAMES
    }
}

impl RequestBody {
    /// `patience`: the longest that nothing of it may come.
    #[must_use]
    pub fn new(incoming: Incoming, patience: Duration) -> Self {
        Self { incoming: Some(incoming), patience, ..Self::empty() }
    }

    /// One of our own.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        let ahead = Ahead { first: Some(Frame::data(bytes)), ..Ahead::default() };
        Self { ahead, ..Self::empty() }
    }

    /// What passes from now on is kept, as far as it is not too much.
    pub fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// The same body once more, once it was sent; `None` where not all of it was kept.
    #[must_use]
    pub fn again(self) -> Option<Self> {
        if !self.is_end_stream() {
            return None;
        }
        let kept = self.kept.filter(|kept| !kept.lost)?;
        let bytes = Some(kept.into_bytes()).filter(|bytes| !bytes.is_empty());
        let ahead = Ahead { first: bytes.map(Frame::data), ..Ahead::default() };
        Some(Self { ahead, kept: Some(Box::default()), ..Self::empty() })
    }

    /// Whether it is small enough to be kept, as far as is known beforehand.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.size_hint().upper().is_some_and(|most| most <= KEPT as u64)
    }

    /// What passes from now on is noted there.
    pub fn note_in(&mut self, note: Note) {
        self.note = Some(note);
    }

    #[must_use]
    pub fn empty() -> Self {
        let (patience, ahead) = (Duration::ZERO, Ahead::default());
        Self { incoming: None, patience, timer: None, note: None, ahead, kept: None }
    }

    /// Reads ahead until the body has told what the exchange is, but not beyond `most` bytes.
    pub fn poll_told(&mut self, most: usize, context: &mut Context<'_>) -> Poll<()> {
        while self.note.as_ref().is_some_and(Note::is_untold) {
            if self.ahead.is_full(most) {
                break;
            }
            match ready!(self.poll_incoming(context)) {
                Some(Ok(frame)) => self.ahead.push(frame),
                // An error is met again by whoever forwards.
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(())
    }

    /// Reads ahead until enough has come to make room for it at the server: the first part; where
    /// its length is told and small, all of it.
    ///
    /// # Errors
    /// How long nothing has come.
    pub fn poll_come(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Duration>> {
        while self.is_awaited() {
            match ready!(self.poll_incoming(context)) {
                Some(Ok(frame)) => self.ahead.push(frame),
                Some(Err(BodyError::Stalled(patience))) => return Poll::Ready(Err(patience)),
                // Met again by whoever forwards.
                Some(Err(BodyError::Broken(_))) | None => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_awaited(&self) -> bool {
        let Some(incoming) = self.incoming.as_ref().filter(|rest| !rest.is_end_stream()) else {
            return false;
        };
        let is_small = || {
            let left = incoming.size_hint().exact().and_then(|left| usize::try_from(left).ok());
            left.is_some_and(|left| left.saturating_add(self.ahead.bytes()) <= KEPT)
        };
        self.ahead.is_empty() || (is_small() && !self.ahead.is_full(KEPT))
    }

    /// Reads the rest for the id in it, and drops it.
    pub async fn read_until_whole(&mut self) {
        self.ahead = Ahead::default();
        while self.note.as_ref().is_some_and(|note| !note.is_whole()) {
            if !matches!(poll_fn(|context| self.poll_incoming(context)).await, Some(Ok(_))) {
                return;
            }
        }
    }

    /// Reads what is left of it, as far as it could be sent again, and drops it.
    pub async fn read_rest(&mut self) {
        let mut left = KEPT;
        while let Some(Ok(frame)) = poll_fn(|context| self.poll_incoming(context)).await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else {
                return;
            };
            left = rest;
        }
    }

    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let Poll::Ready(came) = Pin::new(incoming).poll_frame(context) else {
            let patience = self.patience;
            ready!(
                self.timer.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context)
            );
            return Poll::Ready(Some(Err(BodyError::Stalled(patience))));
        };
        self.timer = None;
        if let Some(Ok(frame)) = &came
            && let (Some(data), Some(note)) = (frame.data_ref(), &self.note)
        {
            note.pass(data);
        }
        Poll::Ready(came.map(|frame| frame.map_err(BodyError::Broken)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<FrameResult>> {
        let polled = match self.ahead.pop() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_incoming(context),
        };
        if let (Poll::Ready(Some(Ok(frame))), Some(kept)) = (&polled, &mut self.kept) {
            kept.note(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint =
            self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        if !self.ahead.is_empty() {
            let exact = hint.exact().map(|rest| rest + self.ahead.bytes() as u64);
            hint = exact.map_or_else(SizeHint::new, SizeHint::with_exact);
        }
        hint
    }
}
