//! Pods that end: rolling update, scale in, replacement, deletion, eviction. What must not be lost
//! with ebbtide is seen to be lost without it.

use serde_json::json;

use crate::{
    kubectl::{attempt, kubectl},
    manifest::Manifest,
    namespace::Namespace,
    rehearsal::Report,
};

const DRAINING: i32 = -32010;

/// The slowest call takes 20 s. A legacy session may begin one in the first moments of
/// Draining, so that the grace is the withdrawal (10 s), these (5 s), the slowest call, and the
/// end (3 s), with room to spare.
fn rolling_update(manifest: Manifest) -> Report {
    let namespace = Namespace::with(manifest.replicas(3).grace(60));
    let load = namespace.rehearse(20_000);
    namespace.kubectl(&["rollout", "restart", "deployment/mcp-server"]);
    namespace.rolled_out();
    namespace.only_stay(3);
    load.end()
}

#[test]
fn a_rolling_update_loses_nothing() {
    rolling_update(Manifest::native_sidecar()).assert_nothing_lost();
}

#[test]
fn a_rolling_update_without_ebbtide_loses_calls() {
    rolling_update(Manifest::without_ebbtide()).assert_something_lost();
}

/// `rehearse` restarts the Deployment itself and ends when the last old pod is gone.
#[test]
fn a_rehearsal_rolls_the_deployment_itself() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(2));
    let flags = ["--tool=slow={\"milliseconds\":2000}", "--rollout=deployment/mcp-server"];
    namespace.rehearse_with(&flags).ended().assert_nothing_lost();
}

/// By the rights of its manifest, and where pods have to be restricted.
#[test]
fn the_job_of_deploy_rehearses_a_rollout() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(2));
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(&["label", "namespace", &namespace.name, restricted]);
    // Not every cluster of these tests has names for its Services.
    let address = namespace.get(&["service", "mcp-server"])["spec"]["clusterIP"].clone();
    let url = format!("http://{}/mcp", address.as_str().unwrap());
    let job = Manifest::rehearsal().into_list().to_string().replace("http://mcp-server/mcp", &url);
    namespace.apply(&job.parse().unwrap());
    namespace.wait("job/ebbtide-rehearse", "condition=Complete");
    let deployment = namespace.get(&["deployment", "mcp-server"]);
    let template = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert!(template["kubectl.kubernetes.io/restartedAt"].is_string(), "{template}");
}

fn scale_in(manifest: Manifest) -> Report {
    let namespace = Namespace::with(manifest.replicas(3));
    let load = namespace.rehearse(2_000);
    namespace.kubectl(&["scale", "deployment/mcp-server", "--replicas=1"]);
    namespace.only_stay(1);
    load.end()
}

#[test]
fn scale_in_loses_nothing() {
    scale_in(Manifest::native_sidecar()).assert_nothing_lost();
}

#[test]
fn scale_in_without_ebbtide_loses_calls() {
    scale_in(Manifest::without_ebbtide()).assert_something_lost();
}

/// A single replica has nobody to take over until the new pod is ready: it has to go on serving.
fn replaced(manifest: Manifest) -> Report {
    let namespace = Namespace::with(manifest.replicas(1));
    let load = namespace.rehearse(2_000);
    namespace.kubectl(&["delete", "pod", &namespace.busy_pod()]);
    namespace.rolled_out();
    load.end()
}

#[test]
fn a_single_replica_replaced_loses_nothing() {
    replaced(Manifest::native_sidecar()).assert_nothing_lost();
}

#[test]
fn a_single_replica_replaced_without_ebbtide_loses_calls() {
    replaced(Manifest::without_ebbtide()).assert_something_lost();
}

/// The second delete moves the kill time: what cannot finish any more is told so before.
#[test]
fn a_shorter_grace_moves_the_cut() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(2));
    let load = namespace.rehearse(20_000);
    let pod = namespace.busy_pod();
    namespace.kubectl(&["delete", "pod", &pod, "--wait=false"]);
    namespace.logged("\"phase\":\"Withdrawing\"");
    namespace.kubectl(&["delete", "pod", &pod, "--grace-period=5"]);
    let report = namespace.logged("drain report");
    assert!(!report.contains("\"cut\":0"), "{report}");
    load.end().assert_lost_properly(DRAINING);
}

#[test]
fn an_eviction_loses_nothing() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(2));
    let load = namespace.rehearse(2_000);
    let pod = namespace.busy_pod();
    let url = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", namespace.name);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace.name}});
    attempt(&["create", "--filename", "-", "--raw", &url], Some(&eviction.to_string())).unwrap();
    namespace.wait(&format!("pod/{pod}"), "delete");
    load.end().assert_nothing_lost();
}
