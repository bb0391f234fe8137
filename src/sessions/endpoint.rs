//! Where the clients of an HTTP+SSE stream POST to. Pure.
//!
//! Never keeps a host: whatever the server names, it is reached as the stream was.

use http::Uri;

/// The path and query of an `endpoint` event: a URL, an absolute path, or one relative to the
/// stream's own (HTTP+SSE 2024-11-05).
pub fn resolve(path: &str, endpoint: &str) -> Option<String> {
    let is_whole = endpoint.starts_with('/') || endpoint.contains("://");
    let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
    let text = if is_whole { endpoint.to_owned() } else { format!("{folder}{endpoint}") };
    let target: Uri = text.parse().ok()?;
    target.path_and_query().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_resolved_against_the_path_of_its_stream() {
        for (path, endpoint, expected) in [
            ("/a/sse", "/m", Some("/m")),
            ("/a/sse", "m?x=1", Some("/a/m?x=1")),
            ("/a/sse", "http://h:1/m?x", Some("/m?x")),
            ("/sse", "a b", None),
        ] {
            assert_eq!(resolve(path, endpoint).as_deref(), expected, "{endpoint}");
        }
    }
}
