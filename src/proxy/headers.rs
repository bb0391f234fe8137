//! What a proxy has to change in the fields of a message (RFC 9110, section 7.6), and nothing
//! else: `Host`, `Origin` and paths pass byte for byte.
//!
//! Never looks at bodies, never formats a name.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version,
    header::{
        ACCEPT_ENCODING, CONNECTION, Entry, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use super::peers::PEER;
use crate::mcp::class::accepts_events;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// The fields that are for one connection only; ours between sidecars is, too: no server is a peer.
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PEER,
];

/// Makes a client's request one to the upstream. `client`: its address, where nobody has told it.
pub fn to_upstream<B>(request: &mut Request<B>, client: Option<&HeaderValue>) {
    to_peer(request, client);
    tell_origin(request.headers_mut());
}

/// The same, but for what the next sidecar tells of it as well as this one.
pub fn to_peer<B>(request: &mut Request<B>, client: Option<&HeaderValue>) {
    let trailers = strip_hop_by_hop(request.headers_mut());
    if trailers {
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
    }
    origin_form(request);
    keeps_events_plain(request.headers_mut());
    if let Some(client) = client {
        append_client(request.headers_mut(), client);
    }
    *request.version_mut() = Version::HTTP_11;
    request.extensions_mut().clear();
}

/// Makes the upstream's answer one to the client.
pub fn to_client<B>(response: &mut Response<B>) {
    strip_hop_by_hop(response.headers_mut());
    // The version that the client hears is hyper's business.
    *response.version_mut() = Version::HTTP_11;
}

pub fn announce_close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Whether the request wants to leave HTTP on this connection: `Upgrade`, and `Connection` names
/// it.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"upgrade")))
}

/// Whether the body came in a coding that would be lost on the way.
pub fn has_foreign_coding(headers: &HeaderMap) -> bool {
    let foreign =
        |value: &HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    headers.contains_key(TRANSFER_ENCODING)
        && headers.get_all(TRANSFER_ENCODING).iter().any(foreign)
}

/// Removes the fields that are for one connection only, also those that `Connection` names;
/// whether the sender takes trailers.
fn strip_hop_by_hop(headers: &mut HeaderMap) -> bool {
    // One pass over the names; most messages carry none, or `Connection` alone.
    let mut found = [false; HOP_BY_HOP.len()];
    for name in headers.keys() {
        // The length alone tells most names.
        if matches!(name.as_str().len(), 2 | 7 | 10 | 12 | 16..=19)
            && let Some(at) = HOP_BY_HOP.iter().position(|field| name == field)
        {
            found[at] = true;
        }
    }
    let [connection, te, ..] = found;
    let trailers = te
        && headers.get_all(TE).iter().flat_map(tokens).any(|t| t.eq_ignore_ascii_case(b"trailers"));
    if connection {
        remove_named(headers);
    }
    for (field, found) in HOP_BY_HOP.iter().zip(found) {
        if found {
            headers.remove(field);
        }
    }
    trailers
}

