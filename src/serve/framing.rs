//! Follows the framing of a client's HTTP/1.1 bytes: where each head begins and ends, and whether
//! it may be served. hyper does the parsing; this file sees what hyper does not tell: a head that
//! never ends, and two framings in one head (RFC 9112, section 6.3), which hyper resolves silently.
//!
//! Never changes a byte and never waits. What it cannot follow it leaves to hyper.

use memchr::memchr;

/// Why a connection is refused. Each is one answer, after which it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    TwoFramings,
    TwoLengths,
    LongLength,
    HeadTooLarge,
    TooManyFields,
    HeadTimeout,
}

impl Refusal {
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Refusal::TwoFramings | Refusal::TwoLengths | Refusal::LongLength => "400 Bad Request",
            Refusal::HeadTooLarge | Refusal::TooManyFields => "431 Request Header Fields Too Large",
            Refusal::HeadTimeout => "408 Request Timeout",
        }
    }

    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Refusal::TwoFramings => {
                "the request has both Content-Length and Transfer-Encoding, so nobody can tell \
                 where it ends"
            }
            Refusal::TwoLengths => "the request has two Content-Length values that differ",
            Refusal::LongLength => {
                "the request's Content-Length is longer than any length needs to be"
            }
            Refusal::HeadTooLarge => "the request's head is larger than max_header_bytes allows",
            Refusal::TooManyFields => "the request has more header fields than max_headers allows",
            Refusal::HeadTimeout => "the request's head did not arrive within header_timeout",
        }
    }

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Refusal::TwoFramings => "two_framings",
            Refusal::TwoLengths => "two_lengths",
            Refusal::LongLength => "long_length",
            Refusal::HeadTooLarge => "head_too_large",
            Refusal::TooManyFields => "too_many_fields",
            Refusal::HeadTimeout => "head_timeout",
        }
    }
}

/// As much of a line as tells a framing field: `Transfer-Encoding: chunked` with room to spare.
const LINE: usize = 64;

#[derive(Debug)]
enum State {
    Head(Head),
    Sized(u64),
    Chunked(Chunk),
    /// Not followed any more: upgraded, or not understood.
    Opaque,
}

#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    fields: usize,
    /// The start of a line that a read broke off.
    line: Vec<u8>,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Clone, Copy)]
enum Chunk {
    /// The size so far, and whether its digits have ended.
    Size(u64, bool),
    Data(u64),
    /// CR LF after the data.
    DataEnd,
    /// A trailer line, and whether it has content.
    Trailer(bool),
}

/// The framing of one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    max_bytes: usize,
    max_fields: usize,
}

impl Framing {
    #[must_use]
    pub fn new(max_bytes: usize, max_fields: usize) -> Self {
        Self { state: State::Head(Head::default()), max_bytes, max_fields }
    }

    /// Whether a head has begun and not ended.
    #[must_use]
    pub fn in_head(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.bytes > 0)
    }

    /// HTTP has ended on the connection: nothing is followed from here on.
    pub fn ends(&mut self) {
        self.state = State::Opaque;
    }

    /// Takes the bytes that the client sent next.
    ///
    /// # Errors
    /// The connection must not be served further than what came before the refused head; where in
    /// these bytes that begins, 0 if it did before them.
    pub fn feed(&mut self, whole: &[u8]) -> Result<(), (usize, Refusal)> {
        let mut bytes = whole;
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                State::Head(head) => {
                    let (rest, next) = head
                        .feed(bytes, self.max_bytes, self.max_fields)
                        .map_err(|refusal| (whole.len() - bytes.len(), refusal))?;
                    if let Some(next) = next {
                        self.state = next;
                    }
                    rest
                }
                State::Sized(left) => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Head(Head::default());
                    }
                    &bytes[taken..]
                }
                State::Chunked(chunk) => {
                    let (rest, next) = chunk.feed(bytes);
                    if let Some(next) = next {
                        self.state = next;
                    }
                    rest
                }
                State::Opaque => &[],
            };
        }
        Ok(())
    }
}

