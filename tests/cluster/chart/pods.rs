//! Pods of many shapes, what `ebbtide inject` makes of them, and how two of them are compared.

use serde_json::{Value, json};

use super::installation::told;
use crate::{kubectl::json as parse, manifest::EBBTIDE};

pub fn plain() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": {"containers": [
        {"name": "server", "image": "x/server:1", "ports": [{"name": "http", "containerPort": 3000}]},
    ]}})
}

/// The plain pod with something else at these places.
pub fn with(changes: &[(&str, Value)]) -> Value {
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
pub fn pods() -> Vec<Value> {
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
    let mut secret = with(&[("/spec/volumes", json!([{"name": "data", "emptyDir": {}}]))]);
    secret["metadata"]["annotations"] = json!({"config.ebbtide.dev/secret": "keys"});
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
        runs("ghcr.io/ebbtide/ebbtide:0.1.0", "status"),
        runs("ebbtide/tool:1", "run"),
        with(&[("/spec/volumes", json!([{"name": "data", "emptyDir": {}}]))]),
        with(&[("/spec/terminationGracePeriodSeconds", json!(300))]),
        with(&[("/spec/terminationGracePeriodSeconds", json!(60))]),
        with(&[("/spec/restartPolicy", json!("Never"))]),
        annotated(&[("limits", "cpu=100m")]),
        annotated(&[
            ("requests", "cpu=0.5,ephemeral-storage=1Mi"),
            ("limits", "memory=1.5Gi,cpu=1"),
        ]),
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
        annotated(&[
            ("refuse_with", "503"),
            ("max_header_bytes", "16384"),
            ("max_inbound", "1000000"),
            ("settle", "0"),
            ("log_format", "text"),
        ]),
        annotated(&[
            ("secret", "keys.v2"),
            ("drain_token_file", "/etc/ebbtide/secret/token"),
            ("session_key_file", "/etc/ebbtide/secret/session keys"),
        ]),
        secret,
    ]
}

