//! How the rest of ebbtide meets the driver: a [`DrainHandle`] may ask, a [`DrainWatch`] may look.
//!
//! Never decides: an ask is an event, and the phase is what the driver published.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::sync::{Notify, mpsc, watch};

use super::{
    hooks::{Hook, Restart, Step},
    knowledge::{Fact, Level},
    phase::{Phase, Trigger},
    report::Report,
    timeline::{AFTER_SIGNAL, Timeline},
};

/// What the driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    UpstreamAnswered,
    /// SIGTERM or SIGINT: the first begins a drain or ends the wait after one, the next cuts.
    Signal,
    /// Somebody who may ask for it wants a drain.
    Requested,
    HookCalled(Hook),
    HookReturned(Hook),
    /// The server's container restarts, and got that far.
    Restart(Step),
    /// News of Kubernetes.
    Learned(Fact),
    /// The server that we supervise ended by itself.
    ServerEnded,
    /// The server's container has restarted behind a drain that somebody asked for.
    ServerRestarted,
}

/// What the driver tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    pub phase: Phase,
    pub trigger: Option<Trigger>,
    pub timeline: Option<Timeline>,
    /// Whether an idle legacy session gets no further call.
    pub last_call: bool,
    /// Whether connections close as soon as they are idle.
    pub closes_idle: bool,
    /// The pod is being deleted: its endpoints know, and its readiness has to hold.
    pub deleted: bool,
    pub restart: Restart,
    pub level: Level,
    /// Whether no endpoint offers us.
    pub withdrawn: bool,
    /// When SIGTERM came.
    pub signalled: Option<Instant>,
    /// Set with `Drained`.
    pub report: Option<Arc<Report>>,
}

impl Snapshot {
    /// Until when what another pod answers may pass through this one that has drained; `now`, where
    /// there is no time. `has_child`: the server has still to be stopped by us, after that.
    #[must_use]
    pub fn passes_until(&self, now: Instant, has_child: bool) -> Instant {
        let Some(timeline) = self.timeline else { return now };
        let surely = if has_child { now } else { self.signalled.unwrap_or(now) + AFTER_SIGNAL };
        timeline.cut_at.max(surely).max(now)
    }
}

/// May ask. Clones ask the same driver.
#[derive(Debug, Clone)]
pub struct DrainHandle(mpsc::Sender<Event>);

impl DrainHandle {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self(events)
    }

    pub async fn tell(&self, event: Event) {
        // The driver is gone only when everything ends anyway.
        let _ = self.0.send(event).await;
    }

    /// Whether nobody drives any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_closed()
    }

    /// Says that a hook waits, until the guard is dropped.
    pub async fn hook(&self, hook: Hook) -> HookGuard {
        self.tell(Event::HookCalled(hook)).await;
        HookGuard { events: self.0.clone(), hook }
    }
}

/// A preStop call that waits.
#[must_use = "dropping it says that the hook has returned"]
pub struct HookGuard {
    events: mpsc::Sender<Event>,
    hook: Hook,
}

impl Drop for HookGuard {
    fn drop(&mut self) {
        // A full queue keeps the hook counted as waiting: the safe side, and one that a flood of
        // hooks brings upon itself.
        let _ = self.events.try_send(Event::HookReturned(self.hook));
    }
}

/// May look. Clones look at the same driver.
#[derive(Debug, Clone)]
pub struct DrainWatch(watch::Receiver<Snapshot>);

impl DrainWatch {
    pub(super) fn new(snapshots: watch::Receiver<Snapshot>) -> Self {
        Self(snapshots)
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.borrow().phase
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.borrow().clone()
    }

    /// Waits until the phase is reached or passed.
    pub async fn reached(&mut self, phase: Phase) -> Snapshot {
        self.until(|snapshot| snapshot.phase >= phase).await
    }

    /// Waits until it holds.
    pub async fn until(&mut self, holds: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let reached = self.0.wait_for(holds).await;
        let reached = reached.map(|snapshot| snapshot.clone());
        match reached {
            Ok(snapshot) => snapshot,
            // Without a driver nothing is ever reached; the process is ending.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The clients' connections: how many are open, and when the last one came.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    last_arrival: Mutex<Option<Instant>>,
    /// Told when the last one has closed.
    none_left: Notify,
}

impl Connections {
    /// A new one, open until the guard is dropped.
    pub fn opened(self: &Arc<Self>, now: Instant) -> Open {
        let mut last = self.last_arrival.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.replace(now);
        self.open.fetch_add(1, Relaxed);
        Open { connections: Arc::clone(self), arrival: now, before }
    }

    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    #[must_use]
    pub fn last_arrival(&self) -> Option<Instant> {
        *self.last_arrival.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the last one has closed. For one waiter: the driver, and once that has ended
    /// whoever follows it.
    pub async fn none_left(&self) {
        self.none_left.notified().await;
    }
}

/// One open connection.
#[must_use = "dropping it says that the connection has closed"]
pub struct Open {
    connections: Arc<Connections>,
    arrival: Instant,
    before: Option<Instant>,
}

impl Open {
    /// It turned out to be a peer's, which the endpoints do not tell where to go: it is no arrival.
    pub fn is_no_arrival(&self) {
        let last = self.connections.last_arrival.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        if *last == Some(self.arrival) {
            *last = self.before;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.connections.open.fetch_sub(1, Relaxed) == 1 {
            self.connections.none_left.notify_one();
        }
    }
}
