//! The kustomize components of deploy/ beside `ebbtide inject`: the same server comes out the same
//! from both, in all that matters. Needs kubectl, which brings kustomize.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize as _;
use serde_json::{Map, Value};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize")
}

/// What a program prints when it succeeds.
fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; `make test` leaves this out then"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, error) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    let out = String::from_utf8(out).unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {error}{out}");
    out
}

fn ebbtide(arguments: &[&str], input: &str) -> String {
    output(env!("CARGO_BIN_EXE_ebbtide"), arguments, input)
}

/// The object of that kind, out of many documents.
fn object(text: &str, kind: &str) -> Value {
    let documents = serde_yaml::Deserializer::from_str(text);
    let mut objects = documents.map(|document| Value::deserialize(document).unwrap());
    objects.find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {text}"))
}

/// An object without what the two ways write differently though it means the same: the record of
/// an injection, the order of volumes, settings as flags or variables, and what a container's
/// security context repeats of its pod's.
fn meaning(mut object: Value, list: &str) -> Value {
    for pointer in ["/metadata", "/spec/template/metadata"] {
        if let Some(Value::Object(metadata)) = object.pointer_mut(pointer) {
            metadata.remove("annotations");
        }
    }
    let Some(spec) = object.pointer_mut("/spec/template/spec") else { return object };
    let by_name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
    spec["volumes"].as_array_mut().unwrap().sort_by_key(by_name);
    let pod = spec["securityContext"].clone();
    let sidecar = &mut spec[list][0];
    assert_eq!(sidecar["name"], "ebbtide", "it is the first of {list}: {sidecar:#}");
    for (field, value) in pod.as_object().into_iter().flatten() {
        let own = &mut sidecar["securityContext"][field];
        if own.is_null() {
            *own = value.clone();
        }
    }
    let mut settings = Map::new();
    let arguments = sidecar["args"].take();
    let (command, flags) = arguments.as_array().unwrap().split_first().unwrap();
    assert_eq!(command, "run");
    for pair in flags.chunks(2) {
        let name = pair[0].as_str().unwrap().trim_start_matches("--").replace('-', "_");
        settings.insert(format!("EBBTIDE_{}", name.to_uppercase()), pair[1].clone());
    }
    sidecar["env"].as_array_mut().unwrap().retain(|variable| {
        let name = variable["name"].as_str().unwrap();
        let is_setting = name.starts_with("EBBTIDE_");
        if is_setting {
            settings.insert(name.to_owned(), variable["value"].clone());
        }
        !is_setting
    });
    sidecar["args"] = settings.into();
    object
}

fn assert_same(server: &str, kustomized: &str, mode: &str, list: &str) {
    let injected = ebbtide(&["inject", "--mode", mode], server);
    for kind in ["Deployment", "Service"] {
        let (ours, theirs) = (object(kustomized, kind), object(&injected, kind));
        assert_eq!(meaning(ours, list), meaning(theirs, list), "{mode} {kind}");
    }
    let nothing = ebbtide(&["check", "--format", "json"], kustomized);
    assert_eq!(serde_json::from_str::<Value>(&nothing).unwrap()["findings"], serde_json::json!([]));
}

#[test]
fn the_example_is_what_inject_writes() {
    let example = root().join("example");
    let server = fs::read_to_string(example.join("server.yaml")).unwrap();
    let kustomized = output("kubectl", &["kustomize", example.to_str().unwrap()], "");
    assert_same(&server, &kustomized, "native", "initContainers");
}

/// `status` alone is content with any phase.
#[test]
fn composes_health_check_is_one() {
    let text = include_str!("../deploy/compose.yaml");
    let compose: Value = serde_yaml::from_str(text).unwrap();
    let check = &compose["services"]["mcp-server"]["healthcheck"]["test"];
    assert_eq!(*check, serde_json::json!(["CMD", "/ebbtide", "status", "--ready"]));
}

/// With nothing set by a patch: the port and the service account that the components take, and a
/// Service that would go round the sidecar.
#[test]
fn each_component_alone_is_what_inject_writes() {
    let server = plain_server();
    for (mode, list) in [("native", "initContainers"), ("classic", "containers")] {
        let kustomized = kustomized(mode, "alone", &server, "");
        assert_eq!(object(&kustomized, "RoleBinding")["subjects"][0]["name"], "default");
        assert_same(&server, &kustomized, mode, list);
    }
}

