//! What really runs: where the cluster adds the sidecar to Pods as they are made, what makes them
//! does not show it. Pure.
//!
//! Never judges the same pod twice: of what one controller made, only the newest pod counts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use serde_json::{Value, json};

use super::world::Workload;
use crate::cli::{
    manifest::Object,
    podspec::{self, LABEL, kinds},
};

/// How many makers may stand one above the other; that of a pod and what made that are usual.
const MOST_OWNERS: usize = 8;

/// Who an object comes from.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Maker {
    /// One of the objects.
    Here(usize),
    /// What is not among them: namespace, kind and name.
    Away([String; 3]),
}

/// The objects, of which each maker of pods is described as its newest pod runs, where only that
/// one has the sidecar; and what to tell of it.
pub fn as_they_run(mut objects: Vec<Object>) -> (Vec<Object>, Vec<String>) {
    let mut notes = Vec::new();
    let made = made(&objects);
    let mut stay = vec![true; objects.len()];
    for index in made.values().flatten() {
        stay[*index] = false;
    }
    let labelled = labelled_namespaces(&objects);
    for (maker, own) in &made {
        if let Maker::Away(_) = maker
            && let Some(newest) = newest(&objects, own)
        {
            stay[newest] = true;
        }
    }
    for index in 0..objects.len() {
        let Some(at) = makes_pods(&objects[index]).filter(|_| stay[index]) else { continue };
        let all = made.get(&Maker::Here(index)).map(Vec::as_slice).unwrap_or_default();
        let is_live = |index: &&usize| is_live(&objects[**index].value);
        let pods: Vec<&Value> =
            all.iter().filter(is_live).map(|index| &objects[*index].value).collect();
        let (note, pod) = described(&objects[index], at, &pods, &labelled);
        notes.extend(note);
        if let Some(pod) = pod
            && let Some(template) = objects[index].value.pointer_mut(at)
        {
            *template = pod;
        }
    }
    let mut stay = stay.into_iter();
    objects.retain(|_| stay.next().unwrap_or(true));
    (objects, notes)
}

/// What is to be told of a maker of pods, and its pod, where that one shows what it does not.
fn described(
    object: &Object,
    at: &'static str,
    pods: &[&Value],
    labelled: &[String],
) -> (Option<String>, Option<Value>) {
    let title = object.title();
    let has_sidecar = |pod: &Value| podspec::by_hand(&pod["spec"]).is_some();
    let serves = Workload::of(0, object, at).is_some_and(|found| found.sidecar.is_none());
    let newest = pods.iter().max_by_key(|pod| age(pod));
    if let Some(newest) = newest.filter(|newest| !at.is_empty() && has_sidecar(newest))
        && !object.value.pointer(at).is_some_and(has_sidecar)
    {
        let name = newest["metadata"]["name"].as_str().unwrap_or_default();
        let mut note = format!(
            "{title}: looked at as its pod {name} runs: its own template has no sidecar, its pods \
             get theirs when they are made"
        );
        let without = pods.iter().filter(|pod| !has_sidecar(pod)).count();
        if without > 0 {
            let _ = write!(
                note,
                "; {without} of {} have none, since they were made before: {}",
                pods.len(),
                restart(object)
            );
        }
        let metadata = &newest["metadata"];
        let pod = json!({
            "metadata": {"labels": metadata["labels"], "annotations": metadata["annotations"]},
            "spec": newest["spec"],
        });
        return (Some(note), Some(pod));
    }
    let Some(whose) = asks(object, at, labelled).filter(|_| serves) else { return (None, None) };
    let runs = !pods.is_empty() || (at.is_empty() && is_live(&object.value));
    let note = if runs {
        format!(
            "{title}: no sidecar, although {whose} is labelled `{LABEL}: enabled`: its pods were \
             made before the label, or while nothing injected: {}",
            restart(object)
        )
    } else {
        format!(
            "{title}: {whose} is labelled `{LABEL}: enabled`, but no pod of it is here: looked at \
             as it is written, without what injection will add"
        )
    };
    (Some(note), None)
}

/// Who asks for the sidecar by a label, if anybody does.
fn asks(object: &Object, at: &str, labelled: &[String]) -> Option<&'static str> {
    let pod = object.value.pointer(at)?;
    match pod["metadata"]["labels"][LABEL].as_str() {
        Some("enabled") => Some("the pod"),
        Some(_) => None,
        None => {
            let namespace = object.namespace().unwrap_or("default");
            labelled.iter().any(|name| name == namespace).then_some("its namespace")
        }
    }
}

