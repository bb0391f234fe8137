//! What Kubernetes told of this pod, and what follows from it: whether the pod ends, whether its
//! endpoints are left, and when the kubelet kills. Pure.
//!
//! Never trusts a clock blindly, and never forgets that the pod was deleted: that is final.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::phase::Trigger;

/// What is watched at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Nothing: the drain goes by the settings alone.
    #[default]
    Timers,
    /// The `EndpointSlices` of the namespace.
    Slices,
    /// The `EndpointSlices`, and our own Pod.
    SlicesAndPod,
}

impl Level {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Timers => "timers",
            Level::Slices => "slices",
            Level::SlicesAndPod => "pod",
        }
    }
}

/// The endpoints of all `EndpointSlices` that name our pod by its UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Endpoints {
    /// Those that name us at all.
    pub named: usize,
    /// Those that offer us to new connections: ready, and not terminating.
    pub offering: usize,
    /// Whether one says that the pod ends.
    pub terminating: bool,
}

/// Our own Pod, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod {
    /// The pod was as told here at this instant or later.
    pub as_of: Instant,
    pub deletion: Option<Deletion>,
}

/// `deletionTimestamp` and `deletionGracePeriodSeconds`, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// `deletionTimestamp`, in seconds since the epoch: tells one deletion from a later one.
    pub timestamp: i64,
    /// SIGKILL, as [`kill_at`] bounds it.
    pub kill_at: Instant,
}

/// One piece of news. `None`: it is not known any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    Endpoints(Option<Endpoints>),
    Pod(Option<Pod>),
}

/// All that is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knowledge {
    endpoints: Option<Endpoints>,
    pod: Option<Pod>,
    /// The last deletion that was read, also when the Pod cannot be read any more.
    deletion: Option<Deletion>,
    /// An endpoint of ours was terminating once: pods do not come back from there.
    terminating: bool,
}

/// How long a `terminating` endpoint may lag behind the hooks of a pod that is deleted.
const ENDPOINT_LAG: Duration = Duration::from_secs(2);

impl Knowledge {
    pub fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Endpoints(endpoints) => {
                self.endpoints = endpoints;
                self.terminating |= endpoints.is_some_and(|endpoints| endpoints.terminating);
            }
            Fact::Pod(pod) => {
                self.pod = pod;
                self.deletion = pod.and_then(|pod| pod.deletion).or(self.deletion);
            }
        }
    }

    /// Knowing the Pod alone is still called timers: how long the endpoints take is what the
    /// timers stand in for.
    #[must_use]
    pub fn level(&self) -> Level {
        match (self.endpoints, self.pod) {
            (None, _) => Level::Timers,
            (Some(_), None) => Level::Slices,
            (Some(_), Some(_)) => Level::SlicesAndPod,
        }
    }

    /// What, by itself, says that the pod ends.
    #[must_use]
    pub fn trigger(&self) -> Option<Trigger> {
        match (self.deletion, self.terminating) {
            (Some(_), _) => Some(Trigger::Deleted),
            (None, true) => Some(Trigger::Terminating),
            (None, false) => None,
        }
    }

    #[must_use]
    pub fn kill_at(&self) -> Option<Instant> {
        self.deletion.map(|deletion| deletion.kill_at)
    }

    #[must_use]
    pub fn endpoints(&self) -> Option<Endpoints> {
        self.endpoints
    }

    /// Whether no endpoint offers us; `None` where nobody can tell.
    #[must_use]
    pub fn is_withdrawn(&self) -> Option<bool> {
        self.endpoints.map(|endpoints| endpoints.offering == 0)
    }

    /// Whether the pod is being deleted, so that its readiness probe has to hold; `began`: the
    /// trigger. Both hooks without a deletion are a node that shuts down, which tells no
    /// endpoint (kubernetes.io, "Graceful node shutdown"): there the probe has to fail.
    #[must_use]
    pub fn is_deleted(&self, trigger: Trigger, began: Instant, now: Instant) -> bool {
        if self.trigger().is_some() {
            return true;
        }
        let read_since = self.pod.is_some_and(|pod| pod.as_of >= began);
        let endpoint_silent = self.endpoints.is_some_and(|endpoints| endpoints.named > 0)
            && now >= began + ENDPOINT_LAG;
        trigger == Trigger::PreStop && !read_since && !endpoint_silent
    }

    /// When [`Self::is_deleted`] may change although no fact does.
    #[must_use]
    pub fn doubt_ends(&self, began: Instant) -> Instant {
        began + ENDPOINT_LAG
    }
}