/// The patch that the components' heads tell, as they tell it.
#[test]
fn a_probe_by_name_takes_the_patch_that_is_told() {
    let server = plain_server();
    let by_number = "livenessProbe:\n            tcpSocket: {port: 3000}";
    assert!(server.contains(by_number));
    let by_name = "livenessProbe:\n            httpGet: {path: /health, port: mcp}";
    let named = server.replace(by_number, by_name);
    for (mode, list) in [("native", "initContainers"), ("classic", "containers")] {
        let head = fs::read_to_string(root().join(mode).join("kustomization.yaml")).unwrap();
        let told = head.lines().skip_while(|line| *line != "#   patches:");
        let patch: Vec<_> = told.map_while(|line| line.strip_prefix("#   ")).collect();
        let without = object(&kustomized(mode, "dangling", &named, ""), "Deployment");
        let containers = without["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        let server = containers.iter().find(|found| found["name"] == "server").unwrap();
        assert_eq!(server["livenessProbe"]["httpGet"]["port"], "mcp", "what the patch is for");
        assert_same(&named, &kustomized(mode, "patched", &named, &patch.join("\n")), mode, list);
    }
}

/// The server of the example where nothing of it differs from what the components take.
fn plain_server() -> String {
    let server = fs::read_to_string(root().join("example/server.yaml")).unwrap();
    server
        .replace("3001", "3000")
        .replace("      serviceAccountName: mcp-everything\n", "")
        .replace("targetPort: mcp", "targetPort: 3000")
}

/// A kustomization of the server and the component, with more of its own.
fn kustomized(mode: &str, name: &str, server: &str, more: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kustomize-{mode}-{name}"));
    let _ = fs::remove_dir_all(&folder);
    for part in ["common", mode] {
        fs::create_dir_all(folder.join(part)).unwrap();
        for file in fs::read_dir(root().join(part)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.join(part).join(file.file_name())).unwrap();
        }
    }
    let overlay = folder.join("overlay");
    fs::create_dir_all(&overlay).unwrap();
    fs::write(overlay.join("server.yaml"), server).unwrap();
    let text = format!("resources: [server.yaml]\ncomponents: [../{mode}]\n{more}\n");
    fs::write(overlay.join("kustomization.yaml"), text).unwrap();
    output("kubectl", &["kustomize", overlay.to_str().unwrap()], "")
}

/// Its names are those of the manifests beside it, its rights those that it uses and no others, and
/// its arguments such as the program takes.
#[test]
fn the_rehearsal_fits_the_manifests_beside_it() {
    let (text, server) =
        (include_str!("../deploy/rehearse.yaml"), include_str!("../deploy/native-sidecar.yaml"));
    let job = object(text, "Job");
    let pod = &job["spec"]["template"];
    let arguments: Vec<_> =
        pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().collect();
    let arguments: Vec<_> = arguments.into_iter().map(|word| word.as_str().unwrap()).collect();
    let service = object(server, "Service")["metadata"]["name"].as_str().unwrap().to_owned();
    let deployment = object(server, "Deployment")["metadata"]["name"].as_str().unwrap().to_owned();
    let expected = ["rehearse", &format!("http://{service}/mcp"), "--rollout"];
    assert_eq!(arguments[..3], expected);
    assert_eq!(arguments[3], format!("deployment/{deployment}"));
    assert_eq!(object(server, "Service")["spec"]["ports"][0]["port"], 80);
    let rules = serde_json::json!([
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": [deployment],
            "verbs": ["get", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]);
    assert_eq!(object(text, "Role")["rules"], rules);
    let account = &object(text, "ServiceAccount")["metadata"]["name"];
    assert_eq!(pod["spec"]["serviceAccountName"], *account);
    assert_eq!(object(text, "RoleBinding")["subjects"][0]["name"], *account);
    // A second try would hide what the first one lost.
    assert_eq!(job["spec"]["backoffLimit"], 0);
    let clean = ebbtide(&["check", "--format", "json"], text);
    assert_eq!(serde_json::from_str::<Value>(&clean).unwrap()["findings"], serde_json::json!([]));
    // Taken, and then there is no cluster.
    let tried = Command::new(env!("CARGO_BIN_EXE_ebbtide"))
        .args(&arguments)
        .env("KUBECONFIG", "/dev/null")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&tried.stderr);
    assert!(tried.status.code() == Some(1) && told.contains("--rollout"), "{tried:?}");
}
