//! A review of the API server → the answer to it. Pure.
//!
//! Never refuses a pod: what cannot be injected, or is not understood, is let through as it is,
//! with warnings that say why.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{patch, warnings};
use crate::{
    cli::podspec::{self, Became, LABEL, Options, VERSION, kinds},
    telemetry::webhook::Verdict,
};

const API: &str = "admission.k8s.io/v1";
/// What runs there must start whatever becomes of us.
const SYSTEM: &str = "kube-system";

/// What holds for all reviews.
#[derive(Debug)]
pub struct Rules {
    pub options: Options,
    /// The webhook's own namespace, where it is known.
    pub own: Option<String>,
}

/// A review with its answer, and what the log says of it.
#[derive(Debug)]
pub struct Answer {
    pub verdict: Verdict,
    pub namespace: String,
    /// As kubectl names it; a pod without a name yet by what its name will begin with.
    pub pod: String,
    /// The kind and name of what made the pod.
    pub owner: String,
    pub dry_run: bool,
    /// What there is to tell of it.
    pub said: Vec<String>,
    /// The `AdmissionReview` that goes back.
    pub review: Value,
}

/// What becomes of a pod.
enum Judged {
    Injected {
        patch: Vec<Value>,
        is_unprotected: bool,
        notes: Vec<String>,
    },
    /// Not meant, and why; whether its author may have thought otherwise.
    Left {
        why: String,
        warn: bool,
    },
    Failed(String),
}

impl Rules {
    /// An error is for who sent something that cannot be answered.
    pub fn answer(&self, body: &[u8]) -> Result<Answer, String> {
        let review: Value = serde_json::from_slice(body).map_err(|error| {
            format!("the body is no JSON: {error}; expected an AdmissionReview of {API}")
        })?;
        let request = &review["request"];
        let Some(uid) = request["uid"].as_str().filter(|uid| !uid.is_empty()) else {
            return Err(format!(
                "the body has no `request.uid`, so nobody could tell what an answer belongs to; \
                 expected an AdmissionReview of {API}"
            ));
        };
        let pod = title(request);
        let namespace = namespace(request).unwrap_or_default().to_owned();
        let owner = &owner(&request["object"]);
        let (verdict, patch, said, warn) = match self.judge(&review) {
            Judged::Injected { patch, is_unprotected, notes } => {
                let verdict = if is_unprotected { Verdict::Unprotected } else { Verdict::Injected };
                let said = notes.into_iter().map(|note| format!("{pod}: {note}")).collect();
                (verdict, patch, said, true)
            }
            Judged::Left { why, warn } => {
                let said = vec![format!("{pod}: left as it is: {why}")];
                (Verdict::Left, Vec::new(), said, warn)
            }
            Judged::Failed(why) => {
                let said = vec![format!("{pod} comes without its sidecar: {why}")];
                (Verdict::Failed, Vec::new(), said, true)
            }
        };
        let mut response = json!({"uid": uid, "allowed": true});
        if !patch.is_empty() {
            response["patchType"] = "JSONPatch".into();
            response["patch"] = BASE64_STANDARD.encode(Value::Array(patch).to_string()).into();
        }
        if warn && !said.is_empty() {
            response["warnings"] = warnings::of(&said).into();
        }
        // The API server takes only the version that it speaks itself.
        let spoken = review["apiVersion"].as_str();
        let version = spoken.filter(|it| it.starts_with("admission.k8s.io/")).unwrap_or(API);
        Ok(Answer {
            verdict,
            namespace,
            pod,
            owner: match (owner["kind"].as_str(), owner["name"].as_str()) {
                (Some(kind), Some(name)) => format!("{kind}/{name}"),
                _ => String::new(),
            },
            dry_run: request["dryRun"] == true,
            said,
            review: json!({
                "apiVersion": version, "kind": "AdmissionReview", "response": response,
            }),
        })
    }

