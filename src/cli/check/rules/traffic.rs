//! Rules about the way of clients to the pods. Pure.

use serde_json::Value;

use super::Found;
use crate::cli::check::world::{Workload, World};

pub fn bypass(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(sidecar) = &workload.sidecar else { continue };
        for (index, service) in world.services(workload) {
            let ports = service.value["spec"]["ports"].as_array().into_iter().flatten();
            let headless = service.value["spec"]["clusterIP"] == "None";
            for (position, port) in ports.enumerate() {
                let own = &port["port"];
                let target = match &port["targetPort"] {
                    // Clients of a headless Service go by address, and choose the port themselves.
                    _ if headless => own,
                    Value::Null => own,
                    target => target,
                };
                let leads_to = match target {
                    Value::String(name) => named(workload, name),
                    number => number.as_u64(),
                };
                let ours = [sidecar.data, sidecar.admin].map(u64::from);
                if let Some(number) = leads_to.filter(|number| !ours.contains(number)) {
                    // A port of something else in the pod, as metrics, is none of clients'.
                    let server = workload.server.is_some_and(|server| {
                        u16::try_from(number).is_ok_and(|number| server.declares(number))
                    });
                    let upstream = sidecar.container.setting("upstream").unwrap_or_default();
                    if server || upstream.ends_with(&format!(":{number}")) {
                        let says = format!(
                            "port {own} leads to {number}, which is the server's; ebbtide's is {}",
                            sidecar.data
                        );
                        let path = format!("/spec/ports/{position}");
                        found.push(Found::in_object(index, &path, says));
                    }
                }
            }
        }
    }
    found
}

pub fn publish_not_ready(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        for (index, service) in world.services(workload) {
            if service.value["spec"]["publishNotReadyAddresses"] == true {
                let says = format!("it offers pods of {} at any time", workload.object.title());
                found.push(Found::in_object(index, "/spec/publishNotReadyAddresses", says));
            }
        }
    }
    found
}

/// The number behind a port's name; the first container that has it counts.
fn named(workload: &Workload<'_>, name: &str) -> Option<u64> {
    let declared = workload.containers().find_map(|container| {
        let ports = container.value["ports"].as_array()?;
        ports.iter().find(|port| port["name"] == name).cloned()
    });
    declared?["containerPort"].as_u64()
}
