//! Rules about how many pods there are at a time. Pure.

use serde_json::Value;

use super::Found;
use crate::cli::check::world::{Workload, World};

pub fn all_unavailable(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let at = match workload.object.kind() {
            "Deployment" => "/spec/strategy/rollingUpdate/maxUnavailable",
            "DaemonSet" | "StatefulSet" => "/spec/updateStrategy/rollingUpdate/maxUnavailable",
            _ => continue,
        };
        let least = world.replicas(workload).map(|replicas| replicas.least);
        let Some(most) = workload.object.value.pointer(at) else { continue };
        let all = match (percent(most), most.as_u64(), least) {
            (Some(percent), ..) => percent >= 100,
            (None, Some(count), Some(least)) => count > 0 && count >= least,
            _ => false,
        };
        if all {
            let of = least.map(|least| format!(" {least}")).unwrap_or_default();
            let says = format!("maxUnavailable is {}, which is all{of} of them", text(most));
            found.push(Found::in_object(workload.index, at, says));
        }
    }
    found
}

pub fn recreate(world: &World<'_>) -> Vec<Found> {
    let recreates = |workload: &&Workload<'_>| {
        workload.object.kind() == "Deployment"
            && workload.object.value["spec"]["strategy"]["type"] == "Recreate"
    };
    let say = |workload: &Workload<'_>| {
        let says = match world.replicas(workload) {
            Some(replicas) => format!("strategy Recreate, replicas: {}", replicas.least),
            None => "strategy Recreate".to_owned(),
        };
        Found::in_object(workload.index, "/spec/strategy", says)
    };
    world.workloads.iter().filter(recreates).map(say).collect()
}

pub fn no_budget(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let labels = &workload.pod["metadata"]["labels"];
        let covers = |budget: &Value| {
            let selector = budget["spec"]["selector"]["matchLabels"].as_object();
            // What expressions select is not worked out: they are taken to mean these pods.
            let by_labels = selector.is_none_or(|selector| {
                selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            });
            !budget["spec"]["selector"].is_null() && by_labels
        };
        // A single pod can only be kept, and its node with it.
        let several = world.replicas(workload).is_some_and(|replicas| replicas.least > 1);
        if several
            && !world
                .beside(workload, "PodDisruptionBudget")
                .any(|(_, budget)| covers(&budget.value))
        {
            let says = "no PodDisruptionBudget here covers its pods".to_owned();
            found.push(Found::in_object(workload.index, "/spec/replicas", says));
        }
    }
    found
}

pub fn scale_in_at_once(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some((index, scaler)) = world.scaler(workload) else { continue };
        let at = "/spec/behavior/scaleDown/stabilizationWindowSeconds";
        let window = scaler.value.pointer(at).and_then(Value::as_u64);
        if let Some(window) = window.filter(|window| *window < 60) {
            let says = format!(
                "a load that is low for {window} s ends pods of {}",
                workload.object.title()
            );
            found.push(Found::in_object(index, at, says));
        }
    }
    found
}

pub fn database_limit(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    let Some(limit) = world.limits.database else {
        return found;
    };
    for workload in &world.workloads {
        let (Some(sidecar), Some(replicas)) = (&workload.sidecar, world.replicas(workload)) else {
            continue;
        };
        let replicas = replicas.most;
        let given = sidecar.container.setting("max_connections");
        let connections = given.and_then(|text| text.parse::<u64>().ok()).unwrap_or(100);
        let surge = surge(workload, replicas);
        let all = replicas.saturating_add(surge).saturating_mul(connections);
        if all > limit {
            let says = format!(
                "{replicas} pods and {surge} of a surge, {connections} connections each, make {all}; \
                 the limit is {limit}"
            );
            found.push(Found::in_container(workload, sidecar.container, "/args", says));
        }
    }
    found
}

/// How many pods a rollout may add.
fn surge(workload: &Workload<'_>, replicas: u64) -> u64 {
    let strategy = &workload.object.value["spec"]["strategy"];
    if workload.object.kind() != "Deployment" || strategy["type"] == "Recreate" {
        return 0;
    }
    let surge = &strategy["rollingUpdate"]["maxSurge"];
    match (percent(surge), surge.as_u64()) {
        (Some(percent), _) => replicas.saturating_mul(percent).div_ceil(100),
        (None, Some(count)) => count,
        // What Kubernetes takes where nothing is said.
        _ => replicas.saturating_mul(25).div_ceil(100),
    }
}

fn percent(value: &Value) -> Option<u64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
