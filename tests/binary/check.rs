//! `ebbtide check`: findings, where they are, and the exit code.

use std::io::Write;

use serde_json::{Value, json};

use crate::{
    harness::{command, server},
    inject::fed,
    rollout::{Kubeconfig, ok, status},
};

const BAD: &str = include_str!("../fixtures/check/service-bypasses-sidecar/bad.yaml");
const GOOD: &str = include_str!("../fixtures/check/service-bypasses-sidecar/good.yaml");

#[test]
fn clean_is_0_and_a_finding_is_1_in_every_format() {
    for format in ["text", "json", "sarif"] {
        let (code, out, told) = fed(&["check", "--format", format], GOOD.as_bytes());
        assert_eq!((code, told.as_str()), (0, ""), "{out}");
        let (code, out, told) = fed(&["check", "--format", format], BAD.as_bytes());
        assert_eq!((code, told.as_str()), (1, "1 finding\n"), "{out}");
        let line = 1 + BAD.lines().position(|line| line.contains("- port: 80")).unwrap();
        match format {
            "text" => {
                let head = format!(
                    "standard input:{line}: Service/mcp-server: service-bypasses-sidecar: port 80 leads to 3000"
                );
                assert!(out.starts_with(&head) && out.contains("  instead  "), "{out}");
            }
            "json" => {
                let out: Value = serde_json::from_str(&out).unwrap();
                let found = &out["findings"][0];
                assert_eq!(found["rule"], "service-bypasses-sidecar");
                assert_eq!(found["line"], line);
                assert_eq!(found["path"], "/spec/ports/0");
            }
            _ => {
                let out: Value = serde_json::from_str(&out).unwrap();
                let run = &out["runs"][0];
                let result = &run["results"][0];
                let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
                assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
                let place = &result["locations"][0]["physicalLocation"];
                assert_eq!(place["region"]["startLine"], line);
                assert_eq!(place["artifactLocation"]["uri"], "standard%20input");
            }
        }
    }
}

#[test]
fn what_the_operator_knows_counts() {
    for (arguments, rule) in [
        (["--slowest-call", "2m"], "grace-too-short"),
        (["--database-limit", "50"], "database-limit"),
    ] {
        let (code, out, _) = fed(&[&["check"], &arguments[..]].concat(), GOOD.as_bytes());
        assert!(code == 1 && out.contains(rule), "{out}");
    }
    assert_eq!(fed(&["check", "--slowest-call", "long"], b"").0, 64);
}

#[test]
fn what_inject_writes_passes() {
    let plain = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: a}}\nspec: {containers: [{name: server, image: i, ports: [{name: mcp, containerPort: 3000}]}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{port: 3000}]}\n";
    let (code, out, _) = fed(&["check"], plain.as_bytes());
    assert!(code == 1 && out.contains("no-prestop") && out.contains("grace-too-short"), "{out}");
    for mode in ["native", "classic"] {
        let (code, injected, told) = fed(&["inject", "--mode", mode], plain.as_bytes());
        assert_eq!(code, 0, "{told}");
        let (code, out, told) = fed(&["check"], injected.as_bytes());
        assert_eq!((code, out.as_str(), told.as_str()), (0, "", ""), "{injected}");
    }
}

#[test]
fn what_is_not_looked_at_is_said() {
    let redis = "apiVersion: v1\nkind: Pod\nmetadata: {name: redis}\nspec: {containers: [{name: redis, image: redis}]}\n";
    let (code, _, told) = fed(&["check"], redis.as_bytes());
    assert!(
        code == 0 && told.contains("Pod/redis: left out") && told.contains("nothing was checked"),
        "{told}"
    );
    let (code, out, told) = fed(&["check"], b"a: 1\n---\nb: [\n");
    assert!(code == 1 && out.is_empty() && told.contains("document 2, line "), "{told}");
}

/// An API server with one Deployment and what it made.
fn live(budgets: fn() -> String) -> (i32, String, String) {
    let port = server(move |stream, request| {
        let path = request.split(' ').nth(1).unwrap();
        let list = |items: Value| ok(&json!({"metadata": {}, "items": items}));
        let labels = json!({"labels": {"app": "a"}});
        let container = json!({"name": "server", "ports": [{"name": "mcp", "containerPort": 3000}], "lifecycle": {"preStop": {"exec": {"command": ["/bye"]}}}});
        let spec = json!({"replicas": 2, "template": {"metadata": labels, "spec": {
            "terminationGracePeriodSeconds": 60, "containers": [container],
        }}});
        let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "mcp", "uid": "1", "controller": true}]);
        let answer = match path.rsplit('/').next().unwrap().split('?').next().unwrap() {
            "deployments" if path.contains("/namespaces/prod/") => {
                list(json!([{"metadata": {"name": "mcp", "namespace": "prod"}, "spec": spec}]))
            }
            "replicasets" => list(json!([{
                "metadata": {"name": "mcp-1", "namespace": "prod", "ownerReferences": owner},
                "spec": spec,
            }])),
            "poddisruptionbudgets" => budgets(),
            _ => list(json!([])),
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    let kubeconfig = Kubeconfig::new(port);
    let output = command(&["check", "--namespace", "prod", "--format", "json"])
        .env("KUBECONFIG", &kubeconfig.0)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A full disk, or a reader that has left, is an error like any other.
#[test]
fn output_that_cannot_be_written_is_said() {
    let file = std::env::temp_dir().join(format!("ebbtide-check-{}.yaml", std::process::id()));
    std::fs::write(&file, BAD).unwrap();
    for name in ["check", "inject"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut child = command(&[name, "--file", file.to_str().unwrap()]);
        let output = child.stdout(full).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("the output cannot be written"), "{told}");
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_namespace_is_looked_at_as_it_is() {
    let (code, out, told) = live(|| ok(&json!({"metadata": {}, "items": []})));
    assert_eq!((code, told.as_str()), (1, "1 finding\n"), "{out}");
    let out: Value = serde_json::from_str(&out).unwrap();
    let found = &out["findings"][0];
    assert_eq!(found["rule"], "no-disruption-budget");
    assert_eq!((&found["object"], &found["line"]), (&json!("Deployment/mcp"), &Value::Null));
    let budget = || {
        let selector = json!({"matchLabels": {"app": "a"}});
        let budget =
            json!({"metadata": {"name": "a", "namespace": "prod"}, "spec": {"selector": selector}});
        ok(&json!({"metadata": {}, "items": [budget]}))
    };
    let (code, out, told) = live(budget);
    assert_eq!((code, told.as_str()), (0, ""), "{out}");
    let (code, out, told) = live(|| status(403, "poddisruptionbudgets is forbidden"));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(told.contains("no right to list poddisruptionbudgets in namespace prod"), "{told}");
}
