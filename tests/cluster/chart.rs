//! charts/ebbtide, installed with helm: pods get their sidecar, the same that `ebbtide inject`
//! gives them, roll without a loss, and nothing stays behind.
//!
//! Several installations may be there at once: each injects only in namespaces labelled for it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    kubectl::{json as parse, kubectl, until},
    manifest::{EBBTIDE, Manifest},
    namespace::Namespace,
};

#[derive(Debug, Clone, Copy)]
enum Mode {
    Policy,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Policy => "policy",
        }
    }
}

const RELEASE: &str = "tide";
const LABEL: &str = "ebbtide.dev/test";

/// The chart in a namespace of its own; taken out when dropped.
struct Installation {
    namespace: Namespace,
    /// The values of the first installation, as a user keeps them in a file.
    values: Value,
}

impl Installation {
    /// Installs it, and waits until pods are injected in `namespace`.
    fn new(mode: Mode, target: &Namespace) -> Self {
        let namespace = Namespace::empty();
        let (repository, tag) = EBBTIDE.split_once(':').unwrap();
        let values = json!({
            "image": {"repository": repository, "tag": tag},
            "injection": {
                "mode": mode.name(),
                "namespaceSelector": {"matchLabels": {LABEL: namespace.name}},
            },
            "rbac": {"namespaces": [target.name]},
        });
        let inject = "ebbtide.dev/inject=enabled";
        let test = format!("{LABEL}={}", namespace.name);
        kubectl(&["label", "namespace", &target.name, inject, &test]);
        let installation = Self { namespace, values };
        installation.helm("install", &installation.values);
        until("pods are injected", || {
            target.admitted(&restricted_pod()).ok().filter(|(pod, _)| is_injected(pod))
        });
        installation
    }

    /// `helm install` or `helm upgrade`, with exactly these values.
    fn helm(&self, verb: &str, values: &Value) {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/ebbtide");
        let of = ["--namespace", &self.namespace.name, "--values", "-", "--wait"];
        let arguments = [&[verb, RELEASE, chart][..], &of].concat();
        told("helm", &arguments, &values.to_string()).unwrap_or_else(|error| panic!("{error}"));
    }

    fn uninstall(&self) {
        let arguments = ["uninstall", RELEASE, "--namespace", &self.namespace.name, "--wait"];
        told("helm", &arguments, "").unwrap_or_else(|error| panic!("{error}"));
    }

    /// All objects of the release, anywhere in the cluster.
    fn objects(&self) -> Vec<String> {
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
        if std::thread::panicking() {
            self.uninstall();
        }
    }
}

/// What the program printed, and what it said beside; or how it failed.
fn told(program: &str, arguments: &[&str], input: &str) -> Result<(String, String), String> {
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
    fn admitted(&self, pod: &Value) -> Result<(Value, String), String> {
        let of = ["--namespace", &self.name, "--output=json", "--filename=-"];
        let arguments = [&["create", "--dry-run=server"][..], &of].concat();
        told("kubectl", &arguments, &pod.to_string()).map(|(pod, said)| (parse(&pod), said))
    }
}

fn is_injected(pod: &Value) -> bool {
    pod["spec"]["initContainers"].as_array().into_iter().flatten().any(|c| c["name"] == "ebbtide")
}

fn plain() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": {"containers": [
        {"name": "server", "image": "x/server:1", "ports": [{"name": "http", "containerPort": 3000}]},
    ]}})
}

/// The plain pod with something else at these places.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut pod = plain();
    for (at, value) in changes {
        let (parent, key) = at.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/");
        pod.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    pod
}

fn annotated(annotations: &[(&str, &str)]) -> Value {
    let annotations = annotations
        .iter()
        .map(|(name, value)| (format!("config.ebbtide.dev/{name}"), Value::from(*value)));
    with(&[("/metadata/annotations", annotations.collect::<serde_json::Map<_, _>>().into())])
}

const SERVER: &str = "/spec/containers/0";