/// The instant of SIGKILL: `grace` after the deletion, which was requested between `not_yet`
/// (when the pod was last known not to be deleted; `None` where that was never known) and `seen`.
/// Within these bounds the API server's clock decides: `left` seconds from `seen` by comparing
/// its `deletionTimestamp` with our clock.
#[must_use]
pub fn kill_at(seen: Instant, not_yet: Option<Instant>, grace: Duration, left: f64) -> Instant {
    let latest = seen + grace;
    let earliest = not_yet.map_or(seen, |not_yet| (not_yet + grace).max(seen).min(latest));
    let left = Duration::try_from_secs_f64(left.max(0.0)).unwrap_or(grace);
    seen.checked_add(left).unwrap_or(latest).clamp(earliest, latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn endpoints(named: usize, offering: usize, terminating: bool) -> Fact {
        Fact::Endpoints(Some(Endpoints { named, offering, terminating }))
    }

    fn pod(as_of: Instant, kill_at: Option<Instant>) -> Fact {
        let deletion = kill_at.map(|kill_at| Deletion { timestamp: 1, kill_at });
        Fact::Pod(Some(Pod { as_of, deletion }))
    }

    fn known(facts: &[Fact]) -> Knowledge {
        let mut knowledge = Knowledge::default();
        for fact in facts {
            knowledge.learn(*fact);
        }
        knowledge
    }

    #[test]
    fn facts_say_the_level_the_trigger_and_the_withdrawal() {
        let now = Instant::now();
        let (alive, deleted) = (pod(now, None), pod(now, Some(now)));
        let lost = [Fact::Endpoints(None), Fact::Pod(None)];
        for (facts, level, trigger, withdrawn) in [
            (vec![], Level::Timers, None, None),
            (vec![endpoints(2, 2, false)], Level::Slices, None, Some(false)),
            // No Service, or one that never had us.
            (vec![endpoints(0, 0, false)], Level::Slices, None, Some(true)),
            // One of two Services still offers us.
            (vec![endpoints(2, 1, false), alive], Level::SlicesAndPod, None, Some(false)),
            (vec![endpoints(2, 0, true)], Level::Slices, Some(Trigger::Terminating), Some(true)),
            (vec![deleted], Level::Timers, Some(Trigger::Deleted), None),
            // A lost API server takes the level, and not what is final.
            (vec![deleted, lost[0], lost[1]], Level::Timers, Some(Trigger::Deleted), None),
            (vec![endpoints(1, 0, true), lost[0]], Level::Timers, Some(Trigger::Terminating), None),
        ] {
            let knowledge = known(&facts);
            assert_eq!(knowledge.level(), level, "{facts:?}");
            assert_eq!(knowledge.trigger(), trigger, "{facts:?}");
            assert_eq!(knowledge.is_withdrawn(), withdrawn, "{facts:?}");
        }
    }

    #[test]
    fn hooks_without_a_deletion_are_a_node_that_shuts_down() {
        let began = Instant::now();
        let (before, after) = (began.checked_sub(seconds(1)).unwrap(), began + seconds(1));
        let offered = endpoints(1, 1, false);
        for (facts, trigger, at, expected) in [
            // Nobody can tell: the usual reason holds.
            (vec![], Trigger::PreStop, 60, true),
            (vec![pod(before, None)], Trigger::PreStop, 60, true),
            (vec![pod(after, None)], Trigger::PreStop, 0, false),
            (vec![pod(after, Some(after))], Trigger::PreStop, 60, true),
            (vec![offered], Trigger::PreStop, 1, true),
            (vec![offered], Trigger::PreStop, 2, false),
            (vec![endpoints(1, 0, true)], Trigger::PreStop, 60, true),
            (vec![endpoints(0, 0, false)], Trigger::PreStop, 60, true),
            (vec![], Trigger::Signal, 0, false),
            (vec![], Trigger::Request, 0, false),
            (vec![pod(after, Some(after))], Trigger::Request, 0, true),
        ] {
            let deleted = known(&facts).is_deleted(trigger, began, began + seconds(at));
            assert_eq!(deleted, expected, "{facts:?} {trigger:?} {at}");
        }
    }

    #[test]
    fn a_kill_time_lies_between_what_was_seen_whatever_the_clocks_say() {
        let seen = Instant::now();
        let ago = |seconds_ago| seen.checked_sub(seconds(seconds_ago));
        for (not_yet, left, expected) in [
            // The watch told at once; clocks agree, ours is ahead, behind, far behind.
            (ago(1), 30.0, 30),
            (ago(1), 10.0, 29),
            (ago(1), 90.0, 30),
            (ago(1), f64::INFINITY, 30),
            (ago(1), -500.0, 29),
            // The pod was being deleted when we first saw it: only the clock tells.
            (None, 12.0, 12),
            (None, -3.0, 0),
            (None, 99.0, 30),
            // Not read for longer than the grace.
            (ago(60), 4.0, 4),
            (ago(60), f64::NAN, 0),
        ] {
            let at = kill_at(seen, not_yet, seconds(30), left);
            assert_eq!(at, seen + seconds(expected), "{not_yet:?} {left}");
        }
    }
}
