//! Our own JSON-RPC errors, in the two forms that every client survives: a JSON body, or one SSE
//! `message` event without an id (an injected id would break clients older than 2025-11-25).
//!
//! Never answers what was not asked: notifications and responses get no error.

use super::message::{Envelope, Message};

/// Why ebbtide, and not the server, answers a call. The codes lie in the range that neither the
/// specification (-32020 to -32099) nor the SDKs (-32000 to -32002) use; what is wrong with the
/// request itself has JSON-RPC's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    Draining,
    UpstreamLost,
    PoolExhausted,
    /// The request did not come whole.
    InvalidRequest,
}

impl Code {
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Code::Draining => -32010,
            Code::UpstreamLost => -32011,
            Code::PoolExhausted => -32012,
            Code::InvalidRequest => -32600,
        }
    }
}

/// Where the id is not known, as JSON-RPC has it.
const NO_ID: &str = "null";

/// The JSON text that answers every request of the envelope; `id` is null where none is known.
#[must_use]
pub fn json(code: Code, text: &str, envelope: Option<&Envelope>) -> String {
    match envelope {
        Some(batch @ Envelope::Batch(_)) => {
            let errors: Vec<String> = ids(batch).map(|id| one(code, text, id)).collect();
            format!("[{}]", errors.join(","))
        }
        Some(single) => one(code, text, ids(single).next().unwrap_or(NO_ID)),
        None => one(code, text, NO_ID),
    }
}

/// The SSE events that answer every request of the envelope but those whose ids, as JSON text, were
/// answered; each a whole event; `id` is null where none is known. Empty where nothing awaits an
/// answer.
#[must_use]
pub fn events(
    code: Code,
    text: &str,
    envelope: Option<&Envelope>,
    is_answered: impl Fn(&str) -> bool,
) -> String {
    match envelope {
        Some(envelope) => events_for(code, text, ids(envelope).filter(|id| !is_answered(id))),
        // What has not told what it is may await an answer.
        None => events_for(code, text, [NO_ID]),
    }
}

/// One SSE event for each id, which is JSON text.
#[must_use]
pub fn events_for<'a>(code: Code, text: &str, ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut events = String::new();
    for id in ids {
        events.push_str("event: message\ndata: ");
        events.push_str(&one(code, text, id));
        events.push_str("\n\n");
    }
    events
}

/// The event that ends a `subscriptions/listen` stream gracefully (MCP 2026-07-28).
#[must_use]
pub fn listen_result(id: &str) -> String {
    format!(
        "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\
         \"complete\",\"_meta\":{{\"io.modelcontextprotocol/subscriptionId\":{id}}}}}}}\n\n"
    )
}

/// The ids of the requests.
fn ids(envelope: &Envelope) -> impl Iterator<Item = &str> {
    envelope.messages().iter().filter_map(|message| match message {
        Message::Request { id, .. } => Some(id.as_deref().unwrap_or(NO_ID)),
        _ => None,
    })
}

fn one(code: Code, text: &str, id: &str) -> String {
    let text = serde_json::Value::from(text);
    let number = code.number();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{number},"message":{text}}}}}"#)
}

#[cfg(test)]
mod tests {
    use super::super::scanner::Scanner;
    use super::*;

    #[test]
    fn an_error_carries_the_id_as_it_came() {
        for id in ["7", "\"listen-1\"", "\"\\u00e9\""] {
            let body = format!(r#"{{"method":"m","id":{id}}}"#);
            let envelope = Scanner::scan(body.as_bytes());
            let text = json(Code::Draining, "say \"why\"", envelope.as_ref());
            assert!(text.contains(&format!("\"id\":{id},")), "{text}");
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["error"]["code"], -32010);
            assert_eq!(value["error"]["message"], "say \"why\"");
        }
    }

    #[test]
    fn a_batch_gets_an_array_without_its_notifications() {
        let body = br#"[{"id":1,"method":"a"},{"method":"n"},{"id":"2","method":"b"}]"#;
        let text = json(Code::UpstreamLost, "gone", Scanner::scan(body).as_ref());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ids: Vec<_> = value.as_array().unwrap().iter().map(|e| &e["id"]).collect();
        assert_eq!(ids, [&serde_json::json!(1), &serde_json::json!("2")]);
    }

    #[test]
    fn listen_ends_with_its_result() {
        let event = listen_result("\"listen-1\"");
        let data = event.lines().nth(1).unwrap().strip_prefix("data: ").unwrap();
        let value: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(value["result"]["resultType"], "complete");
        assert!(event.ends_with("\n\n"));
    }
}
