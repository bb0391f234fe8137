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

/// What a server agrees to.
#[derive(Debug, PartialEq, Eq)]
pub struct Agreed {
    pub version: String,
    /// The notifications with which it says that its lists have changed: whoever meets another
    /// server in its place has to be told so.
    pub lists: Vec<&'static str>,
}

/// What the result says that a server answers it with.
#[must_use]
pub fn agreed(answer: &[u8]) -> Option<Agreed> {
    #[derive(Deserialize)]
    struct Answer {
        result: InitializeResult,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct InitializeResult {
        protocol_version: String,
        #[serde(default)]
        capabilities: Capabilities,
    }
    #[derive(Deserialize, Default)]
    struct Capabilities {
        tools: Option<Offer>,
        prompts: Option<Offer>,
        resources: Option<Offer>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Offer {
        #[serde(default)]
        list_changed: bool,
    }
    let result = serde_json::from_slice::<Answer>(answer).ok()?.result;
    let Capabilities { tools, prompts, resources } = result.capabilities;
    let lists = [
        (tools, "notifications/tools/list_changed"),
        (prompts, "notifications/prompts/list_changed"),
        (resources, "notifications/resources/list_changed"),
    ];
    let changes = |(offer, method): (Option<Offer>, _)| offer?.list_changed.then_some(method);
    let lists = lists.into_iter().filter_map(changes).collect();
    Some(Agreed { version: result.protocol_version, lists })
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

    fn version(answer: &str) -> Option<String> {
        agreed(answer.as_bytes()).map(|agreed| agreed.version)
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
            assert_eq!(version(answer).as_deref(), expected, "{answer}");
        }
    }

    #[test]
    fn a_server_says_which_of_its_lists_may_change() {
        let answer = r#"{"result":{"protocolVersion":"v","capabilities":
            {"tools":{"listChanged":true},"prompts":{"listChanged":false},"resources":{},
             "logging":{}}}}"#;
        let lists = agreed(answer.as_bytes()).unwrap().lists;
        assert_eq!(lists, ["notifications/tools/list_changed"]);
    }
}
