//! How the data port is left: clients are told to go elsewhere, what still comes is passed on, and
//! the rest is closed.
//!
//! Never closes an idle connection under its client while another pod takes what comes on it.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout_at},
};

use super::CLOSE_TIME;
use crate::{
    drain::{
        DrainWatch, Phase,
        handle::{Connections, Snapshot},
    },
    inflight::{Ending, Inflight},
    serve::Stage,
    tasks::Group,
};

const LATE_CUT: &str = "late cut";

/// Longest that a pod that has drained stays for what clients send on connections that they keep:
/// Node's close theirs after 4 s.
const LINGER: Duration = Duration::from_secs(5);

/// What it may take to tell clients that their calls are cut.
const TOLD: Duration = Duration::from_millis(100);

/// Tells the data port when clients are to go elsewhere. `passes_on`: whether another pod takes what
/// comes here late.
pub async fn announce_drain(
    mut watch: DrainWatch,
    stage: watch::Sender<Stage>,
    passes_on: impl Fn() -> bool,
) {
    let advance = |next| {
        stage.send_if_modified(|stage| {
            let later = *stage < next;
            if later {
                *stage = next;
            }
            later
        });
    };
    watch.reached(Phase::Draining).await;
    advance(Stage::Announce);
    watch.until(|snapshot| snapshot.closes_idle).await;
    // Else nobody has to be cut off while its next call may be on its way: `linger`.
    if !passes_on() {
        advance(Stage::CloseOpen);
    }
}

/// What is left once the drain is over.
pub struct Leaving {
    pub connections: Arc<Connections>,
    pub drained: DrainWatch,
    pub inflight: Inflight,
    /// Told of each signal but the first: nothing is waited for any more.
    pub again: Arc<Notify>,
    /// Whether our server runs as our child, which is stopped after this.
    pub has_child: bool,
}

impl Leaving {
    #[must_use]
    pub fn new(
        connections: Arc<Connections>,
        drained: DrainWatch,
        inflight: Inflight,
        has_child: bool,
    ) -> Self {
        Self { connections, drained, inflight, again: Arc::default(), has_child }
    }

    /// Lingers, and closes the data port. `restarts`: our child has ended by itself, and whoever runs
    /// us waits for our end to start both again.
    pub async fn leave(
        self,
        group: &mut Group,
        stage: &watch::Sender<Stage>,
        passes_on: impl Fn() -> bool,
        restarts: bool,
    ) {
        if !restarts && passes_on() {
            self.linger().await;
        }
        let now = Instant::now();
        let snapshot = self.drained.snapshot();
        let until = match snapshot.timeline {
            _ if self.inflight.exchanging() == 0 => now,
            _ if restarts => self.passes_until(&snapshot).min(now + LINGER),
            _ if passes_on() => self.passes_until(&snapshot),
            timeline => timeline.map_or(now, |timeline| Instant::from_std(timeline.cut_at)),
        };
        self.close(group, stage.clone(), until.max(now));
    }

    fn passes_until(&self, snapshot: &Snapshot) -> Instant {
        Instant::from_std(snapshot.passes_until(Instant::now().into_std(), self.has_child))
    }

    /// A client whose connection closes just as it sends its next call loses that call, and no proxy
    /// can tell. So idle connections are left to their clients, which close theirs after a few
    /// seconds, and what comes on them goes to another pod; the server has nothing to do with it any
    /// more.
    async fn linger(&self) {
        let snapshot = self.drained.snapshot();
        let left = async {
            // Who was made to end before its endpoints were left is still sent new ones.
            if !snapshot.withdrawn {
                pending::<()>().await;
            }
            while self.connections.open() > 0 {
                self.connections.none_left().await;
            }
        };
        let until = self.passes_until(&snapshot).min(Instant::now() + LINGER);
        tokio::select! {
            _ = timeout_at(until, left) => {}
            // Once more, for `close`.
            () = self.again.notified() => self.again.notify_one(),
        }
    }

    /// What goes to another pod needs no server of ours: calls are let go on until then, and told;
    /// streams, which would stay to the end of it, are not.
    fn close(self, group: &mut Group, stage: watch::Sender<Stage>, until: Instant) {
        let Self { inflight, again, .. } = self;
        stage.send_replace(Stage::Close(until + CLOSE_TIME));
        group.spawn(LATE_CUT, async move {
            let calls = async {
                while inflight.finite() > 0 {
                    inflight.changed().await;
                }
            };
            let ending = tokio::select! {
                () = calls => Ending::Stream,
                () = sleep_until(until) => Ending::Cut,
                () = again.notified() => Ending::Cut,
            };
            inflight.end_all(ending);
            let closed = Instant::now() + CLOSE_TIME;
            stage.send_replace(Stage::Close(closed));
            // What was on its way when the port closed has its answer by then, or is told.
            sleep_until(closed - TOLD).await;
            inflight.end_all(Ending::Cut);
            pending::<()>().await;
        });
    }
}
