//! One setting's text → its value. An error says what was expected, with an example.
//!
//! Never knows which setting it reads.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::{Uri, uri::Authority};

/// An upstream that speaks plain HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    authority: Authority,
    port: u16,
}

impl Upstream {
    #[must_use]
    pub fn on_loopback(port: u16) -> Self {
        Self { authority: Authority::from_static("127.0.0.1"), port }
    }

    /// The host, as a name or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is that port of this machine, by a name that says so.
    #[must_use]
    pub fn is_here(&self, port: u16) -> bool {
        let address = self.host().parse::<IpAddr>();
        let local = address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
        self.port == port && (local || self.host() == "localhost")
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}:{}", self.authority.host(), self.port)
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How the log reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Text,
}

/// How far a legacy session may go from the pod in which it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Roaming {
    /// Other pods send its requests to that pod; where it is gone, another one opens it anew.
    #[default]
    Reopen,
    /// Other pods send its requests to that pod, and it ends with it.
    Pin,
    /// Ids pass unchanged.
    Off,
}

/// How a call is refused that comes too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// HTTP 200 with a JSON-RPC error.
    JsonRpc,
    /// 503 with `Retry-After`.
    Status,
}

type Parsed<T> = Result<T, String>;

pub fn upstream(text: &str) -> Parsed<Upstream> {
    let expected = || "an HTTP URL without a path, as in http://127.0.0.1:3000".to_owned();
    let uri: Uri = text.parse().map_err(|error| format!("{}; {error}", expected()))?;
    let authority = uri.authority().cloned().ok_or_else(expected)?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(format!("{}; TLS ends before ebbtide", expected())),
        _ => return Err(expected()),
    }
    // The authority's own port() is silent about one that is out of range.
    let after_host = authority.as_str().rsplit_once(authority.host()).map_or("", |(_, rest)| rest);
    let port = match after_host.strip_prefix(':') {
        None => 80,
        Some(port) => port
            .parse()
            .map_err(|_| format!("{}; the port is not a number from 1 to 65535", expected()))?,
    };
    let bare =
        matches!(uri.path_and_query().map(http::uri::PathAndQuery::as_str), None | Some("/"));
    if !bare || authority.as_str().contains('@') || port == 0 || authority.host().is_empty() {
        return Err(expected());
    }
    Ok(Upstream { authority, port })
}

pub fn address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| "an address with a port, as in 0.0.0.0:7070 or [::]:7070".into())
}

pub fn duration(text: &str) -> Parsed<Duration> {
    let expected = || "a duration with a unit, as in 500ms, 30s, 2m or 1h".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let number: u64 = text[..digits].parse().map_err(|_| expected())?;
    let milliseconds = match &text[digits..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    // A day is longer than any drain, and keeps every sum of instants within range.
    match milliseconds {
        Some(milliseconds) if milliseconds <= 86_400_000 => Ok(Duration::from_millis(milliseconds)),
        Some(_) => Err(format!("{}, at most 24h", expected())),
        None => Err(expected()),
    }
}

pub fn positive_duration(text: &str) -> Parsed<Duration> {
    match duration(text)? {
        Duration::ZERO => Err("a duration above zero, as in 15s".into()),
        duration => Ok(duration),
    }
}

pub fn count(text: &str) -> Parsed<usize> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("a whole number, at least 1 and at most 1000000".into()),
    }
}

pub fn header_bytes(text: &str) -> Parsed<usize> {
    match text.parse() {
        // hyper keeps at least 8 KiB.
        Ok(bytes @ 8192..=1_048_576) => Ok(bytes),
        _ => Err("a number of bytes from 8192 to 1048576".into()),
    }
}

pub fn path(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() {
        return Err("the path of a file".into());
    }
    Ok(text.into())
}

pub fn roaming(text: &str) -> Parsed<Roaming> {
    match text {
        "reopen" => Ok(Roaming::Reopen),
        "pin" => Ok(Roaming::Pin),
        "off" => Ok(Roaming::Off),
        _ => Err("reopen, pin or off".into()),
    }
}

pub fn refusal(text: &str) -> Parsed<Refusal> {
    match text {
        "jsonrpc" => Ok(Refusal::JsonRpc),
        "503" => Ok(Refusal::Status),
        _ => Err("jsonrpc or 503".into()),
    }
}

pub fn level(text: &str) -> Parsed<Level> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        "trace" => Ok(Level::Trace),
        _ => Err("error, warn, info, debug or trace".into()),
    }
}

pub fn format(text: &str) -> Parsed<Format> {
    match text {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        _ => Err("json or text".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("2m", 120_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5s", "5x", "1 s", "25h", "99999999999999999999s", "٣s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn upstreams() {
        for (text, host, port) in [
            ("http://127.0.0.1:3001", "127.0.0.1", 3001),
            ("http://localhost:3001/", "localhost", 3001),
            ("http://[::1]:3001", "::1", 3001),
            ("http://server", "server", 80),
        ] {
            let upstream = upstream(text).unwrap();
            assert_eq!((upstream.host(), upstream.port()), (host, port), "{text}");
        }
        for text in [
            "",
            "x",
            "127.0.0.1:1",
            "https://a:1",
            "http://a:1/mcp",
            "http://a:0",
            "http://a:99999",
            "http://u@a:1",
            "http://:1",
            "http://a:",
        ] {
            assert!(upstream(text).is_err(), "{text}");
        }
    }
}
