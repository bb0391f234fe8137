//! The one task that decides: it owns the clock and the phase, asks the pure files what follows
//! from what it was told, and tells everybody.
//!
//! Never touches a request, and never decides what `machine`, `timeline` or `hooks` could.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    handle::{Arrivals, DrainHandle, DrainWatch, Event, Snapshot},
    hooks::Hooks,
    machine::{self, Facts},
    phase::{Phase, Trigger},
    report::Report,
    timeline::Timings,
};
use crate::{
    inflight::{Ending, Exchange, Inflight, Totals},
    telemetry::Metrics,
};

/// How often streams are told to end while a drain ends them.
const STREAM_TICK: Duration = Duration::from_millis(10);
/// The longest time over which endings are spread, so that the clients do not all come back in
/// one millisecond.
const STREAM_SPREAD: Duration = Duration::from_secs(5);
/// Streams that end at once however many there are.
const STREAM_BATCH: usize = 10;

/// What the driver works by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub timings: Timings,
    /// Whether there are endpoints to leave (Kubernetes). Without, we are withdrawn at once.
    pub has_endpoints: bool,
    /// Zero waits for ever.
    pub response_timeout: Duration,
}

/// Owns the phase. Consumed by [`Driver::run`].
pub struct Driver {
    rules: Rules,
    events: mpsc::Receiver<Event>,
    snapshots: watch::Sender<Snapshot>,
    inflight: Inflight,
    arrivals: Arc<Arrivals>,
    metrics: Arc<Metrics>,
    facts: Facts,
    trigger: Option<Trigger>,
    hooks: Hooks,
    /// SIGTERM came, or the server is gone: nothing is left to do after `Drained`.
    may_exit: bool,
    at_trigger: Totals,
    phases: Vec<(Phase, Duration)>,
    cut_calls: Vec<Exchange>,
    stream_batch: usize,
}

impl Driver {
    /// A driver in `Starting`, and how others meet it.
    #[must_use]
    pub fn new(
        rules: Rules,
        inflight: Inflight,
        arrivals: Arc<Arrivals>,
        metrics: Arc<Metrics>,
    ) -> (Self, DrainHandle, DrainWatch) {
        let (sender, events) = mpsc::channel(256);
        let facts = Facts {
            phase: Phase::Starting,
            since: Instant::now().into_std(),
            timings: rules.timings,
            upstream_answered: false,
            timeline: None,
            withdrawn: None,
            last_arrival: None,
            in_flight: 0,
            cut_requested: false,
        };
        let (snapshots, watch) = watch::channel(Snapshot {
            phase: Phase::Starting,
            trigger: None,
            timeline: None,
            last_call: None,
            report: None,
        });
        metrics.phase(&Phase::ALL.map(Phase::name), Phase::Starting.name());
        let driver = Self {
            rules,
            events,
            snapshots,
            inflight,
            arrivals,
            metrics,
            facts,
            trigger: None,
            hooks: Hooks::default(),
            may_exit: false,
            at_trigger: Totals::default(),
            phases: Vec::new(),
            cut_calls: Vec::new(),
            stream_batch: STREAM_BATCH,
        };
        (driver, DrainHandle::new(sender), DrainWatch::new(watch))
    }

