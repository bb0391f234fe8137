//! Services that lead to an injected pod: a numeric target port would go round the sidecar, the
//! port's name follows it. Pure.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Injected, LABEL, PORT_NAME, RECORD, SETTING};

/// Pods of one kind, as Services see them.
#[derive(Debug)]
pub struct Target {
    title: String,
    pub namespace: Option<String>,
    pub labels: Value,
    /// The number behind each port's name.
    ports: HashMap<String, u64>,
    has_ebbtide: bool,
    /// `None` where the pods are left as they are.
    pub injected: Option<Injected>,
}

impl Target {
    /// Of a pod as it has become.
    pub fn of(
        title: String,
        namespace: Option<&str>,
        pod: &Value,
        injected: Option<Injected>,
    ) -> Self {
        let mut ports = HashMap::new();
        for (name, number) in named_ports(&pod["spec"]) {
            ports.entry(name.to_owned()).or_insert(number);
        }
        Self {
            title,
            namespace: namespace.map(str::to_owned),
            labels: pod["metadata"]["labels"].clone(),
            ports,
            has_ebbtide: super::by_hand(&pod["spec"]).is_some(),
            injected,
        }
    }

    /// Whether a Service that asks for the name finds what it found by the number, or ebbtide
    /// before it.
    fn is_found_by(&self, name: &str, number: u64) -> bool {
        self.ports.get(name).is_some_and(|found| self.has_ebbtide || *found == number)
    }
}

/// The ports that a Service finds by name, in its order: those of the containers, then those of
/// native sidecars.
fn named_ports(spec: &Value) -> impl Iterator<Item = (&str, u64)> {
    let list = |name: &str| spec[name].as_array().into_iter().flatten();
    let native = list("initContainers").filter(|own| own["restartPolicy"] == "Always");
    let ports = list("containers").chain(native).filter_map(|own| own["ports"].as_array());
    ports
        .flatten()
        .filter_map(|port| Some((port["name"].as_str()?, port["containerPort"].as_u64()?)))
}

/// Where a Service leads that asks for a port by name.
pub fn port_named(spec: &Value, name: &str) -> Option<u64> {
    named_ports(spec).find(|(own, _)| *own == name).map(|(_, number)| number)
}

