//! A session that our server does not know any more is opened anew, with what its client had
//! opened it with, and the request that met the loss is sent once more.
//!
//! Never sends a request twice that the server may have acted on: not to know its session comes
//! before that. Never opens a session as another version of the protocol than its client speaks.

use std::{future::poll_fn, iter, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::{Instant, timeout};

use super::{
    Exchange, Proxy,
    answer::{Failure, unless_ended},
    forward,
    peers::PEER,
    received::{Answer, HELD, Media, media, plain, whole},
    request_body::RequestBody,
};
use crate::{
    mcp::{
        Class,
        class::LAST_EVENT_ID,
        events::Events,
        initialize::{self, Agreed},
    },
    pool::{Budget, Closed, Connection, Slot},
    sessions::{Session, ids, token::Token},
    telemetry::metrics::Move,
};

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ACCEPT: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
/// What is sent is not what these speak of.
const OF_THE_REQUEST: [HeaderName; 10] = [
    // The answer is read here.
    header::ACCEPT_ENCODING,
    PEER,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::EXPECT,
    header::RANGE,
    LAST_EVENT_ID,
    VERSION,
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];

/// Longest that a server may take to open a session: some listen before they can answer, and no
/// client waits for longer than a minute.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a session is not open.
pub enum NotReopened {
    /// The server would not open it as it was: it is over.
    Refused,
    /// It could not be asked.
    Failed(Failure),
}

/// What servers say with 400 to a session that they do not know (server-everything, the SDKs of
/// TypeScript and others).
const UNKNOWN: [&str; 6] = [
    "no valid session",
    "session id",
    "session not found",
    "invalid session",
    "unknown session",
    "server not initialized",
];

/// Whether the server says with this answer that it does not know the session: 404 without a word
/// or with one about it, or 400 with such. Anything else may be about the request, on which the
/// server may have acted.
pub fn is_unknown(status: StatusCode, body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Refusal {
        error: Message,
    }
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let refusal = serde_json::from_slice::<Refusal>(body).map(|refusal| refusal.error.message);
    let text = refusal.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    let text = text.to_ascii_lowercase();
    match status {
        StatusCode::NOT_FOUND => text.trim().is_empty() || text.contains("session"),
        StatusCode::BAD_REQUEST => UNKNOWN.iter().any(|phrase| text.contains(phrase)),
        _ => false,
    }
}

/// The server has given `unknown` as its answer: opens the session anew, and sends the request
/// once more, as far as it was kept.
pub async fn once_more(
    proxy: &Proxy,
    exchange: &mut Exchange,
    unknown: Answer,
    request: Option<Box<Request<RequestBody>>>,
) -> Result<Answer, Failure> {
    // What it is an answer to, or tells of, is gone.
    if exchange.ticket.class() == Class::Message {
        return Ok(whole(plain(StatusCode::ACCEPTED)));
    }
    let Some(request) = request else { return Err(Failure::too_large_to_move()) };
    if !as_asked(proxy, exchange, &request).await? {
        return Ok(unknown);
    }
    let request = again(request).ok_or_else(Failure::too_large_to_move)?;
    Box::pin(forward::to_reopened(proxy, exchange, request)).await
}

/// Opens the session of the exchange anew, as long as its client waits; whether the server did.
/// `like`: a request of that client, which is not touched.
pub async fn as_asked(
    proxy: &Proxy,
    exchange: &Exchange,
    like: &Request<RequestBody>,
) -> Result<bool, Failure> {
    let Some(session) = exchange.ticket.session().cloned() else { return Ok(false) };
    let Some(token) = proxy.sessions.token(session.text()) else { return Ok(false) };
    let mut reopening = Box::pin(reopen(proxy, &session, &token, like));
    match unless_ended(&exchange.ticket, reopening.as_mut()).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(NotReopened::Refused)) => Ok(false),
        Ok(Err(NotReopened::Failed(failure))) => Err(failure),
        Err(ending) => Err(Failure::ended(ending)),
    }
}

/// The same request once more, where all of it was kept.
pub fn again(request: Box<Request<RequestBody>>) -> Option<Box<Request<RequestBody>>> {
    let (head, body) = request.into_parts();
    Some(Box::new(Request::from_parts(head, body.again()?)))
}

/// Opens the session anew, unless another request did so for the server that is there now, and not
/// by the id that `like` has tried in vain; with the headers of that request, since they tell who its client is.
pub async fn reopen(
    proxy: &Proxy,
    session: &Arc<Session>,
    token: &Token,
    like: &Request<RequestBody>,
) -> Result<(), NotReopened> {
    let began = Instant::now();
    let mut turn = session.opening().await;
    let is_open = !session.is_lost() && !session.is_unknown_to(proxy.pool.incarnation());
    if is_open && session.id().as_ref() != ids::only(like.headers()) {
        return Ok(());
    }
    // Else each that waits would try for as long as the first.
    if turn.is_some_and(|failed| failed > began) {
        let text = "the server did not open the session anew for another request, either";
        return Err(NotReopened::Failed(Failure::lost(text)));
    }
    let opening = Box::pin(open(proxy, session, token, like));
    let opened = timeout(OPEN_TIMEOUT, opening).await.unwrap_or_else(|_| {
        let text = format!("the server did not open the session anew within {OPEN_TIMEOUT:?}");
        Err(NotReopened::Failed(Failure::lost(&text)))
    });
    match &opened {
        Ok(()) => {
            proxy.metrics.moved(Move::Reopened);
            tracing::info!(session = session.hash(), "a session was opened anew");
        }
        Err(NotReopened::Refused) => {
            proxy.metrics.moved(Move::Refused);
            if session.is_lost() {
                proxy.sessions.end(session);
            }
        }
        Err(NotReopened::Failed(_)) => *turn = Some(Instant::now()),
    }
    opened
}

