//! The class of an exchange, told from its head wherever the head suffices.
//!
//! Never looks at a body: a POST without a session may be `initialize`, and only
//! [`Class::refine`] with the message that the body held can tell.

use http::{HeaderMap, HeaderName, Method, header};

use super::message::{LISTEN, Message, NOTIFICATIONS};

/// The header that names the JSON-RPC method of a modern request (MCP 2026-07-28).
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The header by which a client resumes a stream (the SSE specification).
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What an exchange is, as far as ending it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Opens a legacy session.
    Initialize,
    /// A `POSTed` JSON-RPC request, or one that may be.
    Call,
    /// A `POSTed` JSON-RPC response or notification: a call in flight may be waiting for it.
    Message,
    /// A DELETE that ends a session.
    SessionEnd,
    /// A GET that resumes a stream (`Last-Event-ID`): a call's, which is pending in its session, or
    /// an endless one.
    Resume,
    /// A GET that is answered by an endless event stream.
    Stream,
    /// `subscriptions/listen`: a POST that is answered by an endless event stream.
    Listen,
    /// An upgraded connection (WebSocket).
    Tunnel,
    /// Everything else.
    Plain,
}

impl Class {
    /// Every class, in the order of its index.
    pub const ALL: [Class; 9] = [
        Class::Initialize,
        Class::Call,
        Class::Message,
        Class::SessionEnd,
        Class::Resume,
        Class::Stream,
        Class::Listen,
        Class::Tunnel,
        Class::Plain,
    ];

    /// The class that the head alone tells; a POST that may be anything is a [`Class::Call`], and
    /// the second value says so: its body has to tell. `session`: the request belongs to a legacy
    /// session.
    #[must_use]
    pub fn of(method: &Method, headers: &HeaderMap, session: bool) -> (Self, bool) {
        let class = match *method {
            Method::POST if is_json(headers) => {
                return match headers.get(METHOD).map(http::HeaderValue::as_bytes) {
                    Some(method) if is_counted(method) => (Class::of_request(method), false),
                    // Neither counts as a call that runs: no server goes by the header alone.
                    Some(_) | None => (Class::Call, true),
                };
            }
            Method::GET if leaves_http(headers) => Class::Tunnel,
            Method::GET if accepts_events(headers) => {
                if headers.contains_key(LAST_EVENT_ID) {
                    Class::Resume
                } else {
                    Class::Stream
                }
            }
            Method::DELETE if session => Class::SessionEnd,
            _ => Class::Plain,
        };
        (class, false)
    }

    /// The class of a JSON-RPC request.
    #[must_use]
    pub fn of_request(method: &[u8]) -> Self {
        match method {
            b"initialize" => Class::Initialize,
            method if method == LISTEN.as_bytes() => Class::Listen,
            _ => Class::Call,
        }
    }

    /// The class once the body's message is known.
    #[must_use]
    pub fn refine(self, message: &Message) -> Self {
        match (self, message) {
            (Class::Call, Message::Request { method, .. }) => Class::of_request(method.as_bytes()),
            (Class::Call, Message::Notification { .. } | Message::Response { .. }) => {
                Class::Message
            }
            (class, _) => class,
        }
    }

    /// Whether the exchange has no natural end, so that a drain ends it and never waits for it.
    #[must_use]
    pub fn is_stream(self) -> bool {
        matches!(self, Class::Stream | Class::Resume | Class::Listen | Class::Tunnel)
    }

    /// Whether the body is a JSON-RPC message, so that an error of ours is one too.
    #[must_use]
    pub fn is_json_rpc(self) -> bool {
        matches!(self, Class::Initialize | Class::Call | Class::Message | Class::Listen)
    }

    /// The name in metrics, `status` and the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Initialize => "initialize",
            Class::Call => "call",
            Class::Message => "message",
            Class::SessionEnd => "session_end",
            Class::Resume => "resume",
            Class::Stream => "stream",
            Class::Listen => "listen",
            Class::Tunnel => "tunnel",
            Class::Plain => "plain",
        }
    }
}

/// Whether a request of this method takes a place among the calls that run.
fn is_counted(method: &[u8]) -> bool {
    Class::of_request(method) != Class::Listen && !method.starts_with(NOTIFICATIONS.as_bytes())
}

/// Whether the client asks for another protocol than HTTP. The upgrade to HTTP/2, which some clients
/// offer with every request (Java's), is none, and obsolete (RFC 9113, section 3.1).
fn leaves_http(headers: &HeaderMap) -> bool {
    let all = headers
        .get_all(header::UPGRADE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    headers.contains_key(header::UPGRADE)
        && all.into_iter().any(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"h2c"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let starts_with_json =
        |value: &[u8]| value.len() >= 16 && value[..16].eq_ignore_ascii_case(b"application/json");
    headers.get(header::CONTENT_TYPE).is_some_and(|value| starts_with_json(value.as_bytes()))
}

/// Whether the answer may be a stream of events.
#[must_use]
pub fn accepts_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|value| memchr::memmem::find(value.as_bytes(), b"text/event-stream").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(method: &Method, pairs: &[(&'static str, &str)]) -> Class {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        Class::of(method, &headers, headers.contains_key("mcp-session-id")).0
    }

    #[test]
    fn the_head_tells_the_class() {
        let json = ("content-type", "application/json; charset=utf-8");
        let events = ("accept", "application/json, text/event-stream");
        for (method, headers, expected) in [
            (Method::POST, vec![json], Class::Call),
            (Method::POST, vec![json, ("mcp-method", "tools/call")], Class::Call),
            // Until the body says the same.
            (Method::POST, vec![json, ("mcp-method", "subscriptions/listen")], Class::Call),
            (Method::POST, vec![json, ("mcp-method", "notifications/x")], Class::Call),
            (Method::POST, vec![("content-type", "text/plain")], Class::Plain),
            (Method::POST, vec![], Class::Plain),
            (Method::GET, vec![events], Class::Stream),
            (Method::GET, vec![events, ("last-event-id", "7")], Class::Resume),
            (Method::GET, vec![("upgrade", "websocket")], Class::Tunnel),
            (Method::GET, vec![events, ("upgrade", "h2c, websocket")], Class::Tunnel),
            (Method::GET, vec![events, ("upgrade", "H2C")], Class::Stream),
            (Method::GET, vec![events, ("last-event-id", "7"), ("upgrade", "h2c")], Class::Resume),
            (Method::GET, vec![], Class::Plain),
            (Method::DELETE, vec![("mcp-session-id", "a")], Class::SessionEnd),
            (Method::DELETE, vec![], Class::Plain),
        ] {
            assert_eq!(class(&method, &headers), expected, "{method} {headers:?}");
        }
    }

    #[test]
    fn the_index_is_the_order() {
        for (index, class) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, index);
        }
    }
}
