//! Reads JSON-RPC messages from a body that comes in any split.
//!
//! Never keeps more than the captured fields, however long or deep the body is, and looks at every
//! byte once.

use memchr::memchr2;

use super::message::{Envelope, Field, Fields, Message, keep};

/// Longest key that is compared, in bytes of JSON text.
const MAX_KEY: usize = 64;
/// Deepest containers whose kind matters: the params of a message of a batch.
const KINDS: usize = 3;

/// An incremental reader of one body.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Open containers.
    depth: usize,
    /// Which of the outermost ones are objects; those inside of them are only counted.
    objects: [bool; KINDS],
    batch: bool,
    in_string: bool,
    escaped: bool,
    /// Whether the next string of this object is a key.
    at_key: bool,
    in_params: bool,
    /// Whose value comes.
    field: Option<Field>,
    /// The JSON text under way: a key, or the value of a wanted field.
    text: Vec<u8>,
    capturing: bool,
    overflow: bool,
    fields: Fields,
    done: Vec<Message>,
    complete: bool,
}

impl Scanner {
    /// What a body held that is whole.
    #[must_use]
    pub fn scan(body: &[u8]) -> Option<Envelope> {
        let mut scanner = Self::default();
        scanner.feed(body);
        scanner.envelope()
    }

    /// Whether the outermost value has ended.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes the body only as far as it tells what the exchange is.
    #[must_use]
    pub fn first_look(body: &[u8]) -> Self {
        let mut scanner = Self::default();
        let mut rest = body;
        while !rest.is_empty() && !scanner.is_told() {
            rest = scanner.step(rest);
        }
        scanner
    }

    /// Whether a message that ended was a response.
    #[must_use]
    pub fn has_response(&self) -> bool {
        matches!(self.done.first(), Some(Message::Response { .. }))
    }

