//! templates/podmonitor.yaml, prometheusrule.yaml, dashboard.yaml, and the alerts and queries in
//! files/: promtool plays the alerts of tests/chart/rules.yaml.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::helm::{CHART, all_of, mode, mode_with, of_kind, only, run};

fn alerts(values: &Value) -> Vec<Value> {
    let rule = only(values, "PrometheusRule");
    let groups = rule["spec"]["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn rules(mode: &str) -> Value {
    let rules = json!({"enabled": true, "runbook": "https://runbook.test/"});
    mode_with(mode, &json!({"monitoring": {"rules": rules}}))
}

fn dashboard() -> Value {
    let values = mode_with("policy", &json!({"monitoring": {"dashboard": {"enabled": true}}}));
    let map = only(&values, "ConfigMap");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    serde_json::from_str(map["data"]["ebbtide.json"].as_str().unwrap()).unwrap()
}

/// All queries of the dashboard, as Grafana would send them.
fn queries() -> Vec<String> {
    let mut found = Vec::new();
    expressions(&dashboard(), &mut found);
    let sent = found.iter().map(|query| {
        query
            .replace("$namespace", ".*")
            .replace("$pod", ".*")
            .replace("$__rate_interval", "1m")
            .replace("$__range", "1h")
    });
    sent.collect()
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            for value in map.values() {
                expressions(value, found);
            }
        }
        Value::Array(list) => {
            for value in list {
                expressions(value, found);
            }
        }
        _ => {}
    }
}

#[test]
fn all_of_it_is_off_unless_asked() {
    for kind in ["PodMonitor", "PrometheusRule", "ConfigMap"] {
        assert!(of_kind(&mode("webhook"), kind).is_empty(), "{kind}");
    }
}

