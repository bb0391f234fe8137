//! What is kept of a request's body: a copy while it is small, and only what the scanner captures
//! once it is not. Parsed only when somebody asks.
//!
//! Never keeps the server's read buffer alive, and never more than [`KEPT`] bytes.

use crate::mcp::{Class, initialize, message::Envelope, scanner::Scanner, told::Told};

/// Bytes that are kept before the scanner takes over. Most calls are smaller, and most of them
/// are never asked for.
const KEPT: usize = 8 * 1024;

/// A copy up to this size costs less than the scanner that would replace it.
const SMALL: usize = 512;

#[derive(Debug, Default)]
pub struct Peek {
    /// The body so far. Beside the scanner, too, while it may be an `initialize`.
    kept: Vec<u8>,
    scanner: Option<Box<Scanner>>,
    looked: bool,
}

impl Peek {
    /// Takes the next part of the body.
    pub fn note(&mut self, part: &[u8]) {
        if self.kept.len() + part.len() > KEPT {
            self.scanner();
            self.kept = Vec::new();
        } else if self.scanner.is_none() || !self.kept.is_empty() {
            self.kept.extend_from_slice(part);
        }
        if let Some(scanner) = &mut self.scanner {
            scanner.feed(part);
        }
    }

    /// The params, as JSON text, if all of the body is kept and it is an `initialize`.
    pub fn initialize(&self) -> Option<&str> {
        initialize::params(&self.kept)
    }

    /// What the body has told so far.
    pub fn envelope(&self) -> Option<Envelope> {
        match &self.scanner {
            Some(scanner) => scanner.envelope(),
            None => Scanner::scan(&self.kept),
        }
    }

    /// What the body tells, as soon as it does.
    pub fn told(&mut self) -> Option<Told> {
        // Almost always the first part tells, and nothing has to be kept of looking at it.
        if self.scanner.is_none() && !std::mem::replace(&mut self.looked, true) {
            return Told::by_start(&self.kept);
        }
        let told = Told::by_scanner(self.scanner());
        if told.as_ref().is_some_and(|told| told.class != Class::Initialize) {
            self.kept = Vec::new();
        }
        told
    }

    /// Lets go of the copy, where that spares memory: for an exchange that may last.
    pub fn shrink(&mut self) {
        if self.kept.len() > SMALL {
            self.scanner();
            self.kept = Vec::new();
        }
    }

    /// The scanner, fed with all that came.
    pub fn scanner(&mut self) -> &mut Scanner {
        self.scanner.get_or_insert_with(|| {
            let mut scanner = Box::<Scanner>::default();
            scanner.feed(&self.kept);
            scanner
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_behind_a_large_body() {
        let mut peek = Peek::default();
        peek.note(br#"{"method":"tools/call","params":{"name":"t","arguments":{"blob":""#);
        for _ in 0..1000 {
            peek.note(&[b'x'; 100]);
        }
        peek.note(br#""}},"jsonrpc":"2.0","id":42}"#);
        let text = format!("{:?}", peek.envelope());
        assert!(text.contains("42") && text.contains("tools/call"), "{text}");
        assert!(peek.kept.capacity() <= KEPT);
    }

    #[test]
    fn what_lasts_is_small_and_knows_the_same() {
        let mut peek = Peek::default();
        peek.note(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"blob":""#);
        peek.note(&[b'x'; SMALL]);
        peek.shrink();
        assert_eq!(peek.kept.capacity(), 0);
        peek.note(br#"","name":"t"}}"#);
        let text = format!("{:?}", peek.envelope());
        assert!(text.contains('7') && text.contains("\"t\""), "{text}");
    }

    #[test]
    fn an_initialize_is_kept_whole_however_it_comes() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"a":1}}"#;
        for at in 1..body.len() {
            let mut peek = Peek::default();
            peek.note(&body.as_bytes()[..at]);
            peek.told();
            peek.told();
            peek.note(&body.as_bytes()[at..]);
            assert_eq!(peek.told().unwrap().class, Class::Initialize);
            assert_eq!(peek.initialize(), Some(r#"{"a":1}"#), "{at}");
        }
        // A call is let go once it has told what it is, and so is what is too large.
        for large in ["initialize", "tools/call"] {
            let mut peek = Peek::default();
            peek.note(br#"{"jsonrpc":"2.0","#);
            assert!(peek.told().is_none());
            peek.note(format!(r#""id":1,"method":"{large}","params":{{"a":""#).as_bytes());
            assert!(peek.told().is_some());
            assert_eq!(peek.kept.is_empty(), large == "tools/call");
            peek.note(&[b'x'; KEPT]);
            assert!(peek.kept.is_empty() && peek.initialize().is_none());
            peek.note(br#""}}"#);
            assert!(peek.kept.is_empty() && peek.scanner().is_complete());
        }
    }
}
