//! One request, and the wait for the result that answers it, over streams that end and are resumed.
//!
//! Never opens or loses a session: that is the client's business.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Request};
use http_body_util::Full;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    EVENT_BOUND,
    connection::{Connections, Exchange},
    outcome::{Return, Saw, error_of, excerpt, is_session_gone, result_of},
    target::Target,
    work::{self, Session},
};
use crate::mcp::events::Events;

const POD: HeaderName = HeaderName::from_static("x-ebbtide-pod");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The longest answer that is no stream of events.
const ANSWER_BOUND: usize = 16 << 20;

/// Sends one client's requests.
pub struct Caller {
    target: Arc<Target>,
    pub connections: Connections,
    /// Who gave the last answer.
    pub pod: Option<String>,
}

/// A call's result, and the session that its answer opened.
pub struct Answer {
    pub result: Value,
    pub session: Option<String>,
}

impl Caller {
    pub fn new(target: &Arc<Target>) -> Self {
        let target = Arc::clone(target);
        Self { connections: Connections::new(Arc::clone(&target)), target, pod: None }
    }

    /// Sends a request and waits for the result of that id; `session` is the one it belongs to.
    pub async fn result(
        &mut self,
        request: Request<Full<Bytes>>,
        id: &str,
        session: Option<&Session>,
    ) -> Result<Answer, Saw> {
        let mut exchange = self.connections.send(request).await?;
        self.pod = exchange.header(&POD).map(str::to_owned);
        let opened = exchange.header(&SESSION).map(str::to_owned);
        let status = exchange.head.status.as_u16();
        let has_session = session.is_some_and(|session| session.id.is_some());
        let result = match status {
            200 if exchange.is_events() => {
                let result = self.events(exchange, id, session).await?;
                return Ok(Answer { result, session: opened });
            }
            _ => {
                let body = exchange.whole(ANSWER_BOUND).await;
                let message = |body: &Bytes| serde_json::from_slice::<Value>(body).ok();
                match (status, body) {
                    (200, Err(why)) => Err(Saw::BrokenAnswer(why)),
                    (200, Ok(body)) => message(&body)
                        .and_then(|message| result_of(&message, id))
                        .unwrap_or_else(|| Err(no_answer(&body))),
                    (_, body) => {
                        let body = body.unwrap_or_default();
                        if has_session && is_session_gone(status, &body) {
                            Err(Saw::SessionGone(status))
                        } else {
                            let error = message(&body).as_ref().and_then(error_of);
                            Err(Saw::Status(status, error))
                        }
                    }
                }
            }
        };
        self.connections.release(exchange);
        Ok(Answer { result: result?, session: opened })
    }

    /// Reads events up to the result of that id; of a stream that ended before, comes back for the
    /// rest where the server gave an event id.
    async fn events(
        &mut self,
        mut exchange: Exchange,
        id: &str,
        session: Option<&Session>,
    ) -> Result<Value, Saw> {
        let mut back = Return::default();
        loop {
            let read = read(&mut exchange, id, &mut back).await;
            self.connections.release(exchange);
            match read {
                Ok(result) => return result,
                Err(ended) => exchange = self.come_back(&mut back, ended, session).await?,
            }
        }
    }

    /// The rest of a stream that ended; `ended` where there is no way back.
    async fn come_back(
        &mut self,
        back: &mut Return,
        ended: Saw,
        session: Option<&Session>,
    ) -> Result<Exchange, Saw> {
        // Modern streams cannot be resumed.
        let Some(session) = session else { return Err(ended) };
        if back.last_event_id.is_none() {
            return Err(ended);
        }
        loop {
            sleep(back.wait).await;
            let last = back.last_event_id.as_deref();
            let request = work::get(&self.target, session, last)?;
            let refused = match self.connections.send(request).await {
                Ok(exchange) if exchange.head.status == 200 && exchange.is_events() => {
                    back.opened();
                    self.pod = exchange.header(&POD).map(str::to_owned);
                    return Ok(exchange);
                }
                Ok(exchange) => Saw::ResumeRefused(exchange.head.status.as_u16()),
                Err(_) => ended.clone(),
            };
            if !back.refused() {
                return Err(refused);
            }
        }
    }
}

/// Reads events up to the result of that id; else how the stream ended.
async fn read(
    exchange: &mut Exchange,
    id: &str,
    back: &mut Return,
) -> Result<Result<Value, Saw>, Saw> {
    let mut events = Events::new(EVENT_BOUND);
    while let Some(chunk) = exchange.chunk().await {
        let chunk = chunk.map_err(Saw::StreamBroke)?;
        let mut bytes = &chunk[..];
        while let Some(event) = events.next(&mut bytes) {
            back.heard(&event);
            let message = serde_json::from_str::<Value>(&event.data).ok();
            if let Some(result) = message.and_then(|message| result_of(&message, id)) {
                return Ok(result);
            }
        }
    }
    Err(Saw::StreamEnded)
}

fn no_answer(body: &[u8]) -> Saw {
    Saw::NoAnswer(excerpt(&String::from_utf8_lossy(body)))
}
