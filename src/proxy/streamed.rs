//! An answer that is passed on as it comes: it drives its own connection to the upstream, and ends
//! properly whatever happens.
//!
//! Never ends a stream of events in the middle of one, if it can be helped; never pretends that a
//! broken answer is whole.

use std::{
    collections::{HashSet, VecDeque},
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{
    body::{AnswerFrame, Broken},
    last_words::{last_event, outcome},
    request_body::RequestBody,
    watch::Watch,
};
use crate::{
    inflight::{Ending, Ticket},
    mcp::sse::Position,
    pool::{Closed, Connection, ExchangeError, Slot},
    telemetry::metrics::Outcome,
};

type UpstreamFrame = Result<Frame<Bytes>, ExchangeError>;

/// How long an event under way may take to end once the stream is to end.
const EVENT_PATIENCE: Duration = Duration::from_millis(300);

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
    /// Until its part is over.
    upstream: Option<(Slot<RequestBody>, Connection<RequestBody>)>,
    held: VecDeque<Frame<Bytes>>,
    events: Events,
    watch: Option<Box<Watch>>,
    ending: Option<(Ending, Pin<Box<Sleep>>)>,
    pub(super) ended: bool,
}

impl Streamed {
    pub fn new(
        slot: Slot<RequestBody>,
        connection: Connection<RequestBody>,
        events: Events,
        watch: Option<Box<Watch>>,
    ) -> Self {
        Self {
            upstream: Some((slot, connection)),
            held: VecDeque::new(),
            events,
            watch,
            ending: None,
            ended: false,
        }
    }

    /// Whether the upstream has nothing more to send.
    pub fn is_over(&self) -> bool {
        self.upstream.as_ref().is_none_or(|(_, connection)| connection.is_over())
    }

