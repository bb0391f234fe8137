//! What a drain that has begun keeps: why and when it began, what it waits for, its account, and
//! the pace at which streams end. Tells the log of each step.
//!
//! Never moves the phase: the driver does, by the machine.

use std::time::{Duration, Instant};

use tracing::info;

use super::{
    knowledge::{Knowledge, Level},
    machine::{self, Facts, Withdrawal},
    phase::{Phase, Trigger},
    report::Account,
    timeline::{Timeline, Timings},
};
use crate::inflight::{Inflight, Totals};

/// How often streams are told to end while a drain ends them.
const STREAM_TICK: Duration = Duration::from_millis(10);
/// The longest time over which endings are spread, so that the clients do not all come back in
/// one millisecond.
const STREAM_SPREAD: Duration = Duration::from_secs(5);
/// Streams that end at once however many there are.
const STREAM_BATCH: usize = 10;

/// How often it is looked whether a pending call was awaited for too long.
pub const PENDING_LOOK: Duration = Duration::from_secs(1);

pub struct Begun {
    pub trigger: Trigger,
    pub at: Instant,
    pub account: Account,
    waits_for: Option<Withdrawal>,
    /// Streams that are told to end per tick, and when the next are.
    stream_batch: usize,
    next_batch: Instant,
    next_look: Instant,
}

impl Begun {
    #[must_use]
    pub fn new(
        trigger: Trigger,
        now: Instant,
        level: Level,
        inflight: &Inflight,
        before: Totals,
    ) -> Self {
        info!(
            why = trigger.name(),
            in_flight = inflight.finite(),
            streams = inflight.streams(),
            knowledge = level.name(),
            "drain begins"
        );
        let account = Account::new(trigger, inflight, before);
        let stream_batch = STREAM_BATCH;
        Self {
            trigger,
            at: now,
            account,
            waits_for: None,
            stream_batch,
            next_batch: now,
            next_look: now,
        }
    }

    /// The timeline, where it is another than is known: at first, and when the kill time moves.
    #[must_use]
    pub fn timeline(
        &self,
        now: Instant,
        timings: &Timings,
        kill_at: Option<Instant>,
        known: Option<Timeline>,
    ) -> Option<Timeline> {
        let timeline = timings.timeline(self.at, kill_at);
        if known == Some(timeline) {
            return None;
        }
        let left = |at: Instant| at.saturating_duration_since(now).as_secs_f64();
        info!(
            seconds_to_cut = left(timeline.cut_at),
            seconds_to_kill = timeline.kill_at.map(left),
            moved = known.is_some(),
            "drain timeline"
        );
        Some(timeline)
    }

    /// Logs what Withdrawing waits for, each time that it changes.
    pub fn tell_withdrawal(&mut self, now: Instant, facts: &Facts, knowledge: &Knowledge) {
        let waits_for = machine::withdrawal(now, facts);
        if self.waits_for == Some(waits_for) {
            return;
        }
        self.waits_for = Some(waits_for);
        let text = match (waits_for, knowledge.level()) {
            (Withdrawal::Endpoints, Level::Timers) => {
                "nobody tells whether an endpoint offers this pod: waiting for withdraw_timeout"
            }
            (Withdrawal::Endpoints, _) => "an endpoint still offers this pod",
            (Withdrawal::Settle, _) => {
                "no endpoint offers this pod: settling, for nodes and load balancers to follow"
            }
            (Withdrawal::Quiet, _) => "settled, and new connections still arrive: waiting on",
            (Withdrawal::Done, _) => "no endpoint offers this pod, and nobody new comes",
            (Withdrawal::TimedOut, _) => {
                "withdraw_timeout is over; new connections may still arrive"
            }
        };
        let endpoints = knowledge.endpoints();
        info!(
            endpoints = endpoints.map(|endpoints| endpoints.named),
            offering = endpoints.map(|endpoints| endpoints.offering),
            "withdrawing: {text}"
        );
    }

    /// Sets the pace of the streams' ends, so that all have ended in time.
    pub fn pace(&mut self, now: Instant, cut_at: Option<Instant>, streams: usize) {
        let left = cut_at.map_or(STREAM_SPREAD, |cut_at| cut_at.saturating_duration_since(now));
        let ticks = (left / 2).min(STREAM_SPREAD).as_millis() / STREAM_TICK.as_millis();
        let ticks = usize::try_from(ticks).unwrap_or(1).max(1);
        self.stream_batch = streams.div_ceil(ticks).max(STREAM_BATCH);
        self.next_batch = now;
    }

    /// How many streams are to be told to end now, if it is time for some.
    pub fn batch(&mut self, now: Instant) -> Option<usize> {
        // Not with every change: each stream that ends is one.
        (now >= self.next_batch).then(|| {
            self.next_batch = now + STREAM_TICK;
            self.stream_batch
        })
    }

    /// Whether it is time to look for pending calls that are too old: not with every change, since
    /// all sessions are looked at.
    pub fn looks_at_pending(&mut self, now: Instant) -> bool {
        let looks = now >= self.next_look;
        if looks {
            self.next_look = now + PENDING_LOOK;
        }
        looks
    }

    /// When the next streams are to end, while there are any.
    #[must_use]
    pub fn next_batch(&self, phase: Phase, streams: usize) -> Option<Instant> {
        (phase == Phase::Draining && streams > 0).then_some(self.next_batch)
    }
}