/// Pods that get none, and what whoever applies them is told; nothing where that is as it should
/// be.
pub fn pods_left_alone() -> Vec<(Value, &'static str)> {
    let second = |ports: Value| {
        let mut pod = plain();
        let other = json!({"name": "other", "image": "x", "ports": ports});
        pod["spec"]["containers"].as_array_mut().unwrap().push(other);
        pod
    };
    let mut secret_meets = annotated(&[("secret", "keys")]);
    secret_meets["spec"]["volumes"] = json!([{"name": "ebbtide-secret", "emptyDir": {}}]);
    let windows = with(&[("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"}))]);
    let mut namesake = second(json!([{"name": "http", "containerPort": 1}]));
    let number = namesake.pointer(&format!("{SERVER}/ports/0/containerPort")).unwrap().to_string();
    namesake["metadata"]["annotations"] = json!({"config.ebbtide.dev/port": number});
    let command = |command: &str| with(&[(&format!("{SERVER}/command"), json!([command, "run"]))]);
    let name = format!("{SERVER}/ports/0/name");
    let mut own_port = with(&[(&format!("{SERVER}/ports"), json!(null))]);
    own_port["metadata"]["annotations"] = json!({"config.ebbtide.dev/port": "7071"});
    vec![
        (with(&[("/metadata/labels", json!({"ebbtide.dev/inject": "disabled"}))]), ""),
        (with(&[("/spec/containers/0/name", json!("ebbtide"))]), ""),
        (command("/bin/ebbtide"), ""),
        (runs("ghcr.io/ebbtide/ebbtide:0.1.0", "run"), ""),
        (runs("host:5000/ebbtide@sha256:0", "run"), ""),
        (with(&[(&name, json!("web"))]), "no port is named mcp or http"),
        (with(&[("/spec/hostNetwork", json!(true))]), "hostNetwork"),
        (second(json!([{"name": "http", "containerPort": 1}])), "several containers"),
        (second(json!([{"containerPort": 7071}])), "port 7070 or 7071 is taken"),
        (own_port, "port 7070 or 7071 is taken"),
        (annotated(&[("setle", "5s")]), "no setting is called setle"),
        (annotated(&[("secret", "Keys")]), "secret: Keys does not fit"),
        (annotated(&[("secret", "")]), "secret:  does not fit"),
        (
            annotated(&[("session_key_file", "/etc/ebbtide/secret/keys")]),
            "session_key_file: /etc/ebbtide/secret/keys does not fit",
        ),
        (
            annotated(&[("secret", "keys"), ("drain_token_file", "/etc/ebbtide/secret/a/b")]),
            "drain_token_file: /etc/ebbtide/secret/a/b does not fit",
        ),
        (secret_meets, "a volume is called ebbtide-secret already"),
        (annotated(&[("grace", "soon")]), "grace: soon does not fit"),
        (annotated(&[("grace", "25h")]), "25h is more than a day"),
        (annotated(&[("port", "nine")]), "no container has the port nine"),
        (namesake, "another port is called http"),
        (windows, "ebbtide runs on Linux"),
        (annotated(&[("port", "70000")]), "no container has the port 70000"),
        (annotated(&[("after", "x")]), "no init container is called x"),
        (annotated(&[("admin", "127.0.0.1:7071")]), "expect a fixed port on all addresses"),
        (annotated(&[("listen", "7070")]), "listen: 7070 does not fit"),
        (annotated(&[("listen", "localhost:7070")]), "listen: localhost:7070 does not fit"),
        (annotated(&[("listen", "0.0.0.0:0")]), "expect a fixed port on all addresses"),
        (annotated(&[("settle", "5x")]), "settle: 5x does not fit"),
        (annotated(&[("max_connections", "0")]), "max_connections: 0 does not fit"),
        (annotated(&[("max_header_bytes", "9")]), "max_header_bytes: 9 does not fit"),
        (annotated(&[("log_level", "loud")]), "log_level: loud does not fit"),
        (annotated(&[("log_format", "xml")]), "log_format: xml does not fit"),
        (annotated(&[("refuse_with", "404")]), "refuse_with: 404 does not fit"),
        (annotated(&[("upstream", "https://x")]), "upstream: https://x does not fit"),
        (
            with(&[("/spec/volumes", json!([{"name": "ebbtide-token", "emptyDir": {}}]))]),
            "ebbtide-token",
        ),
    ]
}

/// A pod with an init container whose image's entry point is told to do that.
fn runs(image: &str, command: &str) -> Value {
    let container = json!({"name": "proxy", "image": image, "args": [command]});
    with(&[("/spec/initContainers", json!([container]))])
}

/// Pods whose resources do not fit, which get the sidecar with those of every pod, and a part of
/// the warning.
pub fn pods_forgiven() -> Vec<(Value, &'static str)> {
    vec![
        (annotated(&[("limits", "cpu=much")]), "config.ebbtide.dev/limits: "),
        (annotated(&[("limits", "")]), "config.ebbtide.dev/limits: "),
        (annotated(&[("requests", "gpu=1")]), "config.ebbtide.dev/requests: "),
        (annotated(&[("requests", "cpu=1m,cpu=2m")]), "config.ebbtide.dev/requests: "),
        (annotated(&[("limits", "cpu=9m")]), "config.ebbtide.dev/requests and limits: "),
        (annotated(&[("requests", "memory=1Gi")]), "config.ebbtide.dev/requests and limits: "),
    ]
}

/// The plain pod, as `restricted` wants it.
pub fn restricted_pod() -> Value {
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

pub fn workload(kind: &str, wrap: &str, port: &str) -> Value {
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

pub fn is_injected(pod: &Value) -> bool {
    pod["spec"]["initContainers"].as_array().into_iter().flatten().any(|c| c["name"] == "ebbtide")
}

/// The pod that `ebbtide inject` makes of it, or why it makes none.
pub fn injected(pod: &Value) -> Result<Value, String> {
    let program = env!("CARGO_BIN_EXE_ebbtide");
    let (text, _) = told(program, &["inject", "--image", EBBTIDE], &pod.to_string())?;
    Ok(serde_yaml::from_str(&text).unwrap())
}

pub fn assert_same(found: &Value, expected: &Value, pod: &Value) {
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
