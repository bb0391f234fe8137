//! What a stream of Server-Sent Events answers: the ids of the JSON-RPC responses in it, whether a
//! client could resume it, and the endpoint that an HTTP+SSE server names.
//!
//! Never keeps an event: its data passes through the [`Scanner`] in whatever parts it comes.

use memchr::memchr2;

use super::{
    message::{Envelope, Message},
    scanner::Scanner,
};

/// Longest line start that is kept: the longest field that matters is `event: endpoint`.
const MAX_FIELD: usize = 32;
/// Longest endpoint that is kept, in bytes.
const MAX_ENDPOINT: usize = 2048;

/// What an event said that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A response to the request with this id, as JSON text.
    Answer(String),
    /// Where the client is to POST (HTTP+SSE 2024-11-05).
    Endpoint(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Its field is not known yet.
    Start,
    Data,
    Other,
}

/// Which events are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Message,
    Endpoint,
    Other,
}

/// An incremental reader of one stream.
#[derive(Debug)]
pub struct Answers {
    line: Line,
    start: Vec<u8>,
    kind: Kind,
    scanner: Scanner,
    endpoint: Vec<u8>,
    /// The event under way has data.
    has_data: bool,
    begun: bool,
    resumable: bool,
    after_cr: bool,
    first_line: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            line: Line::Start,
            start: Vec::new(),
            kind: Kind::default(),
            scanner: Scanner::default(),
            endpoint: Vec::new(),
            has_data: false,
            begun: false,
            resumable: false,
            after_cr: false,
            first_line: true,
        }
    }
}

