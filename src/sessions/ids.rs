//! The two places where a session's id changes: on its way to the server, and on its way to the
//! client. Clients see our token, the server its own id.
//!
//! Never changes what is not ours: an id that is no token, one that comes twice, one that no token
//! can carry.

use http::{HeaderMap, HeaderValue};

use super::{SESSION_ID, token::Token};

/// What a request called its session.
#[derive(Clone, PartialEq, Eq)]
pub struct Named {
    /// As it came.
    text: HeaderValue,
    /// As the server hears it.
    id: HeaderValue,
    /// Where it is a token.
    pub token: Option<Token>,
}

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

/// Takes the token of a request apart: from here on the request carries the server's own id.
pub fn incoming(request: &mut HeaderMap) -> Option<Named> {
    let text = only(request)?.clone();
    let token = text.to_str().ok().and_then(Token::parse);
    let Some(id) = token.as_ref().and_then(|token| HeaderValue::from_str(token.id()).ok()) else {
        return Some(Named { id: text.clone(), text, token: None });
    };
    request.insert(SESSION_ID, id.clone());
    Some(Named { text, id, token })
}

/// Gives the client of an answer its own word for the session: what it `named`, where the server
/// repeats that one's id, and a new token where the server opens another.
pub fn outgoing(answer: &mut HeaderMap, named: Option<&Named>, opening: Opening<'_>) {
    let Some(id) = only(answer) else { return };
    let text = match named {
        Some(named) if named.id == id => Some(named.text.clone()),
        _ => made(id, opening),
    };
    if let Some(text) = text {
        answer.insert(SESSION_ID, text);
    }
}

/// The id, unless there are several: what those mean is the server's or the client's to say.
fn only(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut ids = headers.get_all(SESSION_ID).iter();
    ids.next().filter(|_| ids.next().is_none())
}

fn made(id: &HeaderValue, opening: Opening<'_>) -> Option<HeaderValue> {
    let version = opening.version.unwrap_or_default();
    let token = Token::new(opening.pod, id.to_str().ok()?, version, opening.params)?;
    HeaderValue::try_from(token.text()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENING: Opening =
        Opening { pod: "u-1", params: Some("{}"), version: Some("2025-06-18") };

    fn headers(ids: &[&str]) -> HeaderMap {
        let ids = ids.iter().map(|id| HeaderValue::from_bytes(id.as_bytes()).unwrap());
        ids.fold(HeaderMap::new(), |mut headers, id| {
            headers.append(SESSION_ID, id);
            headers
        })
    }

    fn ids(headers: &HeaderMap) -> Vec<&str> {
        let ids = headers.get_all(SESSION_ID).iter();
        ids.map(|id| str::from_utf8(id.as_bytes()).unwrap()).collect()
    }

    /// What the client sees of an answer with these ids.
    fn answered(named: Option<&Named>, server: &[&str]) -> HeaderMap {
        let mut answer = headers(server);
        outgoing(&mut answer, named, OPENING);
        answer
    }

    #[test]
    fn a_session_has_its_token_outside_and_its_id_inside() {
        let opened = answered(None, &["abc"]);
        let text = ids(&opened)[0];
        let token = Token::parse(text).unwrap();
        assert_eq!((token.pod(), token.id(), token.version()), ("u-1", "abc", "2025-06-18"));
        assert_eq!(token.params(), Some("{}"));
        // Its next request, and what the server says to that.
        let mut request = headers(&[text]);
        let named = incoming(&mut request).unwrap();
        assert_eq!(ids(&request), ["abc"]);
        assert!(named.token == Some(token));
        assert_eq!(ids(&answered(Some(&named), &["abc"])), [text]);
        assert!(answered(Some(&named), &[]).is_empty());
        // It opened another one instead.
        let other = answered(Some(&named), &["other"]);
        assert_eq!(Token::parse(ids(&other)[0]).unwrap().id(), "other");
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        let token = ids(&answered(None, &["abc"]))[0].to_owned();
        for id in ["abc", "e1.", "e1.abc", "\u{fc}", "a b", &token[1..], &format!("{token}A"), ""] {
            let mut request = headers(&[id]);
            let named = incoming(&mut request).unwrap();
            assert_eq!(ids(&request), [id]);
            assert!(named.token.is_none(), "{id:?}");
            // It began before us, and keeps its name.
            assert_eq!(ids(&answered(Some(&named), &[id])), [id]);
        }
        assert!(incoming(&mut HeaderMap::new()).is_none());
        for twice in [["abc", "abc"], [&*token, &*token], ["abc", &*token]] {
            let mut request = headers(&twice);
            assert!(incoming(&mut request).is_none());
            assert_eq!(ids(&request), twice);
            assert_eq!(ids(&answered(None, &twice)), twice);
        }
        // No token can carry these.
        for id in ["", "a b", "\u{fc}", &*"x".repeat(1025)] {
            assert_eq!(ids(&answered(None, &[id])), [id]);
        }
    }

    /// Behind another ebbtide each takes off what it has put on.
    #[test]
    fn a_token_in_a_token_is_taken_apart_once() {
        let inner = answered(None, &["abc"]);
        let outer = answered(None, &ids(&inner));
        let mut request = headers(&ids(&outer));
        incoming(&mut request).unwrap();
        assert_eq!(ids(&request), ids(&inner));
        incoming(&mut request).unwrap();
        assert_eq!(ids(&request), ["abc"]);
    }
}
