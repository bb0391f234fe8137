//! A request on its way: a slot, a connection, and the head of its answer.
//!
//! Never waits in the line of calls with what calls in flight may be waiting for.

use std::pin::pin;

use http::{Request, Response};

use super::{
    Exchange, Proxy,
    answer::{Failure, unless_ended},
    request_body::RequestBody,
    resend::{repeatable, resend},
};
use crate::{
    mcp::Class,
    pool::{AcquireError, Budget, Connection, Slot},
};

/// A request that has an answer, as far as its head.
pub struct Sent {
    pub slot: Slot<RequestBody>,
    pub connection: Connection<RequestBody>,
    pub response: Response<()>,
}

/// A request, and the connection to our own server on which it can be sent.
pub struct Connected {
    pub slot: Slot<RequestBody>,
    pub connection: Connection<RequestBody>,
    pub request: Box<Request<RequestBody>>,
}

/// Sends it to our own server.
pub async fn reach(
    proxy: &Proxy,
    exchange: &mut Exchange,
    request: Box<Request<RequestBody>>,
) -> Result<Sent, Failure> {
    let connected = connect(proxy, exchange, request).await?;
    exchange.ticket.delivers();
    send(exchange, connected, false).await
}

/// Waits in line, and for the server.
pub async fn connect(
    proxy: &Proxy,
    exchange: &mut Exchange,
    mut request: Box<Request<RequestBody>>,
) -> Result<Connected, Failure> {
    // What is matched on is not bound to a name: it would hold its room to the end.
    let mut slot = match proxy.pool.try_acquire(first_budget(exchange.ticket.class())) {
        Some(slot) => slot,
        None => match Box::pin(line_up(proxy, exchange, request.body_mut())).await {
            Ok(slot) => slot,
            Err(failure) => return Err(failure.with_body(request.into_body())),
        },
    };
    let connection = match unless_ended(&exchange.ticket, pin!(slot.connection())).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            if matches!(error, AcquireError::Unreachable { .. }) {
                // Whoever comes next is another process, which knows nothing of them.
                proxy.sessions.forget();
            }
            return Err(Failure::not_acquired(&error).with_body(request.into_body()));
        }
        Err(ending) => return Err(Failure::ended(ending).with_body(request.into_body())),
    };
    Ok(Connected { slot, connection, request })
}

/// Sends it, once more if the connection turns out to be gone. `keeps`: the request can be taken
/// back from the connection.
pub async fn send(exchange: &Exchange, connected: Connected, keeps: bool) -> Result<Sent, Failure> {
    let Connected { mut slot, mut connection, request } = connected;
    let again = repeatable(&request, &connection);
    let sent = unless_ended(&exchange.ticket, pin!(connection.send_and(request, keeps))).await;
    let (connection, response) = match sent {
        Ok(Ok(response)) => (connection, response),
        Ok(Err(error)) => {
            let mut sent = Box::pin(resend(&mut slot, connection, error, again, keeps));
            let sent = unless_ended(&exchange.ticket, sent.as_mut()).await;
            sent.unwrap_or_else(|ending| Err(Failure::ended(ending)))?
        }
        Err(ending) => {
            return Err(Failure::ended(ending).with_rest_of(connection.take_unfinished()));
        }
    };
    Ok(Sent { slot, connection, response })
}

/// The bound that an exchange counts against where that has room.
fn first_budget(class: Class) -> Budget {
    if class.is_stream() { Budget::Streams } else { Budget::Calls }
}

/// The bound whose line an exchange waits in. What calls in flight may be waiting for never waits
/// behind them.
pub fn budget(class: Class) -> Budget {
    match class {
        Class::Message | Class::SessionEnd => Budget::Messages,
        class if class.is_stream() => Budget::Streams,
        _ => Budget::Calls,
    }
}

/// Waits for a slot. In which line, depends on what a POST is.
async fn line_up(
    proxy: &Proxy,
    exchange: &mut Exchange,
    body: &mut RequestBody,
) -> Result<Slot<RequestBody>, Failure> {
    exchange.learn_class(body).await.map_err(Failure::ended)?;
    let acquired = proxy.pool.acquire(budget(exchange.ticket.class()));
    match unless_ended(&exchange.ticket, pin!(acquired)).await {
        Ok(acquired) => acquired.map_err(|error| Failure::not_acquired(&error)),
        Err(ending) => Err(Failure::ended(ending)),
    }
}
