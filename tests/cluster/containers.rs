//! Containers that end while their pod lives on: a liveness restart, a crash, a sidecar that is
//! killed. Two replicas, since a pod is out of the Service while a container of it is away.

use crate::{manifest::Manifest, namespace::Namespace, rehearsal::Report};

const UPSTREAM_LOST: i32 = -32011;

fn liveness_restart(manifest: Manifest) -> Report {
    let namespace = Namespace::with(manifest.replicas(2));
    let load = namespace.rehearse(2_000);
    let pod = namespace.busy_pod();
    namespace.ask(&pod, 3000, "/break-health").unwrap();
    namespace.server_restarted(&pod);
    load.end()
}

#[test]
fn a_liveness_restart_of_the_server_loses_nothing() {
    liveness_restart(Manifest::native_sidecar()).assert_nothing_lost();
}

#[test]
fn a_liveness_restart_without_ebbtide_loses_calls() {
    liveness_restart(Manifest::without_ebbtide()).assert_something_lost();
}

#[test]
fn a_crash_of_the_server_is_told_to_its_calls_at_once() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(2));
    let load = namespace.rehearse(2_000);
    let pod = namespace.busy_pod();
    // There is nobody left to answer.
    let _ = namespace.ask(&pod, 3000, "/crash");
    namespace.server_restarted(&pod);
    load.end().assert_lost_properly(UPSTREAM_LOST);
}

#[test]
fn a_sidecar_that_was_killed_comes_back_and_serves() {
    let mut manifest = Manifest::native_sidecar().replicas(1);
    manifest.pod()["shareProcessNamespace"] = true.into();
    let namespace = Namespace::with(manifest);
    let pod = namespace.only_pod();
    namespace.ask(&pod, 3000, "/kill/ebbtide").unwrap();
    namespace.sidecar_restarted(&pod);
    namespace.rehearse(500).end().assert_nothing_lost();
}