impl Answers {
    /// Whether an event had an id, so that a client could come back for the rest
    /// (`Last-Event-ID`).
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// Whether an event with data has ended.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes the next bytes, split anywhere; tells what the events that end in them said.
    pub fn feed(&mut self, mut bytes: &[u8], mut said: impl FnMut(Said)) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.part(bytes);
                return;
            };
            self.part(&bytes[..end]);
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_of_line(&mut said);
        }
    }

    /// A part of a line.
    fn part(&mut self, mut part: &[u8]) {
        if self.line == Line::Start {
            let wanted = MAX_FIELD.saturating_sub(self.start.len()).min(part.len());
            self.start.extend_from_slice(&part[..wanted]);
            if std::mem::take(&mut self.first_line) {
                // A byte order mark may stand before the first line.
                match self.start.strip_prefix(b"\xEF\xBB\xBF") {
                    Some(rest) => self.start = rest.to_vec(),
                    None => self.first_line = b"\xEF\xBB\xBF".starts_with(&self.start),
                }
            }
            if self.start.starts_with(b"data:") {
                // What of the value came before this part was kept with the field's name.
                let kept = std::mem::take(&mut self.start);
                self.line = Line::Data;
                self.data(&kept[b"data:".len()..]);
                part = &part[wanted..];
            } else if self.start.len() == MAX_FIELD {
                self.line = Line::Other;
            }
        }
        if self.line == Line::Data {
            self.data(part);
        }
    }

    fn data(&mut self, part: &[u8]) {
        self.has_data = true;
        if self.kind == Kind::Endpoint {
            let room = MAX_ENDPOINT.saturating_sub(self.endpoint.len());
            self.endpoint.extend_from_slice(&part[..part.len().min(room)]);
        }
        // Whatever the event is called so far: of several names the last one holds.
        self.scanner.feed(part);
    }

    fn end_of_line(&mut self, said: &mut impl FnMut(Said)) {
        let start = std::mem::take(&mut self.start);
        let line = std::mem::replace(&mut self.line, Line::Start);
        self.first_line = false;
        match (line, start.as_slice()) {
            (Line::Start, b"") => self.end_of_event(said),
            (Line::Start | Line::Other, field) => self.field(field),
            // Between two lines of data stands a line feed, which is no part of JSON's tokens.
            (Line::Data, _) => self.data(b"\n"),
        }
    }

    /// A line that is no data, as far as it was kept.
    fn field(&mut self, line: &[u8]) {
        let colon = memchr::memchr(b':', line);
        let (name, value) = colon.map_or((line, &b""[..]), |at| (&line[..at], &line[at + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => {
                self.kind = match value {
                    b"" | b"message" => Kind::Message,
                    b"endpoint" => Kind::Endpoint,
                    _ => Kind::Other,
                }
            }
            b"id" => self.resumable |= !value.is_empty(),
            _ => {}
        }
    }

    fn end_of_event(&mut self, said: &mut impl FnMut(Said)) {
        self.begun |= std::mem::take(&mut self.has_data);
        match std::mem::take(&mut self.kind) {
            Kind::Message if self.scanner.has_response() => {
                let messages = self.scanner.envelope();
                for message in messages.as_ref().map_or(&[][..], Envelope::messages) {
                    if let Message::Response { id: Some(id) } = message {
                        said(Said::Answer(id.clone()));
                    }
                }
            }
            Kind::Endpoint if (1..MAX_ENDPOINT).contains(&self.endpoint.len()) => {
                if let Ok(endpoint) = std::str::from_utf8(&self.endpoint) {
                    said(Said::Endpoint(endpoint.trim().to_owned()));
                }
            }
            _ => {}
        }
        self.scanner = Scanner::default();
        self.endpoint.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Said>, bool) {
        let (mut answers, mut found) = (Answers::default(), Vec::new());
        for part in parts {
            answers.feed(part, |said| found.push(said));
        }
        (found, answers.is_resumable())
    }

    fn answer(id: &str) -> Said {
        Said::Answer(id.into())
    }

    #[test]
    fn answers_are_found_among_other_events() {
        let long = format!("data: {{\"result\":\"{}\",\"id\":9}}\n\n", "x".repeat(100_000));
        for (text, expected, resumable) in [
            ("data: {\"id\":7,\"result\":{}}\n\n", vec![answer("7")], false),
            ("id: 1\r\ndata:{\"error\":{},\"id\":\"a\"}\r\n\r\n", vec![answer("\"a\"")], true),
            ("\u{feff}data: {\"id\":7,\"result\":{}}\r\r", vec![answer("7")], false),
            (
                "event: message\ndata: {\"id\":7,\ndata: \"result\":{}}\n\n",
                vec![answer("7")],
                false,
            ),
            ("data: {\"id\":7,\"result\":{}}\n", vec![], false),
            ("event: other\ndata: {\"id\":7,\"result\":{}}\n\n", vec![], false),
            ("data: {\"id\":7,\"method\":\"ping\"}\n\n", vec![], false),
            ("data: {\"method\":\"notifications/progress\"}\n\nid: 5\ndata:\n\n", vec![], true),
            ("id:\ndata: {\"id\":null,\"error\":{}}\n\n", vec![], false),
            (": {\"id\":7,\"result\":{}}\n\n", vec![], false),
            (
                "data: [{\"id\":1,\"result\":1},{\"method\":\"n\"},{\"id\":2,\"error\":{}}]\n\n",
                vec![answer("1"), answer("2")],
                false,
            ),
            (
                "event: endpoint\ndata: /messages?id=1\n\ndata: {\"id\":0,\"result\":1}\n\n",
                vec![Said::Endpoint("/messages?id=1".into()), answer("0")],
                false,
            ),
            (long.as_str(), vec![answer("9")], false),
            // Of several names the last one holds, and it may stand behind the data.
            (
                "event: x\ndata: {\"id\":7,\"result\":1}\nevent: message\n\n",
                vec![answer("7")],
                false,
            ),
            ("data: /messages?id=1\nevent: endpoint\n\n", vec![], false),
        ] {
            assert_eq!(read([text.as_bytes()]), (expected, resumable), "{text:.80?}");
        }
    }

    #[test]
    fn nothing_grows_with_an_event() {
        let mut answers = Answers::default();
        for text in ["event: endpoint\ndata: ", "x", "\n\n", "data: {\"a\":\"", "y", "\n", "z"] {
            answers.feed(text.repeat(100_000).as_bytes(), |said| panic!("{said:?}"));
            assert!(answers.start.capacity() <= 64 && answers.endpoint.capacity() <= 4096);
        }
    }

    proptest! {
        #[test]
        fn any_split_says_the_same(
            lines in prop::collection::vec(
                prop::sample::select(vec![
                    "data: {\"id\":7,\"result\":{}}", "data: {\"id\":", "data:\"b\",\"error\":1}",
                    "id: 3", "id", "event: message", "event:endpoint", "event: x", "data: /m",
                    "", "", ": note", "retry: 5", "data",
                ]),
                0..12,
            ),
            end in prop::sample::select(vec!["\n", "\r", "\r\n"]),
            split in 1usize..9,
        ) {
            let text = [&lines.join(end), end].concat();
            let whole = read([text.as_bytes()]);
            prop_assert_eq!(read(text.as_bytes().chunks(split)), whole);
        }

        /// The reader that keeps whole events finds the same answers.
        #[test]
        fn agrees_with_the_reader_of_events(
            bodies in prop::collection::vec(
                prop::sample::select(vec![
                    "{\"id\":1,\"result\":{\"id\":5}}", "{\"id\":2,\"method\":\"m\"}",
                    "{\"error\":{},\"id\":\"x\"}", "not json", "[{\"id\":3,\"result\":0}]",
                ]),
                0..6,
            ),
            split in 1usize..40,
        ) {
            use super::super::events::Events;
            let text: String = bodies.iter().flat_map(|body| ["data: ", body, "\n\n"]).collect();
            let (mut events, mut rest, mut expected) = (Events::new(4096), text.as_bytes(), vec![]);
            while let Some(event) = events.next(&mut rest) {
                let envelope = Scanner::scan(event.data.as_bytes());
                for message in envelope.as_ref().map_or(&[][..], Envelope::messages) {
                    if let Message::Response { id: Some(id) } = message {
                        expected.push(answer(id));
                    }
                }
            }
            prop_assert_eq!(read(text.as_bytes().chunks(split)).0, expected);
        }
    }
}
