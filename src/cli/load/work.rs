//! What a client calls, and the requests by which it does, in the words of each era.
//!
//! Never sends anything.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, request::Builder};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{
    outcome::{Era, Saw},
    target::Target,
};

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
const AGENT: &str = concat!("ebbtide-rehearse/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// A call that is made again and again.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// `tools/list`
    List,
    /// `ping`, which modern clients do not have.
    Ping,
    Tool {
        name: String,
        arguments: Value,
    },
}

impl Work {
    /// What the call is called in a report.
    pub fn kind(&self) -> Arc<str> {
        match self {
            Work::Tool { name, .. } => format!("{} {name}", self.method()).into(),
            _ => self.method().into(),
        }
    }

    pub fn method(&self) -> &'static str {
        match self {
            Work::List => "tools/list",
            Work::Ping => "ping",
            Work::Tool { .. } => "tools/call",
        }
    }

    pub fn fits(&self, era: Era) -> bool {
        era == Era::Legacy || *self != Work::Ping
    }

    fn name(&self) -> Option<&str> {
        match self {
            Work::Tool { name, .. } => Some(name),
            _ => None,
        }
    }

    fn params(&self, era: Era, id: &str) -> Value {
        let (mut params, mut meta) = (json!({}), json!({}));
        if let Work::Tool { name, arguments } = self {
            params = json!({ "name": name, "arguments": arguments });
            // Who wants progress gets the answer as a stream of events.
            meta["progressToken"] = id.into();
        }
        if era == Era::Modern {
            meta["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
            meta["io.modelcontextprotocol/clientInfo"] = client();
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        if meta != json!({}) {
            params["_meta"] = meta;
        }
        params
    }
}

/// What a legacy client says on each of its requests.
#[derive(Debug, Clone)]
pub struct Session {
    /// None of a server without sessions.
    pub id: Option<String>,
    pub version: String,
}

impl Session {
    /// The session that the answer to `initialize` opened.
    pub fn opened(id: Option<&str>, result: &Value) -> Self {
        let version = result["protocolVersion"].as_str().unwrap_or(LEGACY);
        Self { id: id.map(str::to_owned), version: version.to_owned() }
    }
}

/// A request, or why it cannot be written: a server's session id that fits no header.
pub type Written = Result<Request<Full<Bytes>>, Saw>;

/// The POST of a call; `session` only of legacy clients.
pub fn call(target: &Target, work: &Work, id: &str, session: Option<&Session>) -> Written {
    let era = if session.is_some() { Era::Legacy } else { Era::Modern };
    let mut request = post(target, session);
    if era == Era::Modern {
        request =
            request.header("mcp-protocol-version", MODERN).header("mcp-method", work.method());
        if let Some(name) = work.name() {
            request = request.header("mcp-name", name);
        }
    }
    let params = work.params(era, id);
    let message = json!({ "jsonrpc": "2.0", "id": id, "method": work.method(), "params": params });
    with_body(request, message.to_string())
}

pub fn initialize(target: &Target, id: &str) -> Written {
    let params = json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client() });
    let message = json!({ "jsonrpc": "2.0", "id": id, "method": "initialize", "params": params });
    with_body(post(target, None), message.to_string())
}

pub fn initialized(target: &Target, session: &Session) -> Written {
    let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    with_body(post(target, Some(session)), message.to_string())
}

/// The stand-alone stream, or with an event's id the rest of one that ended.
pub fn get(target: &Target, session: &Session, last_event_id: Option<&str>) -> Written {
    let mut request = request(target, Method::GET, Some(session)).header("accept", EVENTS);
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    with_body(request, String::new())
}

pub fn delete(target: &Target, session: &Session) -> Written {
    with_body(request(target, Method::DELETE, Some(session)), String::new())
}

fn post(target: &Target, session: Option<&Session>) -> Builder {
    request(target, Method::POST, session)
        .header("content-type", JSON)
        .header("accept", format!("{JSON}, {EVENTS}"))
}

fn request(target: &Target, method: Method, session: Option<&Session>) -> Builder {
    let mut request = Request::builder()
        .method(method)
        .uri(&target.path)
        .header("host", &target.authority)
        .header("user-agent", AGENT);
    if let Some(Session { id, version }) = session {
        request = request.header("mcp-protocol-version", version);
        if let Some(id) = id {
            request = request.header("mcp-session-id", id);
        }
    }
    request
}

fn with_body(request: Builder, body: String) -> Written {
    request.body(Full::from(body)).map_err(|error| {
        Saw::NoAnswer(format!("the server named what no header can hold: {error}"))
    })
}

fn client() -> Value {
    json!({ "name": "ebbtide-rehearse", "version": env!("CARGO_PKG_VERSION") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Collected};

    async fn read(written: Written) -> (http::HeaderMap, Value) {
        let (head, body) = written.unwrap_or_else(|saw| panic!("{saw}")).into_parts();
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        (head.headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn each_era_speaks_its_own_words() {
        let target = Target::parse("http://mcp/mcp").unwrap_or_else(|error| panic!("{error}"));
        let tool = Work::Tool { name: "slow".into(), arguments: json!({ "a": 1 }) };

        let (headers, body) = read(call(&target, &tool, "1-1", None)).await;
        assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
        assert_eq!(headers["mcp-method"], "tools/call");
        assert_eq!(headers["mcp-name"], "slow");
        assert!(!headers.contains_key("mcp-session-id"));
        let meta = &body["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
        assert_eq!(meta["progressToken"], "1-1");
        assert_eq!((&body["id"], &body["params"]["arguments"]["a"]), (&json!("1-1"), &json!(1)));

        let (headers, _) = read(call(&target, &Work::List, "1-2", None)).await;
        assert!(!headers.contains_key("mcp-name"));

        let session = Session::opened(Some("s"), &json!({ "protocolVersion": "2025-06-18" }));
        let (headers, body) = read(call(&target, &tool, "2-1", Some(&session))).await;
        assert_eq!(headers["mcp-protocol-version"], "2025-06-18");
        assert_eq!(headers["mcp-session-id"], "s");
        assert!(!headers.contains_key("mcp-method"));
        assert_eq!(body["params"]["_meta"], json!({ "progressToken": "2-1" }));

        let (_, body) = read(call(&target, &Work::Ping, "2-2", Some(&session))).await;
        assert_eq!(body["params"], json!({}));
    }
}
