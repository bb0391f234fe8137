//! Every metric, made once and counted without a lookup on the way of a request.
//!
//! The registry is passed in, never global. Base units; counters end in `_total`.

use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};
use serde::{Serialize, Serializer};

use super::keep::{Described, Keep, opts};
use crate::mcp::Class;

/// What became of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The whole answer was passed on.
    Completed,
    /// The client left first.
    Abandoned,
    /// Refused because of the drain.
    Refused,
    /// Refused because the pool had no room in time.
    PoolExhausted,
    /// The upstream could not be reached, or died, or answered rubbish.
    UpstreamLost,
    /// The upstream did not answer in time.
    TimedOut,
    /// Ended by us at the deadline.
    Cut,
    /// A stream that was ended properly for the drain.
    Ended,
    /// Refused for what it was: bad HTTP.
    Rejected,
}

impl Outcome {
    pub const ALL: [Outcome; 9] = [
        Outcome::Completed,
        Outcome::Abandoned,
        Outcome::Refused,
        Outcome::PoolExhausted,
        Outcome::UpstreamLost,
        Outcome::TimedOut,
        Outcome::Cut,
        Outcome::Ended,
        Outcome::Rejected,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Abandoned => "abandoned",
            Outcome::Refused => "refused",
            Outcome::PoolExhausted => "pool_exhausted",
            Outcome::UpstreamLost => "upstream_lost",
            Outcome::TimedOut => "timed_out",
            Outcome::Cut => "cut",
            Outcome::Ended => "ended",
            Outcome::Rejected => "rejected",
        }
    }
}

/// What became of a session that could not stay where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// This pod ends, and another one has it now.
    HandedOver,
    /// The server here opened it anew.
    Reopened,
    /// The server here would not open it as it was.
    Refused,
    /// It cannot be opened anew, and its client was told so.
    Lost,
}

impl Move {
    pub const ALL: [Move; 4] = [Move::HandedOver, Move::Reopened, Move::Refused, Move::Lost];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Move::HandedOver => "handed_over",
            Move::Reopened => "reopened",
            Move::Refused => "refused",
            Move::Lost => "lost",
        }
    }
}

/// How many sessions became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moves([u64; Move::ALL.len()]);

impl Moves {
    #[must_use]
    pub fn of(&self, how: Move) -> u64 {
        self.0[how as usize]
    }

    /// What was added since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Moves) -> Moves {
        Moves(std::array::from_fn(|at| self.0[at] - earlier.0[at]))
    }
}

impl Serialize for Moves {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Move::ALL.map(|how| (how.name(), self.of(how))))
    }
}

/// What a pool of connections counts.
#[derive(Debug)]
pub struct PoolMetrics {
    pub connections: IntGaugeVec,
    pub acquire: Histogram,
    events: IntCounterVec,
}

impl PoolMetrics {
    fn new(keep: &Keep<'_>, prefix: &str, peer: &str) -> Self {
        let name = |name: &str| format!("{prefix}_{name}");
        Self {
            connections: keep.gauges(
                &name("connections"),
                &format!(
                    "Connections to {peer} by state: in_use by calls, streams, idle; and waiting, \
                     the requests in line for one."
                ),
                &["state"],
            ),
            acquire: keep
                .histogram(&name("acquire_duration_seconds"), &format!("Wait in line for {peer}.")),
            events: keep.counters(
                &name("events_total"),
                &format!(
                    "What the pool of connections to {peer} did: created, reused, acquired, \
                     released, acquire_timeout, closed; closed connections by reason."
                ),
                &["event", "reason"],
            ),
        }
    }

    pub fn event(&self, event: &str, reason: &str) -> IntCounter {
        self.events.with_label_values(&[event, reason])
    }
}

/// All metrics of one sidecar.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Vec<IntCounter>,
    duration: Vec<Histogram>,
    in_flight: Vec<IntGauge>,
    pub sessions: IntGauge,
    pub calls_pending: IntGauge,
    moves: IntCounterVec,
    /// Requests that were sent to the pod that has their session.
    pub to_owner: IntCounter,
    /// Those that were sent to one that is to open it anew.
    pub to_heir: IntCounter,
    pub pool: PoolMetrics,
    pub peer_pool: PoolMetrics,
    phase: IntGaugeVec,
    phase_duration: GaugeVec,
    pub drain_calls: IntCounterVec,
    pub knowledge_level: IntGauge,
    pub seconds_to_deadline: Gauge,
    pub inbound_connections: IntGauge,
    pub inbound_events: IntCounterVec,
}

impl Metrics {
    /// Registers every metric in a registry of its own.
    ///
    /// # Panics
    /// Only when two metrics below have one name, which the test would find.
    #[must_use]
    pub fn new() -> Self {
        Self::described().0
    }

