//! A request of a session that may be another pod's: it goes to the pod that has it, or to the one
//! that opens it anew, which may be this one.
//!
//! Never decides where (`sessions::place` does), and never sends on a second time what a peer has
//! sent.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};

use super::{
    Exchange, Proxy,
    answer::{Failure, unless_ended},
    decide, forward, headers, is_idle_beside,
    peers::PEER,
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
/// In an answer.
const ELSEWHERE: HeaderValue = HeaderValue::from_static("elsewhere");

/// Where a request goes next.
enum Next {
    Here,
    Anew,
    There { uid: String, peer: Peer, sender: Sender },
    NotHere,
    Over,
}

/// What became of a request that was sent to a peer.
enum Went {
    Answered(Answer),
    /// The peer cannot be reached.
    Back(Box<Request<RequestBody>>),
    /// The peer has not got the session.
    Refused(Box<Request<RequestBody>>),
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
    // Asked and in vain.
    let mut refused = usize::from(proxy.peers.was_refused(text));
    loop {
        let standing = standing(proxy, exchange, text);
        let ends = proxy.drain.phase() >= Phase::Draining;
        let asked = Asked { token, text, sender, standing, refused: refused > 0, ends };
        let next = match next(proxy, &asked) {
            // Who was to have it cannot be reached: it stays as long as it can.
            Next::There { .. } if refused > 0 && standing == Standing::Leaves => Next::Here,
            Next::There { .. } if refused > 1 && !ends => Next::Anew,
            Next::There { .. } | Next::Over if refused > 1 => {
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
            Next::Anew => return anew(proxy, exchange, request, token, text).await,
            Next::There { uid, peer, sender } => {
                tracing::debug!(pod = uid, ?sender, "a request goes to the pod of its session");
                match there(proxy, exchange, request, (&uid, peer), sender).await? {
                    Went::Answered(answer) => return Ok(answer),
                    Went::Back(back) => (request, refused) = (back, refused + 1),
                    Went::Refused(back) => {
                        proxy.peers.refused(text);
                        (request, refused) = (back, refused + 1);
                    }
                }
            }
            Next::NotHere => {
                // It is no call that is answered.
                exchange.ticket.reclassify(Class::Plain);
                let mut answer = plain(StatusCode::MISDIRECTED_REQUEST);
                answer.headers_mut().insert(PEER, ELSEWHERE);
                return Ok(whole(answer));
            }
            Next::Over => {
                proxy.metrics.moved(Move::Lost);
                return Err(Failure::session_over().with_body(request.into_body()));
            }
        }
    }
}

fn next(proxy: &Proxy, asked: &Asked<'_>) -> Next {
    let peers = proxy.peers.known();
    let reopens = proxy.sessions.roaming() == Roaming::Reopen;
    match place(&peers, proxy.sessions.pod(), asked, reopens) {
        Place::Here => Next::Here,
        Place::Anew => Next::Anew,
        Place::There(uid, sender) => match peers.get(uid) {
            Some(peer) => Next::There { uid: uid.to_owned(), peer: *peer, sender },
            None => Next::Over,
        },
        Place::NotHere => Next::NotHere,
        Place::Over => Next::Over,
    }
}

fn standing(proxy: &Proxy, exchange: &Exchange, text: &str) -> Standing {
    let Some(session) = exchange.ticket.session() else { return Standing::Stranger };
    if session.is_lost() {
        return Standing::Lost;
    }
    if !session.is_movable() {
        return Standing::Lives;
    }
    let drains = proxy.drain.phase() >= Phase::Draining;
    let leaves = if is_idle_beside(exchange) {
        drains || has_another_heir(proxy, session, text)
    } else {
        // What belongs to a call in flight stays with it. A client that always has one begins its
        // next elsewhere.
        let is_late = drains && proxy.drain.snapshot().last_call;
        exchange.ticket.class() == Class::Call && (session.is_given() || is_late)
    };
    if leaves { Standing::Leaves } else { Standing::Lives }
}

/// Whether the session was opened anew here, and another pod has come since that is to have it: all
/// other pods send its requests there.
fn has_another_heir(proxy: &Proxy, session: &Session, text: &str) -> bool {
    let ours = proxy.sessions.pod();
    let peers = proxy.peers.known();
    let is_ready = || peers.get(ours).is_some_and(Peer::is_ready);
    session.is_adopted() && is_ready() && peers.heir(text, None) != Some(ours)
}

/// Who has sent a request; anybody may say so of himself, since it leads nowhere further.
fn sender(headers: &HeaderMap) -> Sender {
    match headers.get(PEER) {
        Some(value) if *value == OWNER => Sender::ToOwner,
        Some(value) if *value == HEIR => Sender::ToHeir,
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
    let (mark, to) = if sender == Sender::ToOwner { (OWNER, "owner") } else { (HEIR, "heir") };
    request.headers_mut().insert(PEER, mark);
    request.body_mut().keep();
    let gives = exchange.ticket.session().filter(|session| session.give(true)).cloned();
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
        (Went::Back(_) | Went::Refused(_), Some(session)) => {
            session.give(false);
        }
        (Went::Back(_) | Went::Refused(_), None) => {}
    }
    Ok(went)
}

async fn answered(proxy: &Proxy, exchange: &mut Exchange, mut sent: Sent) -> Result<Went, Failure> {
    let response = &sent.response;
    let is_elsewhere = response.status() == StatusCode::MISDIRECTED_REQUEST
        && response.headers().get(PEER) == Some(&ELSEWHERE);
    if !is_elsewhere {
        // What is not needed any more is not held as long as the answer takes.
        drop(sent.connection.take_sent());
        return Ok(Went::Answered(pass(proxy, exchange, sent).await?));
    }
    exchange.ticket.settled();
    let request = sent.connection.take_sent().and_then(reopen::again);
    // Its answer has no body.
    sent.slot.release(sent.connection);
    request.map(Went::Refused).ok_or_else(Failure::too_large_to_move)
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
