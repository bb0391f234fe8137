//! What `inject` and `--uninject` make of a text: the edits, the new text, and what to tell. Pure.

use std::collections::HashMap;

use serde_json::Value;

use crate::cli::{
    manifest::{
        self, Document, Object,
        edit::{self, Edit},
    },
    podspec::{
        self, Became, LABEL, Options, kinds,
        services::{self, Target},
    },
};

#[derive(Clone, Copy)]
pub enum Task<'a> {
    Inject(&'a Options),
    Uninject,
}

#[derive(Debug)]
pub struct Plan {
    /// Of the whole text, in order.
    pub edits: Vec<Edit>,
    pub text: String,
    /// For people, a line each.
    pub notes: Vec<String>,
}

impl Plan {
    /// An error names the document and the line, and there is no plan.
    pub fn make(text: &str, task: Task<'_>) -> Result<Self, String> {
        let documents = manifest::read(text).map_err(|error| error.to_string())?;
        let mut objects = manifest::objects(&documents);
        let mut notes = Vec::new();
        match task {
            Task::Inject(options) => inject(&documents, &mut objects, options, &mut notes)?,
            Task::Uninject => uninject(&documents, &mut objects, &mut notes)?,
        }
        let mut edits = Vec::new();
        let mut rest = objects.as_slice();
        for (index, document) in documents.iter().enumerate() {
            let mut value = document.root.value();
            // They stand in the order of the documents.
            let count = rest.iter().take_while(|object| object.document == index).count();
            let (own, later) = rest.split_at(count);
            rest = later;
            for object in own {
                if let Some(slot) = value.pointer_mut(&object.pointer) {
                    *slot = object.value.clone();
                }
            }
            let found = edit::edits(document.text, &document.root, &value).ok_or_else(|| {
                format!(
                    "document {}, line {}: its YAML cannot be changed safely; write it in a \
                     simpler way, as `kubectl create --dry-run=client -o yaml` does",
                    document.number, document.line
                )
            })?;
            if found.anew {
                notes.push(format!(
                    "document {}, line {}: written anew, without its comments: what stands where \
                     it changes (an anchor, an alias, a key behind a question mark) cannot be \
                     changed in place",
                    document.number, document.line
                ));
            }
            edits.extend(found.edits.into_iter().map(|edit| Edit {
                range: edit.range.start + document.offset..edit.range.end + document.offset,
                text: edit.text,
            }));
        }
        let text = edit::apply(text, &edits).ok_or("the changes of two documents meet")?;
        Ok(Self { edits, text, notes })
    }
}

