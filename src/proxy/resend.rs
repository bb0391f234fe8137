//! A request whose connection died under it: it is sent once more, or the client hears why not.
//!
//! Never sends twice what the server may have acted on.

use http::{Method, Request, Response};
use http_body::Body;

use super::{
    answer::Failure,
    request_body::{BodyError, RequestBody},
};
use crate::pool::{Closed, Connection, ExchangeError, SendError, Slot};

/// Sends the request once more, on a fresh connection, if a reused one died under a request that
/// the server cannot have acted on.
pub async fn resend(
    slot: &mut Slot<RequestBody>,
    connection: Connection<RequestBody>,
    error: SendError<RequestBody>,
    again: Option<Box<Request<RequestBody>>>,
    keeps: bool,
) -> Result<(Connection<RequestBody>, Response<()>), Failure> {
    let SendError { cause, unsent, begun } = error;
    let reused = connection.is_reused();
    connection.close(closed(&cause));
    let no_answer = matches!(cause, ExchangeError::Incomplete | ExchangeError::Io(_));
    let request = match unsent.or(again.filter(|_| no_answer)) {
        Some(request) if reused => request,
        unsent => return Err(lost(&cause).with_rest_of(unsent.or(begun))),
    };
    let mut connection = match slot.fresh().await {
        Ok(connection) => connection,
        Err(error) => return Err(Failure::not_acquired(&error).with_body(request.into_body())),
    };
    match connection.send_and(request, keeps).await {
        Ok(response) => Ok((connection, response)),
        Err(error) => {
            connection.close(closed(&error.cause));
            Err(lost(&error.cause).with_rest_of(error.unsent.or(error.begun)))
        }
    }
}

/// A copy of the request, where it may be sent twice and the connection is one that may be stale:
/// safe methods without a body (RFC 9110, section 9.2.1). A `tools/call` never is.
pub fn repeatable(
    request: &Request<RequestBody>,
    connection: &Connection<RequestBody>,
) -> Option<Box<Request<RequestBody>>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe || !connection.is_reused() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Box::new(Request::new(RequestBody::empty()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Whose doing it was.
fn closed(cause: &ExchangeError) -> Closed {
    match cause {
        ExchangeError::RequestBody(_) => Closed::Abandoned,
        _ => Closed::Error,
    }
}

pub fn lost(cause: &ExchangeError) -> Failure {
    if let ExchangeError::RequestBody(error) = cause
        && let Some(BodyError::Stalled(patience)) = error.downcast_ref()
    {
        return Failure::stalled(*patience);
    }
    Failure::lost(&match cause {
        ExchangeError::NotHttp(_) => {
            format!("what the server answered is not HTTP/1.1: {cause}")
        }
        ExchangeError::RequestBody(_) => cause.to_string(),
        ExchangeError::Incomplete | ExchangeError::Io(_) => {
            format!("the server closed the connection before it answered: {cause}")
        }
    })
}
