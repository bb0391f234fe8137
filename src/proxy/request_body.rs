//! The request's body on its way to the upstream: noted as it passes, and read ahead only where
//! somebody has to know what the message is.
//!
//! Never keeps more than it read ahead.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::inflight::Entry;

pub type FrameResult = Result<Frame<Bytes>, hyper::Error>;

/// Most bytes of a body that is read before it is forwarded, while it does not tell what it is.
const READ_AHEAD: usize = 256 * 1024;

/// A request's body. What passes is noted for whoever has to name or answer the exchange.
pub struct RequestBody {
    incoming: Option<Incoming>,
    entry: Option<Arc<Entry>>,
    /// Read ahead to learn what the message is.
    ahead: VecDeque<Frame<Bytes>>,
}

impl RequestBody {
    #[must_use]
    pub fn new(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), entry: None, ahead: VecDeque::new() }
    }

    /// What passes from now on is noted there.
    pub fn note_in(&mut self, entry: Arc<Entry>) {
        self.entry = Some(entry);
    }

    #[must_use]
    pub fn empty() -> Self {
        Self { incoming: None, entry: None, ahead: VecDeque::new() }
    }

    /// Reads ahead until the method is known, or as far as is reasonable.
    pub async fn read_until_told(&mut self) {
        let mut read = 0;
        while read <= READ_AHEAD && !self.entry.as_ref().is_none_or(|entry| entry.is_told()) {
            match poll_fn(|context| self.poll_incoming(context)).await {
                Some(Ok(frame)) => {
                    read += frame.data_ref().map_or(0, Bytes::len);
                    self.ahead.push_back(frame);
                }
                // An error is met again by whoever forwards.
                Some(Err(_)) | None => return,
            }
        }
    }

    /// Reads the rest for the id in it, and drops it.
    pub async fn read_until_whole(&mut self) {
        self.ahead.clear();
        while !self.entry.as_ref().is_none_or(|entry| entry.is_whole()) {
            if !matches!(poll_fn(|context| self.poll_incoming(context)).await, Some(Ok(_))) {
                return;
            }
        }
    }

    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(incoming).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(data), Some(entry)) = (frame.data_ref(), &self.entry)
        {
            entry.note(data);
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
        match self.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_incoming(context),
        }
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
