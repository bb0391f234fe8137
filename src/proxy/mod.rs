//! The data plane: what happens to a request on its way to the upstream, and to the answer on its
//! way back.
//!
//! Never keeps a body, never decides about phases, and never ends an exchange other than through
//! its ticket.

mod across;
mod admission;
mod answer;
mod body;
mod forward;
mod headers;
mod last_words;
pub mod peers;
mod received;
mod reopen;
mod request_body;
mod resend;
mod search;
mod send;
mod streamed;
mod tunnel;
mod watch;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use self::{
    admission::{Way, admit, admit_late, decide, is_last_of_session, stays, will_move},
    answer::Failure,
    peers::PeerPools,
    received::Answer,
};
pub use self::{body::ProxyBody, request_body::RequestBody};
use crate::{
    config::value::Refusal,
    drain::{DrainWatch, Phase, policy},
    inflight::{Ending, Inflight, Ticket},
    mcp::Class,
    pool::Pool,
    serve::{Context, Handler},
    sessions::{Found, Sessions, ids, token::Token},
    telemetry::Metrics,
};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

/// What every exchange needs.
pub struct Proxy {
    pub pool: Pool<RequestBody>,
    pub inflight: Inflight,
    pub drain: DrainWatch,
    pub sessions: Sessions,
    pub peers: Arc<PeerPools>,
    pub metrics: Arc<Metrics>,
    pub refuse_with: Refusal,
    /// Longest that nothing of a request's body may come.
    pub body_timeout: Duration,
}

impl Proxy {
    /// Whether what comes here late can go to another pod. It does, also where there is hardly time:
    /// most calls are short, and one that is refused is lost for certain.
    #[must_use]
    pub fn passes_on(&self) -> bool {
        self.peers.has_other(self.sessions.pod())
    }
}

/// Most bytes of a body that are read before it is forwarded, where what it is decides something.
const READ_AHEAD: usize = 256 * 1024;

/// One exchange on its way.
pub(crate) struct Exchange {
    pub ticket: Ticket,
    /// Whether it belongs to a legacy session.
    pub session: bool,
    /// Whether a peer answers it, and not our own server.
    pub by_peer: bool,
}

impl Exchange {
    /// Reads ahead as far as it takes to know what the message is.
    ///
    /// # Errors
    /// The exchange is told to end first.
    pub async fn learn_class(&mut self, body: &mut RequestBody) -> Result<(), Ending> {
        let told = pin!(poll_fn(|context| body.poll_told(READ_AHEAD, context)));
        answer::unless_ended(&self.ticket, told).await
    }

    /// Waits until so much of the body is there that it may take a call's place at the server.
    async fn body_comes(&self, body: &mut RequestBody) -> Result<(), Failure> {
        let come = pin!(poll_fn(|context| body.poll_come(context)));
        let come = answer::unless_ended(&self.ticket, come).await.map_err(Failure::ended)?;
        come.map_err(Failure::stalled)
    }
}

impl Handler for Arc<Proxy> {
    type Body = ProxyBody;

    fn handle(
        self,
        request: Request<Incoming>,
        context: Arc<Context>,
    ) -> impl Future<Output = Response<ProxyBody>> + Send + 'static {
        // The request is boxed since it moves through many futures, each of which would hold room
        // for it.
        let request = Box::new(request.map(|body| RequestBody::new(body, self.body_timeout)));
        // Boxed as a whole: it is gone once the answer's head is out, and an open stream does not
        // hold its room.
        Box::pin(handle(self, request, context))
    }
}

