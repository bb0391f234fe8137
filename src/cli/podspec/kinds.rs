//! Which objects make pods, and where in them the pod is described. Pure.

use serde_json::Value;

/// The place of the pod's `metadata` and `spec`, as a JSON pointer; `None` where the object makes
/// no pods, or is of a kind that only its own controller knows.
pub fn template(object: &Value) -> Option<&'static str> {
    let kind = object["kind"].as_str()?;
    let group = object["apiVersion"].as_str()?.rsplit_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(""),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => {
            Some("/spec/template")
        }
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Whether an object that nobody here knows describes pods all the same.
pub fn resembles(object: &Value) -> bool {
    template(object).is_none()
        && object.pointer("/spec/template/spec/containers").is_some_and(Value::is_array)
}

pub fn is_service(object: &Value) -> bool {
    object["kind"] == "Service" && object["apiVersion"] == "v1"
}

/// Whether the pods end by themselves.
pub fn ends(kind: &str, spec: &Value) -> bool {
    matches!(kind, "Job" | "CronJob")
        || spec["restartPolicy"].as_str().is_some_and(|policy| policy != "Always")
}
