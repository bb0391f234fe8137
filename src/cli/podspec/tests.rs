//! What injection does to a pod, case by case, and that it does nothing else.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn options() -> Options {
    let resources = Resources::default();
    Options { mode: Mode::Native, image: image(), port: None, resources, forgives: false }
}

fn classic() -> Options {
    Options { mode: Mode::Classic, ..options() }
}

fn pod() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
        {"name": "server", "image": "i", "ports": [{"name": "http", "containerPort": 3000}]},
    ]}})
}

fn with(pointer: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[key] = value;
    pod
}

fn injected(mut pod: Value) -> Value {
    match inject(&mut pod, "Deployment", &options()) {
        Ok(Became::Injected(_)) => pod,
        other => panic!("{other:?}"),
    }
}

const NATIVE: &str = include_str!("../../../deploy/native-sidecar.yaml");
const CLASSIC: &str = include_str!("../../../deploy/classic-sidecar.yaml");
const WRAPPER: &str = include_str!("../../../deploy/wrapper.yaml");

/// The template of a manifest in deploy/.
fn deployed(text: &str) -> Value {
    let documents = crate::cli::manifest::read(text).unwrap();
    documents[0].root.value()["spec"]["template"].clone()
}

#[test]
fn it_gives_what_deploy_shows() {
    for (text, list, options) in
        [(NATIVE, "initContainers", options()), (CLASSIC, "containers", classic())]
    {
        let expected = deployed(text);
        // What it was before ebbtide came.
        let mut pod = expected.clone();
        pod["spec"][list].as_array_mut().unwrap().remove(0);
        if list == "initContainers" {
            pod["spec"].as_object_mut().unwrap().remove(list);
        }
        for added in ["terminationGracePeriodSeconds", "volumes"] {
            pod["spec"].as_object_mut().unwrap().remove(added);
        }
        let server = &mut pod["spec"]["containers"][0];
        server.as_object_mut().unwrap().remove("lifecycle");
        server["ports"][0]["name"] = "mcp".into();
        assert!(matches!(inject(&mut pod, "Deployment", &options), Ok(Became::Injected(_))));
        assert_eq!(pod["spec"], expected["spec"], "{list}");
        assert_eq!(pod["metadata"]["labels"], expected["metadata"]["labels"]);
    }
}

