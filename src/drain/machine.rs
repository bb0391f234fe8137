//! `step(now, facts) → Option<Phase>`: which phase comes next, if its time has come. Pure.

use std::time::{Duration, Instant};

use super::{
    phase::Phase,
    timeline::{CUT_TIME, Timeline, Timings},
};

/// All that a step depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub phase: Phase,
    /// When the phase was entered.
    pub since: Instant,
    pub timings: Timings,
    pub upstream_answered: bool,
    /// Set by a corroborated trigger.
    pub timeline: Option<Timeline>,
    /// Since when no endpoint offers us; `None` while one does, or nobody can tell.
    pub withdrawn: Option<Instant>,
    pub last_arrival: Option<Instant>,
    pub in_flight: usize,
    /// Since when nothing is in flight, and nothing came.
    pub idle_since: Option<Instant>,
    /// Open connections of clients, which may send the next request at any time.
    pub connections: usize,
    pub cut_requested: bool,
}

/// The phase that comes next, if its time has come. Call it until it says `None`.
#[must_use]
pub fn step(now: Instant, facts: &Facts) -> Option<Phase> {
    let timeline = facts.timeline;
    let due = |at: Instant| now >= at;
    match facts.phase {
        Phase::Starting if timeline.is_some() => Some(Phase::Withdrawing),
        Phase::Starting => facts.upstream_answered.then_some(Phase::Serving),
        Phase::Serving => timeline.map(|_| Phase::Withdrawing),
        Phase::Withdrawing if facts.cut_requested => Some(Phase::Cutting),
        Phase::Withdrawing => left_at(facts).is_some_and(due).then_some(Phase::Draining),
        Phase::Draining if ends_at(facts).is_some_and(due) => Some(Phase::Drained),
        Phase::Draining => (facts.cut_requested
            || timeline.is_some_and(|timeline| due(timeline.cut_at)))
        .then_some(Phase::Cutting),
        Phase::Cutting => {
            (facts.in_flight == 0 || due(facts.since + CUT_TIME)).then_some(Phase::Drained)
        }
        Phase::Drained => None,
    }
}

/// Whether an idle legacy session gets no further call here. A client that calls without pause
/// would else hold the pod to the cut, and lose the call that the cut meets. This way its last call
/// ends, and the session is over between two calls.
#[must_use]
pub fn is_last_call(now: Instant, facts: &Facts) -> bool {
    facts.phase == Phase::Draining && last_call_at(facts).is_some_and(|at| now >= at)
}

fn last_call_at(facts: &Facts) -> Option<Instant> {
    facts.timeline.map(|timeline| timeline.last_call(facts.since))
}

/// When `step` should be asked again although no fact has changed.
#[must_use]
pub fn wake_at(now: Instant, facts: &Facts) -> Option<Instant> {
    match facts.phase {
        Phase::Starting | Phase::Serving | Phase::Drained => None,
        Phase::Withdrawing => left_at(facts),
        Phase::Draining => {
            let cut_at = facts.timeline.map(|timeline| timeline.cut_at);
            // What is past changes nothing more.
            let once = [last_call_at(facts), closes_at(facts)].into_iter().flatten();
            let ahead = once.filter(|at| *at > now);
            cut_at.into_iter().chain(ahead).chain(ends_at(facts)).min()
        }
        Phase::Cutting => Some(facts.since + CUT_TIME),
    }
}

/// How long connections may take to close once they are told to.
const CLOSING: Duration = Duration::from_millis(250);

/// Whether connections close as soon as they are idle. They do so while requests are still served:
/// one that is on its way meanwhile is answered, where after the end it would be refused.
#[must_use]
pub fn closes_idle(now: Instant, facts: &Facts) -> bool {
    match facts.phase {
        Phase::Draining => closes_at(facts).is_some_and(|at| now >= at),
        phase => phase > Phase::Draining,
    }
}

/// When idle connections are closed, if nothing comes until then. A client that pauses between two
/// calls has its connection open, and its next request would meet a closed door: it is given the
/// time of `quiet` to come and be told `Connection: close`.
fn closes_at(facts: &Facts) -> Option<Instant> {
    idle_since(facts).map(|since| since + facts.timings.quiet)
}

/// When Draining is over, if nothing comes until then: the last connection has closed, or has had
/// the time to.
fn ends_at(facts: &Facts) -> Option<Instant> {
    match facts.connections {
        0 if facts.timings.settle.is_zero() => idle_since(facts),
        // A pod that is the only one sees its clients come back on new connections, until another
        // one is ready.
        0 => closes_at(facts),
        _ => closes_at(facts).map(|at| at + CLOSING),
    }
}

fn idle_since(facts: &Facts) -> Option<Instant> {
    let since = facts.idle_since.filter(|_| facts.in_flight == 0)?;
    Some(since.max(facts.since))
}

