//! What the pool did, for `status`, metrics and the report. Counts only; decides nothing.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use prometheus::{Histogram, IntCounter, IntGauge};
use serde::Serialize;

use super::{Budget, doubt::Doubt};
use crate::telemetry::metrics::PoolMetrics;

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Unused for `idle_timeout`.
    IdleTimeout,
    /// The upstream closed it, or sent bytes that nobody asked for.
    Upstream,
    /// The upstream asked for it, or the exchange did not end cleanly.
    NotReusable,
    /// The upstream broke off, or sent what is not HTTP.
    Error,
    /// A stream's connection, which is never used again.
    Stream,
    /// The client left before the answer ended.
    Abandoned,
    /// The pool drains.
    Drained,
}

impl Closed {
    pub const ALL: [Closed; 7] = [
        Closed::IdleTimeout,
        Closed::Upstream,
        Closed::NotReusable,
        Closed::Error,
        Closed::Stream,
        Closed::Abandoned,
        Closed::Drained,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Closed::IdleTimeout => "idle_timeout",
            Closed::Upstream => "upstream",
            Closed::NotReusable => "not_reusable",
            Closed::Error => "error",
            Closed::Stream => "stream",
            Closed::Abandoned => "abandoned",
            Closed::Drained => "drained",
        }
    }
}

/// The pool at one moment. `in_use`, `streams`, `idle` and `waiting` are now; the others since
/// the start. A connection that was created is idle, or in use, or counted as closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Slots in use: calls and streams.
    pub in_use: usize,
    /// Those of them that are streams.
    pub streams: usize,
    pub idle: usize,
    pub waiting: usize,
    pub created: u64,
    pub reused: u64,
    pub acquired: u64,
    pub released: u64,
    pub timed_out: u64,
    /// Times that the upstream could not be reached within `acquire_timeout`.
    pub unreachable: u64,
    pub closed: u64,
}

pub(super) struct Tally {
    pub(super) in_use: AtomicUsize,
    streams: AtomicUsize,
    idle: AtomicUsize,
    waiting: AtomicUsize,
    unreachable: AtomicU64,
    acquire: Histogram,
    created: IntCounter,
    reused: IntCounter,
    acquired: IntCounter,
    released: IntCounter,
    timed_out: IntCounter,
    closed: Vec<IntCounter>,
    states: [IntGauge; 4],
    pub(super) doubt: Doubt,
}

const CALLS: usize = 0;
const STREAMS: usize = 1;
const IDLE: usize = 2;
const WAITING: usize = 3;

impl Tally {
    pub(super) fn new(metrics: &PoolMetrics) -> Self {
        let event = |name| metrics.event(name, "");
        let state = |name| metrics.connections.with_label_values(&[name]);
        Self {
            in_use: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            unreachable: AtomicU64::new(0),
            acquire: metrics.acquire.clone(),
            created: event("created"),
            reused: event("reused"),
            acquired: event("acquired"),
            released: event("released"),
            timed_out: event("acquire_timeout"),
            closed: Closed::ALL.map(|why| metrics.event("closed", why.name())).to_vec(),
            states: ["in_use", "streams", "idle", "waiting"].map(state),
            doubt: Doubt::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            in_use: self.in_use.load(Relaxed),
            streams: self.streams.load(Relaxed),
            idle: self.idle.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            created: self.created.get(),
            reused: self.reused.get(),
            acquired: self.acquired.get(),
            released: self.released.get(),
            timed_out: self.timed_out.get(),
            unreachable: self.unreachable.load(Relaxed),
            closed: self.closed.iter().map(prometheus::core::GenericCounter::get).sum(),
        }
    }

    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Relaxed);
        self.states[WAITING].inc();
        Waiting(self)
    }

    pub(super) fn acquire_took(&self, took: Duration) {
        self.acquire.observe(took.as_secs_f64());
    }

    pub(super) fn timed_out(&self) {
        self.timed_out.inc();
    }

    pub(super) fn unreachable(&self) {
        self.unreachable.fetch_add(1, Relaxed);
    }

    pub(super) fn acquired(&self, budget: Budget) {
        self.acquired.inc();
        self.in_use.fetch_add(1, Relaxed);
        self.enter(budget);
    }

    pub(super) fn released(&self, budget: Budget) {
        self.released.inc();
        self.in_use.fetch_sub(1, Relaxed);
        self.leave(budget);
    }

    pub(super) fn moved(&self, from: Budget, to: Budget) {
        self.leave(from);
        self.enter(to);
    }

    fn enter(&self, budget: Budget) {
        match budget {
            Budget::Calls | Budget::Messages => self.states[CALLS].inc(),
            Budget::Streams => {
                self.streams.fetch_add(1, Relaxed);
                self.states[STREAMS].inc();
            }
        }
    }

    fn leave(&self, budget: Budget) {
        match budget {
            Budget::Calls | Budget::Messages => self.states[CALLS].dec(),
            Budget::Streams => {
                self.streams.fetch_sub(1, Relaxed);
                self.states[STREAMS].dec();
            }
        }
    }

    pub(super) fn created(&self) {
        self.created.inc();
    }

    pub(super) fn reused(&self) {
        self.reused.inc();
        self.taken();
    }

    pub(super) fn kept(&self) {
        self.idle.fetch_add(1, Relaxed);
        self.states[IDLE].inc();
    }

    /// An idle connection was taken out.
    pub(super) fn taken(&self) {
        self.idle.fetch_sub(1, Relaxed);
        self.states[IDLE].dec();
    }

    pub(super) fn closed(&self, reason: Closed) {
        self.closed[reason as usize].inc();
        if reason == Closed::Error {
            self.doubt.raise();
        }
    }
}

/// One place in the line; dropping it leaves the line.
pub(super) struct Waiting<'a>(&'a Tally);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
        self.0.states[WAITING].dec();
    }
}
