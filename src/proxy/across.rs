//! A request of a session that may be another pod's: it goes to the pod that has it, or to the one
//! that opens it anew, which may be this one, once it has asked the others for it.
//!
//! Never decides where (`sessions::place` does), and never sends on a second time what a peer has
//! sent.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};

use super::{
    Exchange, Proxy,
    answer::{Failure, unless_ended},
    decide, forward, headers,
    peers::{self, Held, PEER},
    received::{Answer, pass},
    reopen::{self, NotReopened},
    request_body::RequestBody,
    send::{Sent, budget, send},
};
use crate::{
    config::value::Roaming,
    drain::Phase,
    mcp::Class,
    pool::AcquireError,
    serve::Context,
    sessions::{
        Session, ids,
        peers::Peer,
        place::{Asked, Place, Sender, Standing, place},
        token::Token,
    },
    telemetry::metrics::Move,
};

const OWNER: HeaderValue = HeaderValue::from_static("owner");
const HEIR: HeaderValue = HeaderValue::from_static("heir");
const GIVEN: HeaderValue = HeaderValue::from_static("given");
/// In an answer; after a space the UID of the pod that may have it.
const ELSEWHERE: &str = "elsewhere";

/// Most peers that one request is sent to in vain.
const MAX_TRIED: usize = 3;

/// Where a request goes next.
enum Next {
    Here,
    Anew,
    There { uid: Box<str>, peer: Peer, sender: Sender },
    NotHere(Option<Box<str>>),
    Over,
}

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
    context: &Context,
    token: &Token,
    text: &str,
) -> Result<Answer, Failure> {
    if let Err(ending) = exchange.learn_class(request.body_mut()).await {
        return Err(Failure::ended(ending).with_body(request.into_body()));
    }
    let sender = sender(request.headers());
    headers::to_upstream(&mut request, &context.forwarded_for);
    proxy.peers.until_known().await;
    let ours = proxy.sessions.pod();
    let mut named = proxy.peers.place(text);
    // In vain, and those of them that have said that they do not have it.
    let (mut tried, mut refused) = (Vec::new(), Vec::new());
    let (mut asked_around, mut tries_again) = (false, true);
    loop {
        // Another request may have opened it here while this one waited.
        if exchange.ticket.session().is_none()
            && let Some(session) = proxy.sessions.known(text)
        {
            exchange.ticket.belongs_to(&session);
        }
        let standing = standing(proxy, exchange);
        let ends = proxy.drain.phase() >= Phase::Draining;
        let follows = follows(exchange.ticket.class());
        let asked = Asked {
            token,
            text,
            sender,
            standing,
            named: named.as_deref(),
            tried: &tried,
            follows,
            ends,
        };
        let is_lead = named.is_some() && tried.len() < 2 * MAX_TRIED;
        let next = match next(proxy, &asked) {
            // Who was to have it cannot be reached: it stays as long as it can.
            Next::There { .. } if !tried.is_empty() && !is_lead && standing == Standing::Leaves => {
                Next::Here
            }
            Next::There { .. } if tried.len() >= MAX_TRIED && !is_lead && !ends => Next::Anew,
            Next::There { .. } | Next::Over if tried.len() >= MAX_TRIED => {
                let failure = Failure::draining(proxy.drain.phase(), false);
                return Err(failure.with_body(request.into_body()));
            }
            next => next,
        };
        match next {
            Next::Here => {
                if let Err(failure) = decide(proxy, exchange, request.body_mut()).await {
                    return Err(failure.with_body(request.into_body()));
                }
                return forward::to_server(proxy, exchange, request).await;
            }
            Next::Anew => {
                let is_new = standing == Standing::Stranger;
                if is_new && !std::mem::replace(&mut asked_around, true) {
                    // Who gives it away has the request at hand in flight.
                    let is_call = exchange.ticket.class() == Class::Call || sender == Sender::Gives;
                    // Boxed, as every rare way is.
                    let mut holder = Box::pin(proxy.peers.holder(text, ours, &refused, is_call));
                    match unless_ended(&exchange.ticket, holder.as_mut()).await {
                        Ok(None) => {}
                        Ok(Some(uid)) if sender == Sender::Client => {
                            named = leads(proxy, text, uid, &mut tried, &mut tries_again);
                        }
                        Ok(Some(uid)) => {
                            let said = format!("{ELSEWHERE} {uid}");
                            return Ok(not_here(exchange, &mut request, &said).await);
                        }
                        Err(ending) => {
                            return Err(Failure::ended(ending).with_body(request.into_body()));
                        }
                    }
                    continue;
                }
                return Box::pin(anew(proxy, exchange, request, token, text)).await;
            }
            // Others have waited for it just now.
            Next::There { uid, .. }
                if proxy.peers.is_missed(&uid) && named.as_ref() != Some(&uid) =>
            {
                tried.push(uid);
            }
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
                        (request, named) = (back, None);
                        request.headers_mut().remove(PEER);
                        proxy.peers.misses(&uid);
                        tried.push(uid);
                    }
                    Went::Refused(back, hint) => {
                        tried.push(uid.clone());
                        refused.push(uid);
                        let is_refused = |uid: &str| refused.iter().any(|known| &**known == uid);
                        let hint = hint.filter(|uid| !is_refused(uid));
                        named = hint
                            .and_then(|uid| leads(proxy, text, uid, &mut tried, &mut tries_again));
                        // What cannot be sent again finds its way the next time.
                        let peers = proxy.peers.known();
                        if named.is_none()
                            && !follows
                            && let Some(uid) = peers.heir(text, is_refused)
                        {
                            proxy.peers.has_place(text, uid);
                        }
                        request = back.ok_or_else(Failure::too_large_to_move)?;
                        request.headers_mut().remove(PEER);
                    }
                }
            }
            Next::NotHere(uid) => {
                let said = uid.map(|uid| format!("{ELSEWHERE} {uid}"));
                let said = said.as_deref().unwrap_or(ELSEWHERE);
                return Ok(not_here(exchange, &mut request, said).await);
            }
            // Its pod is there, or another one can open it: this is not its end.
            Next::Over if tried.len() > refused.len() => {
                let failure = Failure::lost("the pod of this session cannot be reached now");
                return Err(failure.with_body(request.into_body()));
            }
            Next::Over if ends && reopens(proxy) && token.params().is_some() => {
                let failure = Failure::draining(proxy.drain.phase(), false);
                return Err(failure.with_body(request.into_body()));
            }
            Next::Over => {
                proxy.metrics.moved(Move::Lost);
                return Err(Failure::session_over().with_body(request.into_body()));
            }
        }
    }
}

