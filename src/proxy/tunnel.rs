//! Upgraded connections (WebSocket): bytes both ways, after both sides have agreed to leave HTTP.
//!
//! Never looks into the bytes: ending a tunnel means to tell the server that the client is done,
//! and to pass on what it still says.

use std::{future::poll_fn, pin::pin};

use http::{HeaderValue, Request, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy, split};

use super::{
    Exchange, Proxy,
    answer::{Failure, unless_ended},
    forward, headers,
    received::{Answer, receive},
    request_body::RequestBody,
    resend,
    send::Sent,
};
use crate::{
    inflight::{Ending, Ticket},
    mcp::Class,
    pool::{Budget, Slot, Upgraded},
    serve::Context,
    telemetry::metrics::Outcome,
};

/// Sends the request; if the server agrees to the upgrade, the client's connection becomes a
/// tunnel once its own answer is out.
pub async fn forward(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
    context: &Context,
) -> Result<Answer, Failure> {
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let (Some(protocol), true) = (upgrade, headers::wants_upgrade(request.headers())) else {
        exchange.ticket.reclassify(Class::Plain);
        return forward::forward(proxy, exchange, request, context).await;
    };
    let client = hyper::upgrade::on(&mut *request);
    headers::to_upstream(&mut request, context.client());
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(header::UPGRADE, protocol);
    forward::in_session(exchange, &mut request);
    let acquired = pin!(async {
        let mut slot = proxy.pool.acquire(Budget::Streams).await?;
        // Fresh, since nobody could send it again if an idle one turned out to be gone.
        let connection = slot.fresh().await?;
        Ok((slot, connection))
    });
    let (slot, mut connection) = match unless_ended(&exchange.ticket, acquired).await {
        Ok(Ok(acquired)) => acquired,
        Ok(Err(error)) => return Err(Failure::not_acquired(&error)),
        Err(ending) => return Err(Failure::ended(ending)),
    };
    let mut response = unless_ended(&exchange.ticket, pin!(connection.send(request)))
        .await
        .map_err(Failure::ended)?
        .map_err(|error| resend::lost(&error.cause))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        exchange.ticket.reclassify(Class::Plain);
        let received = receive(proxy, exchange, Sent { slot, connection, response })?;
        return Ok(Answer::as_it_comes(received.head, received.streamed));
    }
    let protocol = response.headers().get(header::UPGRADE).cloned();
    headers::to_client(&mut response);
    let (mut head, ()) = response.into_parts();
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        head.headers.insert(header::UPGRADE, protocol);
    }
    let upgraded = connection.into_upgraded();
    Ok(Answer::Switched(head, Box::new(Tunnel { client, upgraded, slot })))
}

/// Two connections that have left HTTP, or are about to.
pub struct Tunnel {
    client: OnUpgrade,
    upgraded: Upgraded,
    slot: Slot<RequestBody>,
}

impl Tunnel {
    /// Passes bytes until both sides are done; the exchange lives as long.
    pub async fn run(self, ticket: Ticket) {
        match self.client.await {
            Ok(client) => pass(client, self.upgraded, ticket).await,
            Err(error) => tracing::debug!(%error, "the client left before the upgrade"),
        }
        drop(self.slot);
    }
}

async fn pass(client: hyper::upgrade::Upgraded, upgraded: Upgraded, mut ticket: Ticket) {
    ticket.will_be(Outcome::Completed);
    let Upgraded { io, read, counted } = upgraded;
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_server, mut to_server) = split(io);
    // Both ways are polled in one task, which an end has to wake.
    let told = poll_fn(|context| ticket.poll_ending(context));
    let up = async {
        tokio::select! {
            _ = copy(&mut from_client, &mut to_server) => {}
            _ = told => {}
        }
        to_server.shutdown().await
    };
    let down = async {
        to_client.write_all(&read).await?;
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    let cut = poll_fn(|context| ticket.poll_cut(context));
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = cut => {}
    }
    if let Some(Ending::Stream | Ending::Cut) = ticket.ending() {
        ticket.will_be(Outcome::Ended);
    }
    drop(counted);
}
