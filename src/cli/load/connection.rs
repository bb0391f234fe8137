//! One client's connections, kept alive and reused as fetch (undici) and httpx do.
//!
//! Never sends a request twice. Both of them look, before they write, whether an idle connection
//! was closed meanwhile, and take a fresh one then; once a request was written, neither retries it
//! (undici fails the request at the head of the pipeline with "other side closed", httpx raises
//! `RemoteProtocolError`). So does this.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header::HeaderName, response::Parts};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::{
    outcome::Saw,
    target::{Connected, Target, chain},
};

/// What undici keeps an idle connection for, and httpx a second longer.
const IDLE: Duration = Duration::from_secs(4);
/// The longest that undici believes a `Keep-Alive: timeout`, and what it takes off it.
const LONGEST_IDLE: Duration = Duration::from_mins(10);
const IDLE_MARGIN: Duration = Duration::from_secs(2);
/// How long an answer may go on after the result in it, before its connection is given up.
const REST: Duration = Duration::from_secs(1);

/// At most one connection that is kept: a client makes one request at a time.
pub struct Connections {
    target: Arc<Target>,
    answered: Option<Exchange>,
    idle: Option<Idle>,
}

struct Idle {
    connected: Connected,
    until: Instant,
}

/// An answer whose body is still to come, and the connection that it comes on.
pub struct Exchange {
    pub head: Parts,
    body: Incoming,
    connected: Connected,
}

impl Connections {
    pub fn new(target: Arc<Target>) -> Self {
        Self { target, answered: None, idle: None }
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Exchange, Saw> {
        self.settle().await;
        if let Some(Idle { connected: (mut sender, task), until }) = self.idle.take()
            && until > Instant::now()
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Exchange::new(response, (sender, task))),
                Err(mut error) => match error.take_message() {
                    // Nothing of it was written: the connection was closed already.
                    Some(unsent) => request = unsent,
                    None => return Err(Saw::Reset(chain(error.error()))),
                },
            }
        }
        let (mut sender, task) = self.target.connect().await.map_err(Saw::NoConnection)?;
        match sender.send_request(request).await {
            Ok(response) => Ok(Exchange::new(response, (sender, task))),
            Err(error) => Err(Saw::Reset(chain(&error))),
        }
    }

    /// Takes back an answer of which no more is wanted.
    pub fn release(&mut self, exchange: Exchange) {
        self.answered = Some(exchange);
    }

    /// Reads the rest of the last answer, so that its connection can be reused, and so that its
    /// close is noticed. Takes no time where servers end their answers.
    pub async fn settle(&mut self) {
        let Some(mut exchange) = self.answered.take() else { return };
        let whole = timeout(REST, async {
            while let Some(chunk) = exchange.chunk().await {
                chunk?;
            }
            Ok::<_, String>(())
        });
        let is_whole = matches!(whole.await, Ok(Ok(())));
        let idle = idle_time(&exchange.head.headers);
        let mut connected = exchange.connected;
        if is_whole && connected.0.ready().await.is_ok() {
            self.idle = Some(Idle { connected, until: Instant::now() + idle });
        }
    }
}

impl Exchange {
    fn new(response: http::Response<Incoming>, connected: Connected) -> Self {
        let (head, body) = response.into_parts();
        Self { head, body, connected }
    }

    /// The next part of the body; `None` at its proper end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Err(error) => return Some(Err(chain(&error))),
            }
        }
    }

    /// The whole body, if it is not longer than `bound`.
    pub async fn whole(&mut self, bound: usize) -> Result<Bytes, String> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await {
            let chunk = chunk?;
            if whole.len() + chunk.len() > bound {
                return Err(format!("longer than {bound} bytes"));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn is_events(&self) -> bool {
        let kind = self.header(&http::header::CONTENT_TYPE).unwrap_or_default();
        kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
    }
}

/// How long the connection of an answer with these headers is kept idle.
fn idle_time(headers: &HeaderMap) -> Duration {
    let hint = headers.get("keep-alive").and_then(|value| value.to_str().ok());
    let seconds = hint.and_then(|hint| {
        hint.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse().ok())
    });
    match seconds.map(Duration::from_secs) {
        Some(hint) => hint.saturating_sub(IDLE_MARGIN).min(LONGEST_IDLE),
        None => IDLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_are_kept_as_long_as_undici_keeps_them() {
        for (hint, seconds) in [
            (None, 4),
            (Some("timeout=5"), 3),
            (Some("max=100, timeout=72"), 70),
            (Some("timeout=1"), 0),
            (Some("timeout=99999"), 600),
            (Some("timeout=x"), 4),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(
                hint.map(|hint| (HeaderName::from_static("keep-alive"), hint.parse().unwrap())),
            );
            assert_eq!(idle_time(&headers), Duration::from_secs(seconds), "{hint:?}");
        }
    }
}
