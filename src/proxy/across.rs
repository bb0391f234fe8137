//! A request of a session that may be another pod's: it goes to the pod that has it, or to the one
//! that opens it anew, which may be this one, once it has asked the others for it.
//!
//! Never decides where (`search` does), and never sends on a second time what a peer has
//! sent.

use std::{pin::pin, sync::Arc};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use super::{
    Exchange, Proxy,
    admission::decide,
    answer::{Failure, unless_ended},
    forward, headers,
    peers::{self, Held, PEER},
    received::{Answer, plain, receive, whole},
    reopen::{self, NotReopened},
    request_body::RequestBody,
    search::{MAX_TRIED, Next, Search, held},
    send::{Connected, budget, send},
};
use crate::{
    inflight::Ending,
    mcp::Class,
    pool::{AcquireError, Connection, Slot},
    serve::Context,
    sessions::{
        Session,
        ids::{self, Named},
        peers::Peer,
        place::{Sender, Standing},
        token::Token,
    },
    telemetry::metrics::Move,
};

const OWNER: HeaderValue = HeaderValue::from_static("owner");
const HEIR: HeaderValue = HeaderValue::from_static("heir");
const GIVEN: HeaderValue = HeaderValue::from_static("given");
/// In an answer; after a space the UID of the pod that may have it.
const ELSEWHERE: &str = "elsewhere";

/// What became of a request that was sent to a peer.
enum Went {
    Answered(Answer),
    /// The peer cannot be reached.
    Back(Box<Request<RequestBody>>),
    /// The peer has not got the session, and may have named one that has. The request, where it can
    /// be sent again.
    Refused(Option<Box<Request<RequestBody>>>, Option<Box<str>>),
}

pub async fn forward(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
    sender: Sender,
    token: Arc<Token>,
    named: Named,
) -> Result<Answer, Failure> {
    if let Err(ending) = exchange.learn_class(request.body_mut()).await {
        return Err(Failure::ended(ending).with_body(request.into_body()));
    }
    // Boxed, as every rare way is.
    if !proxy.peers.is_known() {
        Box::pin(proxy.peers.until_known()).await;
    }
    let text = named.text();
    let mut search = Search::new(proxy, exchange.ticket.class(), &token, text, sender);
    loop {
        match search.next(exchange) {
            Next::Here => {
                if let Err(failure) = decide(proxy, exchange, request.body_mut()).await {
                    return Err(failure.with_body(request.into_body()));
                }
                headers::tell_origin(request.headers_mut());
                // Boxed, as every way is that is rare here.
                return Box::pin(forward::to_server(proxy, exchange, request)).await;
            }
            Next::Ask => {
                let mut asking = Box::pin(search.asks());
                let found = unless_ended(&exchange.ticket, asking.as_mut()).await;
                drop(asking);
                match found {
                    Ok(None) => {}
                    Ok(Some(uid)) if sender == Sender::Client => search.is_led_to(uid),
                    Ok(Some(uid)) => {
                        return Ok(Box::pin(not_here(exchange, &mut request, Some(&uid))).await);
                    }
                    Err(ending) => {
                        return Err(Failure::ended(ending).with_body(request.into_body()));
                    }
                }
            }
            Next::Anew => return Box::pin(anew(proxy, exchange, request, &token, text)).await,
            Next::There { uid, peer, sender } => {
                tracing::debug!(pod = uid, ?sender, "a request goes to the pod of its session");
                match there(proxy, exchange, request, (&uid, peer), sender).await? {
                    Went::Answered(answer) => {
                        if sender != Sender::ToOwner {
                            proxy.peers.has_place(text, &uid);
                        }
                        return Ok(answer);
                    }
                    Went::Back(back) => {
                        request = back;
                        search.misses(uid);
                    }
                    Went::Refused(back, named) => {
                        search.is_refused(uid, named);
                        request = back.ok_or_else(Failure::too_large_to_move)?;
                    }
                }
                request.headers_mut().remove(PEER);
            }
            Next::NotHere(uid) => {
                return Ok(Box::pin(not_here(exchange, &mut request, uid.as_deref())).await);
            }
            Next::TryAgain(failure) => return Err(failure.with_body(request.into_body())),
            Next::Over => {
                proxy.metrics.moved(Move::Lost);
                return Err(Failure::session_over().with_body(request.into_body()));
            }
        }
    }
}