/// Pods that get a sidecar.
fn pods() -> Vec<Value> {
    let at = |path: &str| format!("{SERVER}{path}");
    let ports = |ports: Value| with(&[(&at("/ports"), ports)]);
    let get = |port: Value| json!({"httpGet": {"path": "/", "port": port}});
    let init = json!([{"name": "first", "image": "x"}, {"name": "second", "image": "x"}]);
    let mut later = with(&[("/spec/initContainers", init.clone())]);
    later["metadata"]["annotations"] = json!({"config.ebbtide.dev/after": "first"});
    let mut undeclared = annotated(&[("port", "8080")]);
    undeclared.pointer_mut(SERVER).unwrap()["ports"].take();
    let mut beside = plain();
    beside["spec"]["containers"].as_array_mut().unwrap().insert(
        0,
        json!({"name": "other", "image": "x", "ports": [{"containerPort": 9}, {"containerPort": 53,
            "protocol": "UDP", "name": "mcp"}]}),
    );
    let mut unnamed = annotated(&[("port", "3000")]);
    unnamed.pointer_mut(SERVER).unwrap()["ports"][0].as_object_mut().unwrap().remove("name");
    let mut named = annotated(&[("port", "web")]);
    named.pointer_mut(SERVER).unwrap()["ports"][0]["name"] = "web".into();
    vec![
        plain(),
        ports(json!([{"name": "http", "containerPort": 1}, {"name": "mcp", "containerPort": 2}])),
        ports(json!([{"containerPort": 9}, {"name": "mcp", "containerPort": 3000, "hostPort": 80,
            "hostIP": "127.0.0.1"}])),
        beside,
        unnamed,
        named,
        undeclared,
        later,
        with(&[("/spec/initContainers", init)]),
        with(&[("/spec/volumes", json!([{"name": "data", "emptyDir": {}}]))]),
        with(&[("/spec/terminationGracePeriodSeconds", json!(300))]),
        with(&[("/spec/terminationGracePeriodSeconds", json!(60))]),
        with(&[("/spec/restartPolicy", json!("Never"))]),
        with(&[("/spec/automountServiceAccountToken", json!(false))]),
        with(&[("/metadata/annotations", json!({"mine": "x"}))]),
        with(&[("/spec/securityContext", json!({"runAsUser": 0}))]),
        with(&[(
            "/spec/securityContext",
            json!({"runAsUser": 7, "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"}}),
        )]),
        with(&[("/spec/securityContext", json!({"seccompProfile": {"type": "Unconfined"}}))]),
        with(&[(&at("/lifecycle"), json!({"preStop": get("http".into())}))]),
        with(&[(&at("/lifecycle"), json!({"preStop": {"exec": {"command": ["/bye"]}}}))]),
        with(&[(&at("/lifecycle"), json!({"postStart": get("http".into())}))]),
        with(&[
            (&at("/livenessProbe"), get("http".into())),
            (&at("/readinessProbe"), json!({"tcpSocket": {"port": "http"}})),
            (&at("/startupProbe"), get(3000.into())),
        ]),
        annotated(&[("grace", "90s"), ("max_connections", "7"), ("log_level", "debug")]),
        annotated(&[("grace", "2m"), ("upstream", "http://localhost:3000")]),
        annotated(&[("grace", "1h")]),
        annotated(&[("grace", "90500ms"), ("quiet", "1s"), ("acquire_timeout", "3s")]),
        annotated(&[("grace", "0")]),
        annotated(&[("listen", "0.0.0.0:8070"), ("admin", "[::]:8071")]),
    ]
}

