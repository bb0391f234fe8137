//! What has to hold of any bytes: the bodies of the fuzz targets, and of their test on stable Rust
//! (`tests/in_process/seeds.rs`). Each panics where it does not hold.

#![allow(dead_code, reason = "each target uses one of them")]

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ebbtide::{
    mcp::{
        answers::{Answers, Said},
        events::{Event, Events},
        message::{Envelope, Message},
        scanner::Scanner,
        sse::Position,
    },
    sessions::{
        keys::Keys,
        token::{MAX_PARAMS, MAX_TOKEN, Token},
    },
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Bounds of `mcp::message`.
const MAX_ID: usize = 1024;
const MAX_NAME: usize = 256;
const MAX_BATCH: usize = 256;

/// Longest input that is split at each of its bytes.
const SHORT: usize = 256;

/// A body says the same in any split, and what `serde_json` makes of it.
pub fn scanner(body: &[u8]) {
    let whole = Scanner::scan(body);
    for parts in splits(body) {
        let mut scanner = Scanner::default();
        for part in &parts {
            scanner.feed(part);
        }
        assert_eq!(scanner.envelope(), whole, "in parts of {:?}", lengths(&parts));
    }
    if let Ok(expected) = by_serde_json(body) {
        assert_eq!(whole, expected, "unlike serde_json");
    }
}

/// A stream says the same in any split and has its boundaries at the same places; and where it is
/// cut, our event is the last that its client sees.
pub fn events(stream: &[u8]) {
    let whole = read([stream]);
    let end = position([stream]);
    for parts in splits(stream) {
        assert_eq!(read(parts.iter().copied()), whole, "in parts of {:?}", lengths(&parts));
        let at = position(parts.iter().copied());
        let (is, expected) = (at.is_boundary(), end.is_boundary());
        assert_eq!(is, expected, "a boundary, in parts of {:?}", lengths(&parts));
        assert_eq!(at.abandon(), end.abandon(), "in parts of {:?}", lengths(&parts));
    }
    events_end_at_boundaries(stream);
    answers(stream);
    for end in cuts(stream) {
        cut(&stream[..end]);
    }
}

/// What is read as a token is spelled so and not otherwise, and what is made can be read: of the
/// bytes as they are, as fields with the right checksum (nobody comes up with that by chance), and
/// as lines of what a token is made of.
pub fn token(bytes: &[u8]) {
    let sum = Sha256::digest([b"e1.", bytes].concat());
    let fields = URL_SAFE_NO_PAD.encode([bytes, &sum[..4]].concat());
    read_token(&format!("e1.{fields}"));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    read_token(text);
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (pod, id, version, params) = (line(), line(), line(), line());
    if let Some(made) = Token::new(pod, id, version, Some(params)) {
        assert_eq!((made.pod(), made.id(), made.version()), (pod, id, version));
        assert!(made.params().is_none_or(|kept| kept == params && kept.len() <= MAX_PARAMS));
        for keys in all_keys() {
            assert_eq!(Token::parse(&made.text(&keys), &keys), Some(made.clone()));
        }
    }
}

/// None, and 32 times 1, with which the seeds are sealed.
fn all_keys() -> [Keys; 2] {
    let sealed = Keys::parse("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    [Keys::default(), sealed.expect("it is a key")]
}

fn read_token(text: &str) {
    for keys in all_keys() {
        if let Some(token) = Token::parse(text, &keys) {
            assert_eq!(token.text(&keys), text, "{token:?}");
            check_token(&token, text);
        }
    }
}

fn check_token(token: &Token, text: &str) {
    assert!(text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!token.id().is_empty() && token.id().bytes().all(|byte| byte.is_ascii_graphic()));
    if let Some(params) = token.params() {
        let values = format!("[{params}]");
        let values: Vec<&RawValue> = serde_json::from_str(&values).expect("params are JSON");
        assert!(values.len() == 1 && values[0].get().starts_with('{'), "{params}");
    }
}

/// The reader that keeps no event finds in any split the answers that the events hold.
fn answers(stream: &[u8]) {
    let seen = |parts: &[&[u8]]| {
        let (mut answers, mut ids) = (Answers::default(), Vec::new());
        for part in parts {
            answers.feed(part, |said| {
                if let Said::Answer(id) = said {
                    ids.push(id);
                }
            });
        }
        ids
    };
    let whole = seen(&[stream]);
    for parts in splits(stream) {
        assert_eq!(seen(&parts), whole, "in parts of {:?}", lengths(&parts));
    }
    // Of other bytes the two make different text.
    if std::str::from_utf8(stream).is_err() {
        return;
    }
    let is_message = |event: &Event| matches!(event.name.as_str(), "" | "message");
    let mut expected = Vec::new();
    for event in read([stream]).into_iter().filter(is_message) {
        let mut scanner = Scanner::default();
        scanner.feed(event.data.as_bytes());
        // What its client cannot parse is no answer.
        let envelope = scanner.is_complete().then(|| scanner.envelope()).flatten();
        for message in envelope.iter().flat_map(Envelope::messages) {
            if let Message::Response { id: Some(id) } = message {
                expected.push(id.clone());
            }
        }
    }
    assert_eq!(whole, expected, "{:?}", String::from_utf8_lossy(stream));
}

fn events_end_at_boundaries(stream: &[u8]) {
    let (mut events, mut rest) = (Events::new(usize::MAX), stream);
    while events.next(&mut rest).is_some() {
        let passed = &stream[..stream.len() - rest.len()];
        assert!(position([passed]).is_boundary(), "no event ends after {passed:?}");
    }
}

/// What came whole before the cut stays, what did not is no message, and then comes ours.
fn cut(stream: &[u8]) {
    const OURS: &str = "event: message\ndata: ours\n\n";
    let before = read([stream]);
    let abandon = position([stream]).abandon();
    let seen = read([stream, abandon.as_bytes(), OURS.as_bytes()]);
    let (kept, after) = seen.split_at(before.len());
    assert_eq!(kept, before);
    let (ours, abandoned) = after.split_last().expect("ours is seen");
    let expected = Event { name: "message".into(), data: "ours".into(), ..Event::default() };
    assert_eq!(*ours, expected, "cut after {stream:?}");
    assert!(abandoned.len() <= 1, "{abandoned:?}");
    assert!(abandoned.iter().all(|event| event.name == "ebbtide-cut"), "{abandoned:?}");
}

pub fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut events = Events::new(usize::MAX);
    let mut found = Vec::new();
    for mut part in parts {
        while let Some(event) = events.next(&mut part) {
            found.push(event);
        }
    }
    found
}

fn position<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Position {
    let mut position = Position::default();
    for part in parts {
        position.pass(part);
    }
    position
}

/// In parts of several sizes, and in two wherever that takes no long time.
fn splits(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let sizes = [1, 2, 3, 5, 8, 64].map(|size| bytes.chunks(size).collect());
    let halves = cuts(bytes).map(|at| vec![&bytes[..at], &bytes[at..]]);
    sizes.into_iter().chain(halves).collect()
}

fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let step = 1 + bytes.len() / SHORT;
    (0..=bytes.len()).step_by(step)
}

