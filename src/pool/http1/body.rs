//! Where an answer's body ends, and its chunks taken out of their coding (RFC 9112, sections 6
//! and 7).
//!
//! Never keeps data: what came is handed on as the part of the bytes that it came in.

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::SizeHint;
use memchr::memchr;

use super::{Invalid, decode::Part, head::name_and_value};

/// Most bytes of chunk extensions in one body: nobody reads them.
pub const MAX_EXTENSIONS: usize = 16 * 1024;
/// Most bytes of trailers.
pub const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 64;

/// What is left of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes, at least one.
    Sized(u64),
    Chunked(Chunks),
    UntilClose,
    Over,
}

/// Where in the chunked coding the next byte stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum At {
    /// A digit of the size, none of which may have come.
    Size(Option<u64>),
    /// White space behind it, which old servers write.
    Space(u64),
    Extension(u64),
    /// The line feed that ends the line of the size.
    LineEnd(u64),
    /// So much data, at least one byte.
    Data(u64),
    DataReturn,
    DataLineEnd,
    /// What came of the trailers.
    Trailers(Vec<u8>),
}

impl Body {
    pub fn sized(length: u64) -> Self {
        if length == 0 { Body::Over } else { Body::Sized(length) }
    }

    pub fn chunked() -> Self {
        Body::Chunked(Chunks { at: At::Size(None), extensions: 0 })
    }

    pub fn size_hint(&self) -> SizeHint {
        match self {
            Body::Sized(left) => SizeHint::with_exact(*left),
            Body::Over => SizeHint::with_exact(0),
            Body::Chunked(_) | Body::UntilClose => SizeHint::new(),
        }
    }

    /// Takes the next part out of the unread bytes; all of them, where it asks for more.
    pub fn next(&mut self, unread: &mut Bytes) -> Result<Part, Invalid> {
        match self {
            Body::Over => Ok(Part::End),
            _ if unread.is_empty() => Ok(Part::More),
            Body::UntilClose => Ok(Part::Data(std::mem::take(unread))),
            Body::Sized(left) => {
                let data = take(left, unread);
                if *left == 0 {
                    *self = Body::Over;
                }
                Ok(Part::Data(data))
            }
            Body::Chunked(chunks) => {
                let part = chunks.next(unread)?;
                if matches!(part, Part::End | Part::Trailers(_)) {
                    *self = Body::Over;
                }
                Ok(part)
            }
        }
    }
}

impl Chunks {
    fn next(&mut self, unread: &mut Bytes) -> Result<Part, Invalid> {
        while let Some(&byte) = unread.first() {
            match &mut self.at {
                At::Data(left) => {
                    let data = take(left, unread);
                    if *left == 0 {
                        self.at = At::DataReturn;
                    }
                    return Ok(Part::Data(data));
                }
                At::Trailers(trailers) => {
                    if trailers.is_empty() && unread.starts_with(b"\r\n") {
                        unread.advance(2);
                        return Ok(Part::End);
                    }
                    let line = memchr(b'\n', unread).map_or(unread.len(), |end| end + 1);
                    if trailers.len() + line > MAX_TRAILERS {
                        return Err(Invalid::Trailers);
                    }
                    trailers.extend_from_slice(&unread.split_to(line));
                    if trailers == b"\r\n" {
                        return Ok(Part::End);
                    }
                    if trailers.ends_with(b"\n\r\n") {
                        return parse_trailers(std::mem::take(trailers)).map(Part::Trailers);
                    }
                }
                _ => {
                    unread.advance(1);
                    self.line(byte)?;
                }
            }
        }
        Ok(Part::More)
    }

    /// Takes a byte between the data of two chunks.
    fn line(&mut self, byte: u8) -> Result<(), Invalid> {
        self.at = match (&self.at, byte) {
            (At::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                let size = size.unwrap_or(0).checked_mul(16).ok_or(Invalid::ChunkSize)?;
                At::Size(Some(size | digit))
            }
            (&(At::Size(Some(size)) | At::Space(size) | At::Extension(size)), b'\r') => {
                At::LineEnd(size)
            }
            (&(At::Size(Some(size)) | At::Space(size)), b' ' | b'\t') => {
                self.extension()?;
                At::Space(size)
            }
            (&(At::Size(Some(size)) | At::Space(size)), b';') => At::Extension(size),
            (At::Extension(size), byte) if byte != b'\n' => {
                let size = *size;
                self.extension()?;
                At::Extension(size)
            }
            (At::LineEnd(0), b'\n') => At::Trailers(Vec::new()),
            (&At::LineEnd(size), b'\n') => At::Data(size),
            (At::DataReturn, b'\r') => At::DataLineEnd,
            (At::DataLineEnd, b'\n') => At::Size(None),
            (At::DataReturn | At::DataLineEnd, _) => return Err(Invalid::ChunkEnd),
            _ => return Err(Invalid::ChunkSize),
        };
        Ok(())
    }