/// Removes the fields that `Connection` names.
fn remove_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter(|token| !is_common(token))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        // A client may not take away what says where a message ends or whom it is for.
        .filter(|name| *name != http::header::CONTENT_LENGTH && *name != HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// The tokens that name no field of their own, or one that is removed anyway.
fn is_common(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close")
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

/// HTTP/2 and absolute-form name the host in the target; the upstream wants it in `Host`
/// (RFC 9112, section 3.2.2).
fn origin_form<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else {
        return;
    };
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// Asks for events as they are: nobody could see an answer in compressed ones, or write into them how
/// they end.
fn keeps_events_plain(headers: &mut HeaderMap) {
    if headers.contains_key(ACCEPT_ENCODING) && accepts_events(headers) {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
}

/// Appends the client to `X-Forwarded-For`.
fn append_client(headers: &mut HeaderMap, client: &HeaderValue) {
    match headers.entry(FORWARDED_FOR) {
        Entry::Vacant(vacant) => {
            vacant.insert(client.clone());
        }
        Entry::Occupied(mut occupied) => {
            let values = occupied.iter().chain([client]).map(HeaderValue::as_bytes);
            let joined = values.collect::<Vec<_>>().join(&b", "[..]);
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                occupied.insert(joined);
            }
        }
    }
}

/// Says scheme and host where nobody before us did. A value of an outer proxy stays, since it tells
/// what the client asked for.
pub fn tell_origin(headers: &mut HeaderMap) {
    headers.entry(FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static("http"));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn forwarded_request(uri: &str, fields: &[(&'static str, &str)]) -> http::request::Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        to_upstream(&mut request, Some(&HeaderValue::from_static("192.0.2.7")));
        request.into_parts().0
    }

    #[test]
    fn what_may_be_answered_by_events_is_not_to_be_compressed() {
        let gzip = ("accept-encoding", "gzip, br");
        for (fields, expected) in [
            (vec![gzip, ("accept", "application/json, text/event-stream")], Some("identity")),
            (vec![gzip, gzip, ("accept", "text/event-stream")], Some("identity")),
            (vec![gzip, ("accept", "application/json")], Some("gzip, br")),
            (vec![("accept", "text/event-stream")], None),
        ] {
            let head = forwarded_request("/mcp", &fields);
            let all: Vec<_> = head.headers.get_all("accept-encoding").iter().collect();
            assert_eq!(all, Vec::from_iter(expected), "{fields:?}");
        }
    }

    #[test]
    fn fields_of_one_connection_do_not_pass() {
        let head = forwarded_request(
            "/mcp?a=%20b",
            &[
                ("host", "example.com:8080"),
                ("connection", "close, X-Private"),
                ("connection", "content-length, host"),
                ("x-private", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "trailers"),
                ("ebbtide-peer", "owner"),
                ("content-type", "application/json"),
                ("content-length", "3"),
                ("origin", "http://Example.com"),
                ("x-kept", "1"),
            ],
        );
        for name in ["x-private", "keep-alive", "proxy-connection", "ebbtide-peer"] {
            assert!(!head.headers.contains_key(name), "{name}");
        }
        assert_eq!(head.headers["connection"], "te");
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!(head.headers["host"], "example.com:8080");
        assert_eq!(head.headers["origin"], "http://Example.com");
        assert_eq!(head.headers["content-type"], "application/json");
        assert_eq!(head.headers["content-length"], "3");
        assert_eq!(head.headers["x-kept"], "1");
        assert_eq!(head.uri, "/mcp?a=%20b");
    }

    #[test]
    fn the_client_is_appended_and_an_outer_proxy_believed() {
        let head = forwarded_request("/", &[("host", "a")]);
        assert_eq!(head.headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(head.headers["x-forwarded-proto"], "http");
        assert_eq!(head.headers["x-forwarded-host"], "a");
        let head = forwarded_request(
            "/",
            &[
                ("x-forwarded-for", "203.0.113.1"),
                ("x-forwarded-for", "203.0.113.2"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "public.example"),
                ("host", "a"),
            ],
        );
        assert_eq!(head.headers["x-forwarded-for"], "203.0.113.1, 203.0.113.2, 192.0.2.7");
        assert_eq!(head.headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(head.headers["x-forwarded-proto"], "https");
        assert_eq!(head.headers["x-forwarded-host"], "public.example");
    }

    #[test]
    fn a_target_that_names_the_host_becomes_origin_form() {
        let head = forwarded_request("http://example.com/a?b", &[("host", "other")]);
        assert_eq!(head.uri, "/a?b");
        assert_eq!(head.headers["host"], "example.com");
        assert_eq!(forwarded_request("*", &[]).uri, "*");
    }

    #[test]
    fn upgrades_need_both_fields() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert!(!wants_upgrade(&headers));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(wants_upgrade(&headers));
    }
}
