//! The head of an answer: its status and fields, where its body ends, and whether the connection
//! may serve another exchange after it.
//!
//! Never changes a value; an answer that leaves open where it ends is refused.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::{Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::{Invalid, Length, body::Body};

/// Largest head of an answer.
pub const MAX_BYTES: usize = 256 * 1024;
pub const MAX_FIELDS: usize = 100;

/// The head of an answer, and what it says of the bytes behind it.
#[derive(Debug)]
pub struct Head {
    pub response: Response<()>,
    pub body: Body,
    pub keep_alive: bool,
    /// Bytes of the head itself.
    pub size: usize,
}

#[derive(Debug)]
pub enum Parsed {
    Partial,
    /// An interim answer of so many bytes (RFC 9110, section 15.2).
    Interim(usize),
    Final(Head),
}

/// What the bytes begin with. `to_head`: they answer a HEAD, and have no body.
pub fn parse(bytes: &Bytes, to_head: bool) -> Result<Parsed, Invalid> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let size = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(Status::Complete(size)) if size <= MAX_BYTES => size,
        Ok(Status::Partial) if bytes.len() <= MAX_BYTES => return Ok(Parsed::Partial),
        Ok(_) => return Err(Invalid::HeadTooLarge),
        Err(httparse::Error::TooManyHeaders) => return Err(Invalid::TooManyFields),
        Err(error) => return Err(Invalid::Head(error)),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Invalid::Head(httparse::Error::Status))?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Parsed::Interim(size));
    }
    let Fields { headers, length, chunked, close, keep_alive } = fields_of(parsed.headers, bytes)?;
    let http10 = parsed.version == Some(0);
    let body = match (chunked, length) {
        (_, Length::Invalid) => return Err(Invalid::Length),
        (true, Length::Of(_)) => return Err(Invalid::TwoFramings),
        (true, _) if http10 => return Err(Invalid::Coding),
        _ if to_head || has_no_body(status) => Body::Over,
        (true, Length::Absent) => Body::chunked(),
        (false, Length::Of(length)) => Body::sized(length),
        (false, Length::Absent) => Body::UntilClose,
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = if http10 { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = headers;
    if let Some(reason) = parsed.reason.filter(|&reason| Some(reason) != status.canonical_reason())
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let switched = status == StatusCode::SWITCHING_PROTOCOLS;
    let keep_alive = !switched && !close && (keep_alive || !http10);
    Ok(Parsed::Final(Head { response, body, keep_alive, size }))
}

/// Whatever its fields say (RFC 9112, section 6.3); after 101 it is no HTTP any more.
fn has_no_body(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    )
}

#[derive(Default)]
struct Fields {
    headers: HeaderMap,
    length: Length,
    chunked: bool,
    /// What `Connection` says.
    close: bool,
    keep_alive: bool,
}

/// The fields, as parts of the bytes that they came in, and what they say of the framing.
fn fields_of(parsed: &[Header<'_>], bytes: &Bytes) -> Result<Fields, Invalid> {
    let mut fields =
        Fields { headers: HeaderMap::with_capacity(parsed.len()), ..Fields::default() };
    for field in parsed {
        let (name, value) = name_and_value(field, bytes)?;
        if name == CONTENT_LENGTH {
            let first = fields.length == Length::Absent;
            fields.length.note(field.value);
            if !first {
                continue;
            }
        } else if name == TRANSFER_ENCODING {
            if !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Invalid::Coding);
            }
            fields.chunked = true;
        } else if name == CONNECTION {
            let has = |wanted: &[u8]| {
                let mut tokens = field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                tokens.any(|token| token.eq_ignore_ascii_case(wanted))
            };
            fields.close |= has(b"close");
            fields.keep_alive |= has(b"keep-alive");
        }
        fields.headers.append(name, value);
    }
    Ok(fields)
}

