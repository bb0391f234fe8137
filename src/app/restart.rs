//! The restart of the server's container: keeps new calls waiting from its hook on, so that the
//! calls in flight come to an end, until the server answers again. And the one that follows a drain
//! which a hook of the server's own has asked for: this sidecar has to begin anew, too.
//!
//! Never decides that it restarts: the driver does, from the hook.

use std::pin::pin;

use tokio::time::{Duration, Instant, sleep};

use crate::{
    drain::{
        DrainHandle, DrainWatch, Phase,
        handle::Event,
        hooks::{Restart, Step},
        phase::Trigger,
    },
    inflight::Inflight,
    pool::Pool,
    proxy::RequestBody,
};

/// Longest that a server is expected to go on after its hook has returned. One that does not go
/// at all was not restarted.
const GOING: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
/// The same, where nobody waits for it.
const LOOK_IDLY: Duration = Duration::from_millis(200);

/// Goes with every restart, for ever. `listeners`: the sockets that listen at the server's port,
/// where somebody starts this process again once it has ended.
pub async fn follow(
    pool: Pool<RequestBody>,
    inflight: Inflight,
    watch: DrainWatch,
    drain: DrainHandle,
    listeners: Option<impl Fn() -> Vec<u64>>,
) {
    let behind_drain = async {
        if let Some(listeners) = listeners {
            follow_drain(&pool, watch.clone(), &drain, listeners).await;
        }
    };
    tokio::join!(accompany(&pool, &inflight, &watch, &drain), behind_drain);
}

async fn accompany(
    pool: &Pool<RequestBody>,
    inflight: &Inflight,
    watch: &DrainWatch,
    drain: &DrainHandle,
) {
    loop {
        watch.clone().until(|now| now.restart == Restart::Finishing).await;
        let (mut ends, mut stops) = (watch.clone(), watch.clone());
        let restart = async {
            let idle = async {
                let held = pool.hold_calls().await;
                // Answered on another stream, or awaited by a client that comes back: these hold no
                // place in the pool. For a client that does not, new calls are not kept waiting.
                while inflight.awaited() > 0 {
                    sleep(LOOK_IDLY).await;
                }
                drain.tell(Event::Restart(Step::Idle)).await;
                held
            };
            let mut idle = pin!(idle);
            let stopping = stops.until(|now| now.restart == Restart::Stopping);
            let held = tokio::select! {
                held = &mut idle => {
                    stops.until(|now| now.restart == Restart::Stopping).await;
                    Some(held)
                }
                _ = stopping => None,
            };
            let going = Instant::now();
            while pool.probe().await.is_ok() && going.elapsed() < GOING {
                sleep(LOOK).await;
            }
            while pool.probe().await.is_err() {
                sleep(LOOK).await;
            }
            drop(held);
        };
        tokio::select! {
            () = restart => drain.tell(Event::Restart(Step::Back)).await,
            // The pod ends: what is left of the server is for the calls that still come.
            _ = ends.reached(Phase::Withdrawing) => return std::future::pending().await,
        }
    }
}

/// Tells the driver when the server is another process than the one that a drain was asked for. Its
/// container has restarted, and the pod goes on: with `ebbtide drain --wait` as its hook, which the
/// kubelet runs then, too, the pod would else be drained for good. `listeners`: the sockets that
/// listen at the server's port.
async fn follow_drain(
    pool: &Pool<RequestBody>,
    mut watch: DrainWatch,
    drain: &DrainHandle,
    listeners: impl Fn() -> Vec<u64>,
) {
    if watch.reached(Phase::Withdrawing).await.trigger != Some(Trigger::Request) {
        return;
    }
    // Before anybody stops it.
    let (before, incarnation) = (listeners(), pool.incarnation());
    watch.reached(Phase::Drained).await;
    // It may be quicker than any look at whether somebody listens.
    let is_another = || {
        let now = listeners();
        let other = !before.is_empty() && !now.is_empty();
        (other && !now.iter().any(|socket| before.contains(socket)))
            || pool.incarnation() != incarnation
    };
    while pool.probe().await.is_err() || !is_another() {
        sleep(LOOK_IDLY).await;
    }
    drain.tell(Event::ServerRestarted).await;
}
