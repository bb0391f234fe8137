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
    begun::{Begun, PENDING_LOOK},
    handle::{Connections, DrainHandle, DrainWatch, Event, Snapshot},
    hooks::{Hook, Hooks, Restart, Step},
    knowledge::{Fact, Knowledge},
    machine::{self, Facts},
    phase::{Phase, Trigger},
    report::Report,
    timeline::Timings,
};
use crate::{
    inflight::{Ending, Inflight, Totals, UNTAKEN_LOOK},
    telemetry::{Metrics, metrics::Outcome},
};

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
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    facts: Facts,
    /// Exchanges that had begun when last looked.
    begun: u64,
    /// What became of exchanges until a few seconds ago.
    lately: Totals,
    knowledge: Knowledge,
    hooks: Hooks,
    restart: Restart,
    /// The drain, once it has begun.
    drain: Option<Begun>,
    /// SIGTERM came, or the server is gone: nothing is left to do after `Drained`.
    may_exit: bool,
    signalled: Option<std::time::Instant>,
}

impl Driver {
    /// A driver in `Starting`, and how others meet it.
    #[must_use]
    pub fn new(
        rules: Rules,
        inflight: Inflight,
        connections: Arc<Connections>,
        metrics: Arc<Metrics>,
    ) -> (Self, DrainHandle, DrainWatch) {
        let (sender, events) = mpsc::channel(256);
        let facts = Facts {
            phase: Phase::Starting,
            since: now(),
            timings: rules.timings,
            upstream_answered: false,
            timeline: None,
            withdrawn: None,
            last_arrival: None,
            in_flight: 0,
            idle_since: None,
            connections: 0,
            cut_requested: false,
        };
        let (snapshots, watch) = watch::channel(Snapshot::default());
        metrics.phase(&Phase::ALL.map(Phase::name), Phase::Starting.name());
        let driver = Self {
            rules,
            events,
            snapshots,
            inflight,
            connections,
            metrics,
            facts,
            begun: 0,
            lately: Totals::default(),
            knowledge: Knowledge::default(),
            hooks: Hooks::default(),
            restart: Restart::No,
            drain: None,
            may_exit: false,
            signalled: None,
        };
        (driver, DrainHandle::new(sender), DrainWatch::new(watch))
    }

