//! What a call came to, as its client saw it, and when a client comes back to a stream that ended.
//!
//! Never forgives: an answer is one of the server's own to the call's id, or the call is lost.

use std::{fmt, ops::RangeInclusive, time::Duration};

use serde_json::Value;

use crate::mcp::events::Event;

/// The generation of the protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Era {
    /// 2026-07-28: no session, one POST per call.
    Modern,
    /// 2025-11-25: a session, and a stand-alone GET stream beside the calls.
    Legacy,
}

impl Era {
    pub fn name(self) -> &'static str {
        match self {
            Era::Modern => "modern",
            Era::Legacy => "legacy",
        }
    }
}

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

/// Draining, upstream lost, pool exhausted: the codes of ebbtide's own errors.
const OWN_CODES: RangeInclusive<i64> = -32012..=-32010;

/// What a client saw in place of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saw {
    NoConnection(String),
    /// The connection ended before the head of the answer.
    Reset(String),
    /// The connection ended within an answer that is no stream of events.
    BrokenAnswer(String),
    Status(u16, Option<RpcError>),
    /// The server does not know the session, by this status.
    SessionGone(u16),
    Error(RpcError),
    ToolError(String),
    /// A success that holds no answer to the call's id.
    NoAnswer(String),
    StreamEnded,
    StreamBroke(String),
    /// The GET that was to bring the rest of a stream was refused as often as clients try.
    ResumeRefused(u16),
    TimeOut,
}

impl Saw {
    /// Whether real clients wait on, up to their time-out: they learn nothing of the loss.
    pub fn hangs(&self) -> bool {
        matches!(
            self,
            Saw::StreamEnded | Saw::StreamBroke(_) | Saw::ResumeRefused(_) | Saw::TimeOut
        )
    }

    /// Whether it is the server's answer to the call after all, if not the one hoped for. What
    /// ebbtide says in the server's place is none.
    pub fn is_answer(&self) -> bool {
        match self {
            Saw::ToolError(_) => true,
            Saw::Error(error) => !OWN_CODES.contains(&error.code),
            _ => false,
        }
    }

    /// Whether the session ended with it: a 404 says so, by the specification.
    pub fn ends_session(&self) -> bool {
        matches!(self, Saw::SessionGone(_) | Saw::ResumeRefused(404))
    }

    /// A word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Saw::NoConnection(_) => "no_connection",
            Saw::Reset(_) => "reset",
            Saw::BrokenAnswer(_) => "broken_answer",
            Saw::Status(..) => "status",
            Saw::SessionGone(_) => "session_gone",
            Saw::Error(_) => "error",
            Saw::ToolError(_) => "tool_error",
            Saw::NoAnswer(_) => "no_answer",
            Saw::StreamEnded => "stream_ended",
            Saw::StreamBroke(_) => "stream_broke",
            Saw::ResumeRefused(_) => "resume_refused",
            Saw::TimeOut => "time_out",
        }
    }

    pub fn status(&self) -> Option<u16> {
        match self {
            Saw::Status(status, _) | Saw::ResumeRefused(status) | Saw::SessionGone(status) => {
                Some(*status)
            }
            _ => None,
        }
    }

    pub fn code(&self) -> Option<i64> {
        match self {
            Saw::Error(error) | Saw::Status(_, Some(error)) => Some(error.code),
            _ => None,
        }
    }
}

impl fmt::Display for Saw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Saw::NoConnection(why) => write!(out, "no connection: {why}"),
            Saw::Reset(why) => write!(out, "the connection ended before the answer: {why}"),
            Saw::BrokenAnswer(why) => write!(out, "the answer broke off: {why}"),
            Saw::Status(status, None) => write!(out, "HTTP {status}"),
            Saw::Status(status, Some(error)) => {
                write!(out, "HTTP {status}, error {}: {}", error.code, error.message)
            }
            Saw::SessionGone(status) => {
                write!(out, "the server does not know the session: HTTP {status}")
            }
            Saw::Error(error) => write!(out, "error {}: {}", error.code, error.message),
            Saw::ToolError(text) => write!(out, "the tool failed: {text}"),
            Saw::NoAnswer(text) => write!(out, "a success without an answer to this id: {text}"),
            Saw::StreamEnded => write!(out, "the stream ended without the answer"),
            Saw::StreamBroke(why) => write!(out, "the stream broke off: {why}"),
            Saw::ResumeRefused(status) => {
                write!(out, "the stream ended, and coming back to it was refused: HTTP {status}")
            }
            Saw::TimeOut => write!(out, "no answer before the time-out"),
        }
    }
}

/// The result that the message is of that call; `None` where it answers something else.
pub fn result_of(message: &Value, id: &str) -> Option<Result<Value, Saw>> {
    if message["id"] != id || message.get("method").is_some() {
        return None;
    }
    if let Some(error) = error_of(message) {
        return Some(Err(Saw::Error(error)));
    }
    let result = message.get("result").filter(|result| result.is_object())?;
    if result["isError"] == true {
        let text = result["content"][0]["text"].as_str().unwrap_or("without a text");
        return Some(Err(Saw::ToolError(excerpt(text))));
    }
    Some(Ok(result.clone()))
}

/// Whether a server says with this answer that it does not know the session: 404, or what
/// server-everything and the TypeScript SDK's examples say, a 400 with a word about it.
pub fn is_session_gone(status: u16, body: &[u8]) -> bool {
    let text = || String::from_utf8_lossy(body).to_ascii_lowercase();
    status == 404 || (status == 400 && text().contains("session"))
}

/// The JSON-RPC error that the message is, whatever its id.
pub fn error_of(message: &Value) -> Option<RpcError> {
    let error = message.get("error")?;
    let code = error["code"].as_i64()?;
    let message = excerpt(error["message"].as_str().unwrap_or_default());
    Some(RpcError { code, message })
}