/// A field of a head or of trailers; its value is the part of `bytes` that it was read from.
pub fn name_and_value(
    field: &Header<'_>,
    bytes: &Bytes,
) -> Result<(HeaderName, HeaderValue), Invalid> {
    let name = HeaderName::from_bytes(field.name.as_bytes())
        .map_err(|_| Invalid::Head(httparse::Error::HeaderName))?;
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
        .map_err(|_| Invalid::Head(httparse::Error::HeaderValue))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Parsed, Invalid> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), false)
    }

    fn head(text: &str) -> Head {
        match parsed(&format!("{text}\r\n\r\n")) {
            Ok(Parsed::Final(head)) => head,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn the_framing_decides_where_the_body_ends() {
        for (text, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5", Body::Sized(5)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5", Body::Sized(5)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0", Body::Over),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", Body::chunked()),
            ("HTTP/1.1 200 OK", Body::UntilClose),
            ("HTTP/1.0 200 OK", Body::UntilClose),
            ("HTTP/1.1 204 No Content", Body::Over),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5", Body::Over),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5", Body::Over),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x", Body::Over),
        ] {
            assert_eq!(head(text).body, body, "{text}");
            let bytes = Bytes::from(format!("{text}\r\n\r\n"));
            let Ok(Parsed::Final(to_head)) = parse(&bytes, true) else { panic!("{text}") };
            assert_eq!(to_head.body, Body::Over, "{text}");
        }
    }

    #[test]
    fn what_leaves_open_where_it_ends_is_refused() {
        for (fields, why) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", Invalid::TwoFramings),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5", Invalid::TwoFramings),
            ("Content-Length: 5\r\nContent-Length: 6", Invalid::Length),
            ("Content-Length: -5", Invalid::Length),
            ("Content-Length: 99999999999999999999", Invalid::Length),
            ("Transfer-Encoding: gzip", Invalid::Coding),
            ("Transfer-Encoding: gzip, chunked", Invalid::Coding),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", Invalid::Coding),
            ("A: b\r\n folded", Invalid::Head(httparse::Error::HeaderName)),
            ("A b: c", Invalid::Head(httparse::Error::HeaderName)),
            ("A : c", Invalid::Head(httparse::Error::HeaderName)),
            ("A: b\0c", Invalid::Head(httparse::Error::HeaderValue)),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert_eq!(parsed(&text).map(drop), Err(why), "{text}");
            let text = format!("HTTP/1.1 204 No Content\r\n{fields}\r\n\r\n");
            assert_eq!(parsed(&text).map(drop), Err(why), "{text}");
        }
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parsed(old).map(drop), Err(Invalid::Coding));
        for text in ["this is not HTTP", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 099 No\r\n\r\n"] {
            assert!(matches!(parsed(text), Err(Invalid::Head(_))), "{text}");
        }
    }

    #[test]
    fn the_connection_is_kept_where_both_say_so() {
        for (text, kept) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.1 200 OK\r\nConnection: Close", false),
            ("HTTP/1.1 200 OK\r\nConnection: x, close\r\nConnection: keep-alive", false),
            ("HTTP/1.1 101 Switching Protocols", false),
            ("HTTP/1.0 200 OK", false),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive", true),
        ] {
            assert_eq!(head(text).keep_alive, kept, "{text}");
        }
    }

    #[test]
    fn names_and_values_pass_byte_for_byte() {
        let head = head("HTTP/1.1 299 Own Words\r\nX-A:  b \"c\"; \u{e9}\t\r\nx-a: 2\r\nEmpty:");
        let values: Vec<_> = head.response.headers().get_all("x-a").iter().collect();
        assert_eq!(values[0].as_bytes(), "b \"c\"; \u{e9}".as_bytes());
        assert_eq!((values[1].as_bytes(), values.len()), (&b"2"[..], 2));
        assert_eq!(head.response.headers()["empty"], "");
        let reason = head.response.extensions().get::<ReasonPhrase>();
        assert_eq!(reason.map(ReasonPhrase::as_bytes), Some(&b"Own Words"[..]));
        assert_eq!(head.response.status(), 299);
    }

    #[test]
    fn heads_are_bounded_and_interim_ones_told() {
        let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(matches!(parsed(&fields(MAX_FIELDS)), Ok(Parsed::Final(_))));
        assert_eq!(parsed(&fields(MAX_FIELDS + 1)).map(drop), Err(Invalid::TooManyFields));
        let long = |count| format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(count));
        assert!(matches!(parsed(&long(MAX_BYTES - 100)), Ok(Parsed::Partial)));
        assert_eq!(parsed(&long(MAX_BYTES)).map(drop), Err(Invalid::HeadTooLarge));
        assert_eq!(
            parsed(&format!("{}\r\n\r\n", long(MAX_BYTES))).map(drop),
            Err(Invalid::HeadTooLarge)
        );
        for interim in
            ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"]
        {
            let Ok(Parsed::Interim(size)) = parsed(&format!("{interim}HTTP/1.1 200")) else {
                panic!("{interim}")
            };
            assert_eq!(size, interim.len());
        }
    }
}
