//! What a POST is, as soon as the first bytes of its body tell.
//!
//! Never allocates where a client writes as the SDKs do, and never guesses: what it does not
//! understand at once is the [`Scanner`]'s.

use memchr::memchr2;

use super::{
    Class,
    message::{Envelope, Message, NOTIFICATIONS},
    scanner::Scanner,
};

/// What the body has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub class: Class,
    /// The id, as JSON text, of the call that the client gives up.
    pub cancels: Option<String>,
}

impl Told {
    /// What a body tells that has begun like this.
    #[must_use]
    pub fn by_start(body: &[u8]) -> Option<Self> {
        match plain_method(body).map(|method| (Class::of_request(method), method)) {
            Some((class, method))
                if class != Class::Listen && !method.starts_with(NOTIFICATIONS.as_bytes()) =>
            {
                Some(Self { class, cancels: None })
            }
            _ => Self::by_scanner(&Scanner::first_look(body)),
        }
    }

    /// What the scanner has seen tells, if nothing that follows can change it.
    #[must_use]
    pub fn by_scanner(scanner: &Scanner) -> Option<Self> {
        let envelope = scanner.is_told().then(|| scanner.envelope()).flatten()?;
        let told = Self::by_message(envelope.first()?.clone());
        // Who subscribes in a batch calls beside it, and is counted for that.
        let calls = matches!(envelope, Envelope::Batch(_)) && told.class == Class::Listen;
        Some(if calls { Self { class: Class::Call, ..told } } else { told })
    }

    fn by_message(message: Message) -> Self {
        let class = Class::Call.refine(&message);
        let cancels = match message {
            Message::Notification { method, request } if method == "notifications/cancelled" => {
                request
            }
            _ => None,
        };
        Self { class, cancels }
    }
}

/// The value of `method`, where only simple values stand before it in the object.
fn plain_method(body: &[u8]) -> Option<&[u8]> {
    let mut rest = blank(body).strip_prefix(b"{")?;
    let mut has_id = false;
    loop {
        let (key, after) = plain_string(blank(rest))?;
        let value = blank(blank(after).strip_prefix(b":")?);
        if key == b"method" {
            let (method, after) = plain_string(value)?;
            // Without an id, which may still come, only the whole of it is a notification.
            let goes_on = blank(after).first() == Some(&b',');
            return (goes_on || (has_id && blank(after).first() == Some(&b'}'))).then_some(method);
        }
        has_id |= key == b"id";
        let after = match value.first()? {
            b'"' => plain_string(value)?.1,
            b'-' | b'0'..=b'9' => {
                let end = value.iter().position(|byte| matches!(byte, b',' | b'}' | b' '))?;
                &value[end..]
            }
            _ => return None,
        };
        rest = blank(after).strip_prefix(b",")?;
    }
}

/// A string without escapes, and what follows it.
fn plain_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let end = memchr2(b'"', b'\\', text)?;
    (text[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

/// What follows the white space.
fn blank(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let end = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    &text[end..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_sdks_write_is_told_at_once() {
        for (body, method) in [
            (r#"{"method":"tools/call","params":{"#, "tools/call"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params"#, "initialize"),
            ("{ \"id\" : -1.5 ,\n\"method\":\t\"a\" }", "a"),
            (r#"{"id":"x y","method":"ping"}"#, "ping"),
        ] {
            assert_eq!(plain_method(body.as_bytes()), Some(method.as_bytes()), "{body}");
        }
        for body in [
            "",
            "[",
            "{}",
            r#"{"method":"#,
            r#"{"method":"tools/"#,
            r#"{"method":"tools/list"}"#,
            r#"{"id":1,"method":"tools/list""#,
            r#"{"method":7}"#,
            r#"{"method":"a\u0062"}"#,
            r#"{"m\u0065thod":"a"}"#,
            r#"{"params":{"method":"b"},"method":"a"}"#,
            r#"[{"method":"a"}]"#,
            r#"{"id":1"#,
            r#"{"id":nul,"method":"a"}"#,
        ] {
            assert_eq!(plain_method(body.as_bytes()), None, "{body}");
        }
    }

    /// What a server would take for a call counts as one.
    #[test]
    fn who_says_both_is_counted_as_a_call() {
        for (body, class) in [
            (r#"{"id":1,"method":"subscriptions/listen","params":{}}"#, Some(Class::Listen)),
            (r#"{"id":1,"method":"subscriptions/listen","par"#, None),
            (
                r#"{"id":1,"method":"subscriptions/listen","method":"tools/call"}"#,
                Some(Class::Call),
            ),
            (
                r#"[{"id":1,"method":"subscriptions/listen"},{"id":2,"method":"tools/call"}]"#,
                Some(Class::Call),
            ),
        ] {
            assert_eq!(Told::by_start(body.as_bytes()).map(|told| told.class), class, "{body}");
        }
    }

    proptest! {
        /// The short way tells what the scanner tells.
        #[test]
        fn the_short_way_agrees_with_the_scanner(
            keys in prop::collection::vec(
                prop::sample::select(vec![
                    r#""id":1"#, r#""id":"a,b""#, r#""jsonrpc":"2.0""#, r#""params":{"name":"n"}"#,
                    r#""method":"tools/call""#, r#""method":"initialize""#, r#""result":{}"#,
                    r#""method":"notifications/cancelled""#, r#""params":{"requestId":3}"#,
                    r#""method":"subscriptions/listen""#, r#""x":"method""#, r#""y":[1,{"method":2}]"#,
                ]),
                0..5,
            ),
            separator in prop::sample::select(vec![",", " ,", ",\n"]),
            cut in 0usize..100,
        ) {
            let body = format!("{{{}}}", keys.join(separator));
            let body = &body.as_bytes()[..cut.min(body.len())];
            let scanned = Told::by_scanner(&Scanner::first_look(body));
            prop_assert_eq!(Told::by_start(body), scanned);
        }
    }
}
