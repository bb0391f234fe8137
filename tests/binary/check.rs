//! `ebbtide check`: findings, where they are, and the exit code.

use serde_json::Value;

use crate::inject::fed;

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
