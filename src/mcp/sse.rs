//! Where an event ends in a stream of Server-Sent Events (WHATWG HTML, "Interpreting an event
//! stream"): lines end with LF, CRLF or CR, an event ends with an empty line.
//!
//! Never parses fields and never keeps data: a stream may be cut only between events, and that is
//! all that this file decides.

/// The place in the stream after the bytes that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Position {
    /// Between two events (also before the first).
    #[default]
    Boundary,
    /// At the start of a line, in an event.
    LineStart,
    /// Within a line.
    InLine,
    /// After a CR that ended a line with content: an LF may belong to it.
    AfterCr,
    /// After a CR that ended an event: an LF may belong to it.
    BoundaryCr,
}

impl Position {
    /// Whether an event of ours may be written here.
    #[must_use]
    pub fn is_boundary(self) -> bool {
        matches!(self, Position::Boundary | Position::BoundaryCr)
    }

    /// What has to be written before an event of ours. An event that cannot be finished becomes
    /// one of a type that no MCP client takes for a message.
    #[must_use]
    pub fn abandon(self) -> &'static str {
        match self {
            Position::Boundary | Position::BoundaryCr => "",
            Position::LineStart | Position::AfterCr => "event: ebbtide-cut\n\n",
            Position::InLine => "\nevent: ebbtide-cut\n\n",
        }
    }

    /// The position after one more byte.
    fn step(self, byte: u8) -> Self {
        use Position::{AfterCr, Boundary, BoundaryCr, InLine, LineStart};
        match (self, byte) {
            (AfterCr, b'\n') => LineStart,
            (BoundaryCr, b'\n') => Boundary,
            (InLine, b'\n') => LineStart,
            (InLine, b'\r') => AfterCr,
            (Boundary | BoundaryCr | LineStart | AfterCr, b'\r') => BoundaryCr,
            (Boundary | LineStart, b'\n') => Boundary,
            _ => InLine,
        }
    }

    /// Takes a chunk that passes whole. Looks at its last four bytes only: no longer sequence
    /// decides.
    pub fn pass(&mut self, chunk: &[u8]) {
        let tail = chunk.len().saturating_sub(4);
        let start = if tail > 0 { Position::InLine } else { *self };
        *self = chunk[tail..].iter().fold(start, |at, byte| at.step(*byte));
    }

    /// The length of the chunk's first part that ends the event under way, if it ends in there.
    #[must_use]
    pub fn end_of_event(self, chunk: &[u8]) -> Option<usize> {
        let mut at = self;
        for (index, byte) in chunk.iter().enumerate() {
            at = at.step(*byte);
            if at.is_boundary() {
                return Some(index + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(bytes: &[u8]) -> Position {
        bytes.iter().fold(Position::default(), |at, byte| at.step(*byte))
    }

    #[test]
    fn boundaries() {
        for (text, expected) in [
            ("", true),
            ("data: 1\n\n", true),
            ("data: 1\r\n\r\n", true),
            ("data: 1\r\r", true),
            (": keepalive\n\n", true),
            ("data: 1\n", false),
            ("data: 1", false),
            ("data: 1\r\n", false),
            ("data: 1\n\nd", false),
            ("\n", true),
        ] {
            let mut position = Position::default();
            position.pass(text.as_bytes());
            assert_eq!(position.is_boundary(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_event_that_is_abandoned_is_no_message() {
        use super::super::events::Events;
        for cut in
            ["data: {\"x", "data: 1\n", "data: 1\r\n", "data: 1\r", "event: message\ndata: 1"]
        {
            let mut position = Position::default();
            position.pass(cut.as_bytes());
            let text = format!("{cut}{}event: message\ndata: ours\n\n", position.abandon());
            let (mut events, mut rest) = (Events::new(1024), text.as_bytes());
            let mut seen = Vec::new();
            while let Some(event) = events.next(&mut rest) {
                seen.push((event.name, event.data));
            }
            assert_eq!(seen.len(), 2, "{cut:?} {seen:?}");
            assert_eq!(seen[0].0, "ebbtide-cut", "{cut:?}");
            assert_eq!(seen[1].1, "ours");
        }
    }

    #[test]
    fn the_event_under_way_ends_at_its_blank_line() {
        let mut position = Position::default();
        position.pass(b"data: {\"a\":");
        assert_eq!(position.end_of_event(b"1}\n\ndata: 2\n\n"), Some(4));
        assert_eq!(position.end_of_event(b"1}\n"), None);
    }

    proptest! {
        /// Looking at tails gives what looking at every byte gives.
        #[test]
        fn any_split(text in "[a\r\n]{0,40}", split in 1usize..12) {
            let mut position = Position::default();
            for part in text.as_bytes().chunks(split) {
                position.pass(part);
            }
            prop_assert_eq!(position.is_boundary(), slow(text.as_bytes()).is_boundary());
        }
    }
}