async fn open(
    proxy: &Proxy,
    session: &Session,
    token: &Token,
    like: &Request<RequestBody>,
) -> Result<(), NotReopened> {
    let refused = |why: &str| {
        tracing::warn!(
            session = session.hash(),
            why,
            "the server would not open a session anew; its client is told that it is over"
        );
        NotReopened::Refused
    };
    let Some(params) = token.params() else { return Err(NotReopened::Refused) };
    // The id is no client's: answers to it go nowhere else.
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"ebbtide-reopens","method":"initialize","params":{params}}}"#
    );
    let (head, agreed) = ask(proxy, || post(like, body.clone(), None)).await?;
    let incarnation = proxy.pool.incarnation();
    if !head.status().is_success() {
        return Err(refused(&format!("it answered initialize with {}", head.status())));
    }
    let Some(id) = ids::only(head.headers()).cloned() else {
        return Err(refused("its answer to initialize names no session"));
    };
    let Some(Agreed { version, lists }) = agreed else {
        return Err(refused("its answer to initialize tells no version of the protocol"));
    };
    let said = like.headers().get(VERSION).and_then(|version| version.to_str().ok());
    let expected = Some(token.version()).filter(|version| !version.is_empty()).or(said);
    let told = HeaderValue::from_str(&version).ok();
    if let Some(expected) = expected.filter(|expected| *expected != version) {
        return Err(refused(&format!("it speaks {version}, and the client {expected}")));
    }
    let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let with = || told.clone().map(|version| (id.clone(), version));
    ask(proxy, || post(like, body.into(), with())).await?;
    session.opened(id, lists);
    session.is_known_to(incarnation);
    Ok(())
}

/// A message of our own, in the name of the client whose request is at hand.
fn post(
    like: &Request<RequestBody>,
    body: String,
    session: Option<(HeaderValue, HeaderValue)>,
) -> Box<Request<RequestBody>> {
    let mut request = Box::new(Request::new(RequestBody::whole(Bytes::from(body))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = like.uri().clone();
    let headers = request.headers_mut();
    headers.clone_from(like.headers());
    for name in OF_THE_REQUEST {
        headers.remove(name);
    }
    ids::set(headers, session.as_ref().map(|(id, _)| id));
    if let Some((_, version)) = session {
        headers.insert(VERSION, version);
    }
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::ACCEPT, ACCEPT);
    request
}

/// The server's answer to a message of ours, which it may hear twice: that of a session nobody uses
/// harms nobody.
async fn ask(
    proxy: &Proxy,
    message: impl Fn() -> Box<Request<RequestBody>>,
) -> Result<(Response<()>, Option<Agreed>), NotReopened> {
    let failed = |failure| NotReopened::Failed(failure);
    let acquired = proxy.pool.acquire(Budget::Calls).await;
    let mut slot = acquired.map_err(|error| failed(Failure::not_acquired(&error)))?;
    let unreachable = |error| failed(Failure::not_acquired(&error));
    let mut connection = slot.connection().await.map_err(unreachable)?;
    let mut sent = connection.send(message()).await;
    if sent.is_err() && connection.is_reused() {
        connection.close(Closed::Error);
        connection = slot.fresh().await.map_err(unreachable)?;
        sent = connection.send(message()).await;
    }
    let head = match sent {
        Ok(head) => head,
        Err(error) => {
            connection.close(Closed::Error);
            let text =
                format!("the server broke off when it was to open a session anew: {}", error.cause);
            return Err(failed(Failure::lost(&text)));
        }
    };
    let agreed = read(slot, connection, media(head.headers())).await;
    Ok((head, agreed))
}

/// Reads what the answer says, and no further.
async fn read(
    slot: Slot<RequestBody>,
    mut connection: Connection<RequestBody>,
    media: Media,
) -> Option<Agreed> {
    let (mut body, mut length, mut agreed) = (Vec::new(), 0, None);
    let mut events = (media == Media::Events).then(|| Events::new(HELD));
    while agreed.is_none() && !connection.is_over() && length <= HELD {
        let Some(Ok(frame)) = poll_fn(|context| connection.poll_body(context)).await else { break };
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        match &mut events {
            Some(events) => {
                let mut rest = &data[..];
                let mut said = iter::from_fn(|| events.next(&mut rest));
                agreed = said.find_map(|event| initialize::agreed(event.data.as_bytes()));
            }
            None => body.extend_from_slice(data),
        }
    }
    slot.release(connection);
    if media == Media::Json { initialize::agreed(&body) } else { agreed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_of_a_session_says_that_one_is_unknown() {
        let error = |message: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":-32600,"message":"{message}"}}}}"#
            )
        };
        for (status, body, expected) in [
            // The SDKs of Python and TypeScript, and rmcp.
            (404, error("Session not found"), true),
            (404, error("Not Found: Session has been terminated"), true),
            (404, "Not Found: Session not found".into(), true),
            (404, String::new(), true),
            // server-everything: POST, GET; the TypeScript SDK's transport after a restart.
            (400, error("Bad Request: No valid session ID provided"), true),
            (400, "Invalid or missing session ID".into(), true),
            (400, error("Bad Request: Server not initialized"), true),
            // A server without GET; one that maps errors to statuses; one that quotes its input.
            (404, "<pre>Cannot GET /mcp</pre>".into(), false),
            (404, error("Method not found"), false),
            (400, error("1 validation error: input_value='my session'"), false),
            (400, error("Bad Request: Unsupported protocol version"), false),
            (400, error("Invalid Request: Server already initialized"), false),
            (400, String::new(), false),
            (403, error("Session not found"), false),
            (200, error("Session not found"), false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_unknown(status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
