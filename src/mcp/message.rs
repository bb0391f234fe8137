//! Reads from a JSON-RPC body only what an ending needs: the id verbatim, the method, the name of
//! what is called.
//!
//! The scanner takes the body in any split, keeps no more than the captured fields, and never
//! decides whether the JSON is valid: that is the server's business.

use memchr::memchr2;

/// Longest id that is echoed, in bytes of JSON text; a longer one is answered as `null`.
const MAX_ID: usize = 1024;
/// Longest method or tool name that is kept, in bytes.
const MAX_NAME: usize = 256;
/// Longest key that is compared, in bytes of JSON text.
const MAX_KEY: usize = 64;
/// Most messages of a batch that are kept.
const MAX_BATCH: usize = 256;

/// One JSON-RPC message, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Awaits an answer. `id` is the JSON text as it came; `name` is `params.name`.
    Request {
        id: String,
        method: String,
        name: Option<String>,
    },
    Notification {
        method: String,
    },
    Response {
        id: String,
    },
}

/// What a body held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope {
    Single(Message),
    /// A 2025-03-26 batch.
    Batch(Vec<Message>),
}

impl Envelope {
    /// The message that names the exchange: the only one, or the first of a batch.
    #[must_use]
    pub fn first(&self) -> Option<&Message> {
        match self {
            Envelope::Single(message) => Some(message),
            Envelope::Batch(messages) => messages.first(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Method,
    Params,
    Name,
    Answer,
    Other,
}

#[derive(Debug, Default)]
struct Fields {
    id: Option<String>,
    method: Option<String>,
    name: Option<String>,
    answer: bool,
}

impl Fields {
    fn message(&self) -> Option<Message> {
        match (&self.method, &self.id) {
            (Some(method), Some(id)) => Some(Message::Request {
                id: id.clone(),
                method: method.clone(),
                name: self.name.clone(),
            }),
            (Some(method), None) => Some(Message::Notification { method: method.clone() }),
            (None, Some(id)) if self.answer => Some(Message::Response { id: id.clone() }),
            _ => None,
        }
    }
}

/// An incremental reader of one body.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Open containers; the lowest bit tells whether the innermost is an object.
    objects: u64,
    depth: usize,
    batch: bool,
    in_string: bool,
    escaped: bool,
    /// Whether the next string of this object is a key.
    at_key: bool,
    in_params: bool,
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
    /// The message of a body that is whole.
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

    /// The method of the message under way, as soon as it passed.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self.done.first() {
            Some(Message::Request { method, .. } | Message::Notification { method }) => {
                Some(method)
            }
            Some(Message::Response { .. }) => None,
            None => self.fields.method.as_deref(),
        }
    }

    /// What was seen so far; a message that is not yet whole counts when it can be told.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope> {
        let under_way = if self.complete { None } else { self.fields.message() };
        if self.batch {
            let mut messages = self.done.clone();
            messages.extend(under_way);
            return (!messages.is_empty()).then_some(Envelope::Batch(messages));
        }
        self.done.first().cloned().or(under_way).map(Envelope::Single)
    }

    /// Takes the next bytes of the body, split anywhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.complete {
            bytes = if self.in_string { self.string(bytes) } else { self.structure(bytes) };
        }
    }

    /// The depth at which a message's own keys stand.
    fn base(&self) -> usize {
        1 + usize::from(self.batch)
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
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
                if matches!(self.field, Some(Field::Id | Field::Method | Field::Name)) {
                    self.begin_capture();
                }
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.capture(&bytes[..1]),
        }
        &bytes[1..]
    }

    fn open(&mut self, object: bool) {
        // A wanted field whose value is a container is not what we look for.
        self.capturing = false;
        if self.depth == 0 && !object {
            self.batch = true;
        }
        if self.field == Some(Field::Params) && self.depth == self.base() && object {
            self.in_params = true;
        }
        self.field = None;
        self.depth += 1;
        self.objects = (self.objects << 1) | u64::from(object);
        self.at_key = object;
    }

    fn close(&mut self) {
        self.end_of_value();
        if self.depth == self.base() && self.in_object() {
            let fields = std::mem::take(&mut self.fields);
            if let Some(message) = fields.message()
                && self.done.len() < MAX_BATCH
            {
                self.done.push(message);
            }
        }
        if self.in_params && self.depth == self.base() + 1 {
            self.in_params = false;
        }
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
        self.at_key = false;
        self.complete = self.depth == 0;
    }

    fn key_matters(&self) -> bool {
        self.depth == self.base() || (self.in_params && self.depth == self.base() + 1)
    }

    fn end_of_key(&mut self) {
        self.at_key = false;
        if !self.capturing {
            self.field = None;
            return;
        }
        self.capturing = false;
        let key = if self.overflow { None } else { unescape(&self.text) };
        let own = self.depth == self.base();
        self.field = Some(match key.as_deref() {
            Some("id") if own => Field::Id,
            Some("method") if own => Field::Method,
            Some("params") if own => Field::Params,
            Some("result" | "error") if own => Field::Answer,
            Some("name") if !own => Field::Name,
            _ => Field::Other,
        });
        if self.field == Some(Field::Answer) {
            self.fields.answer = true;
        }
    }

    fn end_of_value(&mut self) {
        let field = self.field.take();
        if !std::mem::take(&mut self.capturing) {
            return;
        }
        match field {
            Some(Field::Id) => {
                let id = std::str::from_utf8(&self.text).ok().filter(|id| is_id(id));
                let id = if self.overflow { Some("null") } else { id };
                self.fields.id = id.map(str::to_owned);
            }
            Some(Field::Method) => self.fields.method = self.name(),
            Some(Field::Name) => self.fields.name = self.name(),
            _ => {}
        }
    }

    fn name(&self) -> Option<String> {
        if self.overflow {
            return None;
        }
        unescape(&self.text).filter(|name| name.len() <= MAX_NAME)
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
            _ if self.at_key => MAX_KEY,
            Some(Field::Id) => MAX_ID,
            // Every byte of a name may be written as \uXXXX.
            _ => MAX_NAME * 6,
        };
        if self.text.len() + bytes.len() > bound {
            self.overflow = true;
        } else {
            self.text.extend_from_slice(bytes);
        }
    }
}

