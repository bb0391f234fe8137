//! A request on its way to the upstream: its head and what of its body is there go out in one
//! write, the rest as it comes.
//!
//! Never reads more of a body than the upstream takes: one frame is kept.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Uri};
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::{
    BoxedIo, ExchangeError, Outgoing,
    http1::encode::{self, Framing},
};

/// A request, as far as it is not written.
pub struct Sending<B: Outgoing> {
    /// Until all of it is out.
    request: Option<Box<Request<B>>>,
    /// After that, where somebody may want to send it once more: without its target and its fields,
    /// which hold the read buffer that they came in.
    sent: Option<Box<Request<B>>>,
    /// Those, as they went out.
    head: Vec<u8>,
    keeps: bool,
    framing: Framing,
    /// Whether the body has more to give.
    asks: bool,
    /// Whether a byte is out, or something of the body was taken.
    begun: bool,
    /// Goes out before the data: a head, the size of a chunk, trailers.
    front: Vec<u8>,
    /// How much of it is out.
    front_out: usize,
    data: Bytes,
    /// Goes out after the data.
    back: &'static [u8],
}

impl<B: Outgoing> Default for Sending<B> {
    /// Nothing to send.
    fn default() -> Self {
        Self {
            request: None,
            sent: None,
            head: Vec::new(),
            keeps: false,
            framing: Framing::Sized(0),
            asks: false,
            begun: false,
            front: Vec::new(),
            front_out: 0,
            data: Bytes::new(),
            back: &[],
        }
    }
}

impl<B: Outgoing> Sending<B> {
    /// `keeps`: the request is kept once it is out, until somebody takes it.
    pub fn begin(&mut self, request: Box<Request<B>>, keeps: bool) {
        self.drop_sent();
        self.keeps = keeps;
        self.framing = encode::head(&request, &mut self.front);
        self.asks = self.framing != Framing::Sized(0);
        self.begun = false;
        self.request = Some(request);
    }

    /// Whether everything is out.
    pub fn is_done(&self) -> bool {
        self.request.is_none()
    }

    /// The request that was kept, if all of it is out.
    pub fn take_sent(&mut self) -> Option<Box<Request<B>>> {
        let mut request = self.sent.take()?;
        encode::read_back(std::mem::take(&mut self.head), &mut request)?;
        Some(request)
    }

    /// Nobody needs it any more.
    pub fn drop_sent(&mut self) {
        self.keeps = false;
        self.sent = None;
        self.head = Vec::new();
    }

    /// Gives up; the request, if not all of it is out, and whether any of it is.
    pub fn abandon(&mut self) -> (Option<Box<Request<B>>>, bool) {
        let given_up = std::mem::take(self);
        (given_up.request, given_up.begun)
    }

    /// Writes as much as goes now; ready once the request is out.
    pub fn poll(
        &mut self,
        io: &mut BoxedIo,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ExchangeError>> {
        while let Some(request) = &mut self.request {
            let mut waits = false;
            // Asked for before the head goes out, since it may go with it.
            if self.asks && self.data.is_empty() && self.back.is_empty() {
                match Pin::new(request.body_mut()).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => self.take(frame)?,
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(ExchangeError::RequestBody(error.into())));
                    }
                    Poll::Ready(None) => self.end()?,
                    Poll::Pending => waits = true,
                }
            }
            ready!(self.poll_write(io, context))?;
            if waits || !self.asks {
                ready!(Pin::new(&mut *io).poll_flush(context))?;
            }
            if waits {
                return Poll::Pending;
            }
            if !self.asks {
                self.sent = self.request.take().filter(|_| self.keeps);
                if let Some(request) = &mut self.sent {
                    *request.headers_mut() = HeaderMap::new();
                    *request.uri_mut() = Uri::default();
                }
                // An open stream does not hold it.
                self.front = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), ExchangeError> {
        self.begun = true;
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else { return Ok(()) };
                if self.framing != Framing::Chunked {
                    return self.end();
                }
                encode::trailers(&trailers, &mut self.front);
                self.asks = false;
                return Ok(());
            }
        };
        match &mut self.framing {
            // An empty chunk would be the last.
            _ if data.is_empty() => {}
            Framing::Chunked => {
                encode::chunk(data.len(), &mut self.front);
                self.back = b"\r\n";
            }
            Framing::Sized(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or_else(not_as_announced)?;
                self.asks = *left > 0;
            }
        }
        self.data = data;
        Ok(())
    }

    fn end(&mut self) -> Result<(), ExchangeError> {
        self.begun = true;
        match self.framing {
            Framing::Chunked => self.front.extend_from_slice(encode::LAST_CHUNK),
            Framing::Sized(0) => {}
            Framing::Sized(_) => return Err(not_as_announced()),
        }
        self.asks = false;
        Ok(())
    }

    fn poll_write(
        &mut self,
        io: &mut BoxedIo,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        while !(self.front.is_empty() && self.data.is_empty() && self.back.is_empty()) {
            let front = &self.front[self.front_out..];
            let written = if self.data.is_empty() && self.back.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(context, front))?
            } else {
                let parts = [front, &*self.data, self.back].map(IoSlice::new);
                ready!(Pin::new(&mut *io).poll_write_vectored(context, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, written: usize) {
        self.begun = true;
        let front = written.min(self.front.len() - self.front_out);
        self.front_out += front;
        if self.front_out == self.front.len() {
            self.front_out = 0;
            if self.keeps && self.head.is_empty() {
                self.head = std::mem::take(&mut self.front);
            }
            self.front.clear();
        }
        let data = (written - front).min(self.data.len());
        if data == self.data.len() {
            self.data = Bytes::new();
        } else {
            self.data.advance(data);
        }
        self.back = &self.back[written - front - data..];
    }
}

fn not_as_announced() -> ExchangeError {
    ExchangeError::RequestBody("it is not as long as its Content-Length says".into())
}