    /// The metrics, and what docs/metrics.md tells of them.
    ///
    /// # Panics
    /// As [`Metrics::new`].
    #[must_use]
    pub fn described() -> (Self, Vec<Described>) {
        let registry = Registry::new();
        let keep = Keep::new(&registry);
        let requests =
            keep.counters("requests_total", "Exchanges by class and result.", &["class", "result"]);
        let duration = keep.histograms(
            "request_duration_seconds",
            "From the request's head to the end of its answer, by class.",
            &["class"],
        );
        let in_flight = keep.gauges("in_flight", "Exchanges in flight by class.", &["class"]);
        let by_class = |class: &Class| [class.name()];
        let forwarded = keep.counters(
            "requests_forwarded_total",
            "Requests that were sent to the pod that has their session (owner), or is to open it \
             anew (heir).",
            &["to"],
        );
        keep.build_info();
        let metrics = Self {
            requests: Class::ALL
                .iter()
                .flat_map(|class| Outcome::ALL.map(|outcome| [class.name(), outcome.name()]))
                .map(|labels| requests.with_label_values(&labels))
                .collect(),
            duration: Class::ALL.iter().map(|c| duration.with_label_values(&by_class(c))).collect(),
            in_flight: Class::ALL.iter().map(|c| in_flight.with_label_values(&by_class(c))).collect(),
            sessions: keep.gauge("sessions", "Legacy sessions that are known."),
            calls_pending: keep.gauge(
                "calls_pending",
                "Calls that await an answer though their exchange is over.",
            ),
            moves: keep.counters(
                "sessions_moved_total",
                "What became of sessions that could not stay where they were: handed_over to \
                 another pod, reopened here, refused by the server, or lost.",
                &["result"],
            ),
            to_owner: forwarded.with_label_values(&["owner"]),
            to_heir: forwarded.with_label_values(&["heir"]),
            pool: PoolMetrics::new(&keep, "pool", "the upstream"),
            peer_pool: PoolMetrics::new(&keep, "peer_pool", "other pods"),
            phase: keep.gauges("drain_phase", "1 for the phase that holds, else 0.", &["phase"]),
            phase_duration: keep.put(
                GaugeVec::new(
                    opts("drain_phase_duration_seconds", "How long each ended phase of the drain took."),
                    &["phase"],
                ),
            ),
            drain_calls: drain_calls(&keep),
            knowledge_level: keep.gauge(
                "knowledge_level",
                "What the drain knows: 0 timers only, 1 EndpointSlices, 2 EndpointSlices and own Pod.",
            ),
            seconds_to_deadline: keep.put(Gauge::with_opts(opts(
                "drain_deadline_seconds",
                "Seconds until the cut; -1 while no drain runs.",
            ))),
            inbound_connections: keep.gauge("inbound_connections", "Client connections open."),
            inbound_events: keep.counters(
                "inbound_events_total",
                "Client connections accepted, refused at the limit, and closed for a bad request head \
                 (head_timeout, head_too_large, too_many_fields, two_framings, two_lengths).",
                &["event"],
            ),
            registry: registry.clone(),
        };
        metrics.seconds_to_deadline.set(-1.0);
        (metrics, keep.described())
    }

    pub fn begun(&self, class: Class) {
        self.in_flight[class as usize].inc();
    }

    /// An exchange that was begun as `from` turned out to be `to`.
    pub fn reclassified(&self, from: Class, to: Class) {
        self.in_flight[from as usize].dec();
        self.in_flight[to as usize].inc();
    }

    pub fn finished(&self, class: Class, outcome: Outcome, took: Duration) {
        self.in_flight[class as usize].dec();
        self.requests[class as usize * Outcome::ALL.len() + outcome as usize].inc();
        self.duration[class as usize].observe(took.as_secs_f64());
    }

    /// Counts what became of a session.
    pub fn moved(&self, how: Move) {
        self.moves.with_label_values(&[how.name()]).inc();
    }

    /// What became of sessions since the start.
    #[must_use]
    pub fn moves(&self) -> Moves {
        Moves(Move::ALL.map(|how| self.moves.with_label_values(&[how.name()]).get()))
    }

    /// Marks the phase that holds now, out of all.
    pub fn phase(&self, all: &[&str], now: &str) {
        for phase in all {
            self.phase.with_label_values(&[*phase]).set(i64::from(*phase == now));
        }
    }

    /// An exchange has ended during a drain, or a call that had none any more.
    pub fn ended_in_drain(&self, outcome: Outcome) {
        let result = match outcome {
            Outcome::Completed => "completed",
            Outcome::Refused => "refused",
            Outcome::Cut => "cut",
            Outcome::Ended => "ended",
            Outcome::UpstreamLost | Outcome::TimedOut => "lost",
            Outcome::Abandoned | Outcome::PoolExhausted | Outcome::Rejected => return,
        };
        self.drain_calls.with_label_values(&[result]).inc();
    }

    pub fn phase_took(&self, phase: &str, took: Duration) {
        self.phase_duration.with_label_values(&[phase]).set(took.as_secs_f64());
    }

    /// The text that `GET /metrics` answers (Prometheus exposition format 0.0.4).
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        // Writing to memory fails only for a family without metrics, which is then left out.
        drop(TextEncoder::new().encode(&self.registry.gather(), &mut text));
        text
    }
}

/// Each result from the start: a drain may end before anybody has asked a second time.
fn drain_calls(keep: &Keep) -> IntCounterVec {
    let results = ["completed", "refused", "cut", "ended", "lost"];
    let calls = keep.counters(
        "drain_calls_total",
        "What became of exchanges during a drain: completed, refused, cut, ended or lost.",
        &["result"],
    );
    for result in results {
        calls.with_label_values(&[result]);
    }
    calls
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_base_units_and_counters_end_in_total() {
        let metrics = Metrics::new();
        metrics.begun(Class::Call);
        metrics.finished(Class::Call, Outcome::Completed, Duration::from_millis(30));
        for family in metrics.registry.gather() {
            assert!(family.name().starts_with("ebbtide_"), "{}", family.name());
            let counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
            assert_eq!(counter, family.name().ends_with("_total"), "{}", family.name());
        }
        let text = String::from_utf8(metrics.text()).unwrap();
        assert!(
            text.contains(r#"ebbtide_requests_total{class="call",result="completed"} 1"#),
            "{text}"
        );
    }
}
