//! The instants of a drain, from the settings and the trigger. Pure.

use std::time::{Duration, Instant};

/// The settings that make a timeline; each is the setting of the same name.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    pub withdraw_timeout: Duration,
    /// What `settle` comes to here: its default depends on whether there are endpoints to leave.
    pub settle: Duration,
    pub quiet: Duration,
    pub drain_timeout: Option<Duration>,
    pub stop_reserve: Duration,
    pub grace: Option<Duration>,
}

/// What a drain may take when neither `drain_timeout` nor the kill time is known.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// What the cut itself may take, at the longest.
pub const CUT_TIME: Duration = Duration::from_secs(1);

/// How long after SIGTERM a container surely lives, and half a second less, for its last words: the
/// kubelet leaves it 2 s, however little there is left of the grace.
pub const AFTER_SIGNAL: Duration = Duration::from_millis(1500);

/// How long after the trigger an idle legacy session may begin a call, unless it takes longer to
/// leave the endpoints. Hardly longer than that takes in a cluster: what begins then is what the
/// drain has to wait for.
pub const LAST_CALL: Duration = Duration::from_secs(2);

/// When a drain has to be where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    pub began: Instant,
    /// Withdrawing ends, whatever is known of the endpoints.
    pub withdraw_by: Instant,
    /// What did not finish is ended.
    pub cut_at: Instant,
    /// SIGKILL, where it is known.
    pub kill_at: Option<Instant>,
}

impl Timings {
    /// The timeline of a drain that began at `began`. Without a known kill time, the grace
    /// counts from there.
    #[must_use]
    pub fn timeline(&self, began: Instant, kill_at: Option<Instant>) -> Timeline {
        let kill_at = kill_at.or_else(|| self.grace.map(|grace| began + grace));
        let before_kill = kill_at.map(|kill_at| {
            let reserve = self.stop_reserve + CUT_TIME;
            kill_at.checked_sub(reserve).map_or(began, |at| at.max(began))
        });
        let bound = self.drain_timeout.map(|timeout| began + timeout);
        let cut_at = match (before_kill, bound) {
            (Some(kill), Some(bound)) => kill.min(bound),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => began + DEFAULT_DRAIN_TIMEOUT,
        };
        let withdraw_by = (began + self.withdraw_timeout).min(cut_at);
        Timeline { began, withdraw_by, cut_at, kill_at }
    }
}

impl Timeline {
    /// When an idle legacy session gets no further call here: once we have left the endpoints, so
    /// that the drain takes no longer than that and its slowest call. Where there are none to leave,
    /// a moment after the trigger; and at half of the time that is left then, else the cut would
    /// meet a call of it.
    #[must_use]
    pub fn last_call(&self, draining_since: Instant) -> Instant {
        let half = self.cut_at.saturating_duration_since(draining_since) / 2;
        (self.began + LAST_CALL).clamp(draining_since, draining_since + half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_begins_before_the_endpoints_are_left_or_a_moment_after_the_trigger() {
        let seconds = Duration::from_secs;
        let began = Instant::now();
        for (draining_since, cut_at, expected) in
            [(0, 30, 2), (1, 30, 2), (8, 30, 8), (0, 2, 1), (1, 2, 1), (5, 5, 5), (6, 5, 6)]
        {
            let timeline = Timeline {
                began,
                withdraw_by: began,
                cut_at: began + seconds(cut_at),
                kill_at: None,
            };
            let last_call = timeline.last_call(began + seconds(draining_since)) - began;
            assert_eq!(last_call.as_secs(), expected, "{draining_since} {cut_at}");
        }
    }

    #[test]
    fn the_cut_leaves_the_server_time_to_stop() {
        let seconds = Duration::from_secs;
        let now = Instant::now();
        let known_kill = Some(now + seconds(20));
        for (drain_timeout, grace, kill_at, expected) in [
            (None, None, None, 30),
            (Some(10), None, None, 10),
            (None, Some(60), None, 57),
            (Some(10), Some(60), None, 10),
            (Some(90), Some(60), None, 57),
            (None, Some(60), known_kill, 17),
            (Some(5), Some(60), known_kill, 5),
            (None, Some(1), None, 0),
        ] {
            let timings = Timings {
                withdraw_timeout: seconds(15),
                settle: seconds(0),
                quiet: seconds(0),
                drain_timeout: drain_timeout.map(seconds),
                stop_reserve: seconds(2),
                grace: grace.map(seconds),
            };
            let timeline = timings.timeline(now, kill_at);
            assert_eq!(timeline.cut_at, now + seconds(expected), "{drain_timeout:?} {grace:?}");
            assert_eq!(timeline.withdraw_by, now + seconds(expected.min(15)));
        }
    }
}