/// Pods that get none, and what whoever applies them is told; nothing where that is as it should
/// be.
fn pods_left_alone() -> Vec<(Value, &'static str)> {
    let second = |ports: Value| {
        let mut pod = plain();
        let other = json!({"name": "other", "image": "x", "ports": ports});
        pod["spec"]["containers"].as_array_mut().unwrap().push(other);
        pod
    };
    let command = |command: &str| with(&[(&format!("{SERVER}/command"), json!([command, "run"]))]);
    let name = format!("{SERVER}/ports/0/name");
    vec![
        (with(&[("/metadata/labels", json!({"ebbtide.dev/inject": "disabled"}))]), ""),
        (with(&[("/spec/containers/0/name", json!("ebbtide"))]), ""),
        (command("/bin/ebbtide"), ""),
        (with(&[(&name, json!("web"))]), "no port is named mcp or http"),
        (with(&[("/spec/hostNetwork", json!(true))]), "hostNetwork"),
        (second(json!([{"name": "http", "containerPort": 1}])), "several containers"),
        (second(json!([{"containerPort": 7071}])), "port 7070 or 7071 is taken"),
        (annotated(&[("setle", "5s")]), "no setting is called setle"),
        (annotated(&[("grace", "soon")]), "soon is no duration"),
        (annotated(&[("grace", "25h")]), "25h is no duration"),
        (annotated(&[("port", "nine")]), "no container has the port nine"),
        (annotated(&[("port", "70000")]), "no container has the port 70000"),
        (annotated(&[("after", "x")]), "no init container is called x"),
        (annotated(&[("admin", "127.0.0.1:7071")]), "expect a fixed port on all addresses"),
        (annotated(&[("listen", "7070")]), "expect a fixed port on all addresses"),
        (
            with(&[("/spec/volumes", json!([{"name": "ebbtide-token", "emptyDir": {}}]))]),
            "ebbtide-token",
        ),
    ]
}

/// The pod that `ebbtide inject` makes of it, or why it makes none.
fn injected(pod: &Value) -> Result<Value, String> {
    let program = env!("CARGO_BIN_EXE_ebbtide");
    let (text, _) = told(program, &["inject", "--image", EBBTIDE], &pod.to_string())?;
    Ok(serde_yaml::from_str(&text).unwrap())
}

fn assert_same(found: &Value, expected: &Value, pod: &Value) {
    let lines = |pod: &Value| format!("{:#}", comparable(pod.clone()));
    let (found, expected) = (lines(found), lines(expected));
    if found != expected {
        let differing = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
        panic!("{pod}: differs from {differing:?} on:\n{found}\nexpected:\n{expected}");
    }
}

/// What must not differ: all but what the API server makes up, and the record of `inject`.
fn comparable(mut pod: Value) -> Value {
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| name == "labels" || name == "annotations");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("ebbtide.dev/injected-changes");
    }
    // The API server's own volume was there first, or comes last; the order has no meaning.
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.sort_by_key(|volume| volume["name"].to_string());
    }
    let text = pod.to_string();
    let Some((_, rest)) = text.split_once("kube-api-access-") else { return pod };
    let suffix = rest.split('"').next().unwrap();
    parse(&text.replace(suffix, "SUFFIX"))
}

fn it_gives_what_inject_gives(mode: Mode) {
    let (labelled, other) = (Namespace::empty(), Namespace::empty());
    let installation = Installation::new(mode, &labelled);
    for pod in pods() {
        let (found, said) = labelled.admitted(&pod).unwrap();
        let expected = other.admitted(&injected(&pod).unwrap()).unwrap().0;
        assert!(is_injected(&expected));
        assert_same(&found, &expected, &pod);
        assert!(!said.contains("Warning"), "{said}: {pod}");
        assert!(!is_injected(&other.admitted(&pod).unwrap().0));
    }
    for (pod, why) in pods_left_alone() {
        let (found, said) = labelled.admitted(&pod).unwrap();
        assert_same(&found, &other.admitted(&pod).unwrap().0, &pod);
        let warned = said.contains("these pods get no ebbtide sidecar");
        assert!(warned != why.is_empty() && said.contains(why), "{said} lacks {why}: {pod}");
        assert!(injected(&pod).map_or(true, |same| same["spec"] == pod["spec"]), "{pod}");
    }
    // Once is enough.
    let once = labelled.admitted(&injected(&plain()).unwrap()).unwrap().0;
    assert_eq!(once["spec"]["initContainers"].as_array().unwrap().len(), 1);
    // Pods come from controllers: whoever applies these is told.
    for (kind, wrap) in [("apps/v1/Deployment", "template"), ("batch/v1/CronJob", "jobTemplate")] {
        for (port, warned) in [("mcp", false), ("web", true)] {
            let object = workload(kind, wrap, port);
            let said = labelled.admitted(&object).unwrap().1;
            assert_eq!(said.contains("no port is named mcp or http"), warned, "{said}: {object}");
        }
    }
    // A namespace that says nothing: the label on the pod counts.
    kubectl(&["label", "namespace", &labelled.name, "ebbtide.dev/inject-"]);
    let yes = with(&[("/metadata/labels", json!({"ebbtide.dev/inject": "enabled"}))]);
    until("the namespace's label is gone", || {
        (!is_injected(&labelled.admitted(&plain()).unwrap().0)).then_some(())
    });
    assert!(is_injected(&labelled.admitted(&yes).unwrap().0));
    installation.uninstall();
}

