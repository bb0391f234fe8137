//! `GET /status`: what is in flight, the phase, the pool, the time left. Only shows.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Admin;
use crate::drain::{Phase, hooks::Restart};

/// Most exchanges that are listed; their number stands beside them.
const LISTED: usize = 1000;

impl Admin {
    pub(super) fn status(&self) -> Value {
        let snapshot = self.watch.snapshot();
        let now = Instant::now().into_std();
        let left = |at: std::time::Instant| {
            (at.saturating_duration_since(now).as_secs_f64() * 1000.0).round() / 1000.0
        };
        // Once all is over, no time is left that anybody would need.
        let timeline = snapshot.timeline.filter(|_| snapshot.phase < Phase::Drained);
        let mut exchanges = self.inflight.exchanges();
        let listed = exchanges.len();
        exchanges.truncate(LISTED);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "upstream": self.upstream,
            "phase": snapshot.phase,
            "why": snapshot.trigger,
            "seconds_to_cut": timeline.map(|timeline| left(timeline.cut_at)),
            "seconds_to_kill": timeline.and_then(|timeline| timeline.kill_at).map(left),
            "knowledge": snapshot.level.name(),
            "server_restart": (snapshot.restart != Restart::No).then(|| format!("{:?}", snapshot.restart)),
            "in_flight": {
                "finite": self.inflight.finite(),
                "streams": self.inflight.streams(),
                "pending": self.inflight.pending(),
                "sessions": self.inflight.sessions(),
                "listed": listed.min(LISTED),
                "exchanges": exchanges,
            },
            "sessions": self.inflight.moves(),
            "pool": (self.pool)(),
            "report": snapshot.report.as_deref(),
        })
    }
}
