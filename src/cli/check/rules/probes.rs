//! Rules about probes. Pure.

use super::Found;
use crate::cli::{check::world::World, podspec::server};

pub fn liveness_drains(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(sidecar) = &workload.sidecar else { continue };
        for container in workload.containers() {
            let get = &container.value["livenessProbe"]["httpGet"];
            let path = get["path"].as_str().unwrap_or("/");
            let port = container.port_of(get);
            let drains = port == Some(sidecar.admin) && path != "/livez";
            let tcp = container.port_of(&container.value["livenessProbe"]["tcpSocket"]);
            if drains || port == Some(sidecar.data) || tcp == Some(sidecar.data) {
                let says = match port.or(tcp) {
                    Some(port) if port == sidecar.admin => {
                        format!("liveness asks ebbtide for {path}")
                    }
                    _ => format!("liveness asks through ebbtide, on port {}", sidecar.data),
                };
                found.push(Found::in_container(workload, container, "/livenessProbe", says));
            }
        }
    }
    found
}

pub fn probe_grace(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        for container in workload.containers() {
            for probe in ["livenessProbe", "startupProbe"] {
                let grace = container.value[probe]["terminationGracePeriodSeconds"].as_u64();
                if let Some(grace) = grace.filter(|grace| *grace < workload.grace()) {
                    let says = format!("{probe} leaves {grace} s, the pod {} s", workload.grace());
                    let path = format!("/{probe}/terminationGracePeriodSeconds");
                    found.push(Found::in_container(workload, container, &path, says));
                }
            }
        }
    }
    found
}

pub fn port_unknown(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        for container in workload.containers() {
            for (handler, port) in server::handler_ports(container.value) {
                let Some(name) = port.as_str() else { continue };
                // A number in quotes the kubelet takes for one.
                if container.port_named(name).is_some() || name.parse::<u16>().is_ok() {
                    continue;
                }
                let mut others = workload.containers();
                let has = others.find(|other| other.port_named(name).is_some());
                let whose = match has {
                    Some(other) => format!("it is the container `{}` that has it", other.name()),
                    None => "no container has it".to_owned(),
                };
                let says =
                    format!("it asks for the port `{name}`, which is none of its own; {whose}");
                found.push(Found::in_container(workload, container, &handler, says));
            }
        }
    }
    found
}

pub fn startup_needs_server(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(sidecar) = &workload.sidecar else { continue };
        let own = sidecar.container;
        let probe = &own.value["startupProbe"];
        let get = &probe["httpGet"];
        let fine = get["path"] == "/livez" && own.port_of(get) == Some(sidecar.admin);
        if own.is_native_sidecar() && !probe.is_null() && !fine {
            let says =
                "the sidecar's startupProbe is no GET of /livez on its admin port".to_owned();
            found.push(Found::in_container(workload, own, "/startupProbe", says));
        }
    }
    found
}
