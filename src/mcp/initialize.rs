//! What opens a legacy session: the params that a client initialises with, and the version that
//! its server agrees to.
//!
//! Never takes a message for an `initialize` that a server would not.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The `params` of an `initialize` request, as JSON text; `None` where the body is not one request
/// of that kind.
#[must_use]
pub fn params(body: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        method: Cow<'a, str>,
        #[serde(borrow)]
        params: &'a RawValue,
    }
    let request: Request = serde_json::from_slice(body).ok()?;
    let is_object = request.params.get().starts_with('{');
    (request.method == "initialize" && is_object).then(|| request.params.get())
}

/// The `protocolVersion` of the result that a server answers it with.
#[must_use]
pub fn version(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        result: Agreed,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Agreed {
        protocol_version: String,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    Some(answer.result.protocol_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_those_of_an_initialize() {
        for (body, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"a":[1, 2]}}"#,
                Some(r#"{"a":[1, 2]}"#),
            ),
            (r#" {"params": {"a":"ü"} ,"method":"\u0069nitialize"} "#, Some(r#"{"a":"ü"}"#)),
            (r#"{"method":"initialize","params":{"b":1e999}}"#, Some(r#"{"b":1e999}"#)),
            (r#"{"method":"tools/call","params":{}}"#, None),
            (r#"{"method":"initialize"}"#, None),
            (r#"{"method":"initialize","params":null}"#, None),
            (r#"{"method":"initialize","params":[]}"#, None),
            // Which of them a server would take is not for us to guess.
            (r#"{"method":"initialize","params":{"a":1},"params":{}}"#, None),
            (r#"[{"method":"initialize","params":{}}]"#, None),
            (r#"{"method":"initialize","params":{}"#, None),
            (r#"{"method":"initialize","params":{}}{}"#, None),
            ("", None),
        ] {
            assert_eq!(params(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(params(b"{\"method\":\"initialize\",\"params\":{\"a\":\"\xff\"}}"), None);
    }

    #[test]
    fn the_version_is_that_of_the_result() {
        for (answer, expected) in [
            (
                r#"{"id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#,
                Some("2025-06-18"),
            ),
            (r#"{"id":1,"result":{"protocolVersion":7}}"#, None),
            (r#"{"id":1,"result":{}}"#, None),
            (r#"{"id":1,"error":{"code":-32602,"message":"no"}}"#, None),
            (r#"[{"result":{"protocolVersion":"2025-06-18"}}]"#, None),
            ("", None),
        ] {
            assert_eq!(version(answer.as_bytes()).as_deref(), expected, "{answer}");
        }
    }
}