async fn handle(
    proxy: Arc<Proxy>,
    mut request: Box<Request<RequestBody>>,
    context: Arc<Context>,
) -> Response<ProxyBody> {
    if let Some(meant) = peers::greeted(&request) {
        return across::greet(&proxy, meant, request.headers(), &context)
            .map(|()| ProxyBody::Nothing);
    }
    // What anybody else says of its clients is passed on with its own address behind it. Asked until
    // it is so: a pod may be heard of later than from it.
    if context.awaits_belief() && proxy.peers.known().is_at(context.remote.ip().to_canonical()) {
        context.tells_client();
    }
    let (session, elsewhere) = match proxy.sessions.of(request.headers(), request.uri()) {
        Found::Nothing => (None, None),
        Found::Here(session) => (Some(session), None),
        Found::Elsewhere(token) => (None, Some(token)),
    };
    let has_session = session.is_some() || elsewhere.is_some();
    let (class, untold) = Class::of(request.method(), request.headers(), has_session);
    let target = (!class.is_json_rpc())
        .then(|| format!("{} {}", request.method(), request.uri().path()).into_boxed_str());
    // The ticket first, then the phase: an exchange that the driver does not see yet reads the
    // phase that the driver has published before it looked.
    let ticket = proxy.inflight.begin((class, untold), session, target);
    let mut exchange = Exchange { ticket, session: has_session, by_peer: false };
    request.body_mut().note_in(exchange.ticket.note());
    // Almost always all of the body came with the head; else it tells later what it is.
    let body = request.body_mut();
    let has_come = poll_fn(|context| Poll::Ready(body.poll_come(context).is_ready())).await;
    // What opens one will be followed by its calls.
    let opens = exchange.ticket.class() == Class::Initialize;
    if stays(&exchange) || (opens && !will_move(&proxy, &exchange)) {
        context.carries_session();
    }
    let mut way = admit(&proxy, &mut exchange, &mut request, elsewhere.is_some()).await;
    if !has_come && matches!(way, Ok(Way::Server | Way::Across)) {
        // Boxed, as every rare way is.
        way = Box::pin(admit_late(&proxy, &mut exchange, &mut request, elsewhere.is_some())).await;
    }
    let result = match way {
        Ok(Way::Tunnel) => {
            Box::pin(tunnel::forward(&proxy, &mut exchange, request, &context)).await
        }
        Ok(Way::Server) => forward::forward(&proxy, &mut exchange, request, &context).await,
        Ok(Way::Nowhere) => Ok(Box::pin(across::not_here(&mut exchange, &mut request, None)).await),
        Ok(Way::Across) => across(&proxy, &mut exchange, request, &context, elsewhere).await,
        Err(failure) => Err(failure.with_body(request.into_body())),
    };
    let phase = proxy.drain.phase();
    // Also one that the answer has opened: what comes next is of that session.
    let has_session = stays(&exchange);
    if has_session {
        context.carries_session();
    }
    let is_last = phase >= Phase::Draining && is_last_of_session(&proxy, &exchange);
    let mut response = match result {
        Ok(answer) => answer.into_response(exchange, &context),
        Err(failure) => Box::pin(failure.into_response(exchange)).await,
    };
    // A session that is over, or was never here, is no reason to keep the connection: what comes
    // next goes elsewhere.
    let keeps_session = has_session && !is_last && response.status() != StatusCode::NOT_FOUND;
    if policy::announces_close(phase, keeps_session) && response.status().as_u16() != 101 {
        headers::announce_close(response.headers_mut());
    }
    response
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + 'a>>;

/// Boxed, each way by itself: most requests should not pay for their room.
fn across<'a>(
    proxy: &'a Proxy,
    exchange: &'a mut Exchange,
    mut request: Box<Request<RequestBody>>,
    context: &'a Context,
    elsewhere: Option<Arc<Token>>,
) -> Answering<'a> {
    if !exchange.session {
        headers::to_peer(&mut request, context.client());
        return Box::pin(across::anywhere(proxy, exchange, request));
    }
    let named = ids::named(request.headers());
    let token = elsewhere.or_else(|| proxy.sessions.token(named.text()).map(Arc::new));
    if let Some(token) = token {
        let sender = across::sender(request.headers());
        headers::to_peer(&mut request, context.client());
        return Box::pin(across::forward(proxy, exchange, request, sender, token, named));
    }
    Box::pin(async move {
        // The key of its token is gone by now: nobody else can take it.
        if let Err(failure) = decide(proxy, exchange, request.body_mut()).await {
            return Err(failure.with_body(request.into_body()));
        }
        forward::forward(proxy, exchange, request, context).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn future_size_of_six<A, B, C, D, E, G, F>(_: impl Fn(A, B, C, D, E, G) -> F) -> usize {
        size_of::<F>()
    }

    /// Each of these is one allocation; beyond this size it is a slow one (glibc's `malloc` sorts
    /// what was freed before each one above 1,008 bytes), and each layer that holds a request or an
    /// answer by value is copied through.
    #[test]
    fn an_exchange_stays_small() {
        for size in [future_size(handle), future_size_of_six(across::forward)] {
            assert!(size <= 1008, "{size}");
        }
    }
}
