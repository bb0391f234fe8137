//! `ebbtide rehearse --rollout` against a scripted Kubernetes API, which is the MCP server, too.

use std::{
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    harness::{command, server},
    rehearse::{Rehearsal, fine, whole},
};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/prod/deployments/mcp";
const PODS: &str = "/api/v1/namespaces/prod/pods?";

/// A kubeconfig whose only context leads to that port; removed when dropped.
pub struct Kubeconfig(pub PathBuf);

impl Kubeconfig {
    pub fn new(port: u16) -> Self {
        let path = std::env::temp_dir().join(format!("ebbtide-test-{}-{port}", std::process::id()));
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{ "name": "a", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
            "contexts": [{ "name": "a", "context": { "cluster": "a", "user": "a", "namespace": "prod" } }],
            "users": [{ "name": "a", "user": {} }],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        Self(path)
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub fn ok(value: &Value) -> String {
    whole("200 OK", "", &value.to_string())
}

/// The API's own form of a refusal.
pub fn status(code: u16, message: &str) -> String {
    let status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": code, "message": message, "reason": "Forbidden" });
    whole(&format!("{code} Refused"), "", &status.to_string())
}

/// Generation 1 stands; 2 is what the patch made, of which the controller saw `observed`.
fn deployment(generation: i64, observed: i64, updated: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "mcp", "namespace": "prod", "generation": generation },
        "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "mcp" } } },
        "status": { "observedGeneration": observed, "replicas": 2,
            "updatedReplicas": updated, "availableReplicas": 2 },
    })
}

fn pods(terminating: bool) -> Value {
    let mut pod = json!({ "metadata": { "name": "mcp-0", "namespace": "prod" } });
    if terminating {
        pod["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z".into();
    }
    json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod] })
}

#[derive(Default)]
struct Seen {
    patches: Vec<String>,
    looks: usize,
    lists: usize,
}

/// An API whose rollout takes some looks to be done, and then some for the old pods to end.
fn cluster(mcp: fn(&str) -> String) -> (u16, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let noted = Arc::clone(&seen);
    let port = server(move |stream, request| {
        let mut seen = noted.lock().unwrap();
        let mut words = request.split(' ');
        let answer = match (words.next().unwrap(), words.next().unwrap()) {
            ("GET", path) if path.starts_with(PODS) && path.contains("app%3Dmcp") => {
                if seen.patches.is_empty() {
                    ok(&pods(false))
                } else {
                    seen.lists += 1;
                    ok(&pods(seen.lists < 3))
                }
            }
            ("GET", DEPLOYMENT) if seen.patches.is_empty() => ok(&deployment(1, 1, 2)),
            ("GET", DEPLOYMENT) => {
                seen.looks += 1;
                ok(&match seen.looks {
                    1 => deployment(2, 1, 2),
                    2 => deployment(2, 2, 1),
                    _ => deployment(2, 2, 2),
                })
            }
            ("PATCH", path) if path.starts_with(DEPLOYMENT) => {
                seen.patches.push(request.to_owned());
                ok(&deployment(2, 1, 2))
            }
            (_, "/mcp") => mcp(request),
            _ => status(404, "not found"),
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    (port, seen)
}

fn rehearse(port: u16, kubeconfig: &Kubeconfig, more: &[&str]) -> Rehearsal {
    let url = format!("http://127.0.0.1:{port}/mcp");
    let arguments = ["rehearse", &url, "--json", "--clients", "2", "--rollout", "deployment/mcp"];
    let mut command = command(&arguments);
    Rehearsal::launch(command.args(more).env("KUBECONFIG", &kubeconfig.0))
}

#[test]
fn a_rollout_is_done_when_the_last_old_pod_is_gone() {
    let (port, seen) = cluster(fine);
    let (code, report) = rehearse(port, &Kubeconfig::new(port), &[]).ended();
    assert_eq!(code, Some(0), "{report:#}");
    let seen = seen.lock().unwrap();
    let [patch] = &seen.patches[..] else { panic!("one patch, not {}", seen.patches.len()) };
    assert!(patch.contains("application/strategic-merge-patch+json"), "{patch}");
    let body: Value = serde_json::from_str(patch.split_once("\r\n\r\n").unwrap().1).unwrap();
    let annotations = &body["spec"]["template"]["metadata"]["annotations"];
    assert!(annotations["kubectl.kubernetes.io/restartedAt"].is_string(), "{body}");
    // It looked until the status was done and no pod terminated any more.
    assert_eq!((seen.looks, seen.lists), (5, 3));
}

#[test]
fn nothing_is_rolled_out_for_a_load_that_does_not_get_through() {
    let (port, seen) = cluster(|_| whole("500 Internal Server Error", "", ""));
    let arguments = ["--timeout", "300ms"];
    let (code, report) = rehearse(port, &Kubeconfig::new(port), &arguments).ended();
    assert_eq!(code, Some(1));
    assert!(report["trouble"].as_str().unwrap().contains("nothing was rolled out"), "{report:#}");
    assert!(seen.lock().unwrap().patches.is_empty());
}

#[test]
fn what_cannot_be_rolled_out_is_said_before_the_load() {
    type Answer = fn() -> String;
    let paused = || {
        let mut paused = deployment(1, 1, 2);
        paused["spec"]["paused"] = true.into();
        ok(&paused)
    };
    let cases: [(Answer, &str); 3] = [
        (|| status(403, "deployments.apps is forbidden"), "needs get and patch"),
        (|| status(404, "not found"), "there is no deployment/mcp in namespace prod"),
        (paused, "paused"),
    ];
    for (answer, named) in cases {
        let port = server(move |stream, _| {
            let _ = stream.write_all(answer().as_bytes());
        });
        let kubeconfig = Kubeconfig::new(port);
        let url = format!("http://127.0.0.1:{port}/mcp");
        let output = command(&["rehearse", &url, "--rollout", "deployment/mcp"])
            .env("KUBECONFIG", &kubeconfig.0)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(named), "{named}: {text}");
        assert_eq!(output.status.code(), Some(1));
    }
}
