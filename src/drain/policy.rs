//! `decide(phase, exchange, session)`: the table of the phases. Pure.

use super::phase::Phase;
use crate::mcp::Class;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Forward,
    Refuse,
}

/// Whether an exchange that begins now is served. `session`: it belongs to a live legacy session,
/// so that its `initialize` is no new session but the server's business.
#[must_use]
pub fn decide(phase: Phase, class: Class, session: bool) -> Decision {
    use Decision::{Forward, Refuse};
    match (phase, class) {
        (Phase::Starting | Phase::Serving | Phase::Withdrawing, _) => Forward,
        (Phase::Cutting | Phase::Drained, _) => Refuse,
        (Phase::Draining, Class::Initialize) if session => Forward,
        (Phase::Draining, Class::Initialize) => Refuse,
        // What they would wait for does not come any more.
        (Phase::Draining, Class::Stream | Class::Listen | Class::Tunnel) => Refuse,
        (Phase::Draining, Class::Call | Class::Plain) => Forward,
        // Calls in flight may be waiting for these.
        (Phase::Draining, Class::Message | Class::SessionEnd | Class::Resume) => Forward,
    }
}

/// Whether the answer of an HTTP/1.1 exchange says `Connection: close`, so that the client's next
/// connection goes to another pod. Never for a live legacy session: behind a connection balancer
/// the next connection meets a pod that answers 404. Once sessions are over it is for everybody.
#[must_use]
pub fn announces_close(phase: Phase, session: bool) -> bool {
    phase >= if session { Phase::Cutting } else { Phase::Draining }
}

/// Whether readiness answers 200. While the pod is being deleted `ready` is false anyway, and
/// `serving` must hold for the fallback of a single replica; else nobody but the probe would tell
/// the endpoints.
#[must_use]
pub fn is_ready(phase: Phase, deleted: bool) -> bool {
    match phase {
        Phase::Serving => true,
        Phase::Withdrawing | Phase::Draining => deleted,
        Phase::Starting | Phase::Cutting | Phase::Drained => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the design, row by row.
    #[test]
    fn the_table() {
        use Class::{Call, Initialize, Listen, Message, Plain, Resume, SessionEnd, Stream, Tunnel};
        use Decision::{Forward, Refuse};
        let new_session = [(Initialize, false)];
        let finite = [(Call, false), (Plain, false)];
        let live = [(Call, true), (Message, true), (SessionEnd, true), (Resume, true)];
        let streams = [(Stream, true), (Stream, false), (Listen, false), (Tunnel, false)];
        for (phase, expected) in [
            (Phase::Starting, [Forward, Forward, Forward, Forward]),
            (Phase::Serving, [Forward, Forward, Forward, Forward]),
            (Phase::Withdrawing, [Forward, Forward, Forward, Forward]),
            (Phase::Draining, [Refuse, Forward, Forward, Refuse]),
            (Phase::Cutting, [Refuse, Refuse, Refuse, Refuse]),
            (Phase::Drained, [Refuse, Refuse, Refuse, Refuse]),
        ] {
            let columns: [&[_]; 4] = [&new_session, &finite, &live, &streams];
            for (column, expected) in columns.into_iter().zip(expected) {
                for (class, session) in column {
                    assert_eq!(decide(phase, *class, *session), expected, "{phase:?} {class:?}");
                }
            }
        }
    }

    #[test]
    fn close_is_never_announced_to_a_live_session() {
        for phase in Phase::ALL {
            assert_eq!(announces_close(phase, true), phase >= Phase::Cutting);
            assert_eq!(announces_close(phase, false), phase >= Phase::Draining);
        }
    }

    #[test]
    fn readiness_holds_only_for_a_pod_that_is_deleted() {
        for (phase, deleted, otherwise) in [
            (Phase::Starting, false, false),
            (Phase::Serving, true, true),
            (Phase::Withdrawing, true, false),
            (Phase::Draining, true, false),
            (Phase::Cutting, false, false),
            (Phase::Drained, false, false),
        ] {
            assert_eq!(is_ready(phase, true), deleted, "{phase:?}");
            assert_eq!(is_ready(phase, false), otherwise, "{phase:?}");
        }
    }
}