    fn judge(&self, review: &Value) -> Judged {
        let request = &review["request"];
        let pod = &request["object"];
        if let Err(why) = is_for_us(review) {
            return Judged::Failed(why);
        }
        let label = &pod["metadata"]["labels"][LABEL];
        let Some(namespace) = namespace(request) else {
            return Judged::Failed(
                "the review names no namespace, so nobody can tell whether its pods may be changed"
                    .into(),
            );
        };
        if namespace == SYSTEM || self.own.as_deref() == Some(namespace) {
            let why = format!("pods of the namespace {namespace} are never changed");
            return Judged::Left { why, warn: label == "enabled" };
        }
        let version = env!("CARGO_PKG_VERSION");
        // The API server asks again when another webhook changed the pod: that change stays.
        if pod["metadata"]["annotations"][VERSION] == version
            && podspec::by_hand(&pod["spec"]).is_some()
        {
            let why = format!("it has the sidecar of version {version} already");
            return Judged::Left { why, warn: false };
        }
        let mut injected = pod.clone();
        let owner = owner(pod);
        let kind = owner["kind"].as_str().unwrap_or("Pod");
        match podspec::inject(&mut injected, kind, &self.options) {
            Ok(Became::Injected(found)) => {
                let is_unprotected = found.is_unprotected;
                let mut notes = found.notes;
                if !label.is_null() && label != "enabled" {
                    notes.push(format!(
                        "its label `{LABEL}` says {label}, which is neither `enabled` nor \
                         `disabled`, so that its namespace decides"
                    ));
                }
                Judged::Injected { patch: patch::between(pod, &injected), is_unprotected, notes }
            }
            Ok(Became::Left(why)) => Judged::Left { why, warn: false },
            Err(why) => Judged::Failed(why),
        }
    }
}

/// Whether it is the creation of a pod; else what in the webhook's configuration to look at.
fn is_for_us(review: &Value) -> Result<(), String> {
    let request = &review["request"];
    let text = |value: &Value| value.as_str().unwrap_or("nothing").to_owned();
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != API {
        return Err(format!(
            "the review is {} of {}; expected AdmissionReview of {API}, so that the webhook's \
             configuration has to say `admissionReviewVersions: [v1]`",
            text(&review["kind"]),
            text(&review["apiVersion"]),
        ));
    }
    if request["operation"] != "CREATE" {
        return Err(format!(
            "the operation is {}, and only new pods are changed: the rules of the webhook's \
             configuration have to say `operations: [CREATE]`",
            text(&request["operation"]),
        ));
    }
    let resources = "the rules of the webhook's configuration have to say `resources: [pods]`";
    if let Some(name) = request["subResource"].as_str().filter(|name| !name.is_empty()) {
        return Err(format!("the request is for the subresource {name}: {resources}"));
    }
    let object = &request["object"];
    if kinds::template(object) != Some("") {
        return Err(match (object["kind"].as_str(), object.is_object()) {
            (Some(kind), _) => format!(
                "the object is a {kind} of {}, not a Pod of v1: {resources}",
                text(&object["apiVersion"])
            ),
            (None, true) => format!("the object does not say that it is a Pod: {resources}"),
            (None, false) => format!("the review brings no pod: {resources}"),
        });
    }
    Ok(())
}

/// A pod that is made from a template is asked about before it knows its namespace.
fn namespace(request: &Value) -> Option<&str> {
    let told = request["namespace"].as_str().filter(|name| !name.is_empty());
    told.or(request["object"]["metadata"]["namespace"].as_str()).filter(|name| !name.is_empty())
}

/// What controls the pod, or owns it at least.
fn owner(pod: &Value) -> Value {
    let owners = pod["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    let controller = owners.iter().find(|owner| owner["controller"] == true);
    controller.or(owners.first()).cloned().unwrap_or_default()
}

fn title(request: &Value) -> String {
    let object = &request["object"];
    let metadata = &object["metadata"];
    let named = [&metadata["name"], &request["name"], &metadata["generateName"]];
    let name = named.iter().find_map(|name| name.as_str().filter(|name| !name.is_empty()));
    format!("{}/{}", object["kind"].as_str().unwrap_or("Pod"), name.unwrap_or("(without a name)"))
}

#[cfg(test)]
mod tests;
