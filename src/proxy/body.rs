//! The answer's body on its way to the client: it drives its own connection to the upstream, and
//! ends properly whatever happens.
//!
//! Never ends a stream of events in the middle of one, if it can be helped; never pretends that a
//! broken answer is whole.

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::request_body::{FrameResult, RequestBody};
use crate::{
    inflight::{Ending, Ticket},
    mcp::{
        Class,
        error::{self, Code},
        message::{Envelope, Message},
        sse::Position,
    },
    pool::{Closed, Connection, Slot},
    telemetry::metrics::Outcome,
};

type AnswerFrame = Result<Frame<Bytes>, Broken>;

/// Why an answer is not whole: the client sees its connection break, and nothing that looks like
/// an end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the server broke off: {0}")]
    Upstream(#[source] hyper::Error),
    #[error("cut short at the deadline")]
    CutShort,
}

/// How long an event under way may take to end once the stream is to end.
const EVENT_PATIENCE: Duration = Duration::from_millis(300);
/// An answer's body.
pub enum ProxyBody {
    /// Known whole. The ticket lives until the bytes are handed over.
    Own {
        bytes: Option<Bytes>,
        _ticket: Ticket,
    },
    Streamed {
        streamed: Box<Streamed>,
        ticket: Option<Ticket>,
    },
    /// Under the head that ends HTTP on a connection.
    Nothing,
}