    /// Whether the rest of the body cannot change what the exchange is.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.complete
            || (self.fields.is_request() && !self.fields.may_be_stream())
            || self.done.first().is_some_and(Message::is_request)
    }

    /// What was seen so far. A message under way counts as the request that it may be; a batch
    /// under way in which there is none yet may be anything.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope> {
        let under_way = if self.complete { None } else { self.fields.message(false) };
        if !self.batch {
            return self.done.first().cloned().or(under_way).map(Envelope::Single);
        }
        let mut messages = self.done.clone();
        if let Some(message) = under_way {
            keep(&mut messages, message);
        }
        let tells = messages.first().is_some_and(|first| self.complete || first.is_request());
        tells.then_some(Envelope::Batch(messages))
    }

    /// Takes the next bytes of the body, split anywhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.complete {
            bytes = self.step(bytes);
        }
    }

    /// Takes the next bytes that belong together; what is left.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.in_string { self.string(bytes) } else { self.structure(bytes) }
    }

    /// The depth at which a message's own keys stand.
    fn base(&self) -> usize {
        1 + usize::from(self.batch)
    }

    /// Whether the innermost container is an object, as far as that matters.
    fn in_object(&self) -> bool {
        let kind = self.depth.checked_sub(1).and_then(|at| self.objects.get(at));
        kind.copied().unwrap_or_default()
    }

    fn string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.escaped {
            self.escaped = false;
            self.capture(&bytes[..1]);
            return &bytes[1..];
        }
        let Some(at) = memchr2(b'"', b'\\', bytes) else {
            self.capture(bytes);
            return &[];
        };
        self.capture(&bytes[..=at]);
        if bytes[at] == b'\\' {
            self.escaped = true;
        } else {
            self.in_string = false;
            if self.at_key {
                self.end_of_key();
            }
        }
        &bytes[at + 1..]
    }

    fn structure<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let byte = bytes[0];
        match byte {
            b'"' => {
                self.in_string = true;
                if self.at_key && self.key_matters() {
                    self.begin_capture();
                }
                self.capture(b"\"");
            }
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' => self.close(),
            b',' => {
                self.end_of_value();
                self.at_key = self.in_object();
            }
            b':' => {
                self.at_key = false;
                if matches!(
                    self.field,
                    Some(Field::Id | Field::Method | Field::Name | Field::RequestId)
                ) {
                    self.begin_capture();
                }
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.capture(&bytes[..1]),
        }
        &bytes[1..]
    }

    fn open(&mut self, object: bool) {
        self.capturing = false;
        if self.depth == 0 && !object {
            self.batch = true;
        }
        if let Some(field) = self.field.take() {
            self.in_params |= field == Field::Params && object;
            self.fields.set(field, if object { b"{" } else { b"[" }, true);
        }
        if let Some(kind) = self.objects.get_mut(self.depth) {
            *kind = object;
        }
        self.depth += 1;
        self.at_key = object;
    }

    fn close(&mut self) {
        self.end_of_value();
        if self.depth == self.base() && self.in_object() {
            let fields = std::mem::take(&mut self.fields);
            if let Some(message) = fields.message(true) {
                keep(&mut self.done, message);
            }
        }
        if self.depth == self.base() + 1 {
            self.in_params = false;
        }
        self.depth = self.depth.saturating_sub(1);
        self.at_key = false;
        self.complete = self.depth == 0;
    }

    fn key_matters(&self) -> bool {
        self.depth == self.base() || (self.in_params && self.depth == self.base() + 1)
    }

    fn end_of_key(&mut self) {
        self.at_key = false;
        self.field = None;
        if std::mem::take(&mut self.capturing) && !self.overflow {
            self.field = Field::of(&self.text, self.depth > self.base());
        }
        if let Some(field) = self.field {
            self.fields.begin(field);
        }
    }

    fn end_of_value(&mut self) {
        let field = self.field.take();
        if std::mem::take(&mut self.capturing)
            && let Some(field) = field
        {
            self.fields.set(field, &self.text, !self.overflow);
        }
    }

    fn begin_capture(&mut self) {
        self.text.clear();
        self.capturing = true;
        self.overflow = false;
    }

    fn capture(&mut self, bytes: &[u8]) {
        if !self.capturing || self.overflow {
            return;
        }
        let bound = match self.field {
            Some(field) if !self.at_key => field.bound(),
            _ => MAX_KEY,
        };
        if self.text.len() + bytes.len() > bound {
            self.overflow = true;
        } else {
            self.text.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn request(id: &str, method: &str, name: Option<&str>) -> Message {
        Message::Request { id: Some(id.into()), method: method.into(), name: name.map(Into::into) }
    }

    fn without_id(method: &str) -> Message {
        Message::Request { id: None, method: method.into(), name: None }
    }

    fn notification(method: &str) -> Message {
        Message::Notification { method: method.into(), request: None }
    }

    fn single(body: &str) -> Option<Message> {
        match Scanner::scan(body.as_bytes()) {
            Some(Envelope::Single(message)) => Some(message),
            Some(Envelope::Batch(_)) => panic!("{body} is no batch"),
            None => None,
        }
    }

    fn is_told(body: &str) -> bool {
        let mut scanner = Scanner::default();
        scanner.feed(body.as_bytes());
        scanner.is_told()
    }

    #[test]
    fn finds_the_envelope_in_any_order_of_keys() {
        let expected = Some(request("7", "tools/call", Some("echo")));
        for body in [
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"id":1,"method":"x","name":"y"}}}"#,
            r#"{"method":"tools/call","params":{"arguments":{"name":"y","deep":[{"name":"z"}]},"name":"echo"},"jsonrpc":"2.0","id":7}"#,
            " { \"id\" : 7 ,\n\"params\":{\"_meta\":{\"name\":\"q\"},\"name\" : \"echo\"}, \"method\":\"tools\\/call\" } ",
            r#"{"i\u0064":7,"\u006dethod":"tools/call","params":{"n\u0061me":"echo"}}"#,
        ] {
            assert_eq!(single(body), expected, "{body}");
        }
    }

    #[test]
    fn ids_are_verbatim() {
        let longest = format!("\"{}\"", "i".repeat(1022));
        for id in [
            "7",
            "\"listen-1\"",
            "\"a\\\"b\\u0041\"",
            "-1.5e3",
            "1e999",
            "123456789012345678901234567890",
            "\"\\ud800\"",
            "\"\\udfff\\ud800x\"",
            "\"\"",
            &longest,
        ] {
            let expected = Some(request(id, "ping", None));
            assert_eq!(single(&format!("{{\"method\":\"ping\",\"id\":{id}}}")), expected);
            assert_eq!(single(&format!("{{\"id\": {id} \n,\"method\":\"ping\"}}")), expected);
        }
    }

    /// It is a request, since it has an id, but no error of ours can carry it. Only `null` is as
    /// good as none: MCP forbids it, and nobody can match an answer to it.
    #[test]
    fn an_id_that_cannot_be_echoed_is_null() {
        let too_long = format!("\"{}\"", "i".repeat(1023));
        let too_large = "7".repeat(1025);
        for id in [
            "{}",
            "[1]",
            "true",
            "false",
            "x\"y",
            "\"a\"\"b\"",
            "01",
            "+1",
            "NaN",
            "\"\\x\"",
            "\"\n\"",
            "\"\\u12\"",
            "1.",
            "",
            &too_long,
            &too_large,
        ] {
            let body = format!("{{\"method\":\"ping\",\"id\":{id}}}");
            assert_eq!(single(&body), Some(without_id("ping")), "{body}");
        }
        let invalid = Scanner::scan(b"{\"id\":\"\xff\",\"method\":\"ping\"}");
        assert_eq!(invalid, Some(Envelope::Single(without_id("ping"))));
        assert_eq!(single(r#"{"method":"ping","id":null}"#), Some(notification("ping")));
    }

    #[test]
    fn a_method_that_cannot_be_shown_is_unknown() {
        let long = "m".repeat(257);
        let longer = "m".repeat(5000);
        for method in [&long, &longer, "\\ud800", "\\x"] {
            let body = format!("{{\"method\":\"{method}\",\"id\":7}}");
            assert_eq!(single(&body), Some(request("7", "unknown", None)), "{body}");
        }
        let invalid = Scanner::scan(b"{\"method\":\"\xff\",\"id\":7}");
        assert_eq!(invalid, Some(Envelope::Single(request("7", "unknown", None))));
        for no_method in ["7", "{}", "[\"m\"]", "null"] {
            assert_eq!(single(&format!("{{\"method\":{no_method},\"id\":7}}")), None);
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_value_holds() {
        for (body, expected) in [
            (r#"{"id":1,"method":"a","id":2,"method":"b"}"#, request("2", "b", None)),
            (r#"{"id":1,"method":"a","id":{}}"#, without_id("a")),
            (r#"{"id":1,"method":"a","id":null}"#, notification("a")),
            (r#"{"id":1,"params":{"name":"x"},"method":"a","params":{}}"#, request("1", "a", None)),
            (
                r#"{"id":1,"method":"a","params":{"name":{},"name":"y"}}"#,
                request("1", "a", Some("y")),
            ),
            (r#"{"id":1,"method":"a","params":{"name":"x","name":[]}}"#, request("1", "a", None)),
        ] {
            assert_eq!(single(body), Some(expected), "{body}");
        }
    }

    #[test]
    fn answers_notifications_and_batches() {
        let answer = r#"{"jsonrpc":"2.0","id":"s-1","result":{"id":3,"method":"no"}}"#;
        assert_eq!(single(answer), Some(Message::Response { id: Some("\"s-1\"".into()) }));
        let unread = r#"{"error":{"code":-32700,"message":"m"},"id":null}"#;
        assert_eq!(single(unread), Some(Message::Response { id: None }));
        assert_eq!(single(r#"{"method":"n","params":{}}"#), Some(notification("n")));
        for (body, expected) in [
            (
                r#"[{"method":"n"},{"id":1,"method":"a"},{"method":"n"},{"id":2,"method":"b","params":{"name":"t"}}]"#,
                vec![request("1", "a", None), request("2", "b", Some("t"))],
            ),
            (r#"[{"method":"n"},{"method":"o"}]"#, vec![notification("n")]),
            (
                r#"[{"id":1,"result":{}},{"method":"o"}]"#,
                vec![Message::Response { id: Some("1".into()) }],
            ),
        ] {
            let seen = Scanner::scan(body.as_bytes());
            assert_eq!(seen, Some(Envelope::Batch(expected)), "{body}");
        }
    }

    #[test]
    fn a_request_behind_many_notifications_is_found_and_requests_are_bounded() {
        let notes = r#"{"method":"n"},"#.repeat(1000);
        let found = Scanner::scan(format!(r#"[{notes}{{"id":1,"method":"a"}}]"#).as_bytes());
        assert_eq!(found, Some(Envelope::Batch(vec![request("1", "a", None)])));
        let many = r#"{"id":1,"method":"a"},"#.repeat(1000);
        let found = Scanner::scan(format!("[{many}{notes}").as_bytes());
        assert_eq!(found.unwrap().messages().len(), 256);
    }

    #[test]
    fn what_may_still_get_an_id_is_a_request() {
        for (body, told) in [
            (r#"{"method":"initialize","params":{"#, true),
            (r#"{"method":"tools/call","#, true),
            (r#"{"method":"notifications/cancelled","params":{"#, false),
            (r#"{"method":"notifications/cancelled","id":7,"#, true),
            (r#"{"method":"notifications/cancelled","id":{"#, true),
            (r#"[{"method":"tools/call","#, true),
            (r#"[{"method":"n"},{"method":"tools/call","#, true),
            (r#"[{"method":"notifications/x","#, false),
        ] {
            assert_eq!(is_told(body), told, "{body}");
            let seen = Scanner::scan(body.as_bytes()).unwrap();
            assert!(seen.first().unwrap().is_request(), "{body}: {seen:?}");
        }
        for body in ["", "{", "[", r#"{"id":7,"#, r#"[{"method":"n"},"#, r#"{"method":"tools/"#] {
            assert!(!is_told(body), "{body}");
            assert_eq!(Scanner::scan(body.as_bytes()), None, "{body}");
        }
        assert!(is_told(r#"{"method":"notifications/cancelled"}"#));
        assert!(is_told(r#"[{"method":"n"}]"#));
    }

    #[test]
    fn rubbish_is_nothing() {
        for body in
            ["", "null", "]]]}}", "\"id\"", "{{{{", "{\"id\":", "\u{0}\u{1}", "[]", "[[{}]]"]
        {
            assert_eq!(Scanner::scan(body.as_bytes()), None, "{body}");
        }
    }

    /// JSON text, nested up to 5,000 deep.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            ".{0,12}".prop_map(|value| serde_json::Value::from(value).to_string()),
        ];
        let value = leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5)
                    .prop_map(|values| format!("[{}]", values.join(","))),
                prop::collection::vec((key(), inner), 0..5).prop_map(|pairs| object(&pairs)),
            ]
        });
        (value, prop_oneof![8 => Just(0usize), 1 => 0usize..5000], any::<u64>()).prop_map(
            |(value, depth, kinds)| {
                let is_object = |level: usize| (kinds >> (level % 64)) & 1 == 1;
                let mut text = String::new();
                for level in 0..depth {
                    text.push_str(if is_object(level) { "{\"id\":" } else { "[" });
                }
                text.push_str(&value);
                for level in (0..depth).rev() {
                    text.push(if is_object(level) { '}' } else { ']' });
                }
                text
            },
        )
    }

    fn key() -> impl Strategy<Value = String> {
        "id|method|params|name|requestId|result|.{0,6}"
    }

    fn object(pairs: &[(String, String)]) -> String {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key.as_str())))
            .collect();
        format!("{{{}}}", pairs.join(","))
    }

    /// The members of a message in any order; keys may be repeated, and the id may be unusual.
    fn message() -> impl Strategy<Value = String> {
        let id = prop_oneof![
            3 => any::<i32>().prop_map(|id| id.to_string()),
            3 => ".{0,12}".prop_map(|id| serde_json::Value::from(id).to_string()),
            2 => prop::sample::select(vec!["1e999", "-0.0E+1", r#""\ud800""#, "null", "true", "{}", " 7\t"])
                .prop_map(str::to_owned),
        ];
        let method =
            prop::sample::select(vec![r#""m""#, r#""notifications/x""#, r#""\ud800""#, "1"]);
        let pairs = (
            prop::collection::vec(id, 0..3),
            prop::collection::vec(method, 0..3),
            prop::collection::vec((key(), json()), 0..3),
            prop::collection::vec(json(), 0..2),
        )
            .prop_map(|(ids, methods, others, params)| {
                let named = |key: &'static str| move |value| (key.to_owned(), value);
                let mut pairs: Vec<(String, String)> = ids.into_iter().map(named("id")).collect();
                pairs.extend(methods.into_iter().map(str::to_owned).map(named("method")));
                pairs.extend(others);
                pairs.extend(params.into_iter().map(named("params")));
                pairs
            })
            .prop_shuffle();
        pairs.prop_map(|pairs| object(&pairs))
    }

    type Members = HashMap<String, Box<RawValue>>;

    /// What `serde_json` makes of a message. Of raw values it checks the grammar, and nothing else.
    fn expected(message: &RawValue) -> Option<Message> {
        let members: Members = serde_json::from_str(message.get()).unwrap();
        let member = |key: &str| members.get(key).map(|value| value.get());
        let id = member("id").filter(|id| *id != "null");
        let text = id.filter(|id| !id.starts_with(['{', '[', 't', 'f'])).map(str::to_owned);
        let method = member("method").filter(|method| method.starts_with('"')).map(|method| {
            serde_json::from_str::<String>(method).unwrap_or_else(|_| "unknown".into())
        });
        let Some(method) = method else {
            let answers = member("result").or(member("error")).is_some();
            return answers.then_some(Message::Response { id: text });
        };
        let params: Option<Members> =
            member("params").and_then(|params| serde_json::from_str(params).ok());
        if id.is_none() {
            let request = params.as_ref().and_then(|params| params.get("requestId"));
            let request =
                request.map(|id| id.get()).filter(|id| !id.starts_with(['{', '[', 't', 'f', 'n']));
            return Some(Message::Notification { method, request: request.map(str::to_owned) });
        }
        let name = params.as_ref().and_then(|params| params.get("name"));
        let name = name.and_then(|name| serde_json::from_str(name.get()).ok());
        Some(Message::Request { id: text, method, name })
    }

    fn in_parts(text: &str, split: usize) -> Scanner {
        let mut scanner = Scanner::default();
        for part in text.as_bytes().chunks(split) {
            scanner.feed(part);
            let seen = scanner.envelope();
            let first = seen.as_ref().and_then(Envelope::first);
            let is_notification = matches!(first, Some(Message::Notification { .. }));
            assert!(!is_notification || scanner.complete, "{seen:?} of a part of {text}");
        }
        scanner
    }

    proptest! {
        /// Any message, in any split, gives what serde_json gives.
        #[test]
        fn agrees_with_serde_json(text in message(), split in 1usize..9) {
            let scanner = in_parts(&text, split);
            prop_assert!(scanner.is_complete() && scanner.is_told());
            let message = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(scanner.envelope(), expected(message).map(Envelope::Single));
        }

        #[test]
        fn agrees_with_serde_json_on_batches(messages in prop::collection::vec(message(), 0..5), split in 1usize..9) {
            let text = format!("[{}]", messages.join(" ,"));
            let scanner = in_parts(&text, split);
            prop_assert!(scanner.is_complete());
            let messages: Vec<&RawValue> = serde_json::from_str(&text).unwrap();
            let all: Vec<Message> = messages.into_iter().filter_map(expected).collect();
            let is_response = |one: &Message| matches!(one, Message::Response { .. });
            let mut kept: Vec<Message> = all.iter().filter(|one| one.is_request()).cloned().collect();
            if kept.is_empty() {
                kept.extend(all.iter().filter(|one| is_response(one)).cloned());
            }
            if kept.is_empty() {
                kept.extend(all.first().cloned());
            }
            prop_assert_eq!(scanner.envelope(), (!kept.is_empty()).then_some(Envelope::Batch(kept)));
        }

        /// However deep the params are, in front of the id or behind it.
        #[test]
        fn depth_hides_nothing(depth in 0usize..5000, first in any::<bool>(), split in 1usize..500) {
            let deep = format!("{}{}", "[{\"id\":".repeat(depth / 2), "}]".repeat(depth / 2)).replace(":}", ":0}");
            let params = format!("\"params\":{{\"a\":[{deep}],\"name\":\"n\"}}");
            let text = if first {
                format!("{{{params},\"method\":\"m\",\"id\":7}}")
            } else {
                format!("{{\"id\":7,\"method\":\"m\",{params}}}")
            };
            let scanner = in_parts(&text, split);
            prop_assert!(scanner.is_complete() && scanner.text.capacity() <= 2 * MAX_KEY);
            prop_assert_eq!(scanner.envelope(), Some(Envelope::Single(request("7", "m", Some("n")))));
        }
    }
}
