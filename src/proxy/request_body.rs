//! The request's body on its way to the upstream: noted as it passes, read ahead only where
//! somebody has to know what the message is, and kept only where it may have to be sent again.
//!
//! Never keeps more than it read ahead, and [`KEPT`] bytes.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::inflight::Note;

pub type FrameResult = Result<Frame<Bytes>, hyper::Error>;

/// Most parts of a body that are read before it is forwarded.
const READ_AHEAD_FRAMES: usize = 1024;

/// Most bytes of a body that are kept so that it can be sent again.
const KEPT: usize = 64 * 1024;

/// What was sent, so that it can be sent again.
#[derive(Default)]
struct Kept {
    /// Copied, so that no read buffer lives on in it.
    bytes: Vec<u8>,
    /// It was too much, or no plain bytes.
    lost: bool,
}

impl Kept {
    fn note(&mut self, frame: &Frame<Bytes>) {
        match frame.data_ref() {
            Some(data) if !self.lost && self.bytes.len() + data.len() <= KEPT => {
                self.bytes.extend_from_slice(data);
            }
            _ => *self = Self { lost: true, ..Self::default() },
        }
    }
}

/// A request's body. What passes is noted for whoever has to name or answer the exchange.
pub struct RequestBody {
    incoming: Option<Incoming>,
    note: Option<Note>,
    /// Read ahead to learn what the message is.
    ahead: VecDeque<Frame<Bytes>>,
    kept: Option<Box<Kept>>,
}

impl RequestBody {
    #[must_use]
    pub fn new(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), ..Self::empty() }
    }

    /// One of our own.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self { ahead: [Frame::data(bytes)].into(), ..Self::empty() }
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
        let bytes = Some(Bytes::from(kept.bytes)).filter(|bytes| !bytes.is_empty());
        let ahead = bytes.map(Frame::data).into_iter().collect();
        Some(Self { ahead, kept: Some(Box::default()), ..Self::empty() })
    }

    /// What passes from now on is noted there.
    pub fn note_in(&mut self, note: Note) {
        self.note = Some(note);
    }

    #[must_use]
    pub fn empty() -> Self {
        Self { incoming: None, note: None, ahead: VecDeque::new(), kept: None }
    }

    /// Reads ahead until the body has told what the exchange is, but not beyond `most` bytes.
    pub fn poll_told(&mut self, most: usize, context: &mut Context<'_>) -> Poll<()> {
        while self.note.as_ref().is_some_and(Note::is_untold) {
            let ahead: usize = self.ahead.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
            if ahead >= most || self.ahead.len() >= READ_AHEAD_FRAMES {
                break;
            }
            match self.poll_incoming(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => self.ahead.push_back(frame),
                // An error is met again by whoever forwards.
                Poll::Ready(Some(Err(_)) | None) => break,
            }
        }
        Poll::Ready(())
    }

    /// Reads the rest for the id in it, and drops it.
    pub async fn read_until_whole(&mut self) {
        self.ahead.clear();
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
        let polled = Pin::new(incoming).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(data), Some(note)) = (frame.data_ref(), &self.note)
        {
            note.pass(data);
        }
        polled
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<FrameResult>> {
        let polled = match self.ahead.pop_front() {
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
            let ahead: usize =
                self.ahead.iter().filter_map(|frame| frame.data_ref()).map(Bytes::len).sum();
            let exact = hint.exact().map(|rest| rest + ahead as u64);
            hint = exact.map_or_else(SizeHint::new, SizeHint::with_exact);
        }
        hint
    }
}
