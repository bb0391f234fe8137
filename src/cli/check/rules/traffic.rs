//! Rules about the way of clients to the pods. Pure.

use std::{collections::HashSet, fmt::Write as _};

use serde_json::Value;

use super::Found;
use crate::{
    cli::{
        check::world::{Workload, World},
        manifest::Object,
        podspec::{self, services},
    },
    config::value,
};

pub fn bypass(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for workload in &world.workloads {
        let Some(sidecar) = &workload.sidecar else { continue };
        for (index, service) in world.services(workload) {
            let ports = service.value["spec"]["ports"].as_array().into_iter().flatten();
            let headless = service.value["spec"]["clusterIP"] == "None";
            for (position, port) in ports.enumerate() {
                if port["protocol"].as_str().is_some_and(|protocol| protocol != "TCP") {
                    continue;
                }
                let own = &port["port"];
                let target = match &port["targetPort"] {
                    // Clients of a headless Service go by address, and choose the port themselves.
                    _ if headless => own,
                    Value::Null => own,
                    target => target,
                };
                let leads_to = match target {
                    Value::String(name) => services::port_named(workload.spec, name),
                    number => number.as_u64(),
                };
                let ours = [sidecar.data, sidecar.admin].map(u64::from);
                if let Some(number) = leads_to.filter(|number| !ours.contains(number)) {
                    // A port of something else in the pod, as metrics, is none of clients'.
                    let upstream = sidecar.container.setting("upstream");
                    let upstream = upstream.and_then(|text| value::upstream(&text).ok());
                    let is_servers = match upstream {
                        Some(upstream) => u64::from(upstream.port()) == number,
                        None => workload.server.is_some_and(|server| {
                            u16::try_from(number).is_ok_and(|number| server.declares(number))
                        }),
                    };
                    if is_servers {
                        let mut says = format!(
                            "port {own} leads to {number}, which is the server's; ebbtide's is {}",
                            sidecar.data
                        );
                        if let Some((name, others)) =
                            not_found_by_name(world, workload, service, number)
                        {
                            let _ = write!(
                                says,
                                "; it selects {others}, too, where port {number} does not have the name \
                                 `{name}` yet"
                            );
                        }
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

pub fn port_unknown(world: &World<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for workload in &world.workloads {
        for (index, service) in world.services(workload) {
            if !seen.insert(index) {
                continue;
            }
            let ports = service.value["spec"]["ports"].as_array().into_iter().flatten();
            for (position, port) in ports.enumerate() {
                let Some(name) = port["targetPort"].as_str() else { continue };
                let lacking = lacking(world, service, |pod| {
                    services::port_named(&pod["spec"], name).is_some()
                        || services::will_be_named(pod, name)
                });
                if !lacking.is_empty() {
                    let says = format!("no port of {lacking} is called `{name}`");
                    let path = format!("/spec/ports/{position}/targetPort");
                    found.push(Found::in_object(index, &path, says));
                }
            }
        }
    }
    found
}

/// The name of the sidecar's port, and who else is selected and has none of that name.
fn not_found_by_name<'a>(
    world: &World<'_>,
    workload: &Workload<'a>,
    service: &Object,
    number: u64,
) -> Option<(&'a str, String)> {
    let sidecar = workload.sidecar.as_ref()?;
    let ports = sidecar.container.value["ports"].as_array()?;
    let port = ports.iter().find(|port| port["containerPort"] == sidecar.data)?;
    let name = port["name"].as_str()?;
    let lacking = lacking(world, service, |pod| {
        let found = services::port_named(&pod["spec"], name);
        let has_ebbtide = podspec::by_hand(&pod["spec"]).is_some();
        found.is_some_and(|found| found == number || has_ebbtide)
            || services::will_be_named(pod, name)
    });
    (!lacking.is_empty()).then_some((name, lacking))
}

/// What a Service selects of which that is not so.
fn lacking(world: &World<'_>, service: &Object, is_so: impl Fn(&Value) -> bool) -> String {
    let lacking = world.selected(service).into_iter().filter(|(_, pod)| !is_so(pod));
    lacking.map(|(object, _)| object.title()).collect::<Vec<_>>().join(" and ")
}