/// What comes late to a pod that has drained goes to any other one, as if its client had come there.
pub async fn anywhere(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
) -> Result<Answer, Failure> {
    if let Err(ending) = exchange.learn_class(request.body_mut()).await {
        return Err(Failure::ended(ending).with_body(request.into_body()));
    }
    // Spread over all, since no session tells where.
    let (key, ours) = (exchange.ticket.sequence().to_string(), proxy.sessions.pod());
    let mut tried: Vec<Box<str>> = Vec::new();
    while !exchange.ticket.class().is_stream() && tried.len() < MAX_TRIED {
        let known = proxy.peers.known();
        let is_out = |uid: &str| uid == ours || tried.iter().any(|tried| &**tried == uid);
        let heir = known.heir(&key, is_out);
        let Some((uid, peer)) = heir.and_then(|uid| Some((uid, *known.get(uid)?))) else { break };
        match there(proxy, exchange, request, (uid, peer), Sender::ToHeir).await? {
            Went::Answered(answer) => return Ok(answer),
            Went::Back(back) => request = back,
            Went::Refused(back, _) => request = back.ok_or_else(Failure::too_large_to_move)?,
        }
        request.headers_mut().remove(PEER);
        tried.push(uid.into());
    }
    if let Err(failure) = decide(proxy, exchange, request.body_mut()).await {
        return Err(failure.with_body(request.into_body()));
    }
    headers::tell_origin(request.headers_mut());
    forward::to_server(proxy, exchange, request).await
}

/// Whether another sidecar has sent it, or its sender says so.
pub fn is_sent(headers: &HeaderMap) -> bool {
    sender(headers) != Sender::Client
}

/// What a peer hears that has sent a request which is not served here.
pub async fn not_here(
    exchange: &mut Exchange,
    request: &mut Request<RequestBody>,
    named: Option<&str>,
) -> Answer {
    // What has come to its end can be sent once more; an ending ends the wait.
    let rest = pin!(request.body_mut().read_rest());
    let (Ok(()) | Err(_)) = unless_ended(&exchange.ticket, rest).await;
    // It is no call that is answered.
    exchange.ticket.reclassify(Class::Plain);
    let mut answer = plain(StatusCode::MISDIRECTED_REQUEST);
    let value = named.and_then(|uid| HeaderValue::from_str(&format!("{ELSEWHERE} {uid}")).ok());
    let value = value.unwrap_or(HeaderValue::from_static(ELSEWHERE));
    answer.headers_mut().insert(PEER, value);
    whole(answer)
}

/// The first request of a connection from another sidecar, or one that asks for a session.
pub fn greet(
    proxy: &Proxy,
    meant: &HeaderValue,
    headers: &HeaderMap,
    context: &Context,
) -> Response<()> {
    context.is_no_client();
    if meant == proxy.sessions.pod() {
        context.greets();
    }
    let asked = ids::only(headers).and_then(|text| text.to_str().ok());
    // Of what is no token of ours nobody is told.
    let session = asked.and_then(|text| proxy.sessions.known(text));
    let session = session.filter(|session| session.is_renamed());
    let held = session.map_or(Held::No, |session| {
        match [true, false].map(|is_call| held(proxy, &session, 0, is_call)) {
            [Standing::Lives | Standing::Lost, _] => Held::Here,
            [_, Standing::Lives | Standing::Lost] => Held::Busy,
            _ => Held::No,
        }
    });
    peers::greet(meant, proxy.sessions.pod(), held)
}

/// Who has sent a request; anybody may say so of himself, since it leads nowhere further.
pub fn sender(headers: &HeaderMap) -> Sender {
    match headers.get(PEER) {
        Some(value) if *value == OWNER => Sender::ToOwner,
        Some(value) if *value == HEIR => Sender::ToHeir,
        Some(value) if *value == GIVEN => Sender::Gives,
        _ => Sender::Client,
    }
}

