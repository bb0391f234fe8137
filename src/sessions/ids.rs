//! The two places where a session's id changes: on its way to the server, and on its way to the
//! client. Clients see our token, the server its own id.
//!
//! Never changes what is not ours: an id that is no token, one that comes twice, one that no token
//! can carry.

use http::{HeaderMap, HeaderValue};

use super::{SESSION_ID, Session, token::Token};

/// What a session is opened with.
#[derive(Clone, Copy, Default)]
pub struct Opening<'a> {
    /// This pod's UID; nothing outside Kubernetes.
    pub pod: &'a str,
    /// The params of the client's `initialize`, as JSON text.
    pub params: Option<&'a str>,
    /// The version that the server agreed to.
    pub version: Option<&'a str>,
}

/// The server hears its own id.
pub fn to_server(request: &mut HeaderMap, session: &Session) {
    if session.is_renamed() {
        put(request, session.id());
    }
}

/// The session is called what its client calls it.
pub fn as_named(request: &mut HeaderMap, session: &Session) {
    put(request, HeaderValue::from_str(session.text()).ok());
}

/// The client of an answer hears its own word for the session.
pub fn to_client(answer: &mut HeaderMap, session: &Session) {
    if session.is_renamed() && session.id().is_some_and(|id| only(answer) == Some(&id)) {
        as_named(answer, session);
    }
}

/// The id, unless there are several: what those mean is the server's or the client's to say.
pub fn only(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut ids = headers.get_all(SESSION_ID).iter();
    ids.next().filter(|_| ids.next().is_none())
}

/// What a client calls its session. A copy: it holds no read buffer.
pub struct Named(Box<str>);

impl Named {
    /// Nothing where it names none, or several.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// The session that a request names, to outlive its head.
#[must_use]
pub fn named(request: &HeaderMap) -> Named {
    Named(only(request).and_then(|id| id.to_str().ok()).unwrap_or_default().into())
}

/// The session of a message of our own.
pub fn set(request: &mut HeaderMap, id: Option<&HeaderValue>) {
    match id {
        Some(id) => drop(request.insert(SESSION_ID, id.clone())),
        None => drop(request.remove(SESSION_ID)),
    }
}

/// The token for the id that a server gives; `None` where none can carry it.
pub fn made(id: &str, opening: Opening<'_>) -> Option<Token> {
    let version = opening.version.unwrap_or_default();
    Token::new(opening.pod, id, version, opening.params)
}

fn put(headers: &mut HeaderMap, id: Option<HeaderValue>) {
    if let Some(id) = id
        && only(headers).is_some_and(|now| *now != id)
    {
        headers.insert(SESSION_ID, id);
    }
}
