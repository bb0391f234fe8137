//! Legacy sessions: the only place that reads or writes `Mcp-Session-Id`.
//!
//! Never lets an id out in clear, into a log or an answer that is not the client's own. Until
//! sessions can move between pods, the id passes unchanged.

use http::{HeaderMap, HeaderName};

/// The header that carries a legacy session's id (MCP 2025-03-26 to 2025-11-25).
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// The session that a request names.
#[must_use]
pub fn of(request: &HeaderMap) -> Option<Box<str>> {
    // The specification allows visible ASCII only; anything else is the server's to refuse.
    request.get(SESSION_ID)?.to_str().ok().map(Into::into)
}