fn workload(kind: &str, wrap: &str, port: &str) -> Value {
    let (version, kind) = kind.rsplit_once('/').unwrap();
    let labels = json!({"app": "x"});
    let pod = with(&[(&format!("{SERVER}/ports/0/name"), port.into())]);
    let mut pod = json!({"metadata": {"labels": labels}, "spec": pod["spec"]});
    let spec = if wrap == "template" {
        json!({"selector": {"matchLabels": labels}, "template": pod})
    } else {
        pod["spec"]["restartPolicy"] = "Never".into();
        json!({"schedule": "@yearly", "jobTemplate": {"spec": {"template": pod}}})
    };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "workload"}, "spec": spec})
}

/// From `helm install` to `helm uninstall`, in a `restricted` namespace.
fn its_whole_life(mode: Mode) {
    let mut namespace = Namespace::empty();
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(&["label", "namespace", &namespace.name, restricted]);
    let installation = Installation::new(mode, &namespace);
    // Of the manifest only what a user has: its own account may look at nothing.
    namespace.serve(Manifest::without_ebbtide().without_rights().replicas(2));

    let load = namespace.rehearse(2_000);
    namespace.kubectl(&["rollout", "restart", "deployment/mcp-server"]);
    namespace.rolled_out();
    namespace.only_stay(2);
    load.end().assert_nothing_lost();
    let pods = namespace.get(&["pods", "--selector=app=mcp-server"]);
    assert!(pods["items"].as_array().unwrap().iter().all(is_injected), "{pods}");
    // By the chart's RoleBinding.
    let pod = &namespace.pods(|_| true)[0];
    until("the pod is watched", || (namespace.status(pod)["knowledge"] == "pod").then_some(()));

    // The older values, and one more: nothing restarts.
    let before = (namespace.uids("app=mcp-server"), installation.namespace.uids(""));
    let mut values = installation.values.clone();
    values["monitoring"] = json!({"dashboard": {"enabled": true}});
    values["injection"]["failurePolicy"] = "Fail".into();
    installation.helm("upgrade", &values);
    installation.namespace.get(&["configmap", "tide-ebbtide-dashboard"]);
    assert_eq!((namespace.uids("app=mcp-server"), installation.namespace.uids("")), before);
    assert!(is_injected(&namespace.admitted(&restricted_pod()).unwrap().0));

    assert!(!installation.objects().is_empty());
    installation.uninstall();
    assert_eq!(installation.objects(), Vec::<String>::new());
    assert_eq!(namespace.uids("app=mcp-server"), before.0);
    until("nobody injects", || {
        (!is_injected(&namespace.admitted(&restricted_pod()).unwrap().0)).then_some(())
    });
}

impl Namespace {
    /// Which pods there are.
    fn uids(&self, selector: &str) -> Vec<String> {
        let pods = self.get(&["pods", "--selector", selector]);
        let pods = pods["items"].as_array().unwrap().iter();
        pods.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
    }
}

/// The plain pod, as `restricted` wants it.
fn restricted_pod() -> Value {
    with(&[
        (
            "/spec/securityContext",
            json!({"runAsNonRoot": true, "runAsUser": 7, "seccompProfile": {"type": "RuntimeDefault"}}),
        ),
        (
            &format!("{SERVER}/securityContext"),
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        ),
    ])
}

#[test]
fn the_policy_gives_what_inject_gives() {
    it_gives_what_inject_gives(Mode::Policy);
}

#[test]
fn the_policy_from_install_to_uninstall() {
    its_whole_life(Mode::Policy);
}
