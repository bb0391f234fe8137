//! The answers that are ours: the one place that turns a failure into a response. A JSON-RPC
//! request gets a JSON-RPC error with its own id, in HTTP 200 wherever a client would not survive
//! another status; everything else gets plain text that says what to look at.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use tokio::time::timeout;

use super::{
    Exchange, body::ProxyBody, headers::announce_close, last_words, request_body::RequestBody,
};
use crate::{
    drain::Phase,
    inflight::{Ending, Ticket},
    mcp::{
        Class,
        error::{self, Code},
        message::{Envelope, Message},
    },
    pool::AcquireError,
    telemetry::metrics::Outcome,
};

/// Longest that a refused request's body is read for its id.
const READ_FOR_ID: Duration = Duration::from_secs(1);

/// What an exchange ended with instead of the upstream's answer.
pub struct Failure {
    /// For what is no JSON-RPC request.
    status: StatusCode,
    code: Option<Code>,
    /// The status of the JSON-RPC error.
    rpc_status: StatusCode,
    retry: bool,
    /// It answers the pending calls of its session, as events.
    to_pending: bool,
    text: String,
    outcome: Outcome,
    /// The request's body, where it was not read to its end: the id may be in there.
    body: Option<Box<RequestBody>>,
}

impl Failure {
    fn new(status: StatusCode, code: Code, outcome: Outcome, text: String) -> Self {
        Self {
            status,
            code: Some(code),
            rpc_status: StatusCode::OK,
            retry: false,
            to_pending: false,
            text,
            outcome,
            body: None,
        }
    }

    /// Refused by the phase. `over`: it belongs to a legacy session that ends now.
    pub fn draining(phase: Phase, over: bool) -> Self {
        let text = if over {
            format!("this session is over: its pod goes away ({}); initialize anew", phase.name())
        } else {
            format!("this pod is going away ({}); try again", phase.name())
        };
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let failure = Self::new(status, Code::Draining, Outcome::Refused, text);
        // 404 is how the specification says that a session is over (2025-11-25, Session
        // Management); a client that keeps to it initialises anew, elsewhere.
        let rpc_status = if over { StatusCode::NOT_FOUND } else { failure.rpc_status };
        Self { retry: true, rpc_status, ..failure }
    }

    /// A client is back for the answers of pending calls, which do not come any more.
    pub fn pending(phase: Phase) -> Self {
        Self { to_pending: true, ..Self::draining(phase, false) }
    }

    /// The session lived in a pod that is gone, and cannot be opened anew.
    pub fn session_over() -> Self {
        let text = "the pod of this session is gone, and it cannot be opened anew here; initialize \
                    anew";
        let failure =
            Self::new(StatusCode::NOT_FOUND, Code::UpstreamLost, Outcome::Refused, text.into());
        Self { rpc_status: StatusCode::NOT_FOUND, ..failure }
    }

    /// The server did not know the session, which the next message opens anew.
    pub fn too_large_to_move() -> Self {
        Self::lost(
            "the server has lost this session, and this message is too large to be sent once more; \
             send it again",
        )
    }

    /// With a status that gateways take for a reason to try elsewhere: nothing was begun.
    #[must_use]
    pub fn by_status(self) -> Self {
        Self { rpc_status: self.status, ..self }
    }

