//! What ebbtide tells of a drain, and to whom it listens.

use serde_json::Value;

use crate::{manifest::Manifest, namespace::Namespace};

/// Deletes the pod and holds its object in the API beyond its end, so that the last words of its
/// sidecar can be read: its termination message.
fn last_words(namespace: &Namespace, pod: &str, delete: &[&str]) -> String {
    let pod = format!("pod/{pod}");
    let hold = |finalizers: &str| {
        let patch = format!("{{\"metadata\":{{\"finalizers\":{finalizers}}}}}");
        namespace.kubectl(&["patch", &pod, "--type=merge", "--patch", &patch]);
    };
    hold("[\"ebbtide.test/hold\"]");
    namespace.kubectl(&[&["delete", &pod, "--wait=false"], delete].concat());
    namespace.wait(&pod, "jsonpath={.status.initContainerStatuses[0].state.terminated.reason}");
    let status = namespace.get(&[&pod])["status"]["initContainerStatuses"][0].take();
    hold("null");
    status["state"]["terminated"]["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_clean_drain_is_told_by_events_and_by_the_termination_message() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(1));
    let load = namespace.rehearse(2_000);
    let pod = namespace.busy_pod();
    let message = last_words(&namespace, &pod, &[]);
    assert!(message.contains("Drained"), "{message}");
    let mut reasons = namespace.reasons(&pod);
    reasons.sort();
    assert_eq!(reasons, ["DrainStarted", "Drained"]);
    load.end();
}

#[test]
fn a_cut_is_told_by_an_event() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(1));
    let load = namespace.rehearse(20_000);
    let pod = namespace.busy_pod();
    last_words(&namespace, &pod, &["--grace-period=6"]);
    let reasons = namespace.reasons(&pod);
    assert!(reasons.contains(&"DrainCut".into()), "{reasons:?}");
    load.end();
}

/// Anybody in the cluster can reach the admin port: he may wait there, and starts nothing.
#[test]
fn a_stranger_at_the_admin_port_starts_nothing() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(1));
    let pod = namespace.only_pod();
    let load = namespace.rehearse(2_000);
    let answer = namespace.ask(&pod, 7071, "/prestop").unwrap();
    assert!(answer.contains("no drain"), "{answer}");
    let refused = namespace.post(&pod, 7071, "/drain").unwrap_err();
    assert!(refused.contains("loopback"), "{refused}");
    assert_eq!(namespace.status(&pod)["phase"], Value::from("Serving"));
    load.end().assert_nothing_lost();
}
