//! How far a rollout is, told from the workload as the API server shows it. Pure.

use serde_json::Value;

use super::arguments::Kind;

#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// What it still waits for.
    Rolling(String),
    /// Kubernetes gave it up.
    Stuck(String),
}

/// Why a restart of this workload would roll nothing.
pub fn objection(kind: Kind, workload: &Value) -> Option<&'static str> {
    let spec = &workload["spec"];
    if kind != Kind::DaemonSet && spec["replicas"] == 0 {
        return Some("it has no replicas");
    }
    if spec["paused"] == true {
        return Some("it is paused: kubectl rollout resume");
    }
    if spec["updateStrategy"]["type"] == "OnDelete" {
        return Some("its update strategy is OnDelete, so that a restart replaces no pod");
    }
    None
}

/// The same as `kubectl rollout status` looks at.
pub fn progress(kind: Kind, workload: &Value) -> Progress {
    let (spec, status) = (&workload["spec"], &workload["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    if number(&status["observedGeneration"]) < number(&workload["metadata"]["generation"]) {
        return Progress::Rolling("the controller has not seen it yet".into());
    }
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let given_up = conditions.iter().find(|condition| {
        condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded"
    });
    if let Some(condition) = given_up {
        return Progress::Stuck(condition["message"].as_str().unwrap_or_default().to_owned());
    }
    let replicas = spec["replicas"].as_i64().unwrap_or(1);
    let (wanted, updated, available, all) = match kind {
        Kind::Deployment => (
            replicas,
            number(&status["updatedReplicas"]),
            number(&status["availableReplicas"]),
            number(&status["replicas"]),
        ),
        Kind::StatefulSet => {
            // Below the partition pods stay as they are.
            let partition = number(&spec["updateStrategy"]["rollingUpdate"]["partition"]);
            let wanted = (replicas - partition).max(0);
            let available = number(&status["availableReplicas"]).min(replicas);
            // With a partition others are available, too: all of them have to be.
            let available = if available == replicas { wanted } else { available.min(wanted - 1) };
            (wanted, number(&status["updatedReplicas"]), available, wanted)
        }
        Kind::DaemonSet => {
            let wanted = number(&status["desiredNumberScheduled"]);
            let updated = number(&status["updatedNumberScheduled"]);
            (wanted, updated, number(&status["numberAvailable"]), wanted)
        }
    };
    if updated < wanted {
        return Progress::Rolling(format!("{updated} of {wanted} pods are new"));
    }
    if all > updated {
        return Progress::Rolling(format!("{} old pods are still there", all - updated));
    }
    if available < wanted {
        return Progress::Rolling(format!("{} of {wanted} new pods are ready", available.max(0)));
    }
    Progress::Done
}

/// The label selector of its pods, in the words of a query.
pub fn selector(workload: &Value) -> String {
    let selector = &workload["spec"]["selector"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut parts = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", text(value)));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = text(&expression["key"]);
        let values: Vec<String> =
            expression["values"].as_array().into_iter().flatten().map(text).collect();
        let values = values.join(",");
        match expression["operator"].as_str() {
            Some("In") => parts.push(format!("{key} in ({values})")),
            Some("NotIn") => parts.push(format!("{key} notin ({values})")),
            Some("Exists") => parts.push(key),
            Some("DoesNotExist") => parts.push(format!("!{key}")),
            _ => {}
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workload(spec: &Value, mut status: Value) -> Value {
        status["observedGeneration"] = 2.into();
        json!({ "metadata": { "generation": 2 }, "spec": spec, "status": status })
    }

    fn is_done(kind: Kind, spec: &Value, status: Value) -> bool {
        progress(kind, &workload(spec, status)) == Progress::Done
    }

    #[test]
    fn a_deployment_is_done_when_only_new_pods_are_there_and_available() {
        for (updated, available, all, done) in
            [(3, 3, 3, true), (2, 3, 3, false), (3, 2, 3, false), (3, 3, 4, false)]
        {
            let status = json!({ "updatedReplicas": updated, "availableReplicas": available, "replicas": all });
            let spec = json!({ "replicas": 3 });
            assert_eq!(
                is_done(Kind::Deployment, &spec, status),
                done,
                "{updated} {available} {all}"
            );
        }
        let status = json!({ "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1 });
        assert!(is_done(Kind::Deployment, &json!({}), status.clone()));
        let mut unseen = workload(&json!({}), status);
        unseen["metadata"]["generation"] = 3.into();
        assert!(matches!(progress(Kind::Deployment, &unseen), Progress::Rolling(_)));
    }

    #[test]
    fn a_deployment_that_kubernetes_gave_up_is_stuck() {
        let condition = json!({ "type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "timed out" });
        let stuck = workload(&json!({}), json!({ "conditions": [condition] }));
        assert_eq!(progress(Kind::Deployment, &stuck), Progress::Stuck("timed out".into()));
    }

    #[test]
    fn a_statefulset_minds_its_partition() {
        for (partition, updated, available, done) in [
            (0, 3, 3, true),
            (0, 2, 3, false),
            (0, 3, 2, false),
            (2, 1, 3, true),
            (2, 1, 2, false),
            (2, 0, 3, false),
        ] {
            let status = json!({ "updatedReplicas": updated, "availableReplicas": available });
            let spec = json!({ "replicas": 3, "updateStrategy": { "rollingUpdate": { "partition": partition } } });
            assert_eq!(
                is_done(Kind::StatefulSet, &spec, status),
                done,
                "{partition} {updated} {available}"
            );
        }
    }

    #[test]
    fn a_daemonset_is_done_on_every_node() {
        for (updated, available, done) in [(3, 3, true), (2, 3, false), (3, 2, false)] {
            let status = json!({ "desiredNumberScheduled": 3, "updatedNumberScheduled": updated, "numberAvailable": available });
            assert_eq!(is_done(Kind::DaemonSet, &json!({}), status), done, "{updated} {available}");
        }
    }

    #[test]
    fn what_a_restart_would_not_roll_is_refused() {
        for (kind, spec, refused) in [
            (Kind::Deployment, json!({ "replicas": 2 }), false),
            (Kind::Deployment, json!({}), false),
            (Kind::Deployment, json!({ "replicas": 0 }), true),
            (Kind::Deployment, json!({ "paused": true }), true),
            (Kind::StatefulSet, json!({ "updateStrategy": { "type": "OnDelete" } }), true),
            (Kind::DaemonSet, json!({ "updateStrategy": { "type": "RollingUpdate" } }), false),
        ] {
            assert_eq!(objection(kind, &json!({ "spec": spec })).is_some(), refused, "{spec}");
        }
    }

    #[test]
    fn selectors() {
        let workload = json!({ "spec": { "selector": {
            "matchLabels": { "app": "mcp", "tier": "a" },
            "matchExpressions": [
                { "key": "x", "operator": "In", "values": ["1", "2"] },
                { "key": "y", "operator": "NotIn", "values": ["3"] },
                { "key": "z", "operator": "Exists" },
                { "key": "w", "operator": "DoesNotExist" },
            ],
        } } });
        assert_eq!(selector(&workload), "app=mcp,tier=a,x in (1,2),y notin (3),z,!w");
    }
}