/// To a peer.
async fn there(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
    (uid, peer): (&str, Peer),
    sender: Sender,
) -> Result<Went, Failure> {
    let (mark, count) = match sender {
        Sender::ToOwner => (OWNER, &proxy.metrics.to_owner),
        Sender::Gives => (GIVEN, &proxy.metrics.to_heir),
        Sender::ToHeir | Sender::Client => (HEIR, &proxy.metrics.to_heir),
    };
    request.headers_mut().insert(PEER, mark);
    request.body_mut().keep();
    let mut gift = Gift::of(exchange.ticket.session().filter(|_| sender == Sender::Gives));
    let connected = match connect(proxy, exchange, (uid, peer)).await {
        Ok(Ok((slot, connection))) => Connected { slot, connection, request },
        Ok(Err(error @ AcquireError::Unreachable { .. })) => {
            tracing::debug!(pod = uid, address = %peer.address, %error, "a peer is not there");
            return Ok(Went::Back(request));
        }
        Ok(Err(error)) => return Err(Failure::not_acquired(&error).with_body(request.into_body())),
        Err(ending) => return Err(Failure::ended(ending).with_body(request.into_body())),
    };
    exchange.ticket.delivers();
    exchange.by_peer = true;
    if exchange.ticket.session().is_some() {
        // What is given away is not awaited here, whatever becomes of its client.
        exchange.ticket.settled();
    }
    // From here on it may have arrived, whatever comes back.
    let given = gift.0.take();
    let mut received = {
        let mut sent = send(exchange, connected, true).await?;
        if let Some(Elsewhere(named)) = elsewhere(&sent.response) {
            gift.0 = given;
            exchange.ticket.settled();
            exchange.by_peer = false;
            let request = sent.connection.take_sent().and_then(reopen::again);
            // Its answer has no body.
            sent.slot.release(sent.connection);
            return Ok(Went::Refused(request, named));
        }
        sent.connection.drop_sent();
        receive(proxy, exchange, sent)?
    };
    received.wait(exchange).await?;
    if let Some(session) = given {
        proxy.metrics.moved(Move::HandedOver);
        // Its client is to listen there, too.
        proxy.inflight.end_streams_of(&session, &exchange.ticket);
    }
    count.inc();
    Ok(Went::Answered(received.pass(proxy, exchange)))
}

/// A place among what is sent to the peer, and a connection to it.
async fn connect(
    proxy: &Proxy,
    exchange: &Exchange,
    (uid, peer): (&str, Peer),
) -> Result<Result<(Slot<RequestBody>, Connection<RequestBody>), AcquireError>, Ending> {
    let budget = budget(exchange.ticket.class());
    let pool = proxy.peers.pool(uid, peer);
    let mut slot = match pool.try_acquire(budget) {
        Some(slot) => slot,
        None => {
            match unless_ended(&exchange.ticket, Box::pin(pool.acquire(budget)).as_mut()).await? {
                Ok(slot) => slot,
                Err(error) => return Ok(Err(error)),
            }
        }
    };
    let connection = if peer.terminating {
        // It may close an idle one at any time.
        unless_ended(&exchange.ticket, Box::pin(slot.fresh()).as_mut()).await?
    } else {
        unless_ended(&exchange.ticket, pin!(slot.connection())).await?
    };
    Ok(connection.map(|connection| (slot, connection)))
}

/// A session that is given to another pod. Dropped, it did not arrive there, and stays ours.
struct Gift(Option<Arc<Session>>);

impl Gift {
    fn of(session: Option<&Arc<Session>>) -> Self {
        Self(session.filter(|session| session.give(true)).cloned())
    }
}

impl Drop for Gift {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.give(false);
        }
    }
}

/// A peer's word that the session is not there, and which pod may have it.
struct Elsewhere(Option<Box<str>>);

fn elsewhere(response: &Response<()>) -> Option<Elsewhere> {
    if response.status() != StatusCode::MISDIRECTED_REQUEST {
        return None;
    }
    let said = response.headers().get(PEER)?.to_str().ok()?;
    let (word, uid) = said.split_once(' ').unwrap_or((said, ""));
    let named = Some(uid).filter(|uid| !uid.is_empty());
    (word == ELSEWHERE).then(|| Elsewhere(named.map(Box::from)))
}

/// To our own server, once it has opened the session anew.
async fn anew(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
    token: &Token,
    text: &str,
) -> Result<Answer, Failure> {
    // What it is an answer to, or tells of, is gone.
    if exchange.ticket.class() == Class::Message {
        return Ok(whole(plain(StatusCode::ACCEPTED)));
    }
    if exchange.ticket.session().is_none() {
        exchange.ticket.belongs_to(&proxy.sessions.adopt(text, token));
    }
    let Some(session) = exchange.ticket.session().cloned() else {
        return Err(Failure::session_over().with_body(request.into_body()));
    };
    if exchange.ticket.class() == Class::SessionEnd {
        proxy.sessions.terminate(&session);
        return Ok(whole(plain(StatusCode::OK)));
    }
    headers::tell_origin(request.headers_mut());
    // As its server would know it, so that `reopen` can tell whether another request was quicker.
    ids::to_server(request.headers_mut(), &session);
    let reopened = {
        let reopening = reopen::reopen(proxy, &session, token, &request);
        let mut reopening = Box::pin(reopening);
        unless_ended(&exchange.ticket, reopening.as_mut()).await
    };
    match reopened {
        Ok(Ok(())) => forward::to_server(proxy, exchange, request).await,
        Ok(Err(NotReopened::Refused)) => {
            Err(Failure::session_over().with_body(request.into_body()))
        }
        Ok(Err(NotReopened::Failed(failure))) => Err(failure.with_body(request.into_body())),
        Err(ending) => Err(Failure::ended(ending).with_body(request.into_body())),
    }
}