#[test]
fn what_becomes_of_a_pod() {
    let server = "/spec/containers/0";
    for (pod, at, expected) in [
        (pod(), "/spec/initContainers/0/ports/0", json!({"name": "http", "containerPort": 7070})),
        (pod(), "/spec/containers/0/ports/0", json!({"containerPort": 3000})),
        (pod(), "/spec/terminationGracePeriodSeconds", json!(60)),
        (pod(), "/metadata/annotations/ebbtide.dev~1injected-version", json!("0.1.0")),
        (pod(), "/spec/initContainers/0/securityContext/runAsNonRoot", json!(true)),
        (pod(), "/spec/initContainers/0/securityContext/runAsUser", json!(null)),
        (
            with("/spec/securityContext", json!({"runAsUser": 0})),
            "/spec/initContainers/0/securityContext/runAsUser",
            json!(65532),
        ),
        (
            with("/spec/terminationGracePeriodSeconds", json!(300)),
            "/spec/initContainers/0/args",
            json!(["run", "--upstream", "http://127.0.0.1:3000", "--grace", "300s"]),
        ),
        (
            with("/metadata/annotations", json!({"config.ebbtide.dev/grace": "1500ms"})),
            "/spec/terminationGracePeriodSeconds",
            json!(null),
        ),
        (
            with("/metadata/annotations", json!({"config.ebbtide.dev/grace": "90s"})),
            "/spec/terminationGracePeriodSeconds",
            json!(90),
        ),
        (
            with(
                "/metadata/annotations",
                json!({"config.ebbtide.dev/max_connections": "7", "config.ebbtide.dev/admin": "0.0.0.0:7171"}),
            ),
            "/spec/containers/0/lifecycle/preStop",
            json!({"httpGet": {"path": "/prestop", "port": 7171}}),
        ),
        (
            with(
                "/spec/containers/0/ports",
                json!([{"containerPort": 3000, "name": "mcp", "hostPort": 80}]),
            ),
            "/spec/initContainers/0/ports/0",
            json!({"name": "mcp", "containerPort": 7070, "hostPort": 80}),
        ),
        (
            with("/spec/containers/0/livenessProbe", json!({"httpGet": {"port": "http"}})),
            "/spec/containers/0/livenessProbe",
            json!({"httpGet": {"port": 3000}}),
        ),
        (
            with("/spec/containers/0/livenessProbe", json!({"httpGet": {"port": "other"}})),
            "/spec/containers/0/livenessProbe",
            json!({"httpGet": {"port": "other"}}),
        ),
        (
            with("/spec/initContainers", json!([{"name": "first"}, {"name": "second"}])),
            "/spec/initContainers/1/name",
            json!("first"),
        ),
        (
            {
                let mut pod =
                    with("/spec/initContainers", json!([{"name": "first"}, {"name": "second"}]));
                pod["metadata"]["annotations"] = json!({"config.ebbtide.dev/after": "first"});
                pod
            },
            "/spec/initContainers/1/name",
            json!("ebbtide"),
        ),
        (
            {
                let mut pod = with("/spec/containers/0/ports", json!(null));
                pod["metadata"]["annotations"] = json!({"config.ebbtide.dev/port": "8080"});
                pod
            },
            "/spec/initContainers/0/ports/0",
            json!({"name": "mcp", "containerPort": 7070}),
        ),
        (
            with(
                "/metadata/annotations",
                json!({"config.ebbtide.dev/limits": "cpu=100m", "config.ebbtide.dev/requests": "memory=32Mi"}),
            ),
            "/spec/initContainers/0/resources",
            json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"}}),
        ),
        (
            with("/spec/containers/0/env", json!([{"name": "A"}])),
            "/spec/containers/0/env",
            json!([{"name": "A"}]),
        ),
    ] {
        let server_before = pod.pointer(server).unwrap().clone();
        let pod = injected(pod);
        let found = pod.pointer(at).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{at}: {pod:#}");
        assert_eq!(pod["spec"]["containers"][0]["image"], server_before["image"]);
    }
}

#[test]
fn the_sidecar_sees_the_files_of_a_secret() {
    let secret = json!({"config.ebbtide.dev/secret": "keys.v2",
        "config.ebbtide.dev/session_key_file": "/etc/ebbtide/secret/session"});
    let pod = injected(with("/metadata/annotations", secret));
    let volume = json!({"name": "ebbtide-secret", "secret": {"secretName": "keys.v2"}});
    assert_eq!(pod["spec"]["volumes"][1], volume);
    let mount =
        json!({"name": "ebbtide-secret", "mountPath": "/etc/ebbtide/secret", "readOnly": true});
    assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"][1], mount);
    assert_eq!(pod["spec"]["containers"][0].get("volumeMounts"), None);
}

#[test]
fn a_hook_of_the_servers_own_stays() {
    for command in [
        json!(["/bye"]),
        json!(["/ebbtide", "drain"]),
        json!(["sh", "-c", "touch /tmp/ebbtide; sleep 1"]),
        json!(["/prestop.sh"]),
    ] {
        let own = json!({"preStop": {"exec": {"command": command}}});
        let mut pod = with("/spec/containers/0/lifecycle", own.clone());
        let became = inject(&mut pod, "Deployment", &options());
        let Ok(Became::Injected(found)) = became else { panic!() };
        assert_eq!(pod["spec"]["containers"][0]["lifecycle"], own);
        assert!(found.notes[0].contains("ebbtide drain --wait"), "{:?}", found.notes);
        assert!(found.is_unprotected);
    }
    // One that waits is all that is asked for.
    for hook in [
        json!({"exec": {"command": ["/ebbtide", "drain", "--wait"]}}),
        json!({"exec": {"command": ["sh", "-c", "flush; curl localhost:7071/prestop"]}}),
        json!({"httpGet": {"path": "/prestop", "port": 7071}}),
    ] {
        let mut pod = with("/spec/containers/0/lifecycle", json!({ "preStop": hook }));
        let became = inject(&mut pod, "Deployment", &options());
        let Ok(Became::Injected(found)) = became else { panic!() };
        assert!(!found.is_unprotected && found.notes.is_empty(), "{:?}", found.notes);
    }
}

/// A volume of the name of ours may be somebody else's.
#[test]
fn only_what_injection_has_put_in_is_taken_out() {
    let secret = json!({"name": SECRET, "secret": {"secretName": "mine"}});
    let mut pod = with("/spec/volumes", json!([secret]));
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": SECRET, "mountPath": "/s"}]);
    let original = pod.clone();
    let once = injected(pod);
    assert_eq!(injected(once.clone()), once);
    let mut out = once;
    assert_eq!(uninject(&mut out), Ok(true));
    assert_eq!(out, original);
}

/// What was taken cannot be given back to what is not there.
#[test]
fn an_injected_pod_that_was_changed_is_not_left_in_pieces() {
    for (at, value, says) in [
        ("/spec/containers/0/name", json!("other"), "the container `server` is not there"),
        (
            "/spec/containers/0/ports/0/containerPort",
            json!(4000),
            "port 3000 of the container `server` is not there",
        ),
    ] {
        let mut pod = injected(pod());
        *pod.pointer_mut(at).unwrap() = value;
        for error in [
            uninject(&mut pod.clone()).unwrap_err(),
            inject(&mut pod, "Deployment", &options()).unwrap_err(),
        ] {
            assert!(error.contains(says) && error.contains("--uninject"), "{error}");
        }
    }
    // One that has its name back keeps it.
    let mut pod = injected(pod());
    pod["spec"]["containers"][0]["ports"][0]["name"] = "own".into();
    assert_eq!(uninject(&mut pod), Ok(true));
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["name"], "own");
}

