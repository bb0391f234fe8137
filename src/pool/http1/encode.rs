//! A request as bytes: its head, and its body in the framing that the head announces.
//!
//! Never writes two framings into one head, and never a body that differs from what was announced.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Method, Request, Uri,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use http_body::Body;

use super::{Length, head::name_and_value};

/// How the bytes of a body are told from what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are still to come.
    Sized(u64),
    Chunked,
}

pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the head; how its body has to follow.
pub fn head<B: Body>(request: &Request<B>, out: &mut Vec<u8>) -> Framing {
    let headers = request.headers();
    out.reserve(128 + 48 * headers.len());
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    target(request, out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut length = Length::default();
    for (name, value) in headers {
        if *name == CONTENT_LENGTH {
            length.note(value.as_bytes());
        } else if *name != TRANSFER_ENCODING {
            field(name, value.as_bytes(), out);
        }
    }
    let framing = framing(request, length);
    match framing {
        // A request without a body says nothing of its length, unless it did so itself.
        Framing::Sized(0) if length == Length::Absent => out.extend_from_slice(b"\r\n"),
        Framing::Sized(length) => {
            out.extend_from_slice(b"content-length: ");
            digits(length, 10, out);
            out.extend_from_slice(b"\r\n\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
    }
    framing
}

/// Gives a request the target and the fields back that [`head`] has written; `None` where these are
/// not such bytes.
pub fn read_back<B>(head: Vec<u8>, request: &mut Request<B>) -> Option<()> {
    let head = Bytes::from(head);
    let mut fields = vec![httparse::EMPTY_HEADER; head.split(|byte| *byte == b'\n').count()];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(&head).ok().filter(httparse::Status::is_complete)?;
    let target = head.slice_ref(parsed.path?.as_bytes());
    *request.uri_mut() = Uri::from_maybe_shared(target).ok()?;
    for field in parsed.headers.iter() {
        let (name, value) = name_and_value(field, &head).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(())
}

/// Opens a chunk of that size, which `\r\n` closes.
pub fn chunk(size: usize, out: &mut Vec<u8>) {
    digits(size as u64, 16, out);
    out.extend_from_slice(b"\r\n");
}

/// The last chunk, with trailers, except such as a recipient would take for something else
/// (RFC 9110, section 6.5.1).
pub fn trailers(trailers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        if may_trail(name) {
            field(name, value.as_bytes(), out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// In origin form (RFC 9112, section 3.2.1), or `*`.
fn target<B>(request: &Request<B>, out: &mut Vec<u8>) {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    if !target.starts_with(['/', '*']) {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
}

fn framing<B: Body>(request: &Request<B>, length: Length) -> Framing {
    match length {
        Length::Of(length) => Framing::Sized(length),
        _ if request.body().is_end_stream() => Framing::Sized(0),
        _ => match request.body().size_hint().exact() {
            Some(length) => Framing::Sized(length),
            // These have a body only where they say so: many a server would not expect one.
            None if matches!(*request.method(), Method::GET | Method::HEAD) => Framing::Sized(0),
            None => Framing::Chunked,
        },
    }
}

fn field(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn digits(mut number: u64, base: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        out.push(b"0123456789abcdef"[usize::try_from(number % base).unwrap_or_default()]);
        number /= base;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

fn may_trail(name: &HeaderName) -> bool {
    ![
        AUTHORIZATION,
        CACHE_CONTROL,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};

    use super::*;

    fn unknown() -> BoxBody<Bytes, std::convert::Infallible> {
        use futures_util::stream;
        use http_body::Frame;
        let frames = stream::iter([Ok(Frame::data(Bytes::from("a")))]);
        BodyExt::boxed(http_body_util::StreamBody::new(frames))
    }

    fn written<B: Body>(
        method: &str,
        uri: &str,
        fields: &[(&str, &str)],
        body: B,
    ) -> (String, Framing) {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut out = Vec::new();
        let framing = head(&request.body(body).unwrap(), &mut out);
        (String::from_utf8(out).unwrap(), framing)
    }

    #[test]
    fn a_head_is_written_byte_for_byte() {
        let fields = [("host", "A:1"), ("x-a", "b  \"c\""), ("x-a", "2"), ("x-empty", "")];
        let (text, framing) = written("POST", "/%2e//a?b=%20&c", &fields, Empty::<Bytes>::new());
        let expected = "POST /%2e//a?b=%20&c HTTP/1.1\r\nhost: A:1\r\nx-a: b  \"c\"\r\nx-a: 2\r\nx-empty: \r\n\r\n";
        assert_eq!((&*text, framing), (expected, Framing::Sized(0)));
        for (uri, target) in
            [("/", "/"), ("*", "*"), ("http://a", "/"), ("http://a/b", "/b"), ("http://a?b", "/?b")]
        {
            let (text, _) = written("OPTIONS", uri, &[], Empty::<Bytes>::new());
            assert_eq!(text, format!("OPTIONS {target} HTTP/1.1\r\n\r\n"));
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        for target in ["/%2e//a?b=%20&c", "//a:1/b?", "/é", "*"] {
            let mut request = Request::builder().uri(target).body(Empty::<Bytes>::new()).unwrap();
            for number in 0..200 {
                let value = [&b"\xff \t"[..], &[b'a'; 40]].concat();
                let name = HeaderName::from_bytes(format!("x-{}", number / 2).as_bytes()).unwrap();
                request.headers_mut().append(name, value.as_slice().try_into().unwrap());
            }
            let mut out = Vec::new();
            head(&request, &mut out);
            // What follows goes out with it.
            chunk(5, &mut out);
            let mut again = Request::new(());
            read_back(out, &mut again).unwrap();
            assert_eq!((again.uri(), again.headers()), (request.uri(), request.headers()));
        }
        assert!(read_back(b"GET / HTTP/1.1\r\nhost".to_vec(), &mut Request::new(())).is_none());
    }

    #[test]
    fn one_framing_is_announced() {
        let full = || Full::<Bytes>::from("hello").boxed();
        let none = || Empty::<Bytes>::new().boxed();
        let (given, chunked) = (("content-length", "5"), ("transfer-encoding", "chunked"));
        let line = "content-length: 5\r\n";
        for (method, fields, body, framing, announced) in [
            ("POST", vec![], none(), Framing::Sized(0), ""),
            (
                "POST",
                vec![("content-length", "0")],
                none(),
                Framing::Sized(0),
                "content-length: 0\r\n",
            ),
            ("POST", vec![], full(), Framing::Sized(5), line),
            ("GET", vec![], full(), Framing::Sized(5), line),
            ("POST", vec![given], unknown(), Framing::Sized(5), line),
            ("GET", vec![given], unknown(), Framing::Sized(5), line),
            ("POST", vec![given, given, chunked], unknown(), Framing::Sized(5), line),
            ("POST", vec![], unknown(), Framing::Chunked, "transfer-encoding: chunked\r\n"),
            ("POST", vec![chunked], unknown(), Framing::Chunked, "transfer-encoding: chunked\r\n"),
            (
                "POST",
                vec![("content-length", "x")],
                unknown(),
                Framing::Chunked,
                "transfer-encoding: chunked\r\n",
            ),
            ("GET", vec![], unknown(), Framing::Sized(0), ""),
        ] {
            let (text, seen) = written(method, "/", &fields, body);
            assert_eq!(seen, framing, "{method} {fields:?}");
            assert_eq!(text, format!("{method} / HTTP/1.1\r\n{announced}\r\n"), "{fields:?}");
        }
    }

    #[test]
    fn numbers_are_written_in_their_base() {
        for number in [0, 9, 10, 255, 65_536, u64::MAX] {
            for (base, text) in [(10, format!("{number}")), (16, format!("{number:x}"))] {
                let mut out = b"before".to_vec();
                digits(number, base, &mut out);
                assert_eq!(out, format!("before{text}").as_bytes());
            }
        }
    }

    #[test]
    fn trailers_never_change_what_a_message_is() {
        let mut fields = HeaderMap::new();
        for name in ["x-sum", "content-length", "host", "authorization", "connection"] {
            fields.insert(HeaderName::from_static(name), "1".parse().unwrap());
        }
        let mut out = Vec::new();
        trailers(&fields, &mut out);
        assert_eq!(out, b"0\r\nx-sum: 1\r\n\r\n");
    }
}
