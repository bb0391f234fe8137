//! What a JSON-RPC message is, as far as it was seen: a request, a notification or a response, and
//! what an ending needs of it: the id verbatim, the method, the name of what is called.
//!
//! Never takes for a notification what may still turn out to be a request, and never decides
//! whether the JSON is valid: that is the server's business.

use std::borrow::Cow;

use serde_json::{Value, value::RawValue};

/// Longest id that is echoed, in bytes of JSON text; a longer one is answered as `null`.
const MAX_ID: usize = 1024;
/// Longest method or tool name that is kept, in bytes.
const MAX_NAME: usize = 256;
/// Most requests of a batch that are kept.
const MAX_BATCH: usize = 256;

/// Stands for a method that is too long, or not valid text.
const UNKNOWN: &str = "unknown";
/// How the methods begin that await no answer.
pub(super) const LISTEN: &str = "subscriptions/listen";
pub(super) const NOTIFICATIONS: &str = "notifications/";

/// One JSON-RPC message, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Awaits an answer, or may: its id can still come. `id` is the JSON text as it came, where it
    /// has come and can be echoed; `name` is `params.name`.
    Request {
        id: Option<String>,
        method: String,
        name: Option<String>,
    },
    /// Is whole and has no id. `request` is `params.requestId` as JSON text: what
    /// `notifications/cancelled` is about.
    Notification {
        method: String,
        request: Option<String>,
    },
    Response {
        id: Option<String>,
    },
}

impl Message {
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self, Message::Request { .. })
    }

    /// What of a batch is worth keeping: requests before responses, these before notifications.
    fn rank(&self) -> u8 {
        match self {
            Message::Request { .. } => 2,
            Message::Response { .. } => 1,
            Message::Notification { .. } => 0,
        }
    }
}

/// What a body held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope {
    Single(Message),
    /// A 2025-03-26 batch: its requests; where it has none, its responses; else its first
    /// notification.
    Batch(Vec<Message>),
}

impl Envelope {
    /// The message that names the exchange: the only one, or the first request of a batch.
    #[must_use]
    pub fn first(&self) -> Option<&Message> {
        self.messages().first()
    }

    #[must_use]
    pub fn messages(&self) -> &[Message] {
        match self {
            Envelope::Single(message) => std::slice::from_ref(message),
            Envelope::Batch(messages) => messages,
        }
    }
}

/// Adds a message to those that are kept of a batch.
pub(super) fn keep(messages: &mut Vec<Message>, message: Message) {
    let kept = messages.first().map(Message::rank);
    if kept.is_some_and(|kept| message.rank() > kept) {
        messages.clear();
    }
    let is_alike = kept == Some(message.rank()) && message.rank() > 0;
    if messages.is_empty() || (is_alike && messages.len() < MAX_BATCH) {
        messages.push(message);
    }
}

/// A key whose value tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    Method,
    Params,
    /// Of params.
    Name,
    /// Of params.
    RequestId,
    /// `result` or `error`.
    Answer,
}

impl Field {
    /// By the JSON text of the key; `in_params`: it is a key of params, and not of the message.
    pub fn of(key: &[u8], in_params: bool) -> Option<Self> {
        let key = match key {
            [b'"', plain @ .., b'"'] if !plain.contains(&b'\\') => Cow::Borrowed(plain),
            _ => Cow::Owned(unescape(key)?.into_bytes()),
        };
        match (&*key, in_params) {
            (b"id", false) => Some(Field::Id),
            (b"method", false) => Some(Field::Method),
            (b"params", false) => Some(Field::Params),
            (b"result" | b"error", false) => Some(Field::Answer),
            (b"name", true) => Some(Field::Name),
            (b"requestId", true) => Some(Field::RequestId),
            _ => None,
        }
    }

    /// Longest JSON text of its value that tells something.
    pub fn bound(self) -> usize {
        match self {
            Field::Id | Field::RequestId => MAX_ID,
            // Every byte of a name may be written as \uXXXX.
            Field::Method | Field::Name => MAX_NAME * 6 + 2,
            Field::Params | Field::Answer => 0,
        }
    }
}

#[derive(Debug, Default)]
enum Id {
    /// None has come, or `null`, which MCP forbids as a request's id.
    #[default]
    Missing,
    /// The JSON text, which is echoed as it came.
    Known(String),
    /// Too long, or neither a string nor a number: a request that is answered with `null`.
    Unusable,
}

/// The fields of the message under way. Of a key that is repeated the last value holds, as with
/// every JSON parser that servers use.
#[derive(Debug, Default)]
pub(super) struct Fields {
    id: Id,
    method: Option<String>,
    name: Option<String>,
    request: Option<String>,
    answer: bool,
}

