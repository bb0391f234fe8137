//! Whether an exchange is served, and by whom: by our own server, by another pod, or by nobody any
//! more.
//!
//! Never sends anything, and never changes a phase.

use std::sync::Arc;

use http::{Method, Request, StatusCode};

use super::{Exchange, Proxy, across, answer::Failure, headers, request_body::RequestBody, search};
use crate::{
    config::value::{Refusal, Roaming},
    drain::{
        Phase,
        policy::{self, Decision},
    },
    mcp::Class,
    sessions::{Session, token::MAX_PARAMS},
};

/// Where an exchange goes that is served.
pub enum Way {
    Server,
    Tunnel,
    /// To wherever its session is; or, late, to any other pod.
    Across,
    /// Back to the peer that has sent it, which knows others.
    Nowhere,
}

/// Whether the exchange is served, and by whom.
pub async fn admit(
    proxy: &Proxy,
    exchange: &mut Exchange,
    request: &mut Request<RequestBody>,
    elsewhere: bool,
) -> Result<Way, Failure> {
    if request.method() == Method::CONNECT {
        return Err(Failure::refused_method());
    }
    if headers::has_foreign_coding(request.headers()) {
        return Err(Failure::rejected(
            StatusCode::NOT_IMPLEMENTED,
            "the only Transfer-Encoding that is understood here is `chunked`",
        ));
    }
    let phase = proxy.drain.phase();
    let is_tunnel = exchange.ticket.class() == Class::Tunnel;
    // A stream comes back by itself, and would keep this pod.
    let stays_away = phase >= Phase::Cutting && exchange.ticket.class() == Class::Stream;
    if !is_tunnel && !stays_away && goes_across(exchange, elsewhere, phase) {
        return Ok(Way::Across);
    }
    let may_pass = phase >= Phase::Draining && !is_tunnel && !exchange.session;
    if may_pass && proxy.passes_on() && !across::is_sent(request.headers()) {
        // Boxed, as every rare way is: most requests should not pay for its room.
        Box::pin(exchange.learn_class(request.body_mut())).await.map_err(Failure::ended)?;
        // What would open a session here opens it where it can stay.
        if phase >= Phase::Cutting || exchange.ticket.class() == Class::Initialize {
            return Ok(Way::Across);
        }
    }
    if phase >= Phase::Draining {
        let decided = Box::pin(decide(proxy, exchange, request.body_mut())).await;
        // A larger one could not be sent again, and hears from us why.
        let may_go_on = !exchange.session && request.body().is_small();
        if decided.is_err() && may_go_on && across::is_sent(request.headers()) {
            return Ok(Way::Nowhere);
        }
        decided?;
    }
    Ok(if exchange.ticket.class() == Class::Tunnel { Way::Tunnel } else { Way::Server })
}

/// The same, once the body comes: it would else keep others from the server. The phase may be
/// another by then.
pub async fn admit_late(
    proxy: &Proxy,
    exchange: &mut Exchange,
    request: &mut Request<RequestBody>,
    elsewhere: bool,
) -> Result<Way, Failure> {
    exchange.body_comes(request.body_mut()).await?;
    admit(proxy, exchange, request, elsewhere).await
}

/// Whether it has to be found out where the session of the exchange is.
fn goes_across(exchange: &Exchange, elsewhere: bool, phase: Phase) -> bool {
    let may_leave = |session: &Arc<Session>| {
        let follows = || search::follows(exchange.ticket.class()) && session.is_reopened();
        session.is_movable() && (phase >= Phase::Draining || session.is_lost() || follows())
    };
    elsewhere || exchange.ticket.session().is_some_and(may_leave)
}

/// Whether the exchange belongs to a session whose client has to come back to this pod: no other
/// one can open it anew.
pub fn stays(exchange: &Exchange) -> bool {
    exchange.ticket.session().is_some_and(|session| !session.is_movable())
}

/// Whether the session that the exchange opens can be opened anew, as far as its body has come.
pub fn will_move(proxy: &Proxy, exchange: &Exchange) -> bool {
    proxy.sessions.roaming() == Roaming::Reopen
        && exchange.ticket.initialize().is_some_and(|params| params.len() <= MAX_PARAMS)
}

/// Whether the exchange is served once the drain refuses some.
pub async fn decide(
    proxy: &Proxy,
    exchange: &mut Exchange,
    body: &mut RequestBody,
) -> Result<(), Failure> {
    exchange.learn_class(body).await.map_err(Failure::ended)?;
    let phase = proxy.drain.phase();
    let class = exchange.ticket.class();
    let idle = is_idle_beside(exchange);
    match policy::decide(phase, class, exchange.session) {
        Decision::Forward if class == Class::Call && is_last_of_session(proxy, exchange) => {
            Err(Failure::draining(phase, true))
        }
        Decision::Forward => Ok(()),
        // The client is back for an answer that does not come any more.
        Decision::Refuse if class == Class::Resume && !idle && exchange.session => {
            Err(Failure::pending(phase))
        }
        Decision::Refuse => {
            let over = idle && phase == Phase::Drained && stays(exchange);
            let failure = Failure::draining(phase, over);
            Err(match proxy.refuse_with {
                // Elsewhere nobody knows the session.
                Refusal::Status if !exchange.session => failure.by_status(),
                Refusal::Status | Refusal::JsonRpc => failure,
            })
        }
    }
}

/// Whether the exchange belongs to a session of which nothing else is pending: to end it with this
/// one ends it in the middle of nothing.
fn is_idle_beside(exchange: &Exchange) -> bool {
    let own = usize::from(!exchange.ticket.class().is_stream());
    exchange.ticket.session().is_some_and(|session| !session.is_busy(own))
}

/// Whether the session of the exchange gets no further call once this one has ended.
pub fn is_last_of_session(proxy: &Proxy, exchange: &Exchange) -> bool {
    stays(exchange) && is_idle_beside(exchange) && proxy.drain.snapshot().last_call
}
