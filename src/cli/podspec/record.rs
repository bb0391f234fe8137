//! What injection changed in a pod, and how to take it back. The record stands in an annotation
//! of the pod. Pure.
//!
//! Never takes back what somebody changed since.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{CONTAINER, RECORD, SECRET, TOKEN, VERSION};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The server's container.
    pub server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Moved>,
    /// Where the server's probes and hooks named the port, as JSON pointers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
    /// The server had no preStop hook.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prestop: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Raised>,
    /// What was not there at all, as JSON pointers; in the server's container with its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub created: Vec<String>,
}

/// What the server's port lost.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    pub number: u16,
    pub fields: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raised {
    pub from: Option<u64>,
    pub to: u64,
}

/// A value that is there in the end, and the record says so where it was not.
pub fn ensure<'a>(
    pod: &'a mut Value,
    at: &str,
    empty: Value,
    record: &mut Record,
) -> Option<&'a mut Value> {
    if pod.pointer(at).is_none_or(Value::is_null) {
        let (parent, key) = at.rsplit_once('/')?;
        pod.pointer_mut(parent)?.as_object_mut()?.insert(key.to_owned(), empty);
        record.created.push(at.to_owned());
    }
    pod.pointer_mut(at)
}

/// The server's port, as an earlier injection has found it: nobody may say it a second time.
pub fn server_port(pod: &Value) -> Option<String> {
    pod["metadata"]["annotations"].get(RECORD)?;
    let lists = [&pod["spec"]["initContainers"], &pod["spec"]["containers"]];
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    let own = all.find(|container| container["name"] == CONTAINER)?;
    let mut args = own["args"].as_array()?.iter().filter_map(Value::as_str);
    args.find(|word| *word == "--upstream")?;
    Some(args.next()?.rsplit_once(':')?.1.to_owned())
}

/// Takes an injection back; `false` where there is none.
pub fn undo(pod: &mut Value) -> Result<bool, String> {
    let annotations = &pod["metadata"]["annotations"];
    let Some(text) = annotations.get(RECORD).and_then(Value::as_str) else {
        return Ok(false);
    };
    let record: Record = serde_json::from_str(text).map_err(|error| {
        format!(
            "the annotation {RECORD} cannot be read ({error}): it was written by ebbtide {}; use \
             that version to take the injection back",
            annotations[VERSION].as_str().unwrap_or("of another version")
        )
    })?;
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.remove(RECORD);
        annotations.remove(VERSION);
    }
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
        return Err("`spec` is no mapping: this is no pod".into());
    };
    let mut own = Vec::new();
    for list in ["initContainers", "containers"] {
        if let Some(items) = spec.get_mut(list).and_then(Value::as_array_mut) {
            own.extend(items.extract_if(.., |item| item["name"] == CONTAINER));
        }
    }
    // A volume of that name may be somebody else's.
    let mounts = |name: &str| {
        let mounts = own.iter().filter_map(|own| own["volumeMounts"].as_array()).flatten();
        mounts.into_iter().any(|mount| mount["name"] == name)
    };
    if let Some(items) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        items.retain(|item| {
            ![TOKEN, SECRET].into_iter().any(|name| item["name"] == name && mounts(name))
        });
    }
    if let Some(grace) = &record.grace
        && spec["terminationGracePeriodSeconds"] == grace.to
        && let Some(spec) = spec.as_object_mut()
    {
        match grace.from {
            Some(from) => spec.insert("terminationGracePeriodSeconds".into(), from.into()),
            None => spec.remove("terminationGracePeriodSeconds"),
        };
    }
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    let server = containers.into_iter().flatten().find(|found| found["name"] == *record.server);
    let changed = |what: String| {
        format!(
            "{what} is not there any more, to which something was to be given back that injection \
             has taken ({RECORD}): change it back, take the injection out with `ebbtide inject \
             --uninject`, and change it then"
        )
    };
    let Some(server) = server else {
        return Err(changed(format!("the container `{}`", record.server)));
    };
    if !give_back(server, &record) {
        let number = record.port.map(|port| port.number).unwrap_or_default();
        return Err(changed(format!("port {number} of the container `{}`", record.server)));
    }
    for at in record.created.iter().rev() {
        remove_empty(pod, at);
    }
    Ok(true)
}

/// Gives the server back what was taken from it; `false` where its port is not there.
fn give_back(server: &mut Value, record: &Record) -> bool {
    if let Some(moved) = &record.port {
        let ports = server.get_mut("ports").and_then(Value::as_array_mut);
        let mut ports: Vec<&mut Value> = ports
            .into_iter()
            .flatten()
            .filter(|port| {
                port["containerPort"] == moved.number
                    && port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP")
            })
            .collect();
        if ports.is_empty() {
            return false;
        }
        // One that has a name by now keeps it.
        let port = ports.iter_mut().find(|port| port.get("name").is_none());
        if let Some(port) = port.and_then(|port| port.as_object_mut()) {
            port.extend(moved.fields.clone());
        }
        for at in &record.named {
            if let Some(port) = server.pointer_mut(at).filter(|port| **port == moved.number) {
                *port = moved.fields.get("name").cloned().unwrap_or_default();
            }
        }
    }
    if record.prestop
        && server.pointer("/lifecycle/preStop/httpGet/path") == Some(&json!("/prestop"))
        && let Some(lifecycle) = server["lifecycle"].as_object_mut()
    {
        lifecycle.remove("preStop");
        if lifecycle.is_empty()
            && record.created.iter().any(|at| at == "lifecycle")
            && let Some(server) = server.as_object_mut()
        {
            server.remove("lifecycle");
        }
    }
    true
}

fn remove_empty(pod: &mut Value, at: &str) {
    let empty = pod.pointer(at).is_some_and(|value| {
        value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
    });
    let (parent, key) = at.rsplit_once('/').unwrap_or(("", at));
    if empty && let Some(parent) = pod.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.remove(key);
    }
}