    /// Drives until drained and allowed to exit.
    pub async fn run(mut self) {
        let mut expire_at = self.next_expiry();
        loop {
            self.look();
            while let Some(next) = machine::step(now(), &self.facts) {
                self.enter(next);
                self.look();
            }
            if self.facts.phase == Phase::Drained && self.may_exit {
                return;
            }
            if self.facts.phase == Phase::Draining {
                self.inflight.end_streams(self.stream_batch);
            }
            let machine_at = machine::wake_at(&self.facts).map(Instant::from_std);
            let stream_tick = self.stream_tick();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take(event),
                    // Every handle is gone: the process is ending.
                    None => return,
                },
                () = self.inflight.changed(), if self.facts.phase >= Phase::Draining => {}
                () = until(machine_at) => {}
                () = until(stream_tick) => {}
                () = until(expire_at) => {
                    self.inflight.expire(self.rules.response_timeout);
                    expire_at = self.next_expiry();
                }
            }
        }
    }

    /// Reads the facts that others keep.
    fn look(&mut self) {
        self.facts.in_flight = self.inflight.finite() + self.inflight.streams();
        self.facts.last_arrival = self.arrivals.last();
    }

    fn take(&mut self, event: Event) {
        let now = now();
        match event {
            Event::UpstreamAnswered => self.facts.upstream_answered = true,
            Event::Requested => self.begin(Trigger::Request),
            Event::Signal if self.may_exit => {
                warn!("a second signal: what is in flight is cut now");
                self.facts.cut_requested = true;
            }
            Event::Signal => {
                self.may_exit = true;
                self.begin(Trigger::Signal);
            }
            Event::HookCalled(hook) => {
                self.hooks.called(hook, now);
                info!(?hook, "preStop hook called");
                if self.hooks.corroborated(now) {
                    self.begin(Trigger::PreStop);
                }
            }
            Event::HookReturned(hook) => self.hooks.returned(hook),
            Event::ServerEnded => {
                self.may_exit = true;
                self.begin(Trigger::ServerEnded);
                self.inflight.end_all(Ending::UpstreamLost);
                self.facts.cut_requested = true;
            }
        }
    }

    /// Begins the drain, if none has begun.
    fn begin(&mut self, trigger: Trigger) {
        if self.trigger.is_some() {
            return;
        }
        let now = now();
        let timeline = self.rules.timings.timeline(now, None);
        self.trigger = Some(trigger);
        self.facts.timeline = Some(timeline);
        if !self.rules.has_endpoints {
            self.facts.withdrawn = Some(now);
        }
        self.at_trigger = self.inflight.totals();
        info!(
            why = trigger.name(),
            in_flight = self.inflight.finite(),
            streams = self.inflight.streams(),
            seconds_to_cut = (timeline.cut_at - now).as_secs_f64(),
            "drain begins"
        );
    }

    fn enter(&mut self, phase: Phase) {
        let now = now();
        let took = now.duration_since(self.facts.since);
        let left = self.facts.phase;
        if left >= Phase::Withdrawing {
            self.phases.push((left, took));
        }
        info!(
            phase = phase.name(),
            after = left.name(),
            seconds = took.as_secs_f64(),
            in_flight = self.inflight.finite(),
            streams = self.inflight.streams(),
            "phase"
        );
        self.facts.phase = phase;
        self.facts.since = now;
        if phase == Phase::Draining {
            self.stream_batch = self.spread(now);
        }
        let report = (phase == Phase::Drained).then(|| Arc::new(self.report()));
        let last_call = self.facts.timeline.map(|timeline| timeline.last_call(now));
        // Published before anything is told to end: an exchange that begins now reads it.
        self.snapshots.send_replace(Snapshot {
            phase,
            trigger: self.trigger,
            timeline: self.facts.timeline,
            last_call: last_call.filter(|_| phase == Phase::Draining),
            report,
        });
        self.metrics.phase(&Phase::ALL.map(Phase::name), phase.name());
        match phase {
            Phase::Cutting => self.cut_calls = self.inflight.end_all(Ending::Cut),
            // Those that slipped in while the phase changed.
            Phase::Drained => drop(self.inflight.end_all(Ending::Cut)),
            _ => {}
        }
    }

    /// How many streams end per tick, so that all have ended in time.
    fn spread(&self, now: std::time::Instant) -> usize {
        let left = self.facts.timeline.map_or(STREAM_SPREAD, |t| t.cut_at.duration_since(now));
        let ticks = (left / 2).min(STREAM_SPREAD).as_millis() / STREAM_TICK.as_millis();
        let ticks = usize::try_from(ticks).unwrap_or(1).max(1);
        self.inflight.streams().div_ceil(ticks).max(STREAM_BATCH)
    }

    fn stream_tick(&self) -> Option<Instant> {
        let ending = self.facts.phase == Phase::Draining && self.inflight.streams() > 0;
        ending.then(|| Instant::now() + STREAM_TICK)
    }

    fn next_expiry(&self) -> Option<Instant> {
        let timeout = self.rules.response_timeout;
        let pause = (timeout / 10).clamp(Duration::from_millis(50), Duration::from_secs(10));
        (!timeout.is_zero()).then(|| Instant::now() + pause)
    }

    fn report(&mut self) -> Report {
        let totals = self.inflight.totals().since(&self.at_trigger);
        let cut_calls = std::mem::take(&mut self.cut_calls);
        // Drained without a trigger does not happen; a signal is what it would amount to.
        let trigger = self.trigger.unwrap_or(Trigger::Signal);
        let report = Report::new(trigger, &self.phases, &totals, cut_calls);
        report.count(&self.metrics);
        report
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
