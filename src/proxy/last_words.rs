//! What a client has to hear last on a stream that ends before its natural end, and what the
//! exchange counts as then.
//!
//! Never writes anything itself.

use std::collections::HashSet;

use crate::{
    inflight::{Ending, Ticket},
    mcp::{
        Class,
        error::{self, Code},
        message::{Envelope, IdKey, Message},
    },
    sessions::Session,
    telemetry::metrics::Outcome,
};

pub fn outcome(ending: Ending, class: Class) -> Outcome {
    match ending {
        Ending::Stream => Outcome::Ended,
        Ending::Cut if class.is_stream() => Outcome::Ended,
        Ending::Cut => Outcome::Cut,
        Ending::UpstreamLost => Outcome::UpstreamLost,
        Ending::TimedOut => Outcome::TimedOut,
    }
}

/// What a client has to hear last: the result of a subscription that the drain ends, the error of
/// a call, or when to come back. `answered`: the ids of its calls that need no error.
pub fn last_event(ending: Ending, ticket: &Ticket, answered: &HashSet<IdKey>) -> String {
    let class = ticket.class();
    let envelope = ticket.envelope();
    if let (
        Class::Listen,
        Ending::Stream | Ending::Cut,
        Some(Envelope::Single(Message::Request { id: Some(id), .. })),
    ) = (class, ending, &envelope)
    {
        let is_told = answered.contains(&IdKey::of(id));
        return if is_told { String::new() } else { error::listen_result(id) };
    }
    let (code, text) = match ending {
        Ending::Stream | Ending::Cut => (
            Code::Draining,
            "ebbtide: this pod went away before the call ended; it may have done some of the work",
        ),
        Ending::UpstreamLost | Ending::TimedOut => {
            (Code::UpstreamLost, "ebbtide: the server broke off in the middle of its answer")
        }
    };
    if class.is_json_rpc() {
        let is_answered = |id: &str| !answered.is_empty() && answered.contains(&IdKey::of(id));
        return error::events(code, text, envelope.as_ref(), is_answered);
    }
    // Whoever listens here may await answers that do not come any more.
    format!("{}{}", answer_pending(code, text, ticket), retry(ticket))
}

/// The events that answer the pending calls of the exchange's session, and those of which their
/// client has not heard yet that their server is gone.
pub fn answer_pending(code: Code, text: &str, ticket: &Ticket) -> String {
    let Some(session) = ticket.session() else { return String::new() };
    let calls = session.take_pending();
    let mut events = answer_unanswered(session);
    events.push_str(&error::events_for(code, text, calls.iter().map(|call| call.id.as_str())));
    events
}

/// The events for the calls of which their client has not heard yet that their server is gone.
pub fn answer_unanswered(session: &Session) -> String {
    let calls = session.take_unanswered();
    let text = "ebbtide: the server ended before it answered";
    error::events_for(Code::UpstreamLost, text, calls.iter().map(|call| call.id.as_str()))
}

/// When to come back: about the time that the endpoints take, and not all at once.
pub fn retry(ticket: &Ticket) -> String {
    format!("retry: {}\n\n", 3000 + ticket.sequence() * 7919 % 2000)
}