    /// Drives until drained and allowed to exit.
    pub async fn run(mut self) {
        let mut expire_at = self.next_expiry();
        let mut untaken_at = Instant::now() + UNTAKEN_LOOK;
        loop {
            self.look();
            while let Some(next) = machine::step(now(), &self.facts) {
                self.enter(next);
                self.look();
            }
            self.publish(None);
            if self.facts.phase == Phase::Drained && self.may_exit {
                return;
            }
            if self.facts.phase == Phase::Draining
                && let Some(batch) = self.drain.as_mut().and_then(|drain| drain.batch(now()))
            {
                self.inflight.end_streams(batch);
            }
            let wake_at = self.wake_at();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take(event),
                    // Every handle is gone: the process is ending.
                    None => return,
                },
                () = self.inflight.changed(), if self.facts.phase >= Phase::Draining => {}
                () = self.connections.none_left(), if self.facts.phase == Phase::Draining => {}
                () = until(wake_at) => {}
                () = until(Some(expire_at)) => {
                    if !self.rules.response_timeout.is_zero() {
                        self.inflight.expire(self.rules.response_timeout);
                    }
                    self.inflight.expire_pending();
                    expire_at = self.next_expiry();
                }
                () = until(Some(untaken_at)) => {
                    self.inflight.release_untaken();
                    self.lately = self.inflight.totals();
                    untaken_at = Instant::now() + UNTAKEN_LOOK;
                }
            }
        }
    }

    /// Reads what others keep, and what time alone changes.
    fn look(&mut self) {
        let now = now();
        if self.inflight.pending() > 0
            && self.drain.as_mut().is_some_and(|drain| drain.looks_at_pending(now))
        {
            self.inflight.expire_pending();
        }
        // Who comes back for a pending call later than now finds nobody who can finish it.
        let awaits_pending = self.facts.phase < Phase::Cutting;
        self.facts.in_flight =
            if awaits_pending { self.inflight.all() } else { self.inflight.exchanging() };
        let begun = self.inflight.begun();
        let busy = self.facts.in_flight > 0 || begun != self.begun;
        self.begun = begun;
        self.facts.idle_since = self.facts.idle_since.filter(|_| !busy).or(Some(now));
        self.facts.connections = self.connections.open();
        self.facts.last_arrival = self.connections.last_arrival();
        if self.hooks.server_restarts_at().is_some_and(|at| now >= at) && self.drain.is_none() {
            self.restarts(Step::Alone);
        }
        if self.facts.phase == Phase::Withdrawing
            && let Some(drain) = &mut self.drain
        {
            drain.tell_withdrawal(now, &self.facts, &self.knowledge);
        }
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
                self.signalled = Some(now);
                self.begin(Trigger::Signal);
            }
            Event::HookCalled(hook) => {
                self.hooks.called(hook, now);
                info!(?hook, "preStop hook called");
                if self.hooks.corroborated(now) {
                    self.begin(Trigger::PreStop);
                }
            }
            Event::HookReturned(hook) => {
                self.hooks.returned(hook);
                if hook == Hook::Server && self.hooks.server_restarts_at().is_none() {
                    self.restarts(Step::Returned);
                }
            }
            Event::Restart(step) => self.restarts(step),
            Event::Learned(fact) => self.learn(fact, now),
            Event::ServerEnded => {
                self.may_exit = true;
                self.begin(Trigger::ServerEnded);
                self.inflight.end_all(Ending::UpstreamLost);
                self.facts.cut_requested = true;
            }
            Event::ServerRestarted => {
                warn!(
                    "the server's container has restarted behind the drain, and the pod goes on: \
                     ending, to be started anew and serve again"
                );
                self.may_exit = true;
            }
        }
    }

    fn restarts(&mut self, step: Step) {
        let next = self.restart.step(step);
        if next != self.restart {
            match next {
                Restart::No => info!("the server's container has restarted"),
                state => info!(?state, "the server's container restarts"),
            }
            self.restart = next;
        }
    }

    fn learn(&mut self, fact: Fact, now: std::time::Instant) {
        let level = self.knowledge.level();
        self.knowledge.learn(fact);
        if self.knowledge.level() != level {
            info!(level = self.knowledge.level().name(), before = level.name(), "knowledge");
            self.metrics.knowledge_level.set(self.knowledge.level() as i64);
        }
        self.facts.withdrawn = match self.knowledge.is_withdrawn() {
            Some(true) => self.facts.withdrawn.or(Some(now)),
            Some(false) => None,
            // What a drain has seen is not undone by news that stop.
            None => self.facts.withdrawn.filter(|_| self.drain.is_some()),
        };
        if let Some(trigger) = self.knowledge.trigger() {
            self.begin(trigger);
        }
        self.plan();
    }

    /// Begins the drain, if none has begun.
    fn begin(&mut self, trigger: Trigger) {
        if self.drain.is_some() {
            return;
        }
        let now = now();
        let level = self.knowledge.level();
        let totals = self.inflight.totals();
        let mut before = totals;
        if trigger == Trigger::ServerEnded {
            // Its calls are lost a moment before anybody hears of its end.
            before = before.with(Outcome::UpstreamLost, self.lately.of(Outcome::UpstreamLost));
        }
        for _ in 0..totals.since(&before).of(Outcome::UpstreamLost) {
            self.metrics.ended_in_drain(Outcome::UpstreamLost);
        }
        self.drain = Some(Begun::new(trigger, now, level, &self.inflight, before));
        if !self.rules.has_endpoints {
            self.facts.withdrawn = Some(now);
        }
        self.plan();
    }

    /// Makes the timeline of the drain, anew where the kill time has moved.
    fn plan(&mut self) {
        let (known, kill_at) = (self.facts.timeline, self.knowledge.kill_at());
        let timings = &self.rules.timings;
        let drain = self.drain.as_ref();
        if let Some(timeline) = drain.and_then(|d| d.timeline(now(), timings, kill_at, known)) {
            self.facts.timeline = Some(timeline);
        }
    }

    fn enter(&mut self, phase: Phase) {
        let now = now();
        let took = now.duration_since(self.facts.since);
        let left = self.facts.phase;
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
        let cut_at = self.facts.timeline.map(|timeline| timeline.cut_at);
        let mut report = None;
        if let Some(drain) = &mut self.drain {
            if left >= Phase::Withdrawing {
                drain.account.phase_took(left, took);
                self.metrics.phase_took(left.name(), took);
            }
            if phase == Phase::Draining {
                drain.pace(now, cut_at, self.inflight.streams());
            }
            if phase == Phase::Drained {
                report = Some(Arc::new(drain.account.report(&self.inflight)));
            }
        }
        // Published before anything is told to end: an exchange that begins now reads it.
        self.publish(report);
        self.metrics.phase(&Phase::ALL.map(Phase::name), phase.name());
        // Once: what begins later is refused, or goes to another pod and has its time.
        if let (Phase::Cutting, Some(drain)) = (phase, &mut self.drain) {
            let cut = self.inflight.end_all(Ending::Cut);
            // The others count with the end of their exchanges.
            for _ in cut.iter().filter(|call| call.is_pending()) {
                self.metrics.ended_in_drain(Outcome::Cut);
            }
            drain.account.cut(cut);
            self.inflight.release_at_cut();
        }
    }

    /// Tells what holds now, if anything of it has changed.
    fn publish(&mut self, report: Option<Arc<Report>>) {
        let now = now();
        let phase = self.facts.phase;
        let deleted = self
            .drain
            .as_ref()
            .is_some_and(|drain| self.knowledge.is_deleted(drain.trigger, drain.at, now));
        let news = Snapshot {
            phase,
            trigger: self.drain.as_ref().map(|drain| drain.trigger),
            timeline: self.facts.timeline,
            last_call: machine::is_last_call(now, &self.facts),
            closes_idle: machine::closes_idle(now, &self.facts),
            deleted,
            restart: self.restart,
            level: self.knowledge.level(),
            withdrawn: self.facts.withdrawn.is_some(),
            signalled: self.signalled,
            report: None,
        };
        self.snapshots.send_if_modified(|snapshot| {
            let news = Snapshot { report: report.or(snapshot.report.take()), ..news };
            let changed = *snapshot != news;
            *snapshot = news;
            changed
        });
    }

    /// When time alone may change something.
    fn wake_at(&self) -> Option<Instant> {
        let machine = machine::wake_at(now(), &self.facts);
        let alone = self.hooks.server_restarts_at().filter(|_| self.restart == Restart::No);
        let (phase, streams) = (self.facts.phase, self.inflight.streams());
        let drain = self.drain.as_ref();
        let batch = drain.and_then(|drain| drain.next_batch(phase, streams));
        let doubt = drain.map(|drain| self.knowledge.doubt_ends(drain.at));
        let ahead = |at: &std::time::Instant| *at > now();
        let pending = self.drain.is_some() && phase < Phase::Cutting && self.inflight.pending() > 0;
        let too_old = pending.then(|| now() + PENDING_LOOK);
        let others = [alone.filter(ahead), doubt.filter(ahead), too_old].into_iter().flatten();
        machine.into_iter().chain(batch).chain(others).min().map(Instant::from_std)
    }

    fn next_expiry(&self) -> Instant {
        let longest = Duration::from_secs(10);
        let timeout = self.rules.response_timeout;
        let pause = if timeout.is_zero() { longest } else { timeout / 10 };
        Instant::now() + pause.clamp(Duration::from_millis(50), longest)
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