    /// Whether nothing is left to pass on.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.is_over()
    }

    /// The upstream's part has ended well.
    pub fn finish(&mut self) {
        if let Some((slot, connection)) = self.upstream.take() {
            slot.release(connection);
        }
    }

    /// The upstream's part ends early.
    pub fn close(&mut self, reason: Closed) {
        if let Some((_, connection)) = self.upstream.take() {
            connection.close(reason);
        }
    }

    /// Whether events of ours can stand between those of the server.
    pub fn takes_events(&self) -> bool {
        matches!(self.events, Events::Open { .. })
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

    pub fn size_hint(&self) -> SizeHint {
        // An event of ours may come on top of what the server has announced.
        match &self.upstream {
            Some((_, connection))
                if self.held.is_empty() && matches!(self.events, Events::None) =>
            {
                connection.size_hint()
            }
            _ => SizeHint::new(),
        }
    }

    /// The next frame from the upstream, driving its connection as far as that takes.
    fn poll_upstream(&mut self, context: &mut Context<'_>) -> Poll<Option<UpstreamFrame>> {
        let Some((_, connection)) = &mut self.upstream else {
            return Poll::Ready(None);
        };
        connection.poll_body(context)
    }

    pub fn poll(
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
                if let Some(data) = frame.data_ref() {
                    self.pass(data, ticket);
                }
                // A sized body is over with its last byte; nobody asks again, unless an answer of
                // ours has to follow.
                if self.is_over() && !self.leaves_unanswered(ticket) {
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
            Poll::Ready(None) if self.leaves_unanswered(ticket) => {
                tracing::debug!("the server ended its answer without having answered");
                self.last_words(Ending::UpstreamLost, ticket, None)
            }
            Poll::Ready(None) => {
                self.complete(ticket);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(cause))) => {
                tracing::debug!(%cause, "the server broke off in the middle of its answer");
                self.close(Closed::Error);
                self.last_words(Ending::UpstreamLost, ticket, Some(cause))
            }
        }
    }

    /// Notes what passes to the client.
    fn pass(&mut self, data: &[u8], ticket: &mut Ticket) {
        if let Events::Open { position, .. } = &mut self.events {
            position.pass(data);
        }
        if let Some(watch) = &mut self.watch
            && !watch.pass(data, ticket)
        {
            self.watch = None;
        }
    }

    /// Whether the upstream's end leaves a call without an answer, for which nobody can come back.
    fn leaves_unanswered(&self, ticket: &Ticket) -> bool {
        let watch = self.watch.as_ref().filter(|_| ticket.owes());
        watch.is_some_and(|w| !w.may_come_back(ticket) && w.has_unanswered(ticket))
    }

    fn complete(&mut self, ticket: &mut Ticket) {
        ticket.will_be(Outcome::Completed);
        if self.watch.is_none() {
            // Nobody could see the answer in it (it is compressed): it is taken for one.
            ticket.settled();
        }
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
        let is_late = self.poll_patience(ending, context);
        if is_late && position.is_boundary() {
            return self.last_words(ending, ticket, None);
        }
        // What has come by now is passed on: the answer may be in it.
        match self.poll_upstream(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    return self.last_words(ending, ticket, None);
                };
                let end = if is_late { position.end_of_event(&data) } else { None };
                let part = data.slice(..end.unwrap_or(data.len()));
                self.pass(&part, ticket);
                Poll::Ready(Some(Ok(Frame::data(part))))
            }
            Poll::Pending if !is_late && !position.is_boundary() => Poll::Pending,
            Poll::Pending | Poll::Ready(_) => self.last_words(ending, ticket, None),
        }
    }

    /// Whether the time is over in which what is under way may end.
    fn poll_patience(&mut self, ending: Ending, context: &mut Context<'_>) -> bool {
        match &self.ending {
            Some((known, _)) if *known == ending => {}
            _ => self.ending = Some((ending, Box::pin(sleep(EVENT_PATIENCE)))),
        }
        let patience = self.ending.as_mut().map(|(_, patience)| patience.as_mut().poll(context));
        patience.is_some_and(|patience| patience.is_ready())
    }

    /// An answer without events cannot be ended early and be whole: it is broken off, visibly,
    /// but not before it had the time that a cut takes.
    fn poll_unframed_end(
        &mut self,
        ending: Ending,
        ticket: &mut Ticket,
        context: &mut Context<'_>,
    ) -> Poll<Option<AnswerFrame>> {
        let is_late = self.poll_patience(ending, context);
        match self.poll_upstream(context) {
            Poll::Pending if is_late => {
                ticket.will_be(outcome(ending, ticket.class()));
                self.close(Closed::NotReusable);
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
        cause: Option<ExchangeError>,
    ) -> Poll<Option<AnswerFrame>> {
        let none = HashSet::new();
        let answered = self.watch.as_ref().map_or(&none, |watch| watch.answered());
        let all = ticket.class().is_json_rpc() && !answered.is_empty() && !ticket.owes();
        ticket.will_be(if all { Outcome::Completed } else { outcome(ending, ticket.class()) });
        ticket.settled();
        let text = match &self.events {
            Events::Open { position, .. } => {
                format!("{}{}", position.abandon(), last_event(ending, ticket, answered))
            }
            _ => String::new(),
        };
        // What ends with its connection may have ended with its server; any other end is ours.
        self.close(match &self.events {
            Events::Open { framed: false, .. } if ending == Ending::UpstreamLost => Closed::Error,
            _ => Closed::NotReusable,
        });
        self.ended = true;
        match (&self.events, cause) {
            (Events::Open { .. }, _) => {
                Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(Bytes::from(text)))))
            }
            (_, Some(cause)) => Poll::Ready(Some(Err(Broken::Upstream(cause)))),
            (_, None) => Poll::Ready(None),
        }
    }
}

/// The next frame of an answer whose head is held back.
pub async fn next_frame(streamed: &mut Streamed) -> Option<UpstreamFrame> {
    poll_fn(|context| streamed.poll_upstream(context)).await
}
