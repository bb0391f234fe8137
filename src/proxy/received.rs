//! What came back: the head of an answer, whether its body is held until it is whole, and what it
//! tells of its session.
//!
//! Never passes a head on whose place an error of ours may have to take.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, response};

use super::{
    Exchange, Proxy,
    answer::{Failure, unless_ended},
    body::ProxyBody,
    headers,
    send::Sent,
    streamed::{Events, Streamed, next_frame},
    tunnel::Tunnel,
    watch::Watch,
};
use crate::{
    mcp::{Class, initialize, sse::Position},
    pool::Closed,
    serve::Context,
    sessions::ids,
    telemetry::metrics::Outcome,
};

/// Largest JSON answer whose head is held back until its body is whole: once a head is out, no
/// JSON-RPC error can take the answer's place. A larger one is passed on as it comes.
pub const HELD: usize = 64 * 1024;

/// The upstream's answer, as far as it came before its head is passed on.
pub enum Answer {
    /// Its body is whole.
    Whole(response::Parts, Bytes),
    /// Its body is passed on as it comes.
    Streamed(response::Parts, Box<Streamed>),
    /// The server agreed to leave HTTP.
    Switched(response::Parts, Box<Tunnel>),
}

impl Answer {
    pub fn as_it_comes(head: response::Parts, mut streamed: Box<Streamed>) -> Self {
        if streamed.is_empty() {
            streamed.finish();
            return Answer::Whole(head, Bytes::new());
        }
        Answer::Streamed(head, streamed)
    }

    pub fn into_response(self, exchange: Exchange, context: &Context) -> Response<ProxyBody> {
        let mut ticket = exchange.ticket;
        ticket.answered();
        match self {
            Answer::Whole(head, bytes) => {
                ticket.settled();
                ticket.will_be(Outcome::Completed);
                Response::from_parts(head, ProxyBody::own(bytes, ticket))
            }
            Answer::Streamed(head, streamed) => {
                ticket.may_last();
                Response::from_parts(head, ProxyBody::streamed(streamed, ticket))
            }
            Answer::Switched(head, tunnel) => {
                context.after_upgrade(tunnel.run(ticket));
                Response::from_parts(head, ProxyBody::Nothing)
            }
        }
    }
}

/// An answer of ours without a body.
pub fn plain(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

pub fn whole(response: Response<()>) -> Answer {
    Answer::Whole(response.into_parts().0, Bytes::new())
}

pub fn with_length(mut head: response::Parts, whole: Bytes) -> Answer {
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    Answer::Whole(head, whole)
}

/// The session that the answer opens, if it does. `body`: the answer's, where it is known.
fn open_session(proxy: &Proxy, exchange: &Exchange, head: &mut response::Parts, body: &[u8]) {
    let ticket = &exchange.ticket;
    // A client that initialises in a session may get another one. What another pod has opened is
    // named by that pod.
    let opens = !exchange.by_peer
        && match ticket.session() {
            Some(session) => ids::only(&head.headers).is_some_and(|id| id != session.text()),
            None => !exchange.session,
        };
    if !opens || ticket.class() != Class::Initialize || !head.status.is_success() {
        return;
    }
    let params = ticket.initialize();
    let agreed = initialize::agreed(body);
    let version = agreed.as_ref().map(|agreed| &*agreed.version);
    if let Some(session) = proxy.sessions.opened(&mut head.headers, params.as_deref(), version) {
        // Its client may come back for what this exchange leaves open.
        ticket.belongs_to(&session);
    }
}

/// The upstream's answer, before it is decided how it is passed on.
pub struct Received {
    pub head: response::Parts,
    pub streamed: Box<Streamed>,
    media: Media,
    /// The body, where it had to be whole before the head is passed on.
    whole: Option<Bytes>,
}

impl Received {
    /// Waits until the body is whole, where an error of ours may have to take its place.
    pub async fn wait(&mut self, exchange: &Exchange) -> Result<(), Failure> {
        if !exchange.ticket.class().is_json_rpc() || self.media != Media::Json {
            return Ok(());
        }
        // Where a length was given, the server is held to it; else it is known once it is whole.
        let sized = self.streamed.size_hint().exact().is_some();
        self.whole = hold(exchange, &mut self.streamed).await?;
        if let Some(whole) = self.whole.as_ref().filter(|_| !sized) {
            self.head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
        }
        Ok(())
    }

    /// Passes on what has been waited for, and the rest as it comes.
    pub fn pass(mut self, proxy: &Proxy, exchange: &Exchange) -> Answer {
        let body = self.whole.as_deref().unwrap_or_default();
        open_session(proxy, exchange, &mut self.head, body);
        match self.whole {
            Some(whole) => Answer::Whole(self.head, whole),
            None => Answer::as_it_comes(self.head, self.streamed),
        }
    }
}

/// What of an answer's media type matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Events,
    Other,
}