    /// Told to end before there was an answer.
    pub fn ended(ending: Ending) -> Self {
        match ending {
            Ending::Stream | Ending::Cut => Self {
                retry: true,
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Code::Draining,
                    Outcome::Cut,
                    "this pod went away before the server answered; it may have begun the work"
                        .into(),
                )
            },
            Ending::UpstreamLost => Self::lost("the server ended before it answered"),
            Ending::TimedOut => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                Code::UpstreamLost,
                Outcome::TimedOut,
                "the server did not answer within response_timeout".into(),
            ),
        }
    }

    /// The upstream broke off or answered rubbish.
    pub fn lost(text: &str) -> Self {
        let status = StatusCode::BAD_GATEWAY;
        Self::new(status, Code::UpstreamLost, Outcome::UpstreamLost, text.into())
    }

    pub fn not_acquired(error: &AcquireError) -> Self {
        match error {
            AcquireError::Exhausted { .. } => Self {
                rpc_status: StatusCode::SERVICE_UNAVAILABLE,
                retry: true,
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Code::PoolExhausted,
                    Outcome::PoolExhausted,
                    error.to_string(),
                )
            },
            AcquireError::Unreachable { .. } | AcquireError::Restarting { .. } => {
                Self { retry: true, ..Self::lost(&error.to_string()) }
            }
        }
    }

    /// Bad HTTP: no JSON-RPC error, whatever it carries.
    pub fn rejected(status: StatusCode, text: &str) -> Self {
        let failure = Self::new(status, Code::UpstreamLost, Outcome::Rejected, text.into());
        Self { code: None, ..failure }
    }

    /// Nothing more of the request came.
    pub fn stalled(patience: Duration) -> Self {
        let text = format!(
            "nothing more of the request's body came for {patience:?}, which is as long as \
             header_timeout allows"
        );
        let status = StatusCode::REQUEST_TIMEOUT;
        let failure = Self::new(status, Code::InvalidRequest, Outcome::Rejected, text);
        Self { rpc_status: status, ..failure }
    }

    pub fn refused_method() -> Self {
        Self::rejected(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served here")
    }

    /// Gives the body that was not read to its end.
    #[must_use]
    pub fn with_body(self, body: RequestBody) -> Self {
        Self { body: Some(Box::new(body)), ..self }
    }

    /// The same, where the request has begun to be sent and may not be out.
    #[must_use]
    pub fn with_rest_of(self, request: Option<Box<Request<RequestBody>>>) -> Self {
        match request {
            Some(request) => self.with_body(request.into_body()),
            None => self,
        }
    }

    /// The response; reads on for the id if that may still come.
    pub async fn into_response(mut self, mut exchange: Exchange) -> Response<ProxyBody> {
        exchange.ticket.refused();
        if self.to_pending || self.meets_unanswered(&exchange.ticket) {
            return self.events_to_pending(exchange.ticket);
        }
        let mut class = exchange.ticket.class();
        let wants_id = self.code.is_some() && class.is_json_rpc();
        if let (true, Some(mut body)) = (wants_id, self.body.take()) {
            // What does not come in time is answered without an id. After the cut there is hardly
            // more time than this.
            let is_cut = self.outcome == Outcome::Cut;
            let patience = if is_cut { READ_FOR_ID / 2 } else { READ_FOR_ID };
            drop(timeout(patience, body.read_until_whole()).await);
        }
        let envelope = exchange.ticket.envelope();
        if let Some(message) = envelope.as_ref().and_then(Envelope::first) {
            class = class.refine(message);
            exchange.ticket.reclassify(class);
        }
        exchange.ticket.will_be(self.outcome);
        tracing::debug!(
            class = class.name(),
            outcome = self.outcome.name(),
            self.text,
            "answered by ebbtide"
        );
        // Whose answers come on another stream looks at the status alone.
        let by_status = exchange.ticket.session().is_some_and(|session| session.is_endpoint());
        let code = self.code.filter(|_| !by_status && awaits_an_error(class, envelope.as_ref()));
        let (status, media, text) = match code {
            Some(code) => {
                let text = error::json(code, &format!("ebbtide: {}", self.text), envelope.as_ref());
                // There is no session to lose yet: a gateway may try elsewhere.
                let is_refused = code == Code::Draining && self.outcome == Outcome::Refused;
                let by_status = class == Class::Initialize && is_refused;
                let status = if by_status { self.status } else { self.rpc_status };
                (status, "application/json", text)
            }
            // After an error clients ask twice, or not at all, and then stay without their stream,
            // also at the pod that takes over; a stream that ends they open anew each time.
            None if exchange.session
                && class == Class::Stream
                && self.code == Some(Code::Draining) =>
            {
                (StatusCode::OK, "text/event-stream", last_words::retry(&exchange.ticket))
            }
            None => (self.status, "text/plain; charset=utf-8", format!("ebbtide: {}\n", self.text)),
        };
        let body = ProxyBody::own(Bytes::from(text), exchange.ticket);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        if self.retry && status.is_server_error() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // What is left of the request may still come, and is no head.
        if status == StatusCode::REQUEST_TIMEOUT {
            announce_close(headers);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE, OPTIONS"));
        }
        response
    }
}

impl Failure {
    /// Whether the client is back for answers that do not come any more: it tries once more after
    /// another status, and then waits for ever.
    fn meets_unanswered(&self, ticket: &Ticket) -> bool {
        self.code == Some(Code::UpstreamLost)
            && ticket.class() == Class::Resume
            && ticket.session().is_some_and(|session| session.has_unanswered())
    }

    fn events_to_pending(self, mut ticket: Ticket) -> Response<ProxyBody> {
        let text = format!("ebbtide: {}", self.text);
        let code = self.code.unwrap_or(Code::UpstreamLost);
        let events = last_words::answer_pending(code, &text, &ticket);
        ticket.will_be(self.outcome);
        let mut response = Response::new(ProxyBody::own(Bytes::from(events), ticket));
        let media = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        response
    }
}

/// Whether somebody waits for a JSON-RPC answer on this exchange.
fn awaits_an_error(class: Class, envelope: Option<&Envelope>) -> bool {
    match envelope {
        Some(envelope) => envelope.messages().iter().any(Message::is_request),
        // What has not told what it is may await one.
        None => class.is_json_rpc(),
    }
}

/// Runs the future unless the exchange is told to end first. Takes it pinned: by value it would
/// have room twice in whoever awaits this.
///
/// # Errors
/// Why it is to end.
pub async fn unless_ended<T>(
    ticket: &Ticket,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Ending> {
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        ticket.poll_ending(context).map(Err)
    })
    .await
}