#[test]
fn a_sidecar_that_somebody_made_is_known_by_what_it_runs() {
    for (container, is_there) in [
        (
            json!({"image": "ghcr.io/ebbtide/ebbtide:0.1.0", "args": ["run", "--grace", "60s"]}),
            true,
        ),
        (json!({"image": "host:5000/ebbtide", "args": ["run"]}), true),
        (json!({"image": "ebbtide@sha256:0", "args": ["run"]}), true),
        (json!({"image": "i", "command": ["/ebbtide", "run"]}), true),
        (json!({"image": "ghcr.io/ebbtide/ebbtide:0.1.0", "args": ["rehearse"]}), false),
        (json!({"image": "ebbtide/server:1", "args": ["run"]}), false),
        (json!({"image": "ebbtide:1", "command": ["/bye"], "args": ["run"]}), false),
    ] {
        let mut container = container;
        container["name"] = "drain-proxy".into();
        let spec = json!({"initContainers": [container]});
        assert_eq!(by_hand(&spec).is_some(), is_there, "{spec}");
    }
}

/// What all pods of a file are told holds for those that say nothing themselves.
#[test]
fn a_port_that_is_told_to_all_is_taken_where_it_fits() {
    let told = |port: &str| Options { port: Some(port.into()), ..options() };
    let ports = |ports: Value| with("/spec/containers/0/ports", ports);
    for (pod, port, expected) in [
        (pod(), "9", Some(3000)),
        (ports(json!([{"containerPort": 9}])), "9", Some(9)),
        (ports(json!([{"containerPort": 9, "name": "web"}])), "web", Some(9)),
        (ports(json!(null)), "9", Some(9)),
        (ports(json!([{"containerPort": 5432}])), "9", None),
        (ports(json!([{"containerPort": 5432}])), "web", None),
    ] {
        let mut pod = pod;
        match inject(&mut pod, "Deployment", &told(port)).unwrap() {
            Became::Injected(found) => assert_eq!(Some(found.number), expected, "{pod}"),
            Became::Left(why) => {
                assert_eq!(expected, None, "{pod}");
                assert!(why.contains("5432"), "{why}");
            }
        }
    }
    // Nobody has to say it a second time.
    let mut once = ports(json!([{"containerPort": 9}]));
    assert!(inject(&mut once, "Deployment", &told("9")).is_ok());
    assert_eq!(injected(once.clone()), once);
    // None of the sidecar's own, though no container declares it.
    let error = inject(&mut ports(json!(null)), "Deployment", &told("7071")).unwrap_err();
    assert!(error.contains("listens on 7071"), "{error}");
    assert!(error.contains("config.ebbtide.dev/admin"), "{error}");
    // Where it is not so any more, somebody has to.
    once["spec"]["containers"][0]["ports"][0]["containerPort"] = 4000.into();
    let error = inject(&mut once, "Deployment", &options()).unwrap_err();
    assert!(error.contains("mcp or http") && error.contains("4000"), "{error}");
}