/// What Withdrawing waits for at the moment, or ended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// An endpoint offers us, or nobody can tell whether one does.
    Endpoints,
    /// The endpoints are left; nodes and load balancers follow.
    Settle,
    /// Settled, and new connections still arrive.
    Quiet,
    Done,
    /// Done for want of time.
    TimedOut,
}

/// How far Withdrawing is.
#[must_use]
pub fn withdrawal(now: Instant, facts: &Facts) -> Withdrawal {
    let left = left_at(facts).is_some_and(|at| now >= at);
    let Some(settled) = facts.withdrawn.map(|withdrawn| withdrawn + facts.timings.settle) else {
        return if left { Withdrawal::TimedOut } else { Withdrawal::Endpoints };
    };
    match (left, now < settled, now < settled.max(quiet_at(facts, settled))) {
        (false, true, _) => Withdrawal::Settle,
        (false, false, _) => Withdrawal::Quiet,
        (true, _, true) => Withdrawal::TimedOut,
        (true, _, false) => Withdrawal::Done,
    }
}

/// When Withdrawing is over: withdrawn, settled, and quiet; or its time is up.
fn left_at(facts: &Facts) -> Option<Instant> {
    let timeline = facts.timeline?;
    let Some(withdrawn) = facts.withdrawn else {
        return Some(timeline.withdraw_by);
    };
    let settled = withdrawn + facts.timings.settle;
    // Nobody waits for quiet beyond the time-out; a settle that was set is waited for.
    let longest = timeline.withdraw_by.max(settled).min(timeline.cut_at);
    Some(settled.max(quiet_at(facts, settled)).min(longest))
}

