//! How the data port is left: clients are told to go elsewhere, what still comes is passed on, and
//! the rest is closed.
//!
//! Never closes an idle connection under its client while another pod takes what comes on it.

use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::CLOSE_TIME;
use crate::{
    drain::{DrainWatch, Phase, handle::Connections},
    inflight::{Ending, Inflight},
    proxy::PASSING,
    serve::Stage,
    tasks::Group,
};

const LATE_CUT: &str = "late cut";

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

/// A client whose connection closes just as it sends its next call loses that call, and no proxy can
/// tell. So idle connections are left to their clients, which close theirs after a few seconds, and
/// what comes on them goes to another pod; the server has nothing to do with it any more.
pub async fn linger(connections: &Connections, passes_on: impl Fn() -> bool) {
    if !passes_on() {
        return;
    }
    let left = async {
        while connections.open() > 0 {
            connections.none_left().await;
        }
    };
    // Node's clients close theirs after 4 s.
    drop(timeout(PASSING, left).await);
}

/// Closes the data port. What goes to another pod needs no server of ours: calls are let go on as
/// long as there is time, and then told so; streams, which would stay to the end of it, are not.
pub fn close(
    group: &mut Group,
    stage: &watch::Sender<Stage>,
    drained: &DrainWatch,
    left: Inflight,
) {
    let timeline = drained.snapshot().timeline.filter(|_| left.exchanging() > 0);
    let cut_at = timeline.map(|timeline| Instant::from_std(timeline.cut_at));
    let cut_at = cut_at.unwrap_or_else(Instant::now).max(Instant::now());
    stage.send_replace(Stage::Close(cut_at + CLOSE_TIME));
    group.spawn(LATE_CUT, async move {
        let calls = async {
            while left.finite() > 0 {
                left.changed().await;
            }
        };
        let are_over = timeout_at(cut_at, calls).await.is_ok();
        drop(left.end_all(if are_over { Ending::Stream } else { Ending::Cut }));
        std::future::pending::<()>().await;
    });
}