impl Head {
    /// Takes lines up to the end of the head; what is left, and the state after it.
    fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        max_bytes: usize,
        max_fields: usize,
    ) -> Result<(&'a [u8], Option<State>), Refusal> {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let part = &rest[..end];
            rest = &rest[end + 1..];
            let blank = if self.line.is_empty() {
                self.line_ended(part)?
            } else {
                let mut line = std::mem::take(&mut self.line);
                keep(&mut line, part);
                self.line_ended(&line)?
            };
            // Empty lines before a request line are allowed, and are no head.
            if blank && self.fields == 0 {
                self.bytes = 0;
                continue;
            }
            self.bytes += end + 1;
            self.check(max_bytes, max_fields)?;
            if blank {
                return Ok((rest, Some(self.body()?)));
            }
            self.fields += 1;
        }
        self.bytes += rest.len();
        self.check(max_bytes, max_fields)?;
        keep(&mut self.line, rest);
        Ok((&[], None))
    }

    fn check(&self, max_bytes: usize, max_fields: usize) -> Result<(), Refusal> {
        if self.bytes > max_bytes {
            return Err(Refusal::HeadTooLarge);
        }
        // The request line counts as one.
        if self.fields > max_fields + 1 {
            return Err(Refusal::TooManyFields);
        }
        Ok(())
    }

    /// Notes what the line says of the framing; whether it was empty.
    fn line_ended(&mut self, line: &[u8]) -> Result<bool, Refusal> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.first() {
            None => return Ok(true),
            Some(b'c' | b'C') if self.fields > 0 => {
                if let Some(value) = field(line, b"content-length") {
                    // What a read broke off was kept as far as this.
                    if line.len() >= LINE {
                        return Err(Refusal::LongLength);
                    }
                    let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    if self.length.is_some() && self.length != length {
                        return Err(Refusal::TwoLengths);
                    }
                    // What is no number hyper refuses.
                    self.length = Some(length.unwrap_or(u64::MAX));
                }
            }
            Some(b't' | b'T') if self.fields > 0 => {
                self.chunked |= field(line, b"transfer-encoding").is_some();
            }
            _ => {}
        }
        Ok(false)
    }

    fn body(&self) -> Result<State, Refusal> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Refusal::TwoFramings),
            (None | Some(0), false) => Ok(State::Head(Head::default())),
            (Some(u64::MAX), false) => Ok(State::Opaque),
            (Some(length), false) => Ok(State::Sized(length)),
            (None, true) => Ok(State::Chunked(Chunk::Size(0, false))),
        }
    }
}

impl Chunk {
    fn feed<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], Option<State>) {
        if let Chunk::Data(left) = self {
            let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= taken as u64;
            if *left == 0 {
                *self = Chunk::DataEnd;
            }
            return (&bytes[taken..], None);
        }
        let mut end = None;
        *self = match (*self, bytes[0]) {
            (Chunk::Size(0, _), b'\n') => Chunk::Trailer(false),
            (Chunk::Size(size, _), b'\n') => Chunk::Data(size),
            (Chunk::Size(size, false), digit) => match char::from(digit).to_digit(16) {
                // A size beyond 64 bits hyper refuses.
                Some(digit) if size < u64::MAX >> 4 => {
                    Chunk::Size((size << 4) | u64::from(digit), false)
                }
                Some(_) => {
                    end = Some(State::Opaque);
                    *self
                }
                None => Chunk::Size(size, true),
            },
            (Chunk::DataEnd, b'\n') => Chunk::Size(0, false),
            (Chunk::Trailer(false), b'\n') => {
                end = Some(State::Head(Head::default()));
                *self
            }
            (Chunk::Trailer(true), b'\n') => Chunk::Trailer(false),
            (Chunk::Trailer(content), byte) => Chunk::Trailer(content || byte != b'\r'),
            (same, _) => same,
        };
        (&bytes[1..], end)
    }
}

