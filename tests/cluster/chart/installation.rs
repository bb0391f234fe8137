//! The chart, installed with helm for one namespace only, so that several may be there at once.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::pods::{is_injected, restricted_pod};
use crate::{
    kubectl::{json as parse, kubectl, until},
    manifest::EBBTIDE,
    namespace::Namespace,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Policy,
    Webhook,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Policy => "policy",
            Mode::Webhook => "webhook",
        }
    }
}

const RELEASE: &str = "tide";
const LABEL: &str = "ebbtide.dev/test";

/// The chart in a namespace of its own; taken out when dropped.
pub struct Installation {
    pub namespace: Namespace,
    /// The values of the first installation, as a user keeps them in a file.
    pub values: Value,
}

impl Installation {
    /// Installs it, and waits until pods are injected in `target`.
    pub fn new(mode: Mode, target: &Namespace) -> Self {
        let mut installation = Self::prepared(mode);
        let namespace = &installation.namespace.name;
        let test = format!("{LABEL}={namespace}");
        kubectl(&["label", "namespace", &target.name, "ebbtide.dev/inject=enabled", &test]);
        installation.values["rbac"] = json!({"namespaces": [target.name]});
        installation.helm("install", &installation.values, &["--wait"]);
        until("pods are injected", || {
            target.admitted(&restricted_pod()).ok().filter(|(pod, _)| is_injected(pod))
        });
        installation
    }

    /// What is to be installed.
    pub fn prepared(mode: Mode) -> Self {
        let namespace = Namespace::empty();
        let (repository, tag) = EBBTIDE.split_once(':').unwrap();
        let values = json!({
            "image": {"repository": repository, "tag": tag},
            "injection": {
                "mode": mode.name(),
                "namespaceSelector": {"matchLabels": {LABEL: namespace.name}},
            },
        });
        Self { namespace, values }
    }

    /// `helm install` or `helm upgrade`, with exactly these values.
    pub fn helm(&self, verb: &str, values: &Value, flags: &[&str]) {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/ebbtide");
        let of = ["--namespace", &self.namespace.name, "--values", "-"];
        let arguments = [&[verb, RELEASE, chart][..], &of, flags].concat();
        told("helm", &arguments, &values.to_string()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The authorities whose certificates the API server takes from the webhook.
    pub fn trusted(&self) -> String {
        let name = format!("mutatingwebhookconfiguration/tide-ebbtide-{}", self.namespace.name);
        let bundle = "go-template={{ (index .webhooks 0).clientConfig.caBundle | base64decode }}";
        kubectl(&["get", &name, "--output", bundle])
    }

    /// An entry of the webhook's Secret.
    pub fn certificate(&self, entry: &str) -> String {
        let entry = format!("go-template={{{{ index .data \"{entry}\" | base64decode }}}}");
        self.namespace.kubectl(&["get", "secret/tide-ebbtide-webhook-tls", "--output", &entry])
    }

    pub fn uninstall(&self) {
        self.try_uninstall().unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_uninstall(&self) -> Result<(String, String), String> {
        told("helm", &["uninstall", RELEASE, "--namespace", &self.namespace.name, "--wait"], "")
    }

    /// All objects of the release, anywhere in the cluster.
    pub fn objects(&self) -> Vec<String> {
        let kinds = "mutatingadmissionpolicies,mutatingadmissionpolicybindings,\
                     validatingadmissionpolicies,validatingadmissionpolicybindings,\
                     mutatingwebhookconfigurations,clusterroles,clusterrolebindings,rolebindings,\
                     configmaps,secrets,services,serviceaccounts,deployments,pods,\
                     poddisruptionbudgets,networkpolicies";
        let objects = parse(&kubectl(&[
            "get",
            kinds,
            "--all-namespaces",
            "--output=json",
            "--selector",
            &format!("app.kubernetes.io/instance={RELEASE}"),
        ]));
        let objects = objects["items"].as_array().unwrap().iter();
        let name = |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap();
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            format!("{} {namespace}/{name}", object["kind"])
        };
        // What belongs to the cluster has the namespace in its name.
        objects.map(name).filter(|name| name.contains(&self.namespace.name)).collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        // What belongs to no namespace would outlive this one.
        if std::thread::panicking() {
            let _ = self.try_uninstall();
        }
    }
}

/// What the program printed, and what it said beside; or how it failed.
pub fn told(program: &str, arguments: &[&str], input: &str) -> Result<(String, String), String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // One that fails before it has read says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() {
        Ok((printed, said))
    } else {
        Err(format!("{program} {}: {said}", arguments.join(" ")))
    }
}

impl Namespace {
    /// The pod as the API server would take it, and what it warns of; or why it would not.
    pub fn admitted(&self, pod: &Value) -> Result<(Value, String), String> {
        let of = ["--namespace", &self.name, "--output=json", "--filename=-"];
        let arguments = [&["create", "--dry-run=server"][..], &of].concat();
        told("kubectl", &arguments, &pod.to_string()).map(|(pod, said)| (parse(&pod), said))
    }

    /// Many pods as the API server would take them, and what it warns of, at the price of one.
    pub fn all_admitted(&self, pods: &[Value]) -> (Vec<Value>, String) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
        let of = ["--namespace", &self.name, "--output=json", "--filename=-"];
        let arguments = [&["create", "--dry-run=server"][..], &of].concat();
        let (printed, said) = told("kubectl", &arguments, &list.to_string()).unwrap();
        let printed = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
        let found: Vec<_> = printed.map(|pod| pod.unwrap()).collect();
        assert_eq!(found.len(), pods.len());
        (found, said)
    }
}

impl Namespace {
    /// Which pods there are.
    pub fn uids(&self, selector: &str) -> Vec<String> {
        let pods = self.get(&["pods", "--selector", selector]);
        let pods = pods["items"].as_array().unwrap().iter();
        pods.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
    }
}