/// Whether the text is a JSON string or number: what JSON-RPC allows as an id that is answered.
/// The text is echoed into our own JSON, so it must be exactly one valid value.
fn is_id(text: &str) -> bool {
    matches!(
        serde_json::from_str::<serde_json::Value>(text),
        Ok(serde_json::Value::String(_) | serde_json::Value::Number(_))
    )
}

fn unescape(text: &[u8]) -> Option<String> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(id: &str, method: &str, name: Option<&str>) -> Message {
        Message::Request { id: id.into(), method: method.into(), name: name.map(Into::into) }
    }

    #[test]
    fn finds_the_envelope_in_any_order_of_keys() {
        let expected = Some(Envelope::Single(request("7", "tools/call", Some("echo"))));
        for body in [
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"id":1,"method":"x","name":"y"}}}"#,
            r#"{"method":"tools/call","params":{"arguments":{"name":"y","deep":[{"name":"z"}]},"name":"echo"},"jsonrpc":"2.0","id":7}"#,
            " { \"id\" : 7 ,\n\"params\":{\"_meta\":{\"name\":\"q\"},\"name\" : \"echo\"}, \"method\":\"tools\\/call\" } ",
        ] {
            assert_eq!(Scanner::scan(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn ids_are_verbatim() {
        for (id, seen) in [
            ("7", "7"),
            ("\"listen-1\"", "\"listen-1\""),
            ("\"a\\\"b\\u0041\"", "\"a\\\"b\\u0041\""),
            ("-1.5e3", "-1.5e3"),
        ] {
            let body = format!("{{\"method\":\"ping\",\"id\":{id}}}");
            let expected = Some(Envelope::Single(request(seen, "ping", None)));
            assert_eq!(Scanner::scan(body.as_bytes()), expected);
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        for id in ["null", "{}", "[1]", "true", "x\"y", "1 2"] {
            let body = format!("{{\"method\":\"ping\",\"id\":{id}}}");
            let seen = Scanner::scan(body.as_bytes());
            assert!(
                !matches!(&seen, Some(Envelope::Single(Message::Request { id, .. })) if id == "null" || id.len() > 3),
                "{id}: {seen:?}"
            );
        }
    }

    #[test]
    fn answers_notifications_and_batches() {
        let answer = br#"{"jsonrpc":"2.0","id":"s-1","result":{"id":3,"method":"no"}}"#;
        assert_eq!(
            Scanner::scan(answer),
            Some(Envelope::Single(Message::Response { id: "\"s-1\"".into() }))
        );
        let batch = br#"[{"id":1,"method":"a"},{"method":"n"},{"id":2,"method":"b","params":{"name":"t"}}]"#;
        assert_eq!(
            Scanner::scan(batch),
            Some(Envelope::Batch(vec![
                request("1", "a", None),
                Message::Notification { method: "n".into() },
                request("2", "b", Some("t")),
            ]))
        );
    }

    #[test]
    fn rubbish_is_nothing() {
        for body in ["", "null", "]]]}}", "\"id\"", "{{{{", "{\"id\":", "\u{0}\u{1}"] {
            assert_eq!(Scanner::scan(body.as_bytes()), None, "{body}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::hash_map("id|method|params|name|.{0,6}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Any object, in any split, gives what serde_json gives.
        #[test]
        fn agrees_with_serde_json(mut value in json(), id in any::<i32>(), split in 1usize..9, pretty in any::<bool>()) {
            if let Some(object) = value.as_object_mut() {
                object.insert("id".into(), id.into());
                object.insert("method".into(), "m".into());
            }
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut scanner = Scanner::default();
            for part in text.as_bytes().chunks(split) {
                scanner.feed(part);
            }
            if let Some(object) = value.as_object() {
                let name = object.get("params").and_then(|p| p.get("name")).and_then(|n| n.as_str());
                let expected = request(&id.to_string(), "m", name);
                prop_assert_eq!(scanner.envelope(), Some(Envelope::Single(expected)));
                prop_assert!(scanner.is_complete());
            }
        }
    }
}
