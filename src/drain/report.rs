//! What a drain did, once it is over: one value for the log, `status` and whoever asks later.

use std::time::Duration;

use serde::Serialize;

use super::phase::{Phase, Trigger};
use crate::{
    inflight::{Exchange, Totals},
    telemetry::{Metrics, metrics::Outcome},
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
    /// The cut calls by name, at most 50.
    pub cut_calls: Vec<Exchange>,
}

impl Report {
    #[must_use]
    pub fn new(
        trigger: Trigger,
        phases: &[(Phase, Duration)],
        totals: &Totals,
        mut cut_calls: Vec<Exchange>,
    ) -> Self {
        let seconds = |duration: &Duration| (duration.as_secs_f64() * 1e6).round() / 1e6;
        let cut = cut_calls.len();
        cut_calls.truncate(NAMED);
        Self {
            trigger,
            phases: phases.iter().map(|(phase, took)| (*phase, seconds(took))).collect(),
            seconds: seconds(&phases.iter().map(|(_, took)| *took).sum()),
            completed: totals.of(Outcome::Completed),
            refused: totals.of(Outcome::Refused),
            streams_ended: totals.of(Outcome::Ended),
            abandoned: totals.of(Outcome::Abandoned),
            lost: totals.of(Outcome::UpstreamLost) + totals.of(Outcome::TimedOut),
            cut,
            cut_calls,
        }
    }

    pub fn count(&self, metrics: &Metrics) {
        for (result, count) in [
            ("completed", self.completed),
            ("refused", self.refused),
            ("cut", self.cut as u64),
            ("ended", self.streams_ended),
            ("lost", self.lost),
        ] {
            metrics.drain_calls.with_label_values(&[result]).inc_by(count);
        }
        for (phase, took) in &self.phases {
            metrics.phase_took(phase.name(), Duration::from_secs_f64(*took));
        }
    }
}