fn lengths(parts: &[&[u8]]) -> Vec<usize> {
    parts.iter().map(|part| part.len()).collect()
}

/// An error: it is not JSON, or has a key that Rust cannot hold, so that there is nothing to compare.
fn by_serde_json(body: &[u8]) -> serde_json::Result<Option<Envelope>> {
    let value: &RawValue = serde_json::from_slice(body)?;
    match value.get().as_bytes() {
        [b'{', ..] => Ok(message(value)?.map(Envelope::Single)),
        [b'[', ..] => {
            let parts: Vec<&RawValue> = serde_json::from_str(value.get())?;
            let mut all = Vec::new();
            for part in parts.into_iter().filter(|part| part.get().starts_with('{')) {
                all.extend(message(part)?);
            }
            let is_response = |one: &&Message| matches!(one, Message::Response { .. });
            let requests = all.iter().filter(|one| one.is_request()).take(MAX_BATCH);
            let mut kept: Vec<Message> = requests.cloned().collect();
            if kept.is_empty() {
                kept.extend(all.iter().filter(is_response).take(MAX_BATCH).cloned());
            }
            if kept.is_empty() {
                kept.extend(all.into_iter().next());
            }
            Ok((!kept.is_empty()).then_some(Envelope::Batch(kept)))
        }
        _ => Ok(None),
    }
}

fn message(message: &RawValue) -> serde_json::Result<Option<Message>> {
    let members = members(message)?;
    let member = |key: &str| members.get(key).map(|value| value.get());
    let id = member("id").filter(|id| *id != "null");
    let is_text = |id: &&str| !id.starts_with(['{', '[', 't', 'f']) && id.len() <= MAX_ID;
    let text = id.filter(is_text).map(str::to_owned);
    let Some(method) = member("method").filter(|method| method.starts_with('"')) else {
        let answers = member("result").or(member("error")).is_some();
        return Ok(answers.then_some(Message::Response { id: text }));
    };
    let method = short(method).unwrap_or_else(|| "unknown".into());
    let params = match members.get("params") {
        Some(params) if params.get().starts_with('{') => self::members(params)?,
        _ => HashMap::new(),
    };
    if id.is_none() {
        let request = params.get("requestId").map(|id| id.get()).filter(|id| *id != "null");
        let request = request.filter(is_text).map(str::to_owned);
        return Ok(Some(Message::Notification { method, request }));
    }
    let name = params.get("name").and_then(|name| short(name.get()));
    Ok(Some(Message::Request { id: text, method, name }))
}

fn members(object: &RawValue) -> serde_json::Result<HashMap<String, &RawValue>> {
    serde_json::from_str(object.get())
}

fn short(text: &str) -> Option<String> {
    serde_json::from_str::<String>(text).ok().filter(|text| text.len() <= MAX_NAME)
}