/// Whoever asks for the sidecar's admin port has to know where it is.
#[test]
fn an_admin_port_of_its_own_is_told_to_who_asks_for_it() {
    let admin = json!({"config.ebbtide.dev/admin": "0.0.0.0:8071"});
    for (hook, is_unprotected) in [
        (json!(["/ebbtide", "drain", "--wait"]), true),
        (json!(["/ebbtide", "drain", "--wait", "--admin", "127.0.0.1:8071"]), false),
        (json!(["sh", "-c", "curl localhost:8071/prestop"]), false),
        (json!(["sh", "-c", "curl localhost:7071/prestop"]), true),
    ] {
        let mut pod = with("/metadata/annotations", admin.clone());
        pod["spec"]["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": hook}}});
        let became = inject(&mut pod, "Deployment", &options());
        let Ok(Became::Injected(found)) = became else { panic!() };
        assert_eq!(found.is_unprotected, is_unprotected, "{hook}");
        let says_port = found.notes.iter().any(|note| note.contains("--admin 127.0.0.1:8071"));
        assert_eq!(says_port, is_unprotected, "{:?}", found.notes);
        let env = pod["spec"]["initContainers"][0]["env"].as_array().unwrap();
        assert_eq!(env[3], json!({"name": "EBBTIDE_ADMIN", "value": "0.0.0.0:8071"}));
    }
}