/// Whether injection will give the pod a port of that name: it calls one that has no name so.
pub fn will_be_named(pod: &Value, name: &str) -> bool {
    let asked = format!("{SETTING}port");
    name == PORT_NAME
        && super::by_hand(&pod["spec"]).is_none()
        && pod["metadata"]["annotations"][asked.as_str()].is_string()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Was {
    port: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Value>,
    to: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    annotations: bool,
}

/// Whether the Service leads to pods with these labels in that namespace.
pub fn selects(service: &Value, namespace: Option<&str>, labels: &Value) -> bool {
    let Some(selector) = service["spec"]["selector"].as_object() else {
        return false;
    };
    let service = service["metadata"]["namespace"].as_str().unwrap_or("default");
    !selector.is_empty()
        && service == namespace.unwrap_or("default")
        && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// One label that every pod has which the Service selects, to find them by; `None` where it
/// selects none. The first word is the namespace.
pub fn key(service: &Value) -> Option<[&str; 3]> {
    let (name, value) = service["spec"]["selector"].as_object()?.iter().next()?;
    let namespace = service["metadata"]["namespace"].as_str().unwrap_or("default");
    Some([namespace, name, value.as_str()?])
}

/// All by which a pod with these labels may be found.
pub fn keys<'a>(
    namespace: Option<&'a str>,
    labels: &'a Value,
) -> impl Iterator<Item = [&'a str; 3]> {
    let namespace = namespace.unwrap_or("default");
    let labels = labels.as_object().into_iter().flatten();
    labels.filter_map(move |(name, value)| Some([namespace, name.as_str(), value.as_str()?]))
}

/// Lets a Service follow the port of the pods that it selects, and says what it did and saw.
pub fn follow(service: &mut Value, selected: &[&Target]) -> Result<Vec<String>, String> {
    let injected: Vec<&Injected> =
        selected.iter().filter_map(|target| target.injected.as_ref()).collect();
    if injected.is_empty() {
        return Ok(Vec::new());
    }
    undo(service)?;
    let annotations = service["metadata"].get("annotations");
    if !service["metadata"].is_object()
        || annotations.is_some_and(|value| !value.is_null() && !value.is_object())
    {
        return Err("`metadata` or its annotations are no mapping".into());
    }
    let mut notes = Vec::new();
    let mut changed: Vec<Was> = Vec::new();
    for port in ports(service).filter(|port| is_tcp(port)) {
        let number = port["port"].as_u64().unwrap_or_default();
        let target = port.get("targetPort").filter(|target| !target.is_null());
        let leads_to = target.map_or(Some(number), Value::as_u64);
        let mut names: Vec<&str> = injected
            .iter()
            .filter(|injected| leads_to == Some(injected.number.into()))
            .map(|injected| injected.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        if !names.is_empty() && number == 0 {
            return Err(
                "a port of `spec.ports` has no number `port`, by which clients ask for it".into()
            );
        }
        let lost: Vec<&str> = selected
            .iter()
            .filter(|target| {
                names
                    .first()
                    .is_some_and(|name| !target.is_found_by(name, leads_to.unwrap_or_default()))
            })
            .map(|target| target.title.as_str())
            .collect();
        match names.as_slice() {
            [] => {}
            [name] if !lost.is_empty() => notes.push(format!(
                "targetPort of port {number} stays {}, and leads past ebbtide: by the name \
                 `{name}` it would no longer find {}, which it selects, too; give {} the label \
                 `{LABEL}: enabled`, or its port {} that name, or let this Service select less",
                leads_to.unwrap_or_default(),
                lost.join(" and "),
                if lost.len() == 1 { "that one" } else { "those" },
                leads_to.unwrap_or_default(),
            )),
            [name] => {
                let mut note = format!(
                    "targetPort of port {number}: {} is now `{name}`, which leads to ebbtide",
                    leads_to.unwrap_or_default()
                );
                if !injected.iter().all(|injected| injected.was_named) {
                    note += "; pods from before do not know the name: apply the workload first, \
                             wait until it is rolled out, then the Service";
                }
                notes.push(note);
                let to = (*name).to_owned();
                changed.push(Was { port: number, target: target.cloned(), to, annotations: false });
                port["targetPort"] = (*name).into();
            }
            _ => {
                return Err(format!(
                    "port {number} leads to pods that call their port {}; give it one name in all \
                     of them",
                    names.join(" and ")
                ));
            }
        }
    }
    if let Some(first) = changed.first_mut() {
        if service["metadata"]["annotations"].is_null() {
            service["metadata"]["annotations"] = json!({});
            first.annotations = true;
        }
        let record = serde_json::to_string(&changed).map_err(|error| error.to_string())?;
        service["metadata"]["annotations"][RECORD] = record.into();
    }
    notes.extend(noticed(service, injected[0].data));
    Ok(notes)
}

fn ports(service: &mut Value) -> impl Iterator<Item = &mut Value> {
    service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten()
}

/// What clients come by; the sidecar has no port for the others.
fn is_tcp(port: &Value) -> bool {
    port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP")
}

/// What may lead clients to pods at the wrong time, or round the sidecar.
fn noticed(service: &Value, data: u16) -> Vec<String> {
    let mut notes = Vec::new();
    let spec = &service["spec"];
    if spec["publishNotReadyAddresses"] == true {
        notes.push(
            "publishNotReadyAddresses: pods are offered before they are ready and while they \
             drain; leave it out for what serves clients"
                .into(),
        );
    }
    if spec["clusterIP"] == "None" {
        notes.push(format!(
            "clusterIP: None: clients choose the port of the pod themselves; let them choose {data}"
        ));
    }
    notes
}

/// Gives a Service its target ports back; `false` where they were left alone.
pub fn undo(service: &mut Value) -> Result<bool, String> {
    let Some(text) = service["metadata"]["annotations"].get(RECORD).and_then(Value::as_str) else {
        return Ok(false);
    };
    let record: Vec<Was> = serde_json::from_str(text)
        .map_err(|error| format!("the annotation {RECORD} cannot be read: {error}"))?;
    for was in &record {
        let port = ports(service)
            .find(|port| is_tcp(port) && port["port"] == was.port && port["targetPort"] == *was.to);
        if let Some(port) = port.and_then(Value::as_object_mut) {
            match &was.target {
                Some(target) => port.insert("targetPort".into(), target.clone()),
                None => port.remove("targetPort"),
            };
        }
    }
    let created = record.first().is_some_and(|was| was.annotations);
    if let Some(annotations) = service["metadata"]["annotations"].as_object_mut() {
        annotations.remove(RECORD);
        if created
            && annotations.is_empty()
            && let Some(metadata) = service["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    Ok(true)
}