#[test]
fn every_sidecar_is_scraped_and_the_webhook() {
    let values = |mode: &str| {
        let monitor = json!({"enabled": true, "labels": {"release": "prometheus"}});
        mode_with(mode, &json!({"monitoring": {"podMonitor": monitor}}))
    };
    let sidecars = only(&values("policy"), "PodMonitor");
    assert_eq!(sidecars["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(sidecars["spec"]["selector"], json!({}));
    assert_eq!(sidecars["spec"]["namespaceSelector"], json!({"any": true}));
    let endpoint = json!({"port": "ebbtide-admin", "path": "/metrics", "interval": "15s"});
    assert_eq!(sidecars["spec"]["podMetricsEndpoints"], json!([endpoint]));
    let monitors = of_kind(&values("webhook"), "PodMonitor");
    assert_eq!(monitors.len(), 2);
    let endpoint = &monitors[1]["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["scheme"], "https");
    assert_eq!(endpoint["tlsConfig"]["serverName"], "tide-ebbtide-webhook.tide-system.svc");
    let some = json!({"monitoring": {"podMonitor": {"enabled": true, "namespaces": ["a"]}}});
    let some = only(&mode_with("policy", &some), "PodMonitor");
    assert_eq!(some["spec"]["namespaceSelector"], json!({"matchNames": ["a"]}));
}

#[test]
fn alerts_say_where_the_operator_reads_on() {
    let operations = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let operations = fs::read_to_string(operations).unwrap();
    let all = alerts(&all_of("webhook"));
    assert_eq!(all.len(), 10);
    for alert in &all {
        let name = alert["alert"].as_str().unwrap();
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&format!("/docs/operations.md#{}", name.to_lowercase())), "{url}");
        assert!(operations.contains(&format!("### {name}\n")), "docs/operations.md lacks {name}");
        assert!(!alert["annotations"]["summary"].as_str().unwrap().is_empty());
    }
    // That of an absent webhook would fire for ever where there is none.
    assert_eq!(alerts(&all_of("policy")).len(), 5);
    assert!(!json!(alerts(&all_of("policy"))).to_string().contains("EbbtideWebhookDown"));
    let policy = &only(&all_of("policy"), "MutatingAdmissionPolicy")["metadata"]["name"];
    let named = format!("policy=\\\"{}\\\"", policy.as_str().unwrap());
    assert!(json!(alerts(&all_of("policy"))).to_string().contains(&named), "{named}");
    let labels = json!({"monitoring": {"rules": {"enabled": true, "alertLabels": {"severity": "page", "team": "mcp"}}}});
    for alert in alerts(&mode_with("policy", &labels)) {
        assert_eq!(alert["labels"], json!({"severity": "page", "team": "mcp"}));
    }
}

#[test]
fn promtool_plays_every_alert() {
    let folder = std::env::temp_dir().join(format!("ebbtide-rules-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let rendered = folder.join("rules.rendered.yaml");
    let rule = only(&rules("webhook"), "PrometheusRule");
    fs::write(&rendered, rule["spec"].to_string()).unwrap();
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart/rules.yaml"));
    let text = text.unwrap();
    let played = folder.join("rules.yaml");
    fs::write(&played, &text).unwrap();
    for alert in alerts(&rules("webhook")) {
        let name = alert["alert"].as_str().unwrap();
        // Once where it fires, once where it does not.
        assert!(text.matches(&format!("alertname: {name}\n")).count() >= 2, "{name} is not played");
    }
    let check = run("promtool", &["check", "rules", rendered.to_str().unwrap()], "");
    let test = run("promtool", &["test", "rules", played.to_str().unwrap()], "");
    fs::remove_dir_all(&folder).unwrap();
    check.unwrap_or_else(|error| panic!("{error}"));
    test.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn prometheus_understands_every_query_of_the_dashboard() {
    let queries = queries();
    assert!(queries.len() > 20, "{queries:#?}");
    let records = queries.iter().enumerate();
    let records =
        records.map(|(number, query)| json!({"record": format!("q:{number}"), "expr": query}));
    let groups = json!({"groups": [{"name": "dashboard", "rules": records.collect::<Vec<_>>()}]});
    let file = std::env::temp_dir().join(format!("ebbtide-queries-{}.yaml", std::process::id()));
    fs::write(&file, groups.to_string()).unwrap();
    let checked = run("promtool", &["check", "rules", file.to_str().unwrap()], "");
    fs::remove_file(&file).unwrap();
    checked.unwrap_or_else(|error| panic!("{error}"));
}

/// A metric that nobody writes is an alert that never fires, and a panel that stays empty.
#[test]
fn every_metric_is_one_that_we_write() {
    // Written from the code, and compared with it.
    let page = include_str!("../../docs/metrics.md");
    let mut used = BTreeSet::new();
    let exprs = alerts(&all_of("webhook")).into_iter().map(|alert| alert["expr"].to_string());
    for text in exprs.chain(queries()) {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names = words.filter(|word| word.starts_with("ebbtide_"));
        used.extend(names.map(|name| name.trim_end_matches("_bucket").to_owned()));
    }
    let known = used.iter().filter(|name| page.contains(&format!("`{name}`"))).cloned().collect();
    assert!(used.len() > 10 && used.is_subset(&known), "{:?}", used.difference(&known));
}

#[test]
fn the_dashboard_has_panels_that_explain_themselves() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut places = Vec::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["id"]);
        if panel["type"] != "row" {
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{}", panel["title"]);
            places.push(panel["gridPos"].clone());
        }
    }
    let number = |place: &Value, of: &str| place[of].as_u64().unwrap();
    for (index, a) in places.iter().enumerate() {
        assert!(number(a, "x") + number(a, "w") <= 24);
        for b in &places[..index] {
            let apart = |at: &str, size: &str| {
                number(a, at) + number(a, size) <= number(b, at)
                    || number(b, at) + number(b, size) <= number(a, at)
            };
            assert!(apart("x", "w") || apart("y", "h"), "{a} covers {b}");
        }
    }
    assert!(Path::new(CHART).join("files/dashboard.json").exists());
}