#[test]
fn what_cannot_be_injected_says_why() {
    let annotated = |name: &str, text: Value| with("/metadata/annotations", json!({ name: text }));
    let second = |ports: Value| {
        let mut pod = pod();
        let other = json!({"name": "other", "ports": ports});
        pod["spec"]["containers"].as_array_mut().unwrap().push(other);
        pod
    };
    for (mut pod, parts) in [
        (
            with("/spec/containers/0/ports/0/name", json!("web")),
            &["mcp or http", "web (3000)", "--port"][..],
        ),
        (with("/spec/containers/0/ports", json!(null)), &["no container declares a port"]),
        (with("/spec/hostNetwork", json!(true)), &["hostNetwork"]),
        (
            second(json!([{"name": "http", "containerPort": 1}])),
            &["several", "server (3000), other (1)"],
        ),
        (second(json!([{"containerPort": 7071}])), &["7071", "other", "config.ebbtide.dev/admin"]),
        (
            with("/spec/containers/0/ports/0/containerPort", json!(7070)),
            &["7070", "config.ebbtide.dev/listen"],
        ),
        (
            annotated("config.ebbtide.dev/settle", json!("5x")),
            &["config.ebbtide.dev/settle", "5x", "500ms"],
        ),
        (
            annotated("config.ebbtide.dev/setle", json!("5s")),
            &["config.ebbtide.dev/setle", "`setle`", "max_connections", "`port`"],
        ),
        (
            annotated("config.ebbtide.dev/settle", json!(5)),
            &["config.ebbtide.dev/settle", "quotes"],
        ),
        (
            annotated("config.ebbtide.dev/grace", json!("soon")),
            &["config.ebbtide.dev/grace", "soon"],
        ),
        (
            annotated("config.ebbtide.dev/limits", json!("cpu=much")),
            &["config.ebbtide.dev/limits", "`cpu=much`", "cpu=100m,memory=128Mi"],
        ),
        (annotated("config.ebbtide.dev/limits", json!("cpu=5m")), &["limits", "cpu, 5m", "10m"]),
        (annotated("config.ebbtide.dev/port", json!("9")), &["server"]),
        (annotated("config.ebbtide.dev/port", json!("nine")), &["`nine`", "http (3000)"]),
        (annotated("config.ebbtide.dev/after", json!("x")), &["after", "`x`", "initContainers"]),
        (annotated("config.ebbtide.dev/admin", json!("127.0.0.1:7071")), &["admin", "kubelet"]),
        (annotated(RECORD, json!("{\"server\": \"s\", \"new\": 1}")), &[RECORD, "another version"]),
        (with("/spec/volumes", json!([{"name": "ebbtide-token"}])), &["ebbtide-token"]),
        (
            {
                let mut pod = annotated("config.ebbtide.dev/secret", json!("keys"));
                pod["spec"]["volumes"] = json!([{"name": "ebbtide-secret"}]);
                pod
            },
            &["ebbtide-secret"],
        ),
        (annotated("config.ebbtide.dev/secret", json!("Keys")), &["secret", "`Keys`", "Secret"]),
        (annotated("config.ebbtide.dev/secret", json!("a..b")), &["secret", "`a..b`"]),
        (annotated("config.ebbtide.dev/secret", json!("")), &["secret", "``"]),
        (
            annotated("config.ebbtide.dev/session_key_file", json!("/etc/ebbtide/secret/a")),
            &["session_key_file", "config.ebbtide.dev/secret", "KEY"],
        ),
        (
            with(
                "/metadata/annotations",
                json!({"config.ebbtide.dev/secret": "keys",
                    "config.ebbtide.dev/drain_token_file": "/etc/ebbtide/secrets"}),
            ),
            &["drain_token_file", "`/etc/ebbtide/secrets`", "/etc/ebbtide/secret/KEY"],
        ),
        (with("/spec/terminationGracePeriodSeconds", json!(-1)), &["-1", "below zero"]),
        (with("/spec/terminationGracePeriodSeconds", json!(i64::MAX)), &["longer than any call"]),
        (with("/spec/terminationGracePeriodSeconds", json!("60")), &["no whole number"]),
        (with("/spec/containers", json!([])), &["no pod"]),
        (with("/spec/containers", json!("x")), &["no pod"]),
        (with("/metadata/annotations", json!("x")), &["annotations"]),
        (with("/spec/containers/0/lifecycle", json!("x")), &["lifecycle"]),
        (with("/spec/volumes", json!({})), &["volumes"]),
        (with("/spec/os", json!({"name": "windows"})), &["Windows"]),
    ] {
        if parts == ["server"] {
            // The only container is the server, whatever it declares.
            assert!(inject(&mut pod, "Deployment", &options()).is_ok());
            continue;
        }
        let error = inject(&mut pod, "Deployment", &options()).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }
    for (mut pod, kind) in [(pod(), "Job"), (with("/spec/restartPolicy", json!("Never")), "Pod")] {
        let error = inject(&mut pod.clone(), kind, &classic()).unwrap_err();
        assert!(error.contains("native"), "{error}");
        assert!(inject(&mut pod, kind, &options()).is_ok());
    }
}

#[test]
fn what_is_not_meant_is_left() {
    let disabled = with("/metadata/labels", json!({"ebbtide.dev/inject": "disabled"}));
    let by_hand = deployed(NATIVE);
    let wrapper = deployed(WRAPPER);
    for (pod, why) in [(disabled, "disabled"), (by_hand, "`ebbtide`"), (wrapper, "`server`")] {
        let mut after = pod.clone();
        let became = inject(&mut after, "Deployment", &options()).unwrap();
        assert!(matches!(&became, Became::Left(said) if said.contains(why)), "{became:?}");
        assert_eq!(after, pod);
    }
}

