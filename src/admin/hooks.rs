//! The two preStop hooks: they wait. The server's alone waits until nothing runs on a server that
//! merely restarts; both together were told to the driver, and wait for the drain.
//!
//! Never starts a drain: the driver does, from what both hooks tell it.

use std::net::IpAddr;

use http::StatusCode;
use tokio::time::{sleep, timeout};

use super::{Admin, Answer, text};
use crate::drain::{
    Phase,
    hooks::{Hook, Restart, WINDOW},
};

/// Returns when drained; or, for a lone hook, when its container may restart.
pub async fn wait(admin: &Admin, hook: Hook, remote: IpAddr) -> Answer {
    if !admin.kubelet.may_be(remote) {
        tracing::warn!(%remote, ?hook, "a preStop hook from elsewhere than the kubelet only waits");
        return stranger(admin).await;
    }
    // Held until the answer: the driver counts who waits.
    let _waiting = admin.drain.hook(hook).await;
    let mut watch = admin.watch.clone();
    tokio::select! {
        _ = watch.reached(Phase::Drained) => text(StatusCode::OK, "drained\n"),
        answer = alone(admin, hook) => answer,
    }
}

/// What a lone hook answers; never, once a drain has begun.
async fn alone(admin: &Admin, hook: Hook) -> Answer {
    let mut watch = admin.watch.clone();
    let mut answer = "no drain: only the sidecar restarts; SIGTERM drains it\n";
    sleep(WINDOW).await;
    if hook == Hook::Server {
        let idle = watch.until(|now| matches!(now.restart, Restart::Idle | Restart::Stopping));
        answer = match timeout(admin.restart_wait, idle).await {
            Ok(_) => "no drain: the server's container restarts; its calls have ended\n",
            Err(_) => "no drain: the server's container restarts; not all its calls have ended\n",
        };
    }
    if watch.phase() >= Phase::Withdrawing {
        // The pod ends after all; the drain is what is waited for.
        return std::future::pending().await;
    }
    text(StatusCode::OK, answer)
}

/// Waits as long as a hook may, and tells nobody.
async fn stranger(admin: &Admin) -> Answer {
    let mut watch = admin.watch.clone();
    match timeout(admin.restart_wait, watch.reached(Phase::Drained)).await {
        Ok(_) => text(StatusCode::OK, "drained\n"),
        Err(_) => text(StatusCode::OK, "no drain\n"),
    }
}