fn labelled_namespaces(objects: &[Object]) -> Vec<String> {
    let namespaces = objects.iter().filter(|object| object.kind() == "Namespace");
    namespaces
        .map(|object| &object.value["metadata"])
        .filter(|metadata| metadata["labels"][LABEL] == "enabled")
        .filter_map(|metadata| metadata["name"].as_str().map(str::to_owned))
        .collect()
}

/// How its pods are made anew.
fn restart(object: &Object) -> String {
    let name = object.value["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = object.namespace().unwrap_or("default");
    match object.kind() {
        kind @ ("Deployment" | "StatefulSet" | "DaemonSet") => {
            let kind = kind.to_lowercase();
            format!("`kubectl rollout restart {kind}/{name} --namespace {namespace}`")
        }
        "Pod" => "delete it and make it anew".into(),
        _ => "delete them, so that they are made anew".into(),
    }
}

/// What each maker made, by whatever way.
fn made(objects: &[Object]) -> BTreeMap<Maker, Vec<usize>> {
    let key = |namespace: &str, kind: &str, name: &str| [namespace, kind, name].map(str::to_owned);
    let named: HashMap<[String; 3], usize> = objects
        .iter()
        .enumerate()
        .filter_map(|(index, object)| {
            let name = object.value["metadata"]["name"].as_str()?;
            Some((key(object.namespace().unwrap_or("default"), object.kind(), name), index))
        })
        .collect();
    let mut made: BTreeMap<Maker, Vec<usize>> = BTreeMap::new();
    for (index, object) in objects.iter().enumerate() {
        let Some(owner_of_it) = owner(object).filter(|_| makes_pods(object).is_some()) else {
            continue;
        };
        let namespace = object.namespace().unwrap_or("default");
        let mut next = Some(owner_of_it);
        let mut maker = None;
        for _ in 0..MOST_OWNERS {
            let Some([kind, name]) = next else { break };
            let key = key(namespace, kind, name);
            let found = named.get(&key).copied();
            next = found.and_then(|found| owner(&objects[found]));
            maker = Some(found.map_or(Maker::Away(key), Maker::Here));
        }
        // Owners in a ring made nothing.
        if let Some(maker) = maker.filter(|_| next.is_none()) {
            made.entry(maker).or_default().push(index);
        }
    }
    made
}

/// The kind and name of the controller that made an object. Static pods are their node's, which
/// makes nothing of them alike.
fn owner(object: &Object) -> Option<[&str; 2]> {
    let owners = object.value["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let kind = owner["kind"].as_str().filter(|kind| *kind != "Node")?;
    Some([kind, owner["name"].as_str()?])
}

fn makes_pods(object: &Object) -> Option<&'static str> {
    kinds::template(&object.value)
}

/// A pod that the cluster has, and keeps.
fn is_live(object: &Value) -> bool {
    let metadata = &object["metadata"];
    object["kind"] == "Pod"
        && !metadata["creationTimestamp"].is_null()
        && metadata["deletionTimestamp"].is_null()
}

/// Of what one maker made the pod that is newest, else whatever is.
fn newest(objects: &[Object], own: &[usize]) -> Option<usize> {
    own.iter().copied().max_by_key(|index| {
        let value = &objects[*index].value;
        (is_live(value), value["kind"] == "Pod", age(value), Reverse(*index))
    })
}

/// RFC 3339 in UTC sorts as time does.
fn age(object: &Value) -> &str {
    object["metadata"]["creationTimestamp"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(sidecar: bool) -> Value {
        let server = json!({"name": "server", "ports": [{"name": "mcp", "containerPort": 3000}]});
        let own = json!([{"name": "ebbtide"}]);
        let own = if sidecar { own } else { json!([]) };
        json!({"initContainers": own, "containers": [server]})
    }

    fn made_by(
        kind: &str,
        name: &str,
        owner: Option<[&str; 2]>,
        made: u32,
        spec: &Value,
    ) -> Object {
        let owners: Vec<Value> = owner
            .into_iter()
            .map(|[kind, name]| json!({"kind": kind, "name": name, "controller": true}))
            .collect();
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": spec});
        let (version, spec) = match kind {
            "Pod" => ("v1", spec.clone()),
            _ => ("apps/v1", json!({"template": template})),
        };
        let metadata = json!({
            "name": name, "namespace": "prod", "ownerReferences": owners,
            "creationTimestamp": format!("2026-01-01T00:00:{made:02}Z"),
            "labels": {"app": "a"},
        });
        let value =
            json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
        Object { document: 0, pointer: String::new(), value }
    }

    fn namespace(label: &str) -> Object {
        let value = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "prod", "labels": {"ebbtide.dev/inject": label}}});
        Object { document: 0, pointer: String::new(), value }
    }

    const DEPLOYMENT: Option<[&str; 2]> = Some(["Deployment", "mcp"]);
    const SET: Option<[&str; 2]> = Some(["ReplicaSet", "mcp-1"]);

    fn deployment() -> Vec<Object> {
        vec![
            made_by("Deployment", "mcp", None, 1, &pod(false)),
            made_by("ReplicaSet", "mcp-1", DEPLOYMENT, 1, &pod(false)),
        ]
    }

    fn titles(objects: &[Object]) -> Vec<String> {
        objects.iter().map(Object::title).collect()
    }

    fn carries(object: &Object) -> bool {
        podspec::by_hand(&object.value["spec"]["template"]["spec"]).is_some()
    }

    #[test]
    fn a_workload_is_what_its_newest_pod_is() {
        // Which pods there are, by age and whether they have the sidecar, and what is told.
        for (pods, expected, told) in [
            (vec![(2, true)], true, "looked at as its pod mcp-1-2 runs"),
            (vec![(2, false), (3, true)], true, "; 1 of 2 have none"),
            (
                vec![(3, true), (4, false)],
                false,
                "`kubectl rollout restart deployment/mcp --namespace prod`",
            ),
            (vec![(2, false)], false, "made before the label"),
            (vec![], false, "no pod of it is here"),
        ] {
            let mut objects = deployment();
            objects.push(namespace("enabled"));
            for (age, sidecar) in &pods {
                objects.push(made_by("Pod", &format!("mcp-1-{age}"), SET, *age, &pod(*sidecar)));
            }
            let (objects, notes) = as_they_run(objects);
            assert_eq!(titles(&objects), ["Deployment/mcp", "Namespace/prod"]);
            assert_eq!(carries(&objects[0]), expected, "{pods:?}");
            assert!(notes.len() == 1 && notes[0].contains(told), "{pods:?}: {notes:?}");
        }
    }

    #[test]
    fn a_pod_that_goes_does_not_count_and_nobody_asks_for_one_that_is_disabled() {
        let mut objects = deployment();
        let mut going = made_by("Pod", "mcp-1-9", SET, 9, &pod(true));
        going.value["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z".into();
        objects.push(going);
        let (left, notes) = as_they_run(objects.clone());
        assert!(!carries(&left[0]) && notes.is_empty(), "{notes:?}");
        objects.push(namespace("disabled"));
        assert!(as_they_run(objects.clone()).1.is_empty());
        objects.push(namespace("enabled"));
        objects[0].value["spec"]["template"]["metadata"]["labels"][LABEL] = "disabled".into();
        assert!(as_they_run(objects).1.is_empty());
    }

    #[test]
    fn a_template_with_its_own_sidecar_is_left_as_it_is() {
        let objects = vec![
            made_by("StatefulSet", "a", None, 1, &pod(true)),
            made_by("Pod", "a-0", Some(["StatefulSet", "a"]), 2, &pod(false)),
            namespace("enabled"),
        ];
        let (objects, notes) = as_they_run(objects);
        assert!(carries(&objects[0]) && notes.is_empty(), "{notes:?}");
    }

    /// As the Rollout of another project: its newest pod stands for it.
    #[test]
    fn of_what_nobody_here_made_the_newest_pod_counts() {
        let rollout = Some(["Rollout", "mcp"]);
        let mut objects = vec![
            made_by("ReplicaSet", "mcp-0", rollout, 1, &pod(false)),
            made_by("ReplicaSet", "mcp-1", rollout, 2, &pod(false)),
        ];
        assert_eq!(titles(&as_they_run(objects.clone()).0), ["ReplicaSet/mcp-1"]);
        for age in [3, 4] {
            objects.push(made_by("Pod", &format!("mcp-1-{age}"), SET, age, &pod(true)));
        }
        assert_eq!(titles(&as_they_run(objects).0), ["Pod/mcp-1-4"]);
        let node = Some(["Node", "n"]);
        let fixed = vec![
            made_by("Pod", "a", node, 1, &pod(false)),
            made_by("Pod", "b", node, 1, &pod(false)),
        ];
        assert_eq!(as_they_run(fixed).0.len(), 2);
    }

    /// Owners that name each other end the search.
    #[test]
    fn owners_in_a_ring() {
        let a = made_by("ReplicaSet", "a", Some(["ReplicaSet", "b"]), 1, &pod(false));
        let b = made_by("ReplicaSet", "b", Some(["ReplicaSet", "a"]), 1, &pod(false));
        let own = made_by("Pod", "c", Some(["ReplicaSet", "a"]), 1, &pod(true));
        assert_eq!(as_they_run(vec![a, b, own]).0.len(), 3);
    }
}