/// Pods of all shapes that have a server.
pub fn pods() -> impl Strategy<Value = Value> {
    let maybe = |value: Value| prop_oneof![Just(Value::Null), Just(value)];
    let hook = json!({"preStop": {"httpGet": {"path": "/own", "port": "http"}}});
    let started = json!({"postStart": {"httpGet": {"port": "http"}}});
    let port = json!({"name": "http", "containerPort": 3000, "hostPort": 8, "protocol": "TCP"});
    let annotations = json!({"config.ebbtide.dev/quiet": "1s", "mine": "x",
        "config.ebbtide.dev/secret": "keys"});
    let server = (
        prop_oneof![Just(json!({"name": "mcp", "containerPort": 3000})), Just(port)],
        maybe(json!({"httpGet": {"port": "http"}, "unknown": [1]})),
        prop_oneof![Just(Value::Null), Just(json!({})), Just(hook), Just(started)],
    );
    let others = (
        maybe(json!([{"name": "first", "new": {"a": null}}])),
        maybe(json!([{"name": "data", "emptyDir": {}}])),
        maybe(json!({"runAsNonRoot": true, "runAsUser": 1})),
        prop_oneof![Just(Value::Null), (1..400_u64).prop_map(Value::from)],
        prop_oneof![Just(Value::Null), Just(json!({})), Just(annotations)],
        any::<bool>(),
    );
    (server, others).prop_map(|((port, probe, lifecycle), (init, volumes, security, grace, annotations, second))| {
        let mut containers = vec![json!({"name": "server", "ports": [{"containerPort": 9}, port], "livenessProbe": probe, "lifecycle": lifecycle, "x-unknown": 1})];
        if second {
            containers.insert(0, json!({"name": "other", "ports": [{"containerPort": 5}]}));
        }
        let mut pod = json!({
            "metadata": {"labels": {"app": "a"}, "annotations": annotations},
            "spec": {"containers": containers, "initContainers": init, "volumes": volumes, "securityContext": security, "terminationGracePeriodSeconds": grace, "x-unknown": {"deep": [null]}},
        });
        absent(&mut pod["metadata"]);
        absent(&mut pod["spec"]);
        for container in pod["spec"]["containers"].as_array_mut().unwrap() {
            absent(container);
        }
        pod
    })
}

/// Null is absent.
fn absent(value: &mut Value) {
    value.as_object_mut().unwrap().retain(|_, value| !value.is_null());
}

proptest! {
    #[test]
    fn in_and_out_again_gives_the_same(pod in pods(), native: bool) {
        let options = if native { options() } else { classic() };
        let mut once = pod.clone();
        prop_assert!(matches!(inject(&mut once, "Pod", &options), Ok(Became::Injected(_))));
        let mut twice = once.clone();
        inject(&mut twice, "Pod", &options).unwrap();
        prop_assert_eq!(&twice, &once);
        // From one mode and image to another, as if anew.
        let other = Options { mode: if native { Mode::Classic } else { Mode::Native }, image: "old".into(), ..options.clone() };
        let mut older = pod.clone();
        inject(&mut older, "Pod", &other).unwrap();
        inject(&mut older, "Pod", &options).unwrap();
        prop_assert_eq!(&older, &once);
        prop_assert_eq!(uninject(&mut twice), Ok(true));
        prop_assert_eq!(&twice, &pod);
        prop_assert_eq!(uninject(&mut twice), Ok(false));
    }

    /// With all that is named taken away on both sides, nothing differs.
    #[test]
    fn nothing_changes_but_what_is_named(pod in pods()) {
        let mut after = pod.clone();
        inject(&mut after, "Pod", &options()).unwrap();
        let (mut before, mut after) = (pod, after);
        for pod in [&mut before, &mut after] {
            let metadata = pod["metadata"].as_object_mut().unwrap();
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|name, _| !name.starts_with("ebbtide.dev/"));
            }
            metadata.retain(|_, value| *value != json!({}));
            let spec = pod["spec"].as_object_mut().unwrap();
            spec.remove("terminationGracePeriodSeconds");
            for list in ["initContainers", "volumes"] {
                if let Some(items) = spec.get_mut(list).and_then(Value::as_array_mut) {
                    items.retain(|item| !item["name"].as_str().unwrap().starts_with("ebbtide"));
                }
            }
            spec.retain(|_, value| *value != json!([]));
            for container in spec["containers"].as_array_mut().unwrap() {
                let container = container.as_object_mut().unwrap();
                if container["name"] == "server" {
                    for moved in ["name", "hostPort"] {
                        container["ports"][1].as_object_mut().unwrap().remove(moved);
                    }
                    container.remove("lifecycle");
                    container.remove("livenessProbe");
                }
            }
        }
        prop_assert_eq!(after, before);
    }
}