/// Whether a call in flight may be waiting for it.
pub fn follows(class: Class) -> bool {
    matches!(class, Class::Message | Class::Resume)
}

/// A peer has named the pod of this UID: it is asked next, also where it could not be reached just
/// now, but only once more.
fn leads(
    proxy: &Proxy,
    text: &str,
    uid: Box<str>,
    tried: &mut Vec<Box<str>>,
    tries_again: &mut bool,
) -> Option<Box<str>> {
    proxy.peers.known().get(&uid)?;
    if tried.contains(&uid) {
        if !std::mem::take(tries_again) {
            return None;
        }
        tried.retain(|tried| *tried != uid);
    }
    proxy.peers.has_place(text, &uid);
    Some(uid)
}

/// What a peer hears that has sent a request of a session which is not here.
async fn not_here(
    exchange: &mut Exchange,
    request: &mut Request<RequestBody>,
    said: &str,
) -> Answer {
    // What has come to its end can be sent once more; an ending ends the wait.
    let rest = pin!(request.body_mut().read_rest());
    let (Ok(()) | Err(_)) = unless_ended(&exchange.ticket, rest).await;
    // It is no call that is answered.
    exchange.ticket.reclassify(Class::Plain);
    let mut answer = plain(StatusCode::MISDIRECTED_REQUEST);
    let value = HeaderValue::from_str(said).unwrap_or(HeaderValue::from_static(ELSEWHERE));
    answer.headers_mut().insert(PEER, value);
    whole(answer)
}

