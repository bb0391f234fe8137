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
    let server = fs::read_to_string(root().join("example/server.yaml")).unwrap();
    let server = server
        .replace("3001", "3000")
        .replace("      serviceAccountName: mcp-everything\n", "")
        .replace("targetPort: mcp", "targetPort: 3000");
    for (mode, list) in [("native", "initContainers"), ("classic", "containers")] {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kustomize-{mode}"));
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
        fs::write(overlay.join("server.yaml"), &server).unwrap();
        let text = format!("resources: [server.yaml]\ncomponents: [../{mode}]\n");
        fs::write(overlay.join("kustomization.yaml"), text).unwrap();
        let kustomized = output("kubectl", &["kustomize", overlay.to_str().unwrap()], "");
        assert_eq!(object(&kustomized, "RoleBinding")["subjects"][0]["name"], "default");
        assert_same(&server, &kustomized, mode, list);
    }
}
