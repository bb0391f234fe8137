//! Containers that end while their pod lives on: a liveness restart, another image in place, a
//! crash, a sidecar that is killed. Two replicas, since a pod is out of the Service while a
//! container of it is away.

use serde_json::{Value, json};

use crate::{
    manifest::{Manifest, NEXT_SERVER, SERVER_WITH_EBBTIDE},
    namespace::Namespace,
    rehearsal::Report,
};

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

/// The kubelet restarts that container alone, and calls its hook before.
fn another_image(namespace: &Namespace) -> (String, Report) {
    let load = namespace.rehearse(2_000);
    let pod = namespace.busy_pod();
    let image = format!("server={NEXT_SERVER}");
    namespace.kubectl(&["set", "image", &format!("pod/{pod}"), &image]);
    namespace.server_restarted(&pod);
    (pod, load.end())
}

#[test]
fn another_image_of_the_server_loses_nothing_and_drains_nothing() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(2));
    let (pod, report) = another_image(&namespace);
    report.assert_nothing_lost();
    let status = namespace.status(&pod);
    assert_eq!((&status["phase"], &status["report"]), (&"Serving".into(), &Value::Null));
    // No phase is left for one before it: this sidecar has never drained.
    let sidecar = namespace.get(&["pod", &pod])["status"]["initContainerStatuses"][0].take();
    assert_eq!(sidecar["restartCount"], 0, "{sidecar}");
}

#[test]
fn another_image_of_the_server_without_ebbtide_loses_calls() {
    let namespace = Namespace::with(Manifest::without_ebbtide().replicas(2));
    another_image(&namespace).1.assert_something_lost();
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

/// As the hook of images without a shell does, which the kubelet runs here, too.
#[test]
fn a_restart_of_the_server_whose_hook_drains_leaves_no_pod_drained() {
    let mut manifest = Manifest::native_sidecar().replicas(2);
    let server = &mut manifest.pod()["containers"][0];
    server["image"] = SERVER_WITH_EBBTIDE.into();
    server["command"] = json!(["/mcp-server"]);
    server["lifecycle"]["preStop"] = json!({"exec": {"command": ["/ebbtide", "drain", "--wait"]}});
    let namespace = Namespace::with(manifest);
    let load = namespace.rehearse(2_000);
    let pod = namespace.busy_pod();
    namespace.ask(&pod, 3000, "/break-health").unwrap();
    namespace.server_restarted(&pod);
    namespace.sidecar_restarted(&pod);
    load.end().assert_nothing_lost();
    assert_eq!(namespace.status(&pod)["phase"], "Serving");
}