    fn extension(&mut self) -> Result<(), Invalid> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err(Invalid::Extensions) } else { Ok(()) }
    }
}

/// As much of `left` as came.
fn take(left: &mut u64, unread: &mut Bytes) -> Bytes {
    let size = unread.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= size as u64;
    unread.split_to(size)
}

fn parse_trailers(bytes: Vec<u8>) -> Result<HeaderMap, Invalid> {
    let bytes = Bytes::from(bytes);
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let Ok(httparse::Status::Complete((size, fields))) =
        httparse::parse_headers(&bytes, &mut fields)
    else {
        return Err(Invalid::Trailers);
    };
    if size != bytes.len() {
        return Err(Invalid::Trailers);
    }
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let (name, value) = name_and_value(field, &bytes).map_err(|_| Invalid::Trailers)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, the trailers, and what is left; the bytes come in parts of `split`.
    fn decoded(text: &str, split: usize) -> Result<(String, Vec<String>, String), Invalid> {
        let mut body = Body::chunked();
        let (mut data, mut trailers) = (Vec::new(), Vec::new());
        let mut unread = Bytes::new();
        for part in text.as_bytes().chunks(split) {
            unread = Bytes::from([&unread, part].concat());
            loop {
                match body.next(&mut unread)? {
                    Part::Data(part) => data.extend_from_slice(&part),
                    Part::Trailers(fields) => {
                        let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                            format!("{name}={}", value.to_str().unwrap())
                        };
                        trailers = fields.iter().map(field).collect();
                    }
                    Part::More | Part::End => break,
                }
            }
        }
        let whole = if body == Body::Over { "" } else { "…" };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok((text(&data) + whole, trailers, text(&unread)))
    }

    #[test]
    fn chunks_are_decoded_in_any_split() {
        for (text, data, trailers, left) in [
            ("0\r\n\r\n", "", &[][..], ""),
            ("5\r\nhello\r\n0\r\n\r\nHTTP", "hello", &[], "HTTP"),
            ("5\r\nhello\r\n006 \t\r\n world\r\n000\r\n\r\n", "hello world", &[], ""),
            ("a;x=\"y;\"\r\n0123456789\r\n0;last\r\n\r\n", "0123456789", &[], ""),
            ("9\r\n0\r\n\r\n0\r\n\r\r\n0\r\n\r\n", "0\r\n\r\n0\r\n\r", &[], ""),
            ("1\r\na\r\n0\r\nX-Sum: 1\r\nB:\r\n\r\nrest", "a", &["x-sum=1", "b="], "rest"),
            ("5\r\nhel", "hel…", &[], ""),
            ("5\r\nhello", "hello…", &[], ""),
            ("5\r\nhello\r\n", "hello…", &[], ""),
            ("5\r\nhello\r\n0\r\n", "hello…", &[], ""),
            ("1\r\na\r\n0\r\nX-Sum: 1\r\n", "a…", &[], ""),
        ] {
            for split in 1..=text.len() {
                let (seen, fields, rest) = decoded(text, split).unwrap();
                assert_eq!((&*seen, &*rest), (data, left), "{text:?} by {split}");
                assert_eq!(fields, trailers, "{text:?} by {split}");
            }
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused_in_any_split() {
        let fits = format!("1;{}\r\na\r\n", "x".repeat(MAX_EXTENSIONS));
        let long = format!("{fits}1;x\r\n");
        let trailers = format!("0\r\na: {}\r\n\r\n", "b".repeat(MAX_TRAILERS));
        let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILER_FIELDS + 1));
        assert!(decoded(&fits, 999).is_ok());
        for (text, why) in [
            ("\r\n", Invalid::ChunkSize),
            ("x\r\n", Invalid::ChunkSize),
            ("-1\r\n", Invalid::ChunkSize),
            ("0x1\r\n", Invalid::ChunkSize),
            (" 1\r\n", Invalid::ChunkSize),
            (";a\r\n", Invalid::ChunkSize),
            ("1 1\r\n", Invalid::ChunkSize),
            ("1\n", Invalid::ChunkSize),
            ("1;a\n", Invalid::ChunkSize),
            ("1\r1", Invalid::ChunkSize),
            ("10000000000000000\r\n", Invalid::ChunkSize),
            ("1\r\nab\r\n", Invalid::ChunkEnd),
            ("1\r\na\n", Invalid::ChunkEnd),
            ("1\r\na\ra", Invalid::ChunkEnd),
            ("0\r\nno field\r\n\r\n", Invalid::Trailers),
            ("0\r\n\nX: 1\r\n\r\n", Invalid::Trailers),
            (&*long, Invalid::Extensions),
            (&*trailers, Invalid::Trailers),
            (&*many, Invalid::Trailers),
        ] {
            for split in [1, 2, 3, 5, text.len()] {
                assert_eq!(decoded(text, split), Err(why), "{text:.40?} by {split}");
            }
        }
    }
}