/// The first request of a connection from another sidecar, or one that asks for a session.
pub fn greet(proxy: &Proxy, meant: &HeaderValue, headers: &HeaderMap) -> Response<()> {
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

fn next(proxy: &Proxy, asked: &Asked<'_>) -> Next {
    let peers = proxy.peers.known();
    match place(&peers, proxy.sessions.pod(), asked, reopens(proxy)) {
        Place::Here => Next::Here,
        Place::Anew => Next::Anew,
        Place::There(uid, sender) => match peers.get(uid) {
            Some(peer) => Next::There { uid: uid.into(), peer: *peer, sender },
            None => Next::Over,
        },
        Place::NotHere(named) => Next::NotHere(named.map(Into::into)),
        Place::Over => Next::Over,
    }
}

fn reopens(proxy: &Proxy) -> bool {
    proxy.sessions.roaming() == Roaming::Reopen
}

fn standing(proxy: &Proxy, exchange: &Exchange) -> Standing {
    let Some(session) = exchange.ticket.session() else { return Standing::Stranger };
    let class = exchange.ticket.class();
    held(proxy, session, usize::from(!class.is_stream()), class == Class::Call)
}

/// What a session that is known here is to this pod, beside `own` exchanges.
fn held(proxy: &Proxy, session: &Session, own: usize, is_call: bool) -> Standing {
    let ends = proxy.drain.phase() >= Phase::Draining;
    if !ends || !session.is_movable() {
        return if session.is_lost() { Standing::Lost } else { Standing::Lives };
    }
    // What belongs to a call in flight stays with it. A client that always has one begins its next
    // elsewhere.
    let is_late = || session.is_given() || proxy.drain.snapshot().last_call;
    let leaves = !session.is_busy(own) || (is_call && is_late());
    if leaves { Standing::Leaves } else { Standing::Lives }
}

/// Who has sent a request; anybody may say so of himself, since it leads nowhere further.
fn sender(headers: &HeaderMap) -> Sender {
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
    let (mark, to) = match sender {
        Sender::ToOwner => (OWNER, "owner"),
        Sender::Gives => (GIVEN, "heir"),
        Sender::ToHeir | Sender::Client => (HEIR, "heir"),
    };
    request.headers_mut().insert(PEER, mark);
    request.body_mut().keep();
    let gives = exchange.ticket.session().filter(|_| sender == Sender::Gives).cloned();
    let gives = gives.filter(|session| session.give(true));
    let pool = proxy.peers.pool(uid, peer);
    let budget = budget(exchange.ticket.class());
    let acquired = pin!(async {
        let mut slot = pool.acquire(budget).await?;
        // One that ends may close an idle connection at any time.
        let connection =
            if peer.terminating { slot.fresh().await? } else { slot.connection().await? };
        Ok((slot, connection))
    });
    let went = match unless_ended(&exchange.ticket, acquired).await {
        Ok(Ok((slot, connection))) => {
            exchange.ticket.delivers();
            exchange.by_peer = true;
            if exchange.ticket.session().is_some() {
                // What is given away is not awaited here, whatever becomes of its client.
                exchange.ticket.settled();
            }
            let sent = send(exchange, slot, connection, request, true).await?;
            answered(proxy, exchange, sent).await?
        }
        Ok(Err(error @ AcquireError::Unreachable { .. })) => {
            tracing::debug!(pod = uid, address = %peer.address, %error, "a peer is not there");
            Went::Back(request)
        }
        Ok(Err(error)) => return Err(Failure::not_acquired(&error).with_body(request.into_body())),
        Err(ending) => return Err(Failure::ended(ending).with_body(request.into_body())),
    };
    match (&went, gives) {
        (Went::Answered(_), gives) => {
            proxy.metrics.forwarded.with_label_values(&[to]).inc();
            if let Some(session) = gives {
                proxy.metrics.moved(Move::HandedOver);
                // Its client is to listen there, too.
                proxy.inflight.end_streams_of(&session, &exchange.ticket);
            }
        }
        (Went::Back(_) | Went::Refused(..), Some(session)) => {
            session.give(false);
        }
        (Went::Back(_) | Went::Refused(..), None) => {}
    }
    Ok(went)
}

async fn answered(proxy: &Proxy, exchange: &mut Exchange, mut sent: Sent) -> Result<Went, Failure> {
    let response = &sent.response;
    let is_misdirected = response.status() == StatusCode::MISDIRECTED_REQUEST;
    let said = response.headers().get(PEER).filter(|_| is_misdirected);
    let said = said.and_then(|value| value.to_str().ok()).and_then(|text| {
        let (word, uid) = text.split_once(' ').unwrap_or((text, ""));
        (word == ELSEWHERE).then(|| Some(uid).filter(|uid| !uid.is_empty()).map(Box::from))
    });
    let Some(named) = said else {
        // What is not needed any more is not held as long as the answer takes.
        drop(sent.connection.take_sent());
        return Ok(Went::Answered(pass(proxy, exchange, sent).await?));
    };
    exchange.ticket.settled();
    exchange.by_peer = false;
    let request = sent.connection.take_sent().and_then(reopen::again);
    // Its answer has no body.
    sent.slot.release(sent.connection);
    Ok(Went::Refused(request, named))
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

fn plain(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

fn whole(response: Response<()>) -> Answer {
    Answer::Whole(response.into_parts().0, Bytes::new())
}