impl Fields {
    /// The key has passed: a value that came before does not hold any more.
    pub fn begin(&mut self, field: Field) {
        match field {
            Field::Id => self.id = Id::Missing,
            Field::Method => self.method = None,
            Field::Params => (self.name, self.request) = (None, None),
            Field::Name => self.name = None,
            Field::RequestId => self.request = None,
            Field::Answer => self.answer = true,
        }
    }

    /// The value has passed. Of a container the first byte is enough, and of a text longer than
    /// the field's bound, which is not `whole`, its beginning.
    pub fn set(&mut self, field: Field, text: &[u8], whole: bool) {
        match field {
            Field::Id if text == b"null" => self.id = Id::Missing,
            Field::Id => self.id = id(text, whole).map_or(Id::Unusable, Id::Known),
            Field::RequestId => self.request = id(text, whole),
            Field::Method if text.first() == Some(&b'"') => {
                self.method = Some(name(text, whole).unwrap_or_else(|| UNKNOWN.to_owned()));
            }
            Field::Name => self.name = name(text, whole),
            Field::Method | Field::Params | Field::Answer => {}
        }
    }

    /// The message, once something tells what it is. `ended`: nothing more of it comes.
    pub fn message(&self, ended: bool) -> Option<Message> {
        let id = match &self.id {
            Id::Known(id) => Some(id.clone()),
            Id::Missing | Id::Unusable => None,
        };
        match &self.method {
            Some(method) if ended && matches!(self.id, Id::Missing) => {
                let (method, request) = (method.clone(), self.request.clone());
                Some(Message::Notification { method, request })
            }
            Some(method) => {
                Some(Message::Request { id, method: method.clone(), name: self.name.clone() })
            }
            None => self.answer.then_some(Message::Response { id }),
        }
    }

    /// Whether the method is that of a stream, unless another one follows: it would not count as a
    /// call then, which servers take it for.
    pub fn may_be_stream(&self) -> bool {
        self.method.as_deref() == Some(LISTEN)
    }

    /// Whether it is a request whatever else comes: it has an id, or a method that asks for an
    /// answer, so that the id will come.
    pub fn is_request(&self) -> bool {
        let has_id = !matches!(self.id, Id::Missing);
        self.method.as_ref().is_some_and(|method| has_id || !method.starts_with(NOTIFICATIONS))
    }
}

/// An id to compare with others, however each was written: servers give `7` back as `7.0` or as
/// `"7"`, and clients take both for theirs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdKey {
    /// The text of a string, or of a number.
    Text(Box<str>),
    /// What Rust cannot hold is the same as itself.
    Raw(Box<str>),
}

impl IdKey {
    /// Of an id as JSON text.
    #[must_use]
    pub fn of(id: &str) -> Self {
        text(id).map_or_else(|| Self::Raw(id.into()), |text| Self::Text(text.into()))
    }
}

/// The text of a string; that of a number without a point or an exponent, where it is a whole one.
fn text(id: &str) -> Option<Cow<'_, str>> {
    let string = id.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match string {
        // Almost every id is plain, and nothing has to be parsed.
        Some(text) if !text.contains('\\') => return Some(text.into()),
        None if id.bytes().all(|byte| byte.is_ascii_digit()) => return Some(id.into()),
        _ => {}
    }
    match serde_json::from_str(id).ok()? {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => match number.as_f64() {
            Some(value) if number.is_f64() => Some(value.to_string().into()),
            _ => Some(number.to_string().into()),
        },
        _ => None,
    }
}

/// Whether the text is a JSON string or number, by its grammar: also one that Rust cannot hold
/// (`1e999`, a lone surrogate), since the client can. It is echoed into our own JSON, so it must
/// be exactly one value.
fn is_id(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))
        && serde_json::from_str::<&RawValue>(text).is_ok()
}

fn id(text: &[u8], whole: bool) -> Option<String> {
    let text = std::str::from_utf8(text).ok().filter(|text| whole && is_id(text))?;
    Some(text.to_owned())
}

fn name(text: &[u8], whole: bool) -> Option<String> {
    unescape(text).filter(|name| whole && name.len() <= MAX_NAME)
}

fn unescape(text: &[u8]) -> Option<String> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_however_it_is_written() {
        for (one, other, same) in [
            ("7", "7", true),
            ("7", "7.0", true),
            ("7", "7e0", true),
            ("7", "\"7\"", true),
            ("\"a\"", "\"\\u0061\"", true),
            ("1000", "1e3", true),
            ("-7", "-7.0", true),
            ("7", "8", false),
            ("7", "\"a\"", false),
            // Where a float could not tell them apart.
            ("9007199254740993", "9007199254740992", false),
            ("1e999", "1e998", false),
            ("\"\\ud800\"", "\"\\ud801\"", false),
        ] {
            assert_eq!(IdKey::of(one) == IdKey::of(other), same, "{one} {other}");
        }
    }
}
