//! The two preStop hooks: they wait. One alone waits for the calls in flight, since a container
//! merely restarts; both together were told to the driver, and wait for the drain.
//!
//! Never starts a drain: the driver does, from what both hooks tell it.

use http::StatusCode;
use tokio::time::{Duration, Instant, sleep};

use super::{Admin, Answer, text};
use crate::drain::{
    Phase,
    hooks::{Hook, WINDOW},
};

/// How often a lone hook looks whether the calls have ended. Hooks are rare.
const LOOK: Duration = Duration::from_millis(20);

/// Returns when drained; or, for a lone hook, when the calls that were in flight have ended.
pub async fn wait(admin: &Admin, hook: Hook) -> Answer {
    // Held until the answer: the driver counts who waits.
    let _waiting = admin.drain.hook(hook).await;
    let mut watch = admin.watch.clone();
    tokio::select! {
        _ = watch.reached(Phase::Drained) => text(StatusCode::OK, "drained\n"),
        answer = restart(admin) => answer,
    }
}

async fn restart(admin: &Admin) -> Answer {
    let mark = admin.inflight.mark();
    let began = Instant::now();
    sleep(WINDOW).await;
    loop {
        if admin.watch.phase() >= Phase::Withdrawing {
            // The pod ends after all; the drain is what is waited for.
            return std::future::pending().await;
        }
        let left = admin.inflight.finite_before(mark);
        if left == 0 {
            return text(
                StatusCode::OK,
                "no drain: one container restarts; its calls have ended\n",
            );
        }
        if began.elapsed() >= admin.restart_wait {
            return text(
                StatusCode::OK,
                format!("no drain: one container restarts; {left} calls did not end in time\n"),
            );
        }
        sleep(LOOK).await;
    }
}
