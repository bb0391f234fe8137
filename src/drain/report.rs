//! What a drain did: kept while it runs, and told once it is over, as one value for the log,
//! `status`, the pod's Event and whoever asks later.

use std::{fmt::Write, time::Duration};

use serde::{Serialize, Serializer};

use super::phase::{Phase, Trigger};
use crate::{
    inflight::{Exchange, Inflight, Totals},
    telemetry::metrics::{Move, Moves, Outcome},
};

/// How many cut calls are named; the number of all stands beside them.
const NAMED: usize = 50;

/// The account of one drain. Counts are of exchanges that ended since the trigger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub trigger: Trigger,
    /// Seconds in each phase since the trigger, in order.
    pub phases: Vec<(Phase, f64)>,
    pub seconds: f64,
    pub completed: u64,
    pub refused: u64,
    /// Streams that were ended properly.
    pub streams_ended: u64,
    /// The client left first.
    pub abandoned: u64,
    /// The upstream died or did not answer.
    pub lost: u64,
    pub cut: usize,
    /// What became of sessions since the trigger.
    pub sessions: Moves,
    /// The cut calls by name, at most 50.
    pub cut_calls: Vec<Exchange>,
    /// What became of the exchanges that were in flight at the trigger, by outcome.
    #[serde(serialize_with = "by_outcome")]
    pub in_flight_at_trigger: Totals,
    /// What became of all exchanges since ebbtide started, by outcome.
    #[serde(serialize_with = "by_outcome")]
    pub since_start: Totals,
}

/// What is noted from the trigger on.
#[derive(Debug)]
pub struct Account {
    trigger: Trigger,
    before: Totals,
    moves_before: Moves,
    phases: Vec<(Phase, Duration)>,
    cut_calls: Vec<Exchange>,
}

impl Account {
    /// Begins with what was counted `before` the trigger.
    #[must_use]
    pub fn new(trigger: Trigger, inflight: &Inflight, before: Totals) -> Self {
        inflight.begin_audit();
        let moves_before = inflight.moves();
        Self { trigger, before, moves_before, phases: Vec::new(), cut_calls: Vec::new() }
    }

    pub fn phase_took(&mut self, phase: Phase, took: Duration) {
        self.phases.push((phase, took));
    }

    pub fn cut(&mut self, calls: Vec<Exchange>) {
        self.cut_calls = calls;
    }

    #[must_use]
    pub fn report(&self, inflight: &Inflight) -> Report {
        let seconds = |duration: &Duration| (duration.as_secs_f64() * 1e6).round() / 1e6;
        let since_start = inflight.totals();
        let totals = since_start.since(&self.before);
        Report {
            trigger: self.trigger,
            phases: self.phases.iter().map(|(phase, took)| (*phase, seconds(took))).collect(),
            seconds: seconds(&self.phases.iter().map(|(_, took)| *took).sum()),
            completed: totals.of(Outcome::Completed),
            refused: totals.of(Outcome::Refused),
            streams_ended: totals.of(Outcome::Ended),
            abandoned: totals.of(Outcome::Abandoned),
            lost: totals.of(Outcome::UpstreamLost) + totals.of(Outcome::TimedOut),
            cut: self.cut_calls.len(),
            sessions: inflight.moves().since(&self.moves_before),
            cut_calls: self.cut_calls.iter().take(NAMED).cloned().collect(),
            in_flight_at_trigger: inflight.audit(),
            since_start,
        }
    }
}

impl Report {
    fn withdrawing(&self) -> f64 {
        let took = self.phases.iter().filter(|(phase, _)| *phase == Phase::Withdrawing);
        took.map(|(_, seconds)| seconds).sum()
    }

    /// The report in one sentence, and the cut calls by name as far as `room` bytes allow.
    #[must_use]
    pub fn sentence(&self, room: usize) -> String {
        let mut text = format!(
            "Drained in {:.1}s ({}; {:.1}s of it to leave the endpoints): {} completed, {} refused, \
             {} streams ended, {} abandoned, {} lost, {} cut",
            self.seconds,
            self.trigger.name(),
            self.withdrawing(),
            self.completed,
            self.refused,
            self.streams_ended,
            self.abandoned,
            self.lost,
            self.cut
        );
        for (how, what) in [(Move::HandedOver, "handed over"), (Move::Lost, "lost")] {
            let count = self.sessions.of(how);
            if count > 0 {
                // Writing to a String cannot fail.
                let _ = write!(text, ", {count} sessions {what}");
            }
        }
        let mut named = 0;
        for call in &self.cut_calls {
            let tool = call.tool.as_deref().map(|tool| format!(" {tool}")).unwrap_or_default();
            let session =
                call.session.as_deref().map(|hash| format!(" session {hash}")).unwrap_or_default();
            let age = call.age_seconds;
            let name = format!("; cut {}{tool}{session} after {age:.1}s", call.method);
            // Room for the count of those that are left out.
            if text.len() + name.len() + 24 > room {
                break;
            }
            text.push_str(&name);
            named += 1;
        }
        if self.cut > named {
            // Writing to a String cannot fail.
            let _ = write!(text, "; and {} more", self.cut - named);
        }
        text
    }
}

fn by_outcome<S: Serializer>(totals: &Totals, serializer: S) -> Result<S::Ok, S::Error> {
    let seen = Outcome::ALL.into_iter().filter(|outcome| totals.of(*outcome) > 0);
    serializer.collect_map(seen.map(|outcome| (outcome.name(), totals.of(outcome))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{mcp::Class, sessions::Sessions, telemetry::Metrics};

    #[test]
    fn every_exchange_is_accounted_for_and_the_sentence_fits() {
        let sessions = Sessions::default();
        let session = sessions.open_endpoint("/", "/s");
        let inflight = Inflight::new(Arc::new(Metrics::new()), sessions);
        inflight.begin((Class::Call, false), None, None).will_be(Outcome::Completed);
        let mut running: Vec<_> =
            (0..60).map(|_| inflight.begin((Class::Call, false), session.clone(), None)).collect();
        let mut account = Account::new(Trigger::Deleted, &inflight, inflight.totals());
        running[0].will_be(Outcome::Completed);
        running.iter_mut().skip(1).for_each(|ticket| ticket.will_be(Outcome::Cut));
        drop(running.remove(0));
        account.cut(inflight.exchanges());
        drop(running);
        account.phase_took(Phase::Withdrawing, Duration::from_millis(1500));
        let report = account.report(&inflight);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["trigger"], "pod_deleted");
        assert_eq!(json["in_flight_at_trigger"], serde_json::json!({"completed": 1, "cut": 59}));
        assert_eq!(json["since_start"], serde_json::json!({"completed": 2, "cut": 59}));
        assert_eq!((report.completed, report.cut, report.cut_calls.len()), (1, 59, NAMED));
        let sentence = report.sentence(1000);
        assert!(sentence.len() <= 1000 && sentence.ends_with(" more"), "{sentence}");
        assert!(sentence.contains("59 cut; cut unknown session "), "{sentence}");
    }
}