/// `document 2, line 14: Deployment/mcp-server`.
fn place(documents: &[Document<'_>], object: &Object) -> String {
    let document = &documents[object.document];
    let line = document.line + document.root.nearest(&object.pointer).line - 1;
    format!("document {}, line {line}: {}", document.number, object.title())
}

fn inject(
    documents: &[Document<'_>],
    objects: &mut [Object],
    options: &Options,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let chosen = Chosen::by_labels(objects);
    // All pods that a Service here may lead to, and where they are described.
    let mut pods: Vec<(String, Target)> = Vec::new();
    for object in objects.iter_mut() {
        let place = place(documents, object);
        let (title, kind) = (object.title(), object.kind().to_owned());
        let namespace = object.namespace().map(str::to_owned);
        let target =
            |pod: &Value, injected| Target::of(title.clone(), namespace.as_deref(), pod, injected);
        if kinds::resembles(&object.value) {
            notes.push(format!("{place}: left as it is: nothing is known of this kind's pods"));
            pods.push((place, target(&object.value["spec"]["template"], None)));
            continue;
        }
        let Some(at) = kinds::template(&object.value) else {
            continue;
        };
        let is_chosen = chosen.has(object, at);
        let pod = object.value.pointer_mut(at).filter(|pod| pod.is_object());
        if !is_chosen {
            notes.push(format!("{place}: left as it is: it is not labelled `{LABEL}: enabled`"));
            pods.extend(pod.map(|pod| (place, target(pod, None))));
            continue;
        }
        let pod = pod.ok_or_else(|| format!("{place}: there is no `{}`", dotted(at)))?;
        let label = &pod["metadata"]["labels"][LABEL];
        if !label.is_null() && label != "enabled" && label != "disabled" {
            return Err(format!(
                "{place}: its label `{LABEL}` says {label}: expected `enabled` or `disabled`"
            ));
        }
        let became =
            podspec::inject(pod, &kind, options).map_err(|error| format!("{place}: {error}"))?;
        let found = match became {
            Became::Left(why) => {
                notes.push(format!("{place}: left as it is: {why}"));
                None
            }
            Became::Injected(found) => {
                notes.extend(found.notes.iter().map(|note| format!("{place}: {note}")));
                Some(found)
            }
        };
        pods.push((place, target(pod, found)));
    }
    // Of many workloads and Services each meets only those that it may have to do with.
    let mut by_label: HashMap<[&str; 3], Vec<usize>> = HashMap::new();
    for (index, (_, target)) in pods.iter().enumerate() {
        for key in services::keys(target.namespace.as_deref(), &target.labels) {
            by_label.entry(key).or_default().push(index);
        }
    }
    let mut is_led_to = vec![false; pods.len()];
    for object in objects.iter_mut().filter(|object| kinds::is_service(&object.value)) {
        let place = place(documents, object);
        let near = services::key(&object.value).and_then(|key| by_label.get(&key));
        let mut selected = Vec::new();
        for index in near.into_iter().flatten() {
            let (_, target) = &pods[*index];
            if services::selects(&object.value, target.namespace.as_deref(), &target.labels) {
                is_led_to[*index] = true;
                selected.push(target);
            }
        }
        let said = services::follow(&mut object.value, &selected)
            .map_err(|error| format!("{place}: {error}"))?;
        notes.extend(said.into_iter().map(|note| format!("{place}: {note}")));
    }
    for ((place, target), is_led_to) in pods.iter().zip(is_led_to) {
        if let Some(found) = target.injected.as_ref().filter(|_| !is_led_to) {
            notes.push(format!(
                "{place}: no Service here leads to it; one with `targetPort: {}` would go round \
                 ebbtide: it has to say `targetPort: {}`",
                found.number, found.name
            ));
        }
    }
    Ok(())
}

fn uninject(
    documents: &[Document<'_>],
    objects: &mut [Object],
    notes: &mut Vec<String>,
) -> Result<(), String> {
    for object in objects.iter_mut() {
        let place = place(documents, object);
        let taken = if kinds::is_service(&object.value) {
            services::undo(&mut object.value)
        } else if let Some(at) = kinds::template(&object.value)
            && let Some(pod) = object.value.pointer_mut(at)
        {
            let taken = podspec::uninject(pod);
            if taken == Ok(false) && podspec::by_hand(&pod["spec"]).is_some() {
                notes.push(format!("{place}: left as it is: its sidecar was put there by hand"));
            }
            taken
        } else {
            continue;
        };
        taken.map_err(|error| format!("{place}: {error}"))?;
    }
    Ok(())
}

fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// The pods that are meant: all, or only those that are labelled, where any is.
struct Chosen {
    only_labelled: bool,
    namespaces: Vec<String>,
}

impl Chosen {
    fn by_labels(objects: &[Object]) -> Self {
        let enabled = |labels: &Value| labels[LABEL] == "enabled";
        let namespaces: Vec<String> = objects
            .iter()
            .filter(|object| object.kind() == "Namespace")
            .filter(|object| enabled(&object.value["metadata"]["labels"]))
            .filter_map(|object| object.value["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        let labelled = objects.iter().any(|object| {
            let pod = kinds::template(&object.value).and_then(|at| object.value.pointer(at));
            pod.is_some_and(|pod| enabled(&pod["metadata"]["labels"]))
        });
        Self { only_labelled: labelled || !namespaces.is_empty(), namespaces }
    }

    fn has(&self, object: &Object, at: &str) -> bool {
        let labels = object.value.pointer(at).map(|pod| &pod["metadata"]["labels"]);
        let label = labels.and_then(|labels| labels[LABEL].as_str());
        let namespace = object.namespace().unwrap_or("default");
        !self.only_labelled
            || matches!(label, Some("enabled" | "disabled"))
            || self.namespaces.iter().any(|enabled| enabled == namespace)
    }
}
