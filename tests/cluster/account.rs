//! What ebbtide tells of a drain, and to whom it listens.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    kubectl::{json, until},
    manifest::Manifest,
    namespace::Namespace,
};

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

/// The last words of the pods that ended, and the metrics of those that are there, by pod: no
/// request is counted twice, and none is forgotten.
#[test]
fn the_accounts_of_a_rolling_update_add_up_to_what_the_clients_asked_for() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(2));
    // One call of a modern client is one request.
    let flags = ["--era=modern", "--tool=slow={\"milliseconds\":500}"];
    let load = namespace.rehearse_with(&flags);
    namespace.kubectl(&["rollout", "restart", "deployment/mcp-server"]);
    namespace.rolled_out();
    namespace.only_stay(2);
    let report = load.end();
    report.assert_nothing_lost();

    let log = namespace.log.as_ref().unwrap().to_the_end();
    let mut counted: BTreeMap<String, u64> =
        log.iter().filter_map(|line| last_count(line)).collect();
    assert_eq!(counted.len(), 2, "one report of each pod that ended: {counted:?}");
    let there = namespace.pods(|_| true);
    counted.extend(there.into_iter().map(|pod| {
        until("its calls are over", || {
            (namespace.status(&pod)["in_flight"]["finite"] == 0).then_some(())
        });
        let metrics = namespace.ask(&pod, 7071, "/metrics").unwrap();
        (pod, requests(&metrics))
    }));
    assert_eq!(counted.len(), 4, "{counted:?}");
    assert_eq!(counted.values().sum::<u64>(), report.calls(), "{counted:?}");
}

/// The pod, and how many requests it had since it started, where the line is its drain report.
fn last_count(line: &str) -> Option<(String, u64)> {
    let (of, said) = line.split_once(' ').filter(|(_, said)| said.contains("\"drain report\""))?;
    let since_start = json(json(said)["since_start"].as_str()?);
    let outcomes = since_start.as_object()?.values();
    Some((of.split('/').nth(1)?.into(), outcomes.filter_map(Value::as_u64).sum()))
}

fn requests(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("ebbtide_requests_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
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
