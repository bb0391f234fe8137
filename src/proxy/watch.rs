//! Watches a stream of events on its way to the client for what somebody awaits: the answers to the
//! exchange's own calls, those to the pending calls of its session, and the endpoint that an
//! HTTP+SSE server names.
//!
//! Never changes what passes, and never keeps an event.

use std::collections::HashSet;

use crate::{
    inflight::Ticket,
    mcp::{
        Class,
        answers::{Answers, Said},
        message::IdKey,
    },
    sessions::Sessions,
    telemetry::metrics::Outcome,
};

/// One stream that is watched.
pub struct Watch {
    answers: Answers,
    sessions: Sessions,
    own: Own,
    /// The exchange's own calls whose answers have passed.
    answered: HashSet<IdKey>,
    /// Whether another pod knows what is pending: its sidecar says what has to be said.
    elsewhere: bool,
}

/// The exchange's own calls. Of a batch they are asked for once, and not with each answer.
#[derive(Default)]
struct Own {
    calls: HashSet<IdKey>,
    all: bool,
}

impl Own {
    fn look(&mut self, ticket: &Ticket) -> &HashSet<IdKey> {
        if !self.all {
            self.calls = ticket.calls().into_iter().map(|call| call.key).collect();
            self.all = self.calls.len() > 1 && ticket.is_whole();
        }
        &self.calls
    }
}

impl Watch {
    /// A watch where somebody may await something on the answer of this exchange.
    /// `elsewhere`: its session is another pod's.
    pub fn of(ticket: &Ticket, sessions: &Sessions, elsewhere: bool) -> Option<Box<Self>> {
        let wanted = match ticket.class() {
            Class::Call | Class::Initialize | Class::Resume | Class::Listen => true,
            // Only HTTP+SSE has streams without a session's header.
            Class::Stream => ticket.session().is_none() && !elsewhere,
            _ => false,
        };
        wanted.then(|| {
            let (own, answered) = (Own::default(), HashSet::new());
            let (answers, sessions) = (Answers::default(), sessions.clone());
            Box::new(Self { answers, sessions, own, answered, elsewhere })
        })
    }

    /// Takes what passes. Whether anything may still come that matters.
    pub fn pass(&mut self, data: &[u8], ticket: &mut Ticket) -> bool {
        let Self { answers, sessions, own, answered, .. } = self;
        let (mut endpoint, before) = (None, answered.len());
        answers.feed(data, |said| match said {
            Said::Answer(id) if is_of_session(ticket.class()) => ticket.passes_answer(&id),
            Said::Answer(id) => {
                // Bounded by the calls, however often a server answers what it was not asked.
                let id = IdKey::of(&id);
                if own.look(ticket).contains(&id) {
                    answered.insert(id);
                }
            }
            Said::Endpoint(text) => endpoint = Some(text),
        });
        if ticket.class() != Class::Stream {
            let enough = answered.len() + ticket.cancelled() >= own.calls.len();
            if answered.len() > before && enough && !self.has_unanswered(ticket) {
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

    /// Whether nobody has answered one of the exchange's own calls, at the end of its stream.
    pub fn has_unanswered(&self, ticket: &Ticket) -> bool {
        let is_answered = |id: &IdKey| self.answered.contains(id);
        !ticket.class().is_stream() && !ticket.calls().iter().all(|call| is_answered(&call.key))
    }

    /// The ids that were answered.
    pub fn answered(&self) -> &HashSet<IdKey> {
        &self.answered
    }

    /// Whether the client can come back for what was not answered (2025-11-25, server-side
    /// polling): it has a session, and an event's id to come back with.
    pub fn may_come_back(&self, ticket: &Ticket) -> bool {
        self.elsewhere || (ticket.session().is_some() && self.answers.is_resumable())
    }
}

/// Whether what is answered on it was asked elsewhere.
fn is_of_session(class: Class) -> bool {
    class.is_stream() && class != Class::Listen
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
        assert_eq!(watch.answered().iter().collect::<Vec<_>>(), [&IdKey::of("1")]);
    }
}
