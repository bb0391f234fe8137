//! templates/networkpolicy.yaml.

use serde_json::{Value, json};

use crate::helm::{mode, of_kind, refused};

fn policies(values: &Value) -> Vec<Value> {
    of_kind(&json!({"injection": {"mode": "policy"}, "networkPolicy": values}), "NetworkPolicy")
}

/// Whether the rules let that port in, from anywhere.
fn is_open(policy: &Value, port: u64) -> bool {
    let rules = policy["spec"]["ingress"].as_array().unwrap().iter();
    rules.filter(|rule| rule["from"].is_null()).any(|rule| {
        rule["ports"].as_array().unwrap().iter().any(|range| {
            let first = range["port"].as_u64().unwrap();
            let last = range["endPort"].as_u64().unwrap_or(first);
            range["protocol"].as_str().unwrap_or("TCP") == "TCP" && (first..=last).contains(&port)
        })
    })
}

#[test]
fn only_the_admin_port_is_closed() {
    assert!(of_kind(&mode("policy"), "NetworkPolicy").is_empty());
    let found = policies(&json!({"enabled": true, "namespaces": ["a", "b"]}));
    assert_eq!(found.len(), 2);
    for (policy, namespace) in found.iter().zip(["a", "b"]) {
        assert_eq!(policy["metadata"]["namespace"], namespace);
        assert_eq!(policy["spec"]["podSelector"], json!({}));
        let closed: Vec<_> = (1..=65535).filter(|port| !is_open(policy, *port)).collect();
        assert_eq!(closed, [7071]);
        assert_eq!(policy["spec"]["ingress"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn prometheus_may_come() {
    let from = json!([{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]);
    let selector = json!({"matchLabels": {"app": "mcp"}});
    let values =
        json!({"enabled": true, "namespaces": ["a"], "from": from, "podSelector": selector});
    let policy = &policies(&values)[0];
    assert_eq!(policy["spec"]["podSelector"], selector);
    assert_eq!(policy["spec"]["ingress"][1], json!({"ports": [{"port": 7071}], "from": from}));
}

#[test]
fn it_wants_to_know_where() {
    let error = refused(&json!({"networkPolicy": {"enabled": true}}));
    assert!(error.contains("networkPolicy.namespaces"), "{error}");
}
