//! Watches a stream of events on its way to the client for what somebody awaits: the answers to the
//! exchange's own calls, those to the pending calls of its session, and the endpoint that an
//! HTTP+SSE server names.
//!
//! Never changes what passes, and never keeps an event.

use crate::{
    inflight::Ticket,
    mcp::{
        Class,
        answers::{Answers, Said},
        message::is_same_id,
    },
    sessions::{Call, Sessions},
    telemetry::metrics::Outcome,
};

/// One stream that is watched.
pub struct Watch {
    answers: Answers,
    sessions: Sessions,
    /// The exchange's own calls whose answers have passed.
    answered: Vec<String>,
    /// Whether another pod knows what is pending: its sidecar says what has to be said.
    elsewhere: bool,
}

impl Watch {
    /// A watch where somebody may await something on the answer of this exchange.
    /// `elsewhere`: its session is another pod's.
    pub fn of(ticket: &Ticket, sessions: &Sessions, elsewhere: bool) -> Option<Box<Self>> {
        let wanted = match ticket.class() {
            Class::Call | Class::Initialize | Class::Resume => true,
            // Only HTTP+SSE has streams without a session's header.
            Class::Stream => ticket.session().is_none() && !elsewhere,
            _ => false,
        };
        wanted.then(|| {
            let answered = Vec::new();
            let (answers, sessions) = (Answers::default(), sessions.clone());
            Box::new(Self { answers, sessions, answered, elsewhere })
        })
    }

    /// Takes what passes. Whether anything may still come that matters.
    pub fn pass(&mut self, data: &[u8], ticket: &mut Ticket) -> bool {
        let Self { answers, sessions, answered, .. } = self;
        let (mut endpoint, before) = (None, answered.len());
        answers.feed(data, |said| match said {
            Said::Answer(id) if ticket.class().is_stream() => ticket.passes_answer(&id),
            // Bounded by the calls, however often a server answers them, or what it was not asked.
            Said::Answer(id) if is_awaited(&id, answered, ticket) => answered.push(id),
            Said::Answer(_) => {}
            Said::Endpoint(text) => endpoint = Some(text),
        });
        if ticket.class() != Class::Stream {
            if self.answered.len() > before && self.unanswered(ticket).is_empty() {
                // The client may leave now.
                ticket.settled();
                ticket.will_be(Outcome::Completed);
            }
            return true;
        }
        if let (Some(endpoint), None) = (endpoint, ticket.session())
            && let Some(path) = ticket.path()
            && let Some(session) = sessions.open_endpoint(path, &endpoint)
        {
            ticket.belongs_to(&session);
        }
        ticket.session().is_some() || !self.answers.has_begun()
    }

    /// The exchange's own calls that nobody has answered, at the end of its stream.
    pub fn unanswered(&self, ticket: &Ticket) -> Vec<Call> {
        if ticket.class().is_stream() {
            return Vec::new();
        }
        unanswered(&self.answered, ticket).collect()
    }

    /// The ids that were answered.
    pub fn answered(&self) -> &[String] {
        &self.answered
    }

    /// Whether the client can come back for what was not answered (2025-11-25, server-side
    /// polling): it has a session, and an event's id to come back with.
    pub fn may_come_back(&self, ticket: &Ticket) -> bool {
        self.elsewhere || (ticket.session().is_some() && self.answers.is_resumable())
    }
}

fn unanswered(answered: &[String], ticket: &Ticket) -> impl Iterator<Item = Call> {
    let is_answered = |call: &Call| answered.iter().any(|id| is_same_id(id, &call.id));
    ticket.calls().into_iter().filter(move |call| !is_answered(call))
}

fn is_awaited(id: &str, answered: &[String], ticket: &Ticket) -> bool {
    unanswered(answered, ticket).any(|call| is_same_id(id, &call.id))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{inflight::Inflight, telemetry::Metrics};

    #[test]
    fn a_server_that_answers_without_end_costs_nothing() {
        let sessions = Sessions::default();
        let inflight = Inflight::new(Arc::new(Metrics::new()), sessions.clone());
        let mut ticket = inflight.begin((Class::Call, true), None, None);
        ticket.note().pass(br#"{"id":1,"method":"tools/call"}"#);
        let mut watch = Watch::of(&ticket, &sessions, false).unwrap();
        for id in 0..1000 {
            let event = format!("data: {{\"id\":{id},\"result\":1}}\n\n");
            watch.pass(event.repeat(2).as_bytes(), &mut ticket);
        }
        assert_eq!(watch.answered(), ["1"]);
    }
}
