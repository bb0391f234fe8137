//! Each rule against its two manifests in tests/fixtures/check, and what is printed.

use std::path::PathBuf;

use super::*;

fn fixture(rule: &str, name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/check");
    std::fs::read_to_string(root.join(rule).join(name)).unwrap()
}

/// The limits of a manifest stand in its first line.
fn check(text: &str) -> Vec<Finding> {
    let database = text.lines().next().and_then(|line| line.strip_prefix("# --database-limit "));
    let database = database.map(|limit| limit.parse().unwrap());
    let limits = Limits { slowest_call: std::time::Duration::from_secs(30), database };
    let (found, notes) = in_text(text, limits).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    found
}

#[test]
fn each_rule_finds_its_bad_manifest_and_nothing_in_the_good_one() {
    for rule in RULES {
        let good = check(&fixture(rule.name, "good.yaml"));
        let said: Vec<_> = good.iter().map(|found| (found.rule.name, &found.says)).collect();
        assert!(said.is_empty(), "{}: {said:?}", rule.name);
        let bad = check(&fixture(rule.name, "bad.yaml"));
        let said: Vec<_> = bad.iter().map(|found| (found.rule.name, &found.says)).collect();
        let only = bad.len() == 1 && bad[0].rule.name == rule.name;
        assert!(only, "{}: {said:?}", rule.name);
    }
    let folders = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/check");
    assert_eq!(std::fs::read_dir(folders).unwrap().count(), RULES.len());
}

#[test]
fn rules_say_enough() {
    for rule in RULES {
        for text in [rule.why, rule.instead] {
            assert!(text.len() > 30 && text.ends_with('.'), "{}: {text}", rule.name);
        }
        let kebab = |letter: char| letter.is_ascii_lowercase() || letter == '-';
        assert!(rule.name.chars().all(kebab), "{}", rule.name);
    }
}

#[test]
fn a_finding_says_where() {
    let bad = fixture("probe-grace", "bad.yaml");
    let found = &check(&bad)[0];
    let line = |part: &str| 1 + bad.lines().position(|line| line.contains(part)).unwrap();
    assert_eq!(found.place, Some(Place { document: 1, line: line("Seconds: 5") }));
    assert_eq!(found.container.as_deref(), Some("server"));
    assert_eq!(
        found.path,
        "/spec/template/spec/containers/0/livenessProbe/terminationGracePeriodSeconds"
    );
    let bad = fixture("service-bypasses-sidecar", "bad.yaml");
    let found = &check(&bad)[0];
    let line = |part: &str| 1 + bad.lines().position(|line| line.contains(part)).unwrap();
    assert_eq!(found.place, Some(Place { document: 2, line: line("- port: 80") }));
    assert_eq!(found.object, "Service/mcp-server");
}

/// What deploy/ shows loses nothing.
#[test]
fn what_we_write_ourselves_is_clean() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut seen = 0;
    for file in std::fs::read_dir(root).unwrap() {
        let path = file.unwrap().path();
        let text = path.is_file().then(|| std::fs::read_to_string(&path).unwrap());
        let Some(text) = text.filter(|text| text.contains("kind: Deployment")) else { continue };
        let found = check(&text);
        let said: Vec<_> = found.iter().map(|found| (found.rule.name, &found.says)).collect();
        assert!(said.is_empty(), "{}: {said:?}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 4, "native, classic, wrapper, and the example");
}

/// How many pods there are says the autoscaler, where one is there, and of those
/// that are not to run nothing is said.
#[test]
fn how_many_pods_there_are() {
    let good = fixture("database-limit", "good.yaml");
    let all =
        good.replace("maxUnavailable: 0", "maxUnavailable: 2").replace("kind: PodDis", "kind: No");
    let of = |text: &str| -> Vec<String> {
        check(text)
            .into_iter()
            .map(|found| format!("{}: {}", found.rule.name, found.says))
            .collect()
    };
    let unsaid = all.replace("  replicas: 2\n", "");
    let said = of(&unsaid);
    assert!(said.len() == 2 && said[1].contains("all 2 of them"), "{said:?}");
    assert_eq!(of(&unsaid.replace("minReplicas: 2", "minReplicas: 3")).len(), 1);
    let alone = unsaid.replace("kind: HorizontalPodAutoscaler", "kind: Other");
    let said = of(&alone);
    assert!(said.len() == 1 && said[0].contains("all 1 of them"), "{said:?}");
    assert_eq!(of(&all.replace("replicas: 2", "replicas: 0")), Vec::<String>::new());
}

/// A Service may select pods that have no sidecar, and those that serve no client.
#[test]
fn what_a_service_selects_besides() {
    let good = fixture("service-bypasses-sidecar", "good.yaml");
    let other = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: canary}\nspec:\n  template:\n    metadata: {labels: {app: mcp-server}}\n    spec: {containers: [{name: c, ports: [{name: web, containerPort: 3000}]}]}\n";
    let of = |text: &str| -> Vec<String> {
        let limits = Limits { slowest_call: std::time::Duration::from_secs(30), database: None };
        let (found, _) = in_text(text, limits).unwrap();
        found.into_iter().map(|found| format!("{}: {}", found.rule.name, found.says)).collect()
    };
    assert_eq!(
        of(&format!("{good}{other}")),
        ["service-port-unknown: no port of Deployment/canary is called `mcp`"]
    );
    let said = of(&format!("{}{other}", good.replace("targetPort: mcp", "targetPort: 3000")));
    assert!(said.len() == 1 && said[0].starts_with("service-bypasses-sidecar: "), "{said:?}");
    assert!(said[0].contains(
        "it selects Deployment/canary, too, where port 3000 does not have the name `mcp`"
    ));
    let asked = other.replace("{labels", "{annotations: {config.ebbtide.dev/port: '3000'}, labels");
    let said = of(&format!("{good}{asked}"));
    assert!(!said.iter().any(|said| said.starts_with("service-port")), "{said:?}");
    let unknown = other.replace("kind: Deployment", "kind: Rollout").replace("apps/v1", "x/v1");
    assert_eq!(of(&format!("{good}{unknown}")).len(), 1);
}