/// The trimmed value of a header line, if it is the field of that (lower-case) name.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    // Most lines are told by this, before their letters are compared.
    let value = rest.trim_ascii_start().strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn keep(line: &mut Vec<u8>, part: &[u8]) {
    let room = LINE.saturating_sub(line.len()).min(part.len());
    line.extend_from_slice(&part[..room]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn follow(text: &str, split: usize) -> (Result<(), Refusal>, Framing) {
        let mut framing = Framing::new(8192, 10);
        for part in text.as_bytes().chunks(split) {
            if let Err((_, refusal)) = framing.feed(part) {
                return (Err(refusal), framing);
            }
        }
        (Ok(()), framing)
    }

    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\n";

    #[test]
    fn two_framings_are_refused_in_any_order_and_split() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "transfer-encoding: chunked\r\nCONTENT-LENGTH: 5\r\n\r\n",
            "Transfer-Encoding : chunked\r\nContent-Length:5\n\n",
        ] {
            for before in ["", "\r\n", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"] {
                for split in [1, 2, 3, 7, 1000] {
                    let text = format!("{before}{POST}{fields}");
                    assert_eq!(follow(&text, split).0, Err(Refusal::TwoFramings), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn a_length_that_a_read_breaks_off_is_not_taken_for_whole() {
        for blank in ["0", " "] {
            let line = format!("Content-Length: {}200\r\n\r\n", blank.repeat(48));
            for split in [1, 70, 1000] {
                assert_eq!(follow(&format!("{POST}{line}"), split).0, Err(Refusal::LongLength));
            }
        }
        // A long one that is needed.
        let longest = format!("{POST}Content-Length: {}\r\n\r\n", u64::MAX - 1);
        assert_eq!(follow(&longest, 1).0, Ok(()));
    }

    #[test]
    fn what_bodies_hold_is_not_a_head() {
        let decoy = "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let sized = format!("{POST}Content-Length: {}\r\n\r\n{decoy}", decoy.len());
        let chunked = format!(
            "{POST}Transfer-Encoding: chunked\r\n\r\n{:X};ext=1\r\n{decoy}\r\n0\r\nTrailer: x\r\n\r\n",
            decoy.len()
        );
        for split in [1, 3, 1000] {
            let text = format!("{sized}{chunked}{sized}GET / HTTP/1.1\r\n\r\n");
            let (result, framing) = follow(&text, split);
            assert_eq!(result, Ok(()));
            assert!(!framing.in_head());
            assert_eq!(
                follow(&format!("{text}{POST}{}", &decoy[2..]), split).0,
                Err(Refusal::TwoFramings)
            );
        }
    }

    #[test]
    fn where_a_refused_head_begins_is_told() {
        let two = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        for before in ["", "GET / HTTP/1.1\r\n\r\n", "P / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"]
        {
            let text = format!("{before}{POST}{two}");
            let refused = (before.len(), Refusal::TwoFramings);
            assert_eq!(Framing::new(8192, 10).feed(text.as_bytes()), Err(refused));
            let mut framing = Framing::new(8192, 10);
            let (first, rest) = text.as_bytes().split_at(before.len() + 9);
            assert_eq!(framing.feed(first), Ok(()));
            assert_eq!(framing.feed(rest), Err((0, Refusal::TwoFramings)));
        }
    }

    #[test]
    fn lengths_fields_and_bytes_are_bounded() {
        let lengths = format!("{POST}Content-Length: 5\r\ncontent-length: 6\r\n\r\n");
        assert_eq!(follow(&lengths, 9).0, Err(Refusal::TwoLengths));
        let same = format!("{POST}Content-Length: 0\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(follow(&same, 9).0, Ok(()));
        let fields = format!("{POST}{}\r\n", "a: b\r\n".repeat(10));
        assert_eq!(follow(&fields, 9).0, Err(Refusal::TooManyFields));
        let fields = format!("{POST}{}\r\n", "a: b\r\n".repeat(9));
        assert_eq!(follow(&fields, 9).0, Ok(()));
        let bytes = format!("{POST}a: {}", "b".repeat(8192));
        assert_eq!(follow(&bytes, 9).0, Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn a_head_under_way_is_known() {
        assert!(!follow("", 1).1.in_head());
        assert!(!follow("\r\n", 1).1.in_head());
        assert!(follow("G", 1).1.in_head());
        assert!(follow("GET / HTTP/1.1\r\n", 1).1.in_head());
        assert!(!follow("GET / HTTP/1.1\r\n\r\n", 1).1.in_head());
    }

    proptest! {
        /// No input panics, and the split never matters.
        #[test]
        fn any_split(text in "[GCT: ]|(content-length|transfer-encoding): ?[0-9a-f]{0,3}\r\n|[\r\n]{1,4}|[0-9a-f\r\n]{0,9}", times in 1usize..6, split in 1usize..9) {
            let text = text.repeat(times);
            prop_assert_eq!(follow(&text, split).0, follow(&text, text.len().max(1)).0);
        }
    }
}