fn quiet_at(facts: &Facts, settled: Instant) -> Instant {
    match facts.last_arrival {
        Some(arrival) if !facts.timings.settle.is_zero() => arrival + facts.timings.quiet,
        _ => settled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn facts(phase: Phase, now: Instant) -> Facts {
        let timings = Timings {
            withdraw_timeout: seconds(10),
            settle: seconds(2),
            quiet: seconds(1),
            drain_timeout: Some(seconds(30)),
            stop_reserve: seconds(2),
            grace: None,
        };
        Facts {
            phase,
            since: now,
            timings,
            upstream_answered: true,
            timeline: Some(timings.timeline(now, None)),
            withdrawn: Some(now),
            last_arrival: None,
            in_flight: 1,
            idle_since: None,
            connections: 1,
            cut_requested: false,
        }
    }

    fn idle(facts: &mut Facts) {
        facts.in_flight = 0;
        facts.idle_since = Some(facts.since);
    }

    #[test]
    fn each_phase_leaves_for_its_reason() {
        let now = Instant::now();
        let of = |phase, change: fn(&mut Facts)| {
            let mut facts = facts(phase, now);
            change(&mut facts);
            facts
        };
        let none = |facts: &mut Facts| facts.timeline = None;
        for (at, facts, expected) in [
            (
                0,
                of(Phase::Starting, |f| {
                    f.timeline = None;
                    f.upstream_answered = false;
                }),
                None,
            ),
            (0, of(Phase::Starting, none), Some(Phase::Serving)),
            (0, of(Phase::Starting, |_| ()), Some(Phase::Withdrawing)),
            (99, of(Phase::Serving, none), None),
            (0, of(Phase::Serving, |_| ()), Some(Phase::Withdrawing)),
            (1, of(Phase::Withdrawing, |_| ()), None),
            (2, of(Phase::Withdrawing, |_| ()), Some(Phase::Draining)),
            (9, of(Phase::Withdrawing, |f| f.withdrawn = None), None),
            (10, of(Phase::Withdrawing, |f| f.withdrawn = None), Some(Phase::Draining)),
            (0, of(Phase::Withdrawing, |f| f.cut_requested = true), Some(Phase::Cutting)),
            (29, of(Phase::Draining, |_| ()), None),
            (30, of(Phase::Draining, |_| ()), Some(Phase::Cutting)),
            (0, of(Phase::Draining, idle), None),
            (1, of(Phase::Draining, idle), None),
            (2, of(Phase::Draining, idle), Some(Phase::Drained)),
            (0, of(Phase::Draining, |f| f.cut_requested = true), Some(Phase::Cutting)),
            (0, of(Phase::Cutting, |_| ()), None),
            (1, of(Phase::Cutting, |_| ()), Some(Phase::Drained)),
            (0, of(Phase::Cutting, |f| f.in_flight = 0), Some(Phase::Drained)),
            (99, of(Phase::Drained, |_| ()), None),
        ] {
            assert_eq!(step(now + seconds(at), &facts), expected, "{at}s {facts:?}");
        }
    }

    #[test]
    fn a_session_is_served_in_draining_for_a_moment() {
        let now = Instant::now();
        let facts = facts(Phase::Draining, now);
        assert!(!is_last_call(now + seconds(1), &facts));
        assert!(is_last_call(now + seconds(2), &facts));
        assert_eq!(wake_at(now, &facts), Some(now + seconds(2)));
        assert_eq!(wake_at(now + seconds(2), &facts), Some(now + seconds(30)));
        for phase in [Phase::Serving, Phase::Withdrawing, Phase::Cutting] {
            assert!(!is_last_call(now + seconds(99), &Facts { phase, ..facts }));
        }
    }

    #[test]
    fn an_open_connection_may_bring_one_more_request() {
        let now = Instant::now();
        let mut facts = facts(Phase::Draining, now);
        idle(&mut facts);
        facts.idle_since = now.checked_sub(seconds(60));
        // What was idle long before has not been told to go elsewhere.
        assert_eq!(wake_at(now, &facts), Some(now + seconds(1)));
        assert!(!closes_idle(now, &facts));
        // Then it closes, and is waited for.
        let closing = now + seconds(1);
        assert!(closes_idle(closing, &facts));
        assert_eq!(step(closing, &facts), None);
        assert_eq!(wake_at(closing, &facts), Some(closing + CLOSING));
        assert_eq!(step(closing + CLOSING, &facts), Some(Phase::Drained));
        // Without one, a new one may come; not where there are no endpoints that lead here.
        facts.connections = 0;
        assert_eq!(step(now, &facts), None);
        assert_eq!(step(closing, &facts), Some(Phase::Drained));
        let settle = std::mem::take(&mut facts.timings.settle);
        assert_eq!(step(now, &facts), Some(Phase::Drained));
        let late = now + seconds(9);
        facts.idle_since = Some(now + seconds(10));
        assert_eq!(wake_at(late, &facts), Some(now + seconds(10)));
        facts.timings.settle = settle;
        facts.connections = 1;
        assert_eq!(wake_at(late, &facts), Some(now + seconds(11)));
        facts.idle_since = Some(now + seconds(29));
        assert_eq!(wake_at(late, &facts), Some(now + seconds(30)));
        for (phase, closes) in
            [(Phase::Serving, false), (Phase::Withdrawing, false), (Phase::Cutting, true)]
        {
            assert_eq!(closes_idle(now + seconds(99), &Facts { phase, ..facts }), closes);
        }
    }

    #[test]
    fn a_new_connection_keeps_withdrawing_at_most_until_its_timeout() {
        let now = Instant::now();
        let mut facts = facts(Phase::Withdrawing, now);
        facts.last_arrival = Some(now + seconds(2));
        assert_eq!(wake_at(now, &facts), Some(now + seconds(3)));
        facts.last_arrival = Some(now + seconds(60));
        assert_eq!(wake_at(now, &facts), Some(now + seconds(10)));
    }

    #[test]
    fn what_withdrawing_waits_for_has_a_name() {
        let now = Instant::now();
        let of = |withdrawn: Option<u64>, arrival: Option<u64>| {
            let mut facts = facts(Phase::Withdrawing, now);
            facts.withdrawn = withdrawn.map(|at| now + seconds(at));
            facts.last_arrival = arrival.map(|at| now + seconds(at));
            facts
        };
        for (at, facts, expected) in [
            (0, of(None, None), Withdrawal::Endpoints),
            (10, of(None, None), Withdrawal::TimedOut),
            (1, of(Some(0), None), Withdrawal::Settle),
            (2, of(Some(0), None), Withdrawal::Done),
            (3, of(Some(0), Some(3)), Withdrawal::Quiet),
            (4, of(Some(0), Some(3)), Withdrawal::Done),
            (10, of(Some(0), Some(10)), Withdrawal::TimedOut),
            // Left its endpoints late: the settle is waited for all the same.
            (10, of(Some(9), None), Withdrawal::Settle),
            (11, of(Some(9), None), Withdrawal::Done),
        ] {
            assert_eq!(withdrawal(now + seconds(at), &facts), expected, "{at} {facts:?}");
        }
    }

    #[test]
    fn without_a_settle_nothing_is_waited_for() {
        let now = Instant::now();
        let mut facts = facts(Phase::Withdrawing, now);
        facts.timings.settle = seconds(0);
        facts.last_arrival = Some(now);
        assert_eq!(step(now, &facts), Some(Phase::Draining));
    }

    #[test]
    fn asking_at_the_time_told_makes_the_step() {
        let now = Instant::now();
        for phase in [Phase::Withdrawing, Phase::Draining, Phase::Cutting] {
            let facts = facts(phase, now);
            // Draining wakes once more, to end sessions; that is no step.
            let at = wake_at(now + seconds(9), &facts).unwrap();
            let before = at.checked_sub(Duration::from_millis(1)).unwrap();
            assert_eq!(step(before, &facts), None);
            assert!(step(at, &facts) > Some(phase));
        }
    }
}
