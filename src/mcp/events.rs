//! What a stream of Server-Sent Events says (WHATWG HTML, "Interpreting an event stream"), read
//! from any split of its bytes.
//!
//! Never keeps more of an event than its bound, and never hands out an event that did not end.

use memchr::memchr2;

/// One block of the stream. Unlike a browser's it comes also without data: a bare `retry` or `id`
/// is what a client needs to come back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Empty where the block gave none, which means `message`.
    pub name: String,
    pub data: String,
    /// What the block sets the last event id to; an empty one clears it.
    pub id: Option<String>,
    pub retry_milliseconds: Option<u64>,
    /// The event was longer than the bound, and is not whole.
    pub truncated: bool,
}

/// An incremental reader of one stream.
#[derive(Debug)]
pub struct Events {
    bound: usize,
    /// The line under way, as far as there was room for it.
    line: Vec<u8>,
    /// Its length so far, kept or not.
    length: usize,
    event: Event,
    /// Lines of data that the event has so far.
    data_lines: usize,
    /// The last byte was a CR that ended a line: an LF may belong to it.
    after_cr: bool,
    /// No line has ended yet: a byte order mark may stand before the first.
    first_line: bool,
}

impl Events {
    /// Keeps at most `bound` bytes of an event.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self {
            bound,
            line: Vec::new(),
            length: 0,
            event: Event::default(),
            data_lines: 0,
            after_cr: false,
            first_line: true,
        }
    }

    /// The next event that ends within `bytes`; what was read is taken off them. `None`: all of
    /// them are read.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Event> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                *bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.keep(bytes);
                *bytes = &[];
                break;
            };
            self.keep(&bytes[..end]);
            self.after_cr = bytes[end] == b'\r';
            *bytes = &bytes[end + 1..];
            if let Some(event) = self.end_of_line() {
                return Some(event);
            }
        }
        None
    }

    fn keep(&mut self, part: &[u8]) {
        let held = self.line.len() + self.event.data.len() + self.event.name.len();
        let room = self.bound.saturating_sub(held);
        self.event.truncated |= part.len() > room;
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        self.length = self.length.saturating_add(part.len());
    }

    /// Takes the line into the event; the event, where the line is its end.
    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let mut length = std::mem::take(&mut self.length);
        let mut text = line.as_slice();
        if std::mem::take(&mut self.first_line)
            && let Some(rest) = text.strip_prefix(b"\xEF\xBB\xBF")
        {
            text = rest;
            length -= 3;
        }
        if length > 0 {
            self.field(text);
            return None;
        }
        let event = std::mem::take(&mut self.event);
        let has_data = std::mem::take(&mut self.data_lines) > 0;
        let says_something =
            has_data || event.truncated || event.id.is_some() || event.retry_milliseconds.is_some();
        says_something.then_some(event)
    }

    fn field(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                if self.data_lines > 0 {
                    self.event.data.push('\n');
                }
                self.data_lines += 1;
                self.event.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.event.name),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.event.retry_milliseconds = value.parse().ok();
            }
            // A comment, whose name is empty, or a field of the future.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let mut events = Events::new(1 << 16);
        let mut found = Vec::new();
        for mut part in parts {
            while let Some(event) = events.next(&mut part) {
                found.push(event);
            }
        }
        found
    }

    fn data(text: &str) -> Event {
        Event { data: text.into(), ..Event::default() }
    }

    #[test]
    fn blocks() {
        let id = |id: &str, data: &str| Event {
            id: Some(id.into()),
            data: data.into(),
            ..Event::default()
        };
        let retry = Event { retry_milliseconds: Some(3000), ..Event::default() };
        for (text, expected) in [
            ("", vec![]),
            ("data: 1\n\n", vec![data("1")]),
            ("data: 1\r\n\r\n", vec![data("1")]),
            ("data: 1\r\rdata:2\r\r", vec![data("1"), data("2")]),
            ("data: 1\r\n\ndata: 2\n\r\n", vec![data("1"), data("2")]),
            // Only one space goes, and only the first colon divides.
            ("data:  a: b\n\n", vec![data(" a: b")]),
            ("data: a\ndata\ndata: b\n\n", vec![data("a\n\nb")]),
            ("data\n\n", vec![data("")]),
            ("data: 1", vec![]),
            ("data: 1\n", vec![]),
            (": keepalive\n\n", vec![]),
            ("\n\n\ndata: 1\n\n", vec![data("1")]),
            ("\u{feff}data: 1\n\n", vec![data("1")]),
            ("\u{feff}\ndata: 1\n\n", vec![data("1")]),
            // A mark further on is a letter of the field's name.
            ("data: 1\n\u{feff}data: 2\n\n", vec![data("1")]),
            ("retry: 3000\n\n", vec![retry.clone()]),
            ("retry: 3s\n\n", vec![]),
            ("retry:\n\n", vec![]),
            ("retry: 99999999999999999999999\n\n", vec![]),
            ("id: 7\ndata: 1\n\n", vec![id("7", "1")]),
            ("id: 7\ndata:\n\n", vec![id("7", "")]),
            ("id\n\n", vec![id("", "")]),
            ("id: a\0b\ndata: 1\n\n", vec![data("1")]),
            ("Data: 1\n\n", vec![]),
            ("event: message\ndata: 1\n\n", vec![Event { name: "message".into(), ..data("1") }]),
            ("event: ping\n\n", vec![]),
        ] {
            assert_eq!(read([text.as_bytes()]), expected, "{text:?}");
        }
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let mut events = Events::new(16);
        let long = [b"data: ".as_slice(), &[b'a'; 100]].concat();
        let mut first = long.as_slice();
        assert_eq!(events.next(&mut first), None);
        assert!(events.line.len() <= 16);
        // The second line is not empty, though nothing of it is kept.
        let mut rest = b"\nid: 1\n\ndata: ok\n\n".as_slice();
        let event = events.next(&mut rest).unwrap();
        assert!(event.truncated && event.data.len() <= 16, "{event:?}");
        assert_eq!(events.next(&mut rest), Some(data("ok")));
        // Many short lines are bounded as one long is.
        let many = ["data: aaaa\n".repeat(50), "\n".into()].concat();
        let event = events.next(&mut many.as_bytes()).unwrap();
        assert!(event.truncated && event.data.len() <= 16, "{event:?}");
    }

    /// The same by splitting a text that is whole.
    fn whole(text: &str) -> Vec<Event> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut found = Vec::new();
        let mut block: Vec<(&str, &str)> = Vec::new();
        // What stands behind the last line end is no line yet.
        let lines = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let lines = if text.contains('\n') { lines.split('\n').collect() } else { Vec::new() };
        for line in lines {
            if !line.is_empty() {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                block.push((name, value.strip_prefix(' ').unwrap_or(value)));
                continue;
            }
            let block = std::mem::take(&mut block);
            let all = |wanted: &str| {
                let values = block.iter().filter(|(name, _)| *name == wanted);
                values.map(|(_, value)| (*value).to_owned()).collect::<Vec<_>>()
            };
            let retry = all("retry").iter().filter_map(|text| text.parse().ok()).next_back();
            let event = Event {
                name: all("event").pop().unwrap_or_default(),
                data: all("data").join("\n"),
                id: all("id").pop(),
                retry_milliseconds: retry,
                truncated: false,
            };
            if !all("data").is_empty() || event.id.is_some() || retry.is_some() {
                found.push(event);
            }
        }
        found
    }

    proptest! {
        #[test]
        fn any_split_says_the_same(
            parts in proptest::collection::vec(
                prop_oneof![
                    "\r|\n|\r\n|\n\n|\r\n\r\n",
                    "data: ?[a-z:ü ]{0,4}",
                    "id: ?[0-9]{0,3}",
                    "retry: ?[0-9]{0,4}",
                    "event: ?[a-z]{0,3}",
                    ":[a-z ]{0,4}",
                    "\u{feff}",
                ],
                0..24,
            ),
            split in 1usize..9,
        ) {
            let text = parts.concat();
            prop_assert_eq!(read(text.as_bytes().chunks(split)), whole(&text));
        }
    }
}