#[test]
fn a_grace_that_is_none() {
    let good = fixture("database-limit", "good.yaml");
    for (grace, says) in
        [("-1", "is -1; Kubernetes takes"), ("30.5", "is 30.5; Kubernetes refuses")]
    {
        let found = check(&good.replace("Seconds: 60", &format!("Seconds: {grace}")));
        let too_short = |found: &&Finding| found.rule.name == "grace-too-short";
        let said = found.iter().find(too_short).map(|found| found.says.as_str()).unwrap();
        assert!(said.contains(says), "{said}");
    }
}

/// Changes of a good manifest, and the rule that each breaks.
#[test]
fn other_ways_to_break_a_rule() {
    let good = fixture("database-limit", "good.yaml");
    let hook = "httpGet: {path: /prestop, port: 7071}";
    let health = "httpGet: {path: /healthz, port: 3000}";
    for (from, to, rule) in [
        (hook, "exec: {command: [/bye]}", Some("no-prestop")),
        (hook, "httpGet: {path: /bye, port: 7071}", Some("no-prestop")),
        (hook, "httpGet: {path: /prestop, port: 7070}", Some("no-prestop")),
        (hook, "exec: {command: [/ebbtide, drain, --wait]}", None),
        ("{path: /prestop/self, port: 7071}", "{path: /prestop, port: 7071}", Some("no-prestop")),
        ("{path: /prestop/self, port: 7071}", "{path: /prestop/self, port: ebbtide-admin}", None),
        (", maxSurge: 1", "", Some("database-limit")),
        (", maxSurge: 1", ", maxSurge: 50%", Some("database-limit")),
        ("--grace, 60s", "--grace, 60s, --max-connections=101", Some("database-limit")),
        ("--grace, 60s", "--grace=61s", Some("grace-told-wrong")),
        ("--grace, 60s", "--settle, 30s", Some("grace-too-short")),
        ("maxUnavailable: 0", "maxUnavailable: 2", Some("max-unavailable-all")),
        ("maxUnavailable: 0", "maxUnavailable: 1", None),
        (
            "maxUnavailable: 1\n  selector: {matchLabels: {app: mcp-server",
            "selector: {matchLabels: {app: other",
            Some("no-disruption-budget"),
        ),
        ("targetPort: mcp", "targetPort: 7070", None),
        ("port: 80\n      targetPort: mcp", "port: 3000", Some("service-bypasses-sidecar")),
        (
            "ports:\n    - port: 80\n",
            "clusterIP: None\n  ports:\n    - port: 3000\n",
            Some("service-bypasses-sidecar"),
        ),
        ("ports:\n    - port: 80\n", "clusterIP: None\n  ports:\n    - port: 7070\n", None),
        (health, "httpGet: {path: /healthz, port: 7070}", Some("liveness-drains")),
        (health, "tcpSocket: {port: 7070}", Some("liveness-drains")),
        ("      containers:\n", "      hostNetwork: true\n      containers:\n", Some("port-taken")),
        (health, "httpGet: {path: /healthz, port: mcp}", Some("probe-port-unknown")),
        (health, "tcpSocket: {port: nowhere}", Some("probe-port-unknown")),
        (health, "httpGet: {path: /healthz, port: '3000'}", None),
        // Who has a HorizontalPodAutoscaler says no number himself.
        ("  replicas: 2\n", "", None),
        ("  replicas: 2\n", "  replicas: 9\n", None),
        ("minReplicas: 2", "minReplicas: 0", None),
        ("maxReplicas: 6", "maxReplicas: 10", Some("database-limit")),
    ] {
        assert!(good.contains(from), "{from}");
        let found: Vec<_> =
            check(&good.replacen(from, to, 1)).iter().map(|found| found.rule.name).collect();
        assert_eq!(found, rule.into_iter().collect::<Vec<_>>(), "{from} -> {to}");
    }
}

/// A port of the server that clients have nothing to do with, or that nobody proxies.
#[test]
fn a_service_may_lead_to_other_ports_of_the_server() {
    let good = fixture("database-limit", "good.yaml")
        .replacen(
            "- containerPort: 3000\n",
            "- containerPort: 3000\n            - {name: metrics, containerPort: 9090}\n",
            1,
        )
        .replacen(
            "      targetPort: mcp\n",
            "      targetPort: mcp\n    - {name: metrics, port: 9090, targetPort: metrics}\n    \
             - {name: other, port: 3000, protocol: UDP, targetPort: 3000}\n",
            1,
        );
    assert!(good.contains("UDP"));
    let found: Vec<_> = check(&good).iter().map(|found| found.says.clone()).collect();
    assert_eq!(found, Vec::<String>::new());
}

/// However its address is written.
#[test]
fn a_service_that_leads_to_the_upstream_goes_round_the_sidecar() {
    let good = fixture("database-limit", "good.yaml");
    let good = good.replacen("targetPort: mcp", "targetPort: 3000", 1);
    for upstream in ["http://127.0.0.1:3000", "http://127.0.0.1:3000/", "http://$(HOST):$(PORT)"] {
        let found = check(&good.replacen("http://127.0.0.1:3000", upstream, 1));
        let found: Vec<_> = found.iter().map(|found| found.rule.name).collect();
        assert_eq!(found, ["service-bypasses-sidecar"], "{upstream}");
    }
}