/// Looks at the answer's head: whether it may be passed on, and what the exchange turned out to be.
pub fn receive(proxy: &Proxy, exchange: &mut Exchange, sent: Sent) -> Result<Received, Failure> {
    let Sent { mut slot, connection, mut response } = sent;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        connection.close(Closed::Error);
        return Err(Failure::lost("the server switched protocols without being asked to"));
    }
    if let Some(session) = exchange.ticket.session() {
        if !session.is_movable() {
            proxy.sessions.answered(session, response.status());
        }
        if exchange.ticket.class() == Class::SessionEnd && response.status().is_success() {
            proxy.sessions.terminate(session);
        }
        ids::to_client(response.headers_mut(), session);
    }
    headers::to_client(&mut response);
    let (mut head, ()) = response.into_parts();
    let class = exchange.ticket.class();
    let media = media(&head.headers);
    let events = media == Media::Events;
    if events {
        // Its last event may be ours.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    // A GET that may be a stream is one only if the answer is.
    if events && matches!(class, Class::Plain | Class::Listen) && head.status.is_success() {
        // A subscription may have come as what it could still have been.
        if class == Class::Plain {
            exchange.ticket.reclassify(Class::Stream);
        }
        if let Err(error) = slot.becomes_stream() {
            connection.close(Closed::Abandoned);
            return Err(Failure::not_acquired(&error));
        }
    } else if !events && matches!(class, Class::Stream | Class::Resume | Class::Listen) {
        let finite = if class == Class::Listen { Class::Call } else { Class::Plain };
        exchange.ticket.reclassify(finite);
    }
    if !head.status.is_success() {
        exchange.ticket.refused();
    } else if !events {
        // Whatever it is, it is the answer; or the answer comes on another stream.
        exchange.ticket.settled();
    }
    let events = if !events {
        Events::None
    } else if head.headers.contains_key(header::CONTENT_ENCODING) {
        // Nobody can write an event into what is compressed.
        Events::Sealed
    } else {
        Events::Open { position: Position::default(), framed: connection.is_framed() }
    };
    let open = matches!(events, Events::Open { .. }) && head.status.is_success();
    let elsewhere = exchange.session && exchange.ticket.session().is_none();
    let watch = open.then(|| Watch::of(&exchange.ticket, &proxy.sessions, elsewhere)).flatten();
    let streamed = Box::new(Streamed::new(slot, connection, events, watch));
    Ok(Received { head, streamed, media, whole: None })
}

/// Waits until the body is whole, while the head is held back; `None` when the body is larger than
/// that is worth: what came of it is given back.
pub async fn hold(exchange: &Exchange, streamed: &mut Streamed) -> Result<Option<Bytes>, Failure> {
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while !streamed.is_over() {
        let frame = unless_ended(&exchange.ticket, pin!(next_frame(streamed))).await;
        let frame = match frame {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(cause))) => {
                streamed.close(Closed::Error);
                return Err(Failure::lost(&format!(
                    "the server broke off in the middle of its answer: {cause}"
                )));
            }
            Err(ending) => return Err(Failure::ended(ending)),
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => {
                streamed.hold(join(first, &more));
                streamed.hold_frame(trailers);
                return Ok(None);
            }
        };
        if first.is_empty() {
            first = data;
        } else {
            more.extend_from_slice(&data);
        }
        if first.len() + more.len() > HELD {
            streamed.hold(join(first, &more));
            return Ok(None);
        }
    }
    streamed.finish();
    Ok(Some(join(first, &more)))
}

fn join(first: Bytes, more: &BytesMut) -> Bytes {
    if more.is_empty() {
        return first;
    }
    let mut whole = BytesMut::with_capacity(first.len() + more.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(more);
    whole.freeze()
}

pub fn media(headers: &HeaderMap) -> Media {
    let Some(value) = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) else {
        return Media::Other;
    };
    let is = |media: &[u8]| {
        value
            .split_at_checked(media.len())
            .is_some_and(|(start, _)| start.eq_ignore_ascii_case(media))
    };
    if is(b"application/json") {
        Media::Json
    } else if is(b"text/event-stream") {
        Media::Events
    } else {
        Media::Other
    }
}
