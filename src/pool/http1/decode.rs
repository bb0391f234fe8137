//! The answer to one request, from the bytes as they come: interim answers are passed over, then
//! its head, then the parts of its body.
//!
//! Never waits, and never keeps more than a head that is not whole and what was given last.

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response};
use http_body::SizeHint;
use memchr::memchr_iter;

use super::{
    Invalid,
    body::Body,
    head::{self, Parsed},
};

/// Most interim answers before the final one: a server that only promises is given up.
pub const MAX_INTERIM: usize = 100;

/// What comes next of a body.
#[derive(Debug)]
pub enum Part {
    Data(Bytes),
    /// The last of it.
    Trailers(HeaderMap),
    End,
    /// Everything that came was taken.
    More,
}

/// The answer to one request.
#[derive(Debug)]
pub struct Decoder {
    /// What came and was not taken yet.
    unread: Bytes,
    state: State,
}

#[derive(Debug)]
enum State {
    Head {
        /// The request was a HEAD.
        to_head: bool,
        interim: usize,
        /// Bytes of an unfinished head that were looked at.
        seen: usize,
        /// Bytes with which it is worth parsing, whether or not it is whole.
        parse_at: usize,
    },
    Body {
        body: Body,
        keep_alive: bool,
    },
}

impl Default for Decoder {
    /// Between two exchanges.
    fn default() -> Self {
        let state = State::Body { body: Body::Over, keep_alive: true };
        Self { unread: Bytes::new(), state }
    }
}

impl Decoder {
    /// Begins with the answer to the next request.
    pub fn begin(&mut self, to_head: bool) {
        self.state = State::Head { to_head, interim: 0, seen: 0, parse_at: 0 };
    }

    /// Takes bytes that came.
    pub fn feed(&mut self, bytes: Bytes) {
        if self.unread.is_empty() {
            self.unread = bytes;
            return;
        }
        let mut all = Vec::from(std::mem::take(&mut self.unread));
        all.extend_from_slice(&bytes);
        self.unread = all.into();
    }

    /// The head, once it is whole.
    pub fn head(&mut self) -> Result<Option<Response<()>>, Invalid> {
        let State::Head { to_head, interim, seen, parse_at } = &mut self.state else {
            return Ok(None);
        };
        while !self.unread.is_empty() {
            // A head that drips in is not parsed from its start for every drop.
            let length = self.unread.len();
            if length < *parse_at && !has_end(&self.unread[seen.saturating_sub(2)..]) {
                *seen = length;
                return Ok(None);
            }
            match head::parse(&self.unread, *to_head)? {
                Parsed::Partial => {
                    (*seen, *parse_at) = (length, 2 * length);
                    return Ok(None);
                }
                Parsed::Interim(size) => {
                    skip(&mut self.unread, size);
                    *interim += 1;
                    (*seen, *parse_at) = (0, 0);
                    if *interim > MAX_INTERIM {
                        return Err(Invalid::TooManyInterim);
                    }
                }
                Parsed::Final(head) => {
                    skip(&mut self.unread, head.size);
                    self.state = State::Body { body: head.body, keep_alive: head.keep_alive };
                    return Ok(Some(head.response));
                }
            }
        }
        Ok(None)
    }

    /// The next part of the body.
    pub fn body(&mut self) -> Result<Part, Invalid> {
        let State::Body { body, .. } = &mut self.state else { return Ok(Part::More) };
        let part = body.next(&mut self.unread);
        skip(&mut self.unread, 0);
        part
    }

    /// Takes the upstream's close: whether that is the end of the answer.
    pub fn close(&mut self) -> bool {
        if let State::Body { body, keep_alive } = &mut self.state {
            *keep_alive = false;
            if matches!(body, Body::UntilClose | Body::Over) {
                *body = Body::Over;
                return true;
            }
        }
        false
    }

    /// Whether the body has no part left to give.
    pub fn is_over(&self) -> bool {
        matches!(&self.state, State::Body { body: Body::Over, .. })
    }

    /// Whether the next exchange may follow: the answer was whole, wants no close, and nothing
    /// came behind it.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Body { body: Body::Over, keep_alive: true })
            && self.unread.is_empty()
    }

    /// Whether the body tells by itself where it ends.
    pub fn is_framed(&self) -> bool {
        !matches!(&self.state, State::Body { body: Body::UntilClose, .. })
    }

    pub fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Body { body, .. } => body.size_hint(),
            State::Head { .. } => SizeHint::new(),
        }
    }

    /// What came and is no part of the answer.
    pub fn into_unread(self) -> Bytes {
        self.unread
    }
}

/// Also lets go of the memory, once nothing is left in it: an empty part would hold it.
fn skip(unread: &mut Bytes, size: usize) {
    if size == unread.len() {
        *unread = Bytes::new();
    } else {
        unread.advance(size);
    }
}

