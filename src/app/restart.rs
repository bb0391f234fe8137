//! The restart of the server's container: keeps new calls waiting from its hook on, so that the
//! calls in flight come to an end, until the server answers again.
//!
//! Never decides that it restarts: the driver does, from the hook.

use std::pin::pin;

use tokio::time::{Duration, Instant, sleep};

use crate::{
    drain::{
        DrainHandle, DrainWatch, Phase,
        handle::Event,
        hooks::{Restart, Step},
    },
    pool::Pool,
    proxy::RequestBody,
};

/// Longest that a server is expected to go on after its hook has returned. One that does not go
/// at all was not restarted.
const GOING: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

/// Goes with every restart, for ever.
pub async fn accompany(pool: Pool<RequestBody>, watch: DrainWatch, drain: DrainHandle) {
    loop {
        watch.clone().until(|now| now.restart == Restart::Finishing).await;
        let (mut ends, mut stops) = (watch.clone(), watch.clone());
        let restart = async {
            let idle = async {
                let held = pool.hold_calls().await;
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
