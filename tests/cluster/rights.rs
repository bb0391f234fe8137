//! Pods that may not look: without the rights of deploy/rbac.yaml, without a token. They drain by
//! timers, say so once, and lose nothing.

use crate::{
    kubectl::{json, until},
    manifest::Manifest,
    namespace::Namespace,
};

fn drains_by_timers(manifest: Manifest) {
    let namespace = Namespace::with(manifest.replicas(2));
    let load = namespace.rehearse(2_000);
    let pod = namespace.busy_pod();
    assert_eq!(namespace.status(&pod)["knowledge"], "timers");
    namespace.kubectl(&["delete", "pod", &pod]);
    load.end().assert_nothing_lost();
    let mut said = warnings(&namespace, &pod);
    assert!(!said.is_empty());
    said.sort();
    let all = said.len();
    said.dedup();
    assert_eq!(said.len(), all, "something was said twice: {said:#?}");
}

/// The warnings of the pod's sidecar, without their times.
fn warnings(namespace: &Namespace, pod: &str) -> Vec<String> {
    let of = format!("[pod/{pod}/ebbtide] ");
    let log = namespace.log.as_ref().unwrap().lines();
    let lines = log.iter().filter_map(|line| line.strip_prefix(&of)).map(json);
    let warnings = lines.filter(|line| line["level"] != "INFO").map(|mut line| {
        line["timestamp"].take();
        line.to_string()
    });
    warnings.collect()
}

#[test]
fn without_rights_it_drains_by_timers() {
    drains_by_timers(Manifest::native_sidecar().without_rights());
}

#[test]
fn without_a_token_it_drains_by_timers() {
    let mut manifest = Manifest::native_sidecar();
    assert_eq!(manifest.pod()["automountServiceAccountToken"], false);
    manifest.pod()["volumes"].take();
    manifest.pod()["initContainers"][0]["volumeMounts"].take();
    drains_by_timers(manifest);
}

/// With them, it knows all.
#[test]
fn with_the_rights_it_watches_endpoints_and_its_pod() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(1));
    let pod = namespace.only_pod();
    until("the pod is watched", || (namespace.status(&pod)["knowledge"] == "pod").then_some(()));
}