/// The beginning of a text, on one line.
pub fn excerpt(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// How a client comes back to a stream: after what the server said, or a second, and no more than
/// twice in vain.
#[derive(Debug, PartialEq, Eq)]
pub struct Return {
    pub last_event_id: Option<String>,
    pub wait: Duration,
    refused: u32,
}

impl Default for Return {
    fn default() -> Self {
        Self { last_event_id: None, wait: Duration::from_secs(1), refused: 0 }
    }
}

impl Return {
    pub fn heard(&mut self, event: &Event) {
        if let Some(id) = &event.id {
            self.last_event_id = Some(id.clone()).filter(|id| !id.is_empty());
        }
        if let Some(milliseconds) = event.retry_milliseconds {
            self.wait = Duration::from_millis(milliseconds);
        }
    }

    pub fn opened(&mut self) {
        self.refused = 0;
    }

    /// Whether the client tries once more.
    pub fn refused(&mut self) -> bool {
        self.refused += 1;
        self.refused < 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_result_of_the_own_id_is_right() {
        let refused = RpcError { code: -32010, message: "draining".into() };
        let error = json!({ "code": -32010, "message": "draining" });
        for (message, expected) in [
            (json!({ "id": "1-1", "result": {} }), Some(Ok(json!({})))),
            (
                json!({ "id": "1-1", "result": { "isError": false } }),
                Some(Ok(json!({ "isError": false }))),
            ),
            (json!({ "id": "1-2", "result": {} }), None),
            (json!({ "id": null, "error": error }), None),
            // A request of the server's has an id of its own.
            (json!({ "id": "1-1", "method": "ping" }), None),
            (json!({ "id": "1-1" }), None),
            (json!({ "id": "1-1", "result": null }), None),
            (json!([]), None),
            (json!({ "id": "1-1", "error": error }), Some(Err(Saw::Error(refused)))),
            (
                json!({ "id": "1-1", "result": { "isError": true, "content": [{ "text": "no\nway" }] } }),
                Some(Err(Saw::ToolError("no way".into()))),
            ),
        ] {
            assert_eq!(result_of(&message, "1-1"), expected, "{message}");
        }
        assert_eq!(result_of(&json!({ "id": 7, "result": {} }), "7"), None);
    }

    #[test]
    fn a_client_waits_on_only_where_it_learns_nothing() {
        let error = RpcError { code: 1, message: String::new() };
        for (saw, hangs) in [
            (Saw::NoConnection(String::new()), false),
            (Saw::Reset(String::new()), false),
            (Saw::BrokenAnswer(String::new()), false),
            (Saw::Status(503, None), false),
            (Saw::SessionGone(404), false),
            (Saw::Error(error), false),
            (Saw::ToolError(String::new()), false),
            (Saw::NoAnswer(String::new()), false),
            (Saw::StreamEnded, true),
            (Saw::StreamBroke(String::new()), true),
            (Saw::ResumeRefused(404), true),
            (Saw::TimeOut, true),
        ] {
            assert_eq!(saw.hangs(), hangs, "{saw:?}");
        }
    }

    #[test]
    fn errors_of_the_server_are_its_answer_and_those_of_ebbtide_are_not() {
        let error = |code| Saw::Error(RpcError { code, message: String::new() });
        for (saw, answer) in [
            (error(-32602), true),
            (error(7), true),
            (error(-32009), true),
            (error(-32010), false),
            (error(-32011), false),
            (error(-32012), false),
            (error(-32013), true),
            (Saw::ToolError(String::new()), true),
            (Saw::Status(400, Some(RpcError { code: -32602, message: String::new() })), false),
            (Saw::NoAnswer(String::new()), false),
            (Saw::SessionGone(404), false),
            (Saw::TimeOut, false),
        ] {
            assert_eq!(saw.is_answer(), answer, "{saw:?}");
        }
    }

    #[test]
    fn a_session_ends_by_404_or_a_word_about_it() {
        let no = r#"{"error":{"code":-32000,"message":"Bad Request: No valid session ID"}}"#;
        for (status, body, gone) in [
            (404, "", true),
            (400, no, true),
            (400, "Mcp-Session-Id header is required", true),
            (400, "no such tool", false),
            (503, no, false),
        ] {
            assert_eq!(is_session_gone(status, body.as_bytes()), gone, "{status} {body}");
        }
        assert!(Saw::SessionGone(400).ends_session() && Saw::ResumeRefused(404).ends_session());
        assert!(!Saw::ResumeRefused(503).ends_session() && !Saw::Status(404, None).ends_session());
    }

    #[test]
    fn a_client_comes_back_when_it_was_told_to_and_gives_up_after_two_refusals() {
        let mut back = Return::default();
        assert_eq!((back.last_event_id.clone(), back.wait), (None, Duration::from_secs(1)));
        let event =
            Event { id: Some("7".into()), retry_milliseconds: Some(40), ..Event::default() };
        back.heard(&event);
        back.heard(&Event::default());
        assert_eq!(back.last_event_id.as_deref(), Some("7"));
        assert_eq!(back.wait, Duration::from_millis(40));
        assert!(back.refused());
        back.opened();
        assert!(back.refused());
        assert!(!back.refused());
        back.heard(&Event { id: Some(String::new()), ..Event::default() });
        assert_eq!(back.last_event_id, None);
    }

    #[test]
    fn excerpts_are_short_and_on_one_line() {
        assert_eq!(excerpt(" a\r\n\tb "), "a b");
        assert_eq!(excerpt(&"ü".repeat(500)).chars().count(), 161);
    }
}
