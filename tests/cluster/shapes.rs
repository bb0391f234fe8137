//! Other shapes of a pod and of its Service: classic sidecar, wrapper, Job, addresses that are
//! published before they are ready.

use serde_json::json;

use crate::{
    manifest::{EBBTIDE, Manifest},
    namespace::Namespace,
};

fn a_pod_ends(manifest: Manifest) {
    let namespace = Namespace::with(manifest.replicas(2));
    let load = namespace.rehearse(2_000);
    namespace.kubectl(&["delete", "pod", &namespace.busy_pod()]);
    load.end().assert_nothing_lost();
}

#[test]
fn a_classic_sidecar_loses_nothing() {
    a_pod_ends(Manifest::classic_sidecar());
}

#[test]
fn a_wrapped_server_loses_nothing() {
    a_pod_ends(Manifest::wrapper());
}

/// Such an endpoint stays ready to the end, so that kube-proxy sends new connections until the pod
/// is gone: what was in flight is all that can be kept.
#[test]
fn addresses_published_before_ready_keep_no_drain_from_ending() {
    let mut manifest = Manifest::native_sidecar().replicas(2);
    manifest.service()["publishNotReadyAddresses"] = true.into();
    let namespace = Namespace::with(manifest);
    let load = namespace.rehearse(2_000);
    namespace.kubectl(&["delete", "pod", &namespace.busy_pod()]);
    let report = namespace.logged("drain report");
    assert!(report.contains("\"lost\":0") && report.contains("\"cut\":0"), "{report}");
    load.end();
}

#[test]
fn a_job_with_a_native_sidecar_completes() {
    let namespace = Namespace::empty();
    let mut pod = Manifest::native_sidecar().pod().clone();
    pod["serviceAccountName"].take();
    pod["restartPolicy"] = "Never".into();
    let main = &mut pod["containers"][0];
    // Ends by itself, well only if the sidecar was there before it.
    main["image"] = EBBTIDE.into();
    main["args"] = json!(["status"]);
    main["livenessProbe"].take();
    let template = json!({"metadata": {"labels": {"app": "once"}}, "spec": pod});
    namespace.apply(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"backoffLimit": 0, "template": template}}));
    namespace.wait("job/once", "condition=Complete");
}
