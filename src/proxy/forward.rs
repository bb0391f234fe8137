//! One exchange with our own server: what its session is called there, and what follows when the
//! server does not know it any more.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};

use super::{
    Exchange, Proxy,
    answer::Failure,
    headers, last_words,
    received::{Answer, Received, hold, plain, receive, whole, with_length},
    reopen,
    request_body::RequestBody,
    send::{connect, reach, send},
};
use crate::{
    mcp::{Class, class::LAST_EVENT_ID},
    serve::Context,
    sessions::{Session, ids},
};

pub async fn forward(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
    context: &Context,
) -> Result<Answer, Failure> {
    headers::to_upstream(&mut request, context.client());
    to_server(proxy, exchange, request).await
}

/// To our own server; what it does not know any more is opened anew.
pub async fn to_server(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
) -> Result<Answer, Failure> {
    if !exchange.session {
        return to_unmovable(proxy, exchange, request).await;
    }
    let movable = exchange.ticket.session().is_some_and(|session| session.is_movable());
    // Nobody opens a session to end it.
    if !movable || exchange.ticket.class() == Class::SessionEnd {
        in_session(exchange, &mut request);
        return to_unmovable(proxy, exchange, request).await;
    }
    request.body_mut().keep();
    Box::pin(to_movable(proxy, exchange, request)).await
}

/// Whatever our own server answers is the answer.
async fn to_unmovable(
    proxy: &Proxy,
    exchange: &mut Exchange,
    request: Box<Request<RequestBody>>,
) -> Result<Answer, Failure> {
    let sent = reach(proxy, exchange, request).await?;
    let mut received = receive(proxy, exchange, sent)?;
    received.wait(exchange).await?;
    Ok(received.pass(proxy, exchange))
}

/// To our own server, which has just opened the session anew: whatever it answers now is the answer.
pub async fn to_reopened(
    proxy: &Proxy,
    exchange: &mut Exchange,
    request: Box<Request<RequestBody>>,
) -> Result<Answer, Failure> {
    let mut connected = connect(proxy, exchange, request).await?;
    in_session(exchange, &mut connected.request);
    exchange.ticket.delivers();
    let sent = send(exchange, connected, false).await?;
    let mut received = receive(proxy, exchange, sent)?;
    received.wait(exchange).await?;
    let mut answer = received.pass(proxy, exchange);
    tell_news(exchange, &mut answer);
    Ok(answer)
}

/// Whether the server may have said that it does not know the session.
fn may_be_unknown(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST)
}

async fn to_movable(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
) -> Result<Answer, Failure> {
    let class = exchange.ticket.class();
    let before = proxy.pool.incarnation();
    let mut may_open = true;
    let (mut connected, incarnation) = loop {
        let connected = connect(proxy, exchange, request).await?;
        let incarnation = proxy.pool.incarnation();
        let is_gone = |session: &Arc<Session>| session.is_unknown_to(incarnation);
        let is_gone = exchange.ticket.session().is_some_and(is_gone);
        // What it is an answer to, or tells of, has gone with the process that it waited for, too.
        let is_late = class == Class::Message && incarnation != before;
        if !may_open || !(is_gone || is_late) {
            break (connected, incarnation);
        }
        request = connected.request;
        connected.slot.release(connected.connection);
        if class == Class::Message {
            return Ok(whole(plain(StatusCode::ACCEPTED)));
        }
        // Where the server will not open it, its own answer to the request says so.
        may_open = match Box::pin(reopen::as_asked(proxy, exchange, &request)).await {
            Ok(opened) => opened,
            Err(failure) => return Err(failure.with_body(request.into_body())),
        };
    };
    in_session(exchange, &mut connected.request);
    exchange.ticket.delivers();
    let (status, request, mut received) = {
        let mut sent = send(exchange, connected, true).await?;
        let status = sent.response.status();
        let request = if may_be_unknown(status) { sent.connection.take_sent() } else { None };
        sent.connection.drop_sent();
        (status, request, receive(proxy, exchange, sent)?)
    };
    if !may_be_unknown(status) {
        if let Some(session) = exchange.ticket.session().filter(|_| status.is_success()) {
            session.is_known_to(incarnation);
        }
        received.wait(exchange).await?;
        let mut answer = received.pass(proxy, exchange);
        tell_news(exchange, &mut answer);
        return Ok(answer);
    }
    let Received { head, mut streamed, .. } = received;
    let Some(text) = hold(exchange, &mut streamed).await? else {
        return Ok(Answer::Streamed(head, streamed));
    };
    let is_unknown = reopen::is_unknown(status, &text);
    let answer = with_length(head, text);
    if is_unknown && may_open {
        // What a stream is refused with is none.
        exchange.ticket.reclassify(class);
        return reopen::once_more(proxy, exchange, answer, request).await;
    }
    Ok(answer)
}

/// The server hears its own word for the session.
pub fn in_session(exchange: &Exchange, request: &mut Request<RequestBody>) {
    let Some(session) = exchange.ticket.session() else { return };
    ids::to_server(request.headers_mut(), session);
    // No event of before the server opened it anew can be resumed.
    let is_stream = matches!(exchange.ticket.class(), Class::Stream | Class::Resume);
    if is_stream && session.is_fresh() {
        request.headers_mut().remove(LAST_EVENT_ID);
    }
}

/// Tells the client on its stream which of its calls are lost, and that another server may have
/// other tools.
fn tell_news(exchange: &Exchange, answer: &mut Answer) {
    if let Answer::Streamed(head, streamed) = answer
        && head.status.is_success()
        && exchange.ticket.class().is_stream()
        && streamed.takes_events()
        && let Some(session) = exchange.ticket.session()
    {
        let mut news = last_words::answer_unanswered(session);
        news.extend(session.take_news().into_iter().map(|method| {
            format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}\n\n")
        }));
        streamed.hold(Bytes::from(news));
    }
}
