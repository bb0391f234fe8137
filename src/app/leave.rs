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
    drain::{DrainWatch, Phase, handle::Connections},
    inflight::{Ending, Inflight},
    serve::Stage,
    tasks::Group,
};

const LATE_CUT: &str = "late cut";

/// Longest that a pod that has drained stays for what clients send on connections that they keep:
/// Node's close theirs after 4 s.
const LINGER: Duration = Duration::from_secs(5);

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
    /// Told of a signal that comes behind the drain's end: nothing is waited for any more.
    pub late: Arc<Notify>,
}

impl Leaving {
    /// Lingers, and closes the data port.
    pub async fn leave(
        self,
        group: &mut Group,
        stage: &watch::Sender<Stage>,
        passes_on: impl Fn() -> bool,
    ) {
        if passes_on() {
            self.linger().await;
        }
        self.close(group, stage, passes_on());
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
        let now = Instant::now();
        let until = Instant::from_std(snapshot.passes_until(now.into_std())).min(now + LINGER);
        tokio::select! {
            _ = timeout_at(until, left) => {}
            // Again, for `close`.
            () = self.late.notified() => self.late.notify_one(),
        }
    }

    /// What goes to another pod needs no server of ours: calls are let go on as long as there is
    /// time, and then told so; streams, which would stay to the end of it, are not.
    fn close(self, group: &mut Group, stage: &watch::Sender<Stage>, passes_on: bool) {
        let Self { inflight, late, .. } = self;
        let now = Instant::now();
        let snapshot = self.drained.snapshot();
        let until = match snapshot.timeline {
            _ if inflight.exchanging() == 0 => None,
            _ if passes_on => Some(snapshot.passes_until(now.into_std())),
            timeline => timeline.map(|timeline| timeline.cut_at),
        };
        let cut_at = until.map_or(now, Instant::from_std).max(now);
        stage.send_replace(Stage::Close(cut_at + CLOSE_TIME));
        let stage = stage.clone();
        group.spawn(LATE_CUT, async move {
            let calls = async {
                while inflight.finite() > 0 {
                    inflight.changed().await;
                }
            };
            let ending = tokio::select! {
                () = calls => Ending::Stream,
                () = sleep_until(cut_at) => Ending::Cut,
                () = late.notified() => Ending::Cut,
            };
            inflight.end_all(ending);
            stage.send_replace(Stage::Close(Instant::now() + CLOSE_TIME));
            pending::<()>().await;
        });
    }
}