/// Whether a head may end within the bytes: with an empty line.
fn has_end(bytes: &[u8]) -> bool {
    memchr_iter(b'\n', bytes).any(|at| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an answer comes to, fed in parts of these sizes, and then closed.
    fn read(text: &[u8], to_head: bool, sizes: &[usize]) -> Result<String, Invalid> {
        let mut decoder = Decoder::default();
        decoder.begin(to_head);
        let (mut seen, mut data) = (String::new(), Vec::new());
        let mut sizes = sizes.iter().cycle();
        let mut rest = text;
        let mut in_head = true;
        while !rest.is_empty() {
            let part = rest.len().min(*sizes.next().expect("it cycles"));
            decoder.feed(Bytes::copy_from_slice(&rest[..part]));
            rest = &rest[part..];
            if in_head {
                let Some(head) = decoder.head()? else { continue };
                in_head = false;
                seen = format!("{:?} {:?}", head.status(), head.headers());
            }
            loop {
                match decoder.body()? {
                    Part::Data(part) => data.extend_from_slice(&part),
                    Part::Trailers(fields) => seen = format!("{seen} {fields:?}"),
                    Part::End => {
                        let idle = decoder.is_idle() && rest.is_empty();
                        return Ok(format!("{seen} {data:?} over {idle}"));
                    }
                    Part::More => break,
                }
            }
        }
        Ok(format!("{seen} {data:?} {}", decoder.close()))
    }

    #[test]
    fn interim_answers_are_passed_over_and_counted() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
        for sizes in [&[1][..], &[7], &[100_000]] {
            let fine = interim.repeat(MAX_INTERIM) + last;
            let seen = read(fine.as_bytes(), false, sizes).unwrap();
            assert!(seen.starts_with("200") && seen.ends_with("[97] over true"), "{seen}");
            let flood = interim.repeat(MAX_INTERIM + 1) + last;
            assert_eq!(read(flood.as_bytes(), false, sizes), Err(Invalid::TooManyInterim));
        }
    }

    #[test]
    fn a_close_ends_only_what_says_no_end() {
        for (text, end) in [
            ("HTTP/1.1 200 OK\r\n\r\nabc", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Le", false),
            ("", false),
        ] {
            let seen = read(text.as_bytes(), false, &[5]).unwrap();
            assert!(seen.ends_with(&end.to_string()), "{text:?}: {seen}");
        }
    }

    #[test]
    fn what_follows_an_answer_makes_the_connection_unusable() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n";
        assert!(read(answer.as_bytes(), true, &[999]).unwrap().ends_with("over true"));
        let stray = format!("{answer}x");
        assert!(read(stray.as_bytes(), true, &[999]).unwrap().ends_with("over false"));
        let close = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        assert!(read(close.as_bytes(), true, &[999]).unwrap().ends_with("over false"));
    }

    /// A stream that is silent holds nothing of what it said before.
    #[test]
    fn what_was_taken_is_let_go() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut decoder = Decoder::default();
        decoder.begin(false);
        for (text, is_head) in [(head, true), ("5\r\nhello\r\n", false)] {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            decoder.feed(bytes.clone());
            if is_head {
                assert!(decoder.head().unwrap().is_some());
            } else {
                assert!(matches!(decoder.body(), Ok(Part::Data(_))));
                assert!(!bytes.is_unique(), "the line end is still there");
                assert!(matches!(decoder.body(), Ok(Part::More)));
            }
            assert!(bytes.is_unique(), "{text}");
        }
    }

    /// The work of a head that drips in grows with its size and not with its square.
    #[test]
    fn a_head_that_drips_in_is_parsed_seldom() {
        let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: bcdef\r\n".repeat(90));
        let mut decoder = Decoder::default();
        decoder.begin(false);
        let mut parsed = 0;
        for (at, byte) in head.bytes().enumerate() {
            let State::Head { parse_at, .. } = decoder.state else { panic!("over at {at}") };
            parsed += usize::from(at + 1 >= parse_at);
            decoder.feed(Bytes::copy_from_slice(&[byte]));
            assert_eq!(decoder.head().unwrap().is_some(), at + 1 == head.len());
        }
        assert!(parsed < 20, "{parsed}");
    }

    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let start = prop_oneof![
            6 => Just("HTTP/1.1 200 OK\r\n"),
            1 => Just("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
            1 => Just("HTTP/1.0 404 Not Found\r\n"),
            1 => Just("HTTP/1.1 204 No Content\r\n"),
            1 => Just("HTTP/1.1 2x0\r\n"),
        ];
        let field = prop_oneof![
            3 => "[a-z]{1,4}: ?[ -~]{0,9}\r\n",
            2 => "Content-Length: [0-9]{1,2}\r\n",
            2 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
            1 => Just("Connection: close\r\n".to_owned()),
            1 => "[ -~\t\r\n]{0,5}",
        ];
        let body = prop_oneof![
            3 => prop::collection::vec("[0-9a-f\r\nxyz]{1,12}", 0..4).prop_map(|chunks| {
                let chunk = |data: &String| format!("{:x}\r\n{data}\r\n", data.len());
                chunks.iter().map(chunk).collect::<String>() + "0\r\nsum: 1\r\n\r\n"
            }),
            2 => "[0-9a-f;\r\n]{0,40}",
        ];
        (start, prop::collection::vec(field, 0..4), body).prop_map(|(start, fields, body)| {
            format!("{start}{}\r\n{body}", fields.concat()).into()
        })
    }

    proptest! {
        /// No input panics, and the split never matters.
        #[test]
        fn any_split(text in answer(), sizes in prop::collection::vec(1usize..30, 1..5), to_head: bool) {
            // A head that will never be one is told as soon as it is looked at, or at the close.
            let comes_to = |sizes| match read(&text, to_head, sizes) {
                Ok(seen) if seen.starts_with(' ') => Err(()),
                other => other.map_err(drop),
            };
            prop_assert_eq!(comes_to(&sizes), comes_to(&[text.len()]));
        }
    }
}
