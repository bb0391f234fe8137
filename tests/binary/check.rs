//! `ebbtide check`: findings, where they are, and the exit code.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

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

/// What `check` says of a namespace whose API server answers this to lists, and 404 to what is
/// none of them; and all that it asked for.
fn live(answers: &[(&str, String)]) -> (i32, String, String, Vec<String>) {
    let answers: Vec<_> =
        answers.iter().map(|(path, answer)| ((*path).to_owned(), answer.clone())).collect();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let port = server(move |stream, request| {
        let path = request.split([' ', '?']).nth(1).unwrap().to_owned();
        let answer = answers.iter().find(|(asked, _)| path.ends_with(asked));
        let empty = || ok(&json!({"metadata": {}, "items": []}));
        let answer = answer.map_or_else(empty, |(_, answer)| answer.clone());
        seen.lock().unwrap().push(path);
        let _ = stream.write_all(answer.as_bytes());
    });
    let kubeconfig = Kubeconfig::new(port);
    let output = command(&["check", "--namespace", "prod", "--format", "json"])
        .env("KUBECONFIG", &kubeconfig.0)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let asked = asked.lock().unwrap().clone();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr), asked)
}

fn list(items: &[&Value]) -> String {
    ok(&json!({"metadata": {}, "items": items}))
}

/// A Deployment as its manifest has it, what stands between and its pod, which may have got a sidecar.
fn mcp(injected: bool) -> [Value; 3] {
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mcp-1-a", "namespace": "prod", "labels": {"app": "a"}}, "spec": {"containers": [{"name": "server", "image": "i", "ports": [{"name": "mcp", "containerPort": 3000}]}]}}"#;
    let plain: Value = serde_json::from_str(pod).unwrap();
    let mut pod = plain.clone();
    if injected {
        pod = serde_json::from_str(&fed(&["inject"], pod.to_string().as_bytes()).1).unwrap();
    }
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "1", "controller": true}]);
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": plain["spec"]});
    let spec = json!({"replicas": 2, "template": template});
    pod["metadata"]["ownerReferences"] = owner("ReplicaSet", "mcp-1");
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let set = json!({"name": "mcp-1", "namespace": "prod", "ownerReferences": owner("Deployment", "mcp")});
    [
        json!({"metadata": {"name": "mcp", "namespace": "prod"}, "spec": spec}),
        json!({"metadata": set, "spec": spec}),
        pod,
    ]
}

#[test]
fn a_namespace_is_looked_at_as_it_runs() {
    let [deployment, set, pod] = mcp(true);
    let (deployments, sets, pods) = (list(&[&deployment]), list(&[&set]), list(&[&pod]));
    let selector = json!({"matchLabels": {"app": "a"}});
    let budget =
        json!({"metadata": {"name": "a", "namespace": "prod"}, "spec": {"selector": selector}});
    let all = [("/deployments", deployments), ("/replicasets", sets), ("/pods", pods)];
    let (code, out, told, asked) = live(&all);
    assert!(
        code == 1 && told.contains("Deployment/mcp: looked at as its pod mcp-1-a runs"),
        "{told}"
    );
    let found: Value = serde_json::from_str(&out).unwrap();
    let found = found["findings"].as_array().unwrap();
    assert_eq!((found.len(), &found[0]["rule"]), (1, &json!("no-disruption-budget")), "{out}");
    assert_eq!((&found[0]["object"], &found[0]["line"]), (&json!("Deployment/mcp"), &Value::Null));
    // The rights that docs/operations.md names.
    let page = include_str!("../../docs/operations.md");
    let asked: Vec<_> = asked.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(asked.len(), 11);
    for kind in asked.iter().filter(|kind| **kind != "prod") {
        assert!(page.contains(&format!(" {kind}")), "{kind}");
    }
    let with = |more: (&'static str, String)| [&all[..], &[more]].concat();
    let (code, out, told, _) = live(&with(("/poddisruptionbudgets", list(&[&budget]))));
    assert!(code == 0 && told.lines().count() == 1, "{out} {told}");
    let (code, out, told, _) =
        live(&with(("/poddisruptionbudgets", status(403, "poddisruptionbudgets is forbidden"))));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(told.contains("no right to list poddisruptionbudgets in namespace prod"), "{told}");
}

#[test]
fn a_label_that_came_too_late_is_said() {
    let [deployment, set, pod] = mcp(false);
    let all = [
        ("/deployments", list(&[&deployment])),
        ("/replicasets", list(&[&set])),
        ("/pods", list(&[&pod])),
    ];
    let labels = json!({"ebbtide.dev/inject": "enabled"});
    let namespace = ok(&json!({"metadata": {"name": "prod", "labels": labels}}));
    let restart = "`kubectl rollout restart deployment/mcp --namespace prod`";
    for (answer, says, says_not) in [
        (namespace, restart, "cannot be read"),
        (
            status(403, "namespaces \"prod\" is forbidden"),
            "labels of namespace prod cannot be read",
            restart,
        ),
    ] {
        let (code, out, told, _) = live(&[&all[..], &[("/namespaces/prod", answer)]].concat());
        assert!(code == 1 && out.contains("no-prestop"), "{out}");
        assert!(told.contains(says) && !told.contains(says_not), "{told}");
    }
    let (code, _, told, _) = live(&[("/namespaces/prod", status(404, "not found"))]);
    assert!(code == 1 && told.contains("there is no namespace prod"), "{told}");
    let (code, _, told, _) = live(&[]);
    assert!(
        code == 0 && told.contains("nothing was checked") && told.contains("CronJob"),
        "{told}"
    );
}

/// What is no object, and what no tool reads by lines, is refused and nothing is written.
#[test]
fn no_object_and_no_lines() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: i, ports: [{name: mcp, containerPort: 3000}]}]}\n";
    for name in ["check", "inject"] {
        for (text, place) in [
            ("a: 1\n---\n- kind: Pod\n".to_owned(), "document 2, line 3: a list"),
            ("[]".to_owned(), "document 1, line 1: a list"),
            (pod.replace('\n', "\r"), "document 1, line 1: a carriage return"),
            (
                format!("{pod}---\n{}", pod.replacen('\n', "\r", 1)),
                "document 2, line 6: a carriage return",
            ),
        ] {
            let (code, out, told) = fed(&[name], text.as_bytes());
            assert!(code == 1 && out.is_empty() && told.contains(place), "{text:?}: {told}");
        }
    }
    assert!(fed(&["check"], b"").2.contains("nothing was checked"));
}

/// A reader that has left.
#[test]
fn help_that_nobody_reads_is_no_failure() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["check", "--help"], 0),
        (&["--version"], 0),
        (&[], 64),
        (&["--nonsense"], 64),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = command(arguments);
        let output = child.stdout(writer.try_clone().unwrap()).stderr(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}
