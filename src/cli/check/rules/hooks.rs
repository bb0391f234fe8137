//! Rules about how a pod ends: hooks, grace, what runs beside what. Pure.

use std::time::Duration;

use serde_json::Value;

use super::Found;
use crate::cli::{
    check::world::{Container, World, words},
    podspec::kinds,
};

/// What the server gets to stop, and a second for the rest.
const STOP: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(2);

pub fn no_prestop(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(server) = workload.server else { continue };
        let hook = hook_of(server);
        let Some(sidecar) = &workload.sidecar else {
            if hook.is_null() {
                let says = "the server has no preStop hook".to_owned();
                found.push(Found::in_container(workload, server, "", says));
            }
            continue;
        };
        // One container is told by SIGTERM, and tells its server after the drain.
        if sidecar.wraps {
            continue;
        }
        if !server.waits_for_us(sidecar.admin) {
            let says = match hook {
                Value::Null => "the server has no preStop hook",
                _ => "the server's preStop hook does not wait for ebbtide",
            };
            found.push(Found::in_container(workload, server, "/lifecycle/preStop", says.into()));
        }
        let own = &hook_of(sidecar.container)["httpGet"];
        let to_admin = sidecar.container.port_of(own) == Some(sidecar.admin);
        if own["path"] != "/prestop/self" || !to_admin {
            let says = format!(
                "the sidecar's preStop is no GET of /prestop/self on port {}",
                sidecar.admin
            );
            found.push(Found::in_container(
                workload,
                sidecar.container,
                "/lifecycle/preStop",
                says,
            ));
        }
    }
    found
}

pub fn blind_sleep(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in world.workloads.iter().filter(|workload| workload.sidecar.is_none()) {
        let Some(server) = workload.server else { continue };
        let hook = hook_of(server);
        let command: Vec<&str> = words(&hook["exec"]["command"]).collect();
        if !hook["sleep"].is_null() || command.iter().any(|word| word.trim().contains("sleep")) {
            let says = match hook["sleep"]["seconds"].as_u64() {
                Some(seconds) => format!("the preStop hook sleeps for {seconds} s"),
                None => format!("the preStop hook sleeps: `{}`", command.join(" ")),
            };
            found.push(Found::in_container(workload, server, "/lifecycle/preStop", says));
        }
    }
    found
}

/// What an image without a shell calls itself.
const NO_SHELL: &[&str] = &["distroless", "chainguard", "cgr.dev", "scratch", "static"];
const OF_A_SHELL: &[&str] = &["sh", "bash", "ash", "sleep"];

pub fn needs_shell(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        for container in workload.containers() {
            let image = container.value["image"].as_str().unwrap_or_default();
            let bare = NO_SHELL.iter().any(|word| image.contains(word)) && !image.contains("debug");
            let command = &hook_of(container)["exec"]["command"];
            let program = command[0].as_str().unwrap_or_default();
            let program = program.rsplit('/').next().unwrap_or_default();
            if bare && OF_A_SHELL.contains(&program) {
                let says = format!("the preStop hook runs `{program}` in the image {image}");
                found.push(Found::in_container(workload, container, "/lifecycle/preStop", says));
            }
        }
    }
    found
}

pub fn grace_too_short(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let settle = workload.sidecar.as_ref().and_then(|found| found.container.duration("settle"));
        let grace = &workload.spec["terminationGracePeriodSeconds"];
        if !grace.is_null() && !grace.is_u64() {
            let taken = if grace.is_i64() {
                "Kubernetes takes it for 1 s"
            } else {
                "Kubernetes refuses it: a whole number of seconds is expected"
            };
            let says = format!("terminationGracePeriodSeconds is {grace}; {taken}");
            found.push(Found::in_pod(workload, "/spec/terminationGracePeriodSeconds", says));
            continue;
        }
        let needs = world.limits.slowest_call + settle.unwrap_or(SETTLE) + STOP;
        let needs = needs.as_millis().div_ceil(1000);
        if u128::from(workload.grace()) < needs {
            let says = format!(
                "the pod has {} s to end; a call of {} s, the settle and the stop need {needs} s",
                workload.grace(),
                world.limits.slowest_call.as_secs_f64(),
            );
            found.push(Found::in_pod(workload, "/spec/terminationGracePeriodSeconds", says));
        }
    }
    found
}

pub fn grace_told_wrong(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(sidecar) = &workload.sidecar else { continue };
        let told = sidecar.container.duration("grace");
        if let Some(told) = told.filter(|told| *told > Duration::from_secs(workload.grace())) {
            let says = format!(
                "ebbtide is told {} s, the pod has {} s",
                told.as_secs_f64(),
                workload.grace()
            );
            found.push(Found::in_container(workload, sidecar.container, "/args", says));
        }
    }
    found
}

pub fn classic_never_ends(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(sidecar) = &workload.sidecar else { continue };
        let beside = !sidecar.wraps && !sidecar.container.is_native_sidecar();
        if beside && kinds::ends(workload.object.kind(), workload.spec) {
            let says = format!("a classic sidecar in a {}", workload.object.kind());
            found.push(Found::in_container(workload, sidecar.container, "", says));
        }
    }
    found
}

pub fn no_token(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(sidecar) = &workload.sidecar else { continue };
        let has_token = |name: &Value| {
            let volumes = workload.spec["volumes"].as_array().into_iter().flatten();
            volumes.filter(|volume| volume["name"] == *name).any(|volume| {
                let sources = volume["projected"]["sources"].as_array();
                sources.into_iter().flatten().any(|source| !source["serviceAccountToken"].is_null())
            })
        };
        let mounts = sidecar.container.value["volumeMounts"].as_array();
        let mounted = mounts.into_iter().flatten().any(|mount| has_token(&mount["name"]));
        if workload.spec["automountServiceAccountToken"] == false && !mounted {
            let says = "no token is mounted into the sidecar".to_owned();
            found.push(Found::in_container(workload, sidecar.container, "/volumeMounts", says));
        }
    }
    found
}

pub fn port_taken(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(sidecar) = &workload.sidecar else { continue };
        let own = sidecar.container.path();
        for container in workload.containers().filter(|container| container.path() != own) {
            for port in [sidecar.data, sidecar.admin] {
                if container.declares(port) {
                    let says = format!("port {port} is also ebbtide's");
                    found.push(Found::in_container(workload, container, "/ports", says));
                }
            }
        }
        if workload.spec["hostNetwork"] == true {
            let says = "hostNetwork: two pods on one node take ebbtide's ports from each other";
            found.push(Found::in_pod(workload, "/spec/hostNetwork", says.into()));
        }
    }
    found
}

fn hook_of(container: Container<'_>) -> &Value {
    &container.value["lifecycle"]["preStop"]
}