impl ProxyBody {
    pub fn own(bytes: Bytes, ticket: Ticket) -> Self {
        Self::Own { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), _ticket: ticket }
    }

    pub fn streamed(streamed: Box<Streamed>, ticket: Ticket) -> Self {
        Self::Streamed { streamed, ticket: Some(ticket) }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<AnswerFrame>> {
        match self.get_mut() {
            ProxyBody::Own { bytes, .. } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            ProxyBody::Streamed { streamed, ticket } => {
                let Some(held) = ticket else {
                    return Poll::Ready(None);
                };
                let polled = streamed.poll(held, context);
                if streamed.ended {
                    *ticket = None;
                }
                polled
            }
            ProxyBody::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ProxyBody::Own { bytes, .. } => bytes.is_none(),
            ProxyBody::Streamed { streamed, .. } => streamed.ended,
            ProxyBody::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ProxyBody::Own { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            ProxyBody::Streamed { streamed, .. } => streamed.size_hint(),
            ProxyBody::Nothing => SizeHint::with_exact(0),
        }
    }
}

/// Whether an answer is a stream of events.
pub enum Events {
    None,
    /// One that we may write to, and where it is. `framed`: its end is told; else it ends with the
    /// server's connection, however that ended.
    Open {
        position: Position,
        framed: bool,
    },
    /// One that is compressed.
    Sealed,
}

/// An answer that is passed on as it comes. Whoever reads it drives the upstream's connection:
/// who does not read holds the upstream back.
pub struct Streamed {
    upstream: Option<(Slot<RequestBody>, Connection<RequestBody>)>,
    body: Incoming,
    held: VecDeque<Frame<Bytes>>,
    events: Events,
    ending: Option<(Ending, Pin<Box<Sleep>>)>,
    ended: bool,
}

impl Streamed {
    pub fn new(
        slot: Slot<RequestBody>,
        connection: Connection<RequestBody>,
        body: Incoming,
        events: Events,
    ) -> Self {
        Self {
            upstream: Some((slot, connection)),
            body,
            held: VecDeque::new(),
            events,
            ending: None,
            ended: false,
        }
    }

    /// Whether the upstream has nothing more to send.
    pub fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The upstream's part has ended well.
    pub fn finish(&mut self) {
        if let Some((slot, connection)) = self.upstream.take() {
            slot.release(connection);
        }
    }

    /// The upstream's part has broken off.
    pub fn broken(&mut self) {
        if let Some((_, connection)) = self.upstream.take() {
            connection.close(Closed::Error);
        }
    }

    /// Gives bytes that were read before the head was passed on.
    pub fn hold(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.hold_frame(Frame::data(bytes));
        }
    }

    pub fn hold_frame(&mut self, frame: Frame<Bytes>) {
        self.held.push_back(frame);
    }

    fn size_hint(&self) -> SizeHint {
        // An event of ours may come on top of what the server has announced.
        let known = self.held.is_empty() && matches!(self.events, Events::None);
        if known { self.body.size_hint() } else { SizeHint::new() }
    }

    /// The next frame from the upstream, driving its connection as far as that takes.
    fn poll_upstream(&mut self, context: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        let Some((_, connection)) = &mut self.upstream else {
            return Poll::Ready(None);
        };
        // Asking for a frame tells the connection that there is room for one; so it is driven
        // after the asking, and asked once more.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        connection.poll_driver(context);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn poll(
        &mut self,
        ticket: &mut Ticket,
        context: &mut Context<'_>,
    ) -> Poll<Option<AnswerFrame>> {
        if let Some(frame) = self.held.pop_front() {
            if self.held.is_empty() && self.is_over() {
                self.complete(ticket);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(ending) = ticket.poll_ending(context) {
            return self.poll_end(ending, ticket, context);
        }
        match self.poll_upstream(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                if let (Events::Open { position, .. }, Some(data)) =
                    (&mut self.events, frame.data_ref())
                {
                    position.pass(data);
                }
                // A sized body is over with its last byte; nobody asks again.
                if self.is_over() {
                    self.complete(ticket);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            // In the middle of an event: this is no end, but a server that is gone.
            Poll::Ready(None)
                if matches!(&self.events, Events::Open { position, framed: false }
                    if !position.is_boundary()) =>
            {
                self.last_words(Ending::UpstreamLost, ticket, None)
            }
            Poll::Ready(None) => {
                self.complete(ticket);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(cause))) => {
                tracing::debug!(%cause, "the server broke off in the middle of its answer");
                self.broken();
                self.last_words(Ending::UpstreamLost, ticket, Some(cause))
            }
        }
    }

    fn complete(&mut self, ticket: &mut Ticket) {
        ticket.will_be(Outcome::Completed);
        self.finish();
        self.ended = true;
    }

    /// Ends the stream of events between two events; lets any other answer end by itself, until
    /// there is no more time.
    fn poll_end(
        &mut self,
        ending: Ending,
        ticket: &mut Ticket,
        context: &mut Context<'_>,
    ) -> Poll<Option<AnswerFrame>> {
        let Events::Open { position, .. } = self.events else {
            return self.poll_unframed_end(ending, ticket, context);
        };
        if position.is_boundary() {
            return self.last_words(ending, ticket, None);
        }
        match &self.ending {
            Some((known, _)) if *known == ending => {}
            _ => self.ending = Some((ending, Box::pin(sleep(EVENT_PATIENCE)))),
        }
        let patience = self.ending.as_mut().map(|(_, patience)| patience.as_mut().poll(context));
        match self.poll_upstream(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    return self.last_words(ending, ticket, None);
                };
                let end = position.end_of_event(&data).unwrap_or(data.len());
                let part = data.slice(..end);
                if let Events::Open { position, .. } = &mut self.events {
                    position.pass(&part);
                }
                Poll::Ready(Some(Ok(Frame::data(part))))
            }
            Poll::Ready(_) => self.last_words(ending, ticket, None),
            Poll::Pending if patience.is_some_and(|patience| patience.is_ready()) => {
                self.last_words(ending, ticket, None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// An answer without events cannot be ended early and be whole: it is broken off, visibly,
    /// but not before it had the time that a cut takes.
    fn poll_unframed_end(
        &mut self,
        ending: Ending,
        ticket: &mut Ticket,
        context: &mut Context<'_>,
    ) -> Poll<Option<AnswerFrame>> {
        match &self.ending {
            Some((known, _)) if *known == ending => {}
            _ => self.ending = Some((ending, Box::pin(sleep(EVENT_PATIENCE)))),
        }
        let patience = self.ending.as_mut().map(|(_, patience)| patience.as_mut().poll(context));
        match self.poll_upstream(context) {
            Poll::Pending if patience.is_some_and(|patience| patience.is_ready()) => {
                ticket.will_be(outcome(ending, ticket.class()));
                self.broken();
                self.ended = true;
                Poll::Ready(Some(Err(Broken::CutShort)))
            }
            Poll::Ready(None) => {
                self.complete(ticket);
                Poll::Ready(None)
            }
            other => {
                if self.is_over() {
                    self.complete(ticket);
                }
                other.map_err(Broken::Upstream)
            }
        }
    }

    /// The last event, if anybody awaits one, and a proper end; an answer without events breaks.
    fn last_words(
        &mut self,
        ending: Ending,
        ticket: &mut Ticket,
        cause: Option<hyper::Error>,
    ) -> Poll<Option<AnswerFrame>> {
        ticket.will_be(outcome(ending, ticket.class()));
        self.broken();
        self.ended = true;
        match (&self.events, cause) {
            (Events::Open { position, .. }, _) => {
                let text = format!("{}{}", position.abandon(), last_event(ending, ticket));
                Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(Bytes::from(text)))))
            }
            (_, Some(cause)) => Poll::Ready(Some(Err(Broken::Upstream(cause)))),
            (_, None) => Poll::Ready(None),
        }
    }
}

fn outcome(ending: Ending, class: Class) -> Outcome {
    match ending {
        Ending::Stream => Outcome::Ended,
        Ending::Cut if class.is_stream() => Outcome::Ended,
        Ending::Cut => Outcome::Cut,
        Ending::UpstreamLost => Outcome::UpstreamLost,
        Ending::TimedOut => Outcome::TimedOut,
    }
}

/// What a client has to hear last: the result of a subscription, the error of a call, or when to
/// come back.
fn last_event(ending: Ending, ticket: &Ticket) -> String {
    let class = ticket.class();
    let envelope = ticket.envelope();
    if let (Class::Listen, Some(Envelope::Single(Message::Request { id: Some(id), .. }))) =
        (class, &envelope)
    {
        return error::listen_result(id);
    }
    if !class.is_json_rpc() {
        return retry(ticket);
    }
    let (code, text) = match ending {
        Ending::Stream | Ending::Cut => (
            Code::Draining,
            "ebbtide: this pod went away before the call ended; it may have done some of the work",
        ),
        Ending::UpstreamLost | Ending::TimedOut => {
            (Code::UpstreamLost, "ebbtide: the server broke off in the middle of its answer")
        }
    };
    error::events(code, text, envelope.as_ref())
}

/// When to come back: about the time that the endpoints take, and not all at once.
fn retry(ticket: &Ticket) -> String {
    format!("retry: {}\n\n", 3000 + ticket.sequence() * 7919 % 2000)
}

/// The next frame of an answer whose head is held back.
pub async fn next_frame(streamed: &mut Streamed) -> Option<FrameResult> {
    poll_fn(|context| streamed.poll_upstream(context)).await
}
