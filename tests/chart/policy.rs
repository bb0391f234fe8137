//! templates/policy.yaml and warning-policy.yaml. That the policy gives what `ebbtide inject`
//! gives is for the API server to show: tests/cluster/chart.rs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ebbtide::config::table::TABLE;
use serde_json::{Value, json};

use crate::helm::{CHART, NAMESPACE, mode, mode_with, objects, of_kind, only, rendered, template};

/// What decides in which namespaces and for which pods something is injected: of the policy's
/// bindings, and of the webhooks.
pub fn selects(places: &[Value]) {
    let [namespaces, pods] = places else { panic!("{places:#?}") };
    let excluded = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn",
        "values": ["kube-system", NAMESPACE]});
    let inject = |operator: &str, value: &str| json!({"key": "ebbtide.dev/inject", "operator": operator, "values": [value]});
    for (place, namespace, object) in [
        (namespaces, inject("In", "enabled"), inject("NotIn", "disabled")),
        (pods, inject("NotIn", "enabled"), inject("In", "enabled")),
    ] {
        let expressions = place["namespaceSelector"]["matchExpressions"].as_array().unwrap();
        assert_eq!(expressions[..2], [excluded.clone(), namespace]);
        assert_eq!(place["objectSelector"]["matchExpressions"], json!([object]));
    }
}

fn bindings(values: &Value) -> Vec<Value> {
    let bindings = of_kind(values, "MutatingAdmissionPolicyBinding").into_iter();
    bindings.map(|binding| binding["spec"]["matchResources"].clone()).collect()
}

#[test]
fn the_cluster_decides_between_policy_and_webhook() {
    let policy = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy";
    let kinds = |version: &str, served: &[&str], values: &Value| {
        let text = template(Path::new(CHART), version, served, values).unwrap();
        let kinds = objects(&text).into_iter().map(|object| object["kind"].clone());
        let injects =
            kinds.filter(|kind| *kind == "MutatingAdmissionPolicy" || *kind == "Deployment");
        injects.collect::<Vec<_>>()
    };
    assert_eq!(kinds("1.36.0", &[policy], &json!({})), ["MutatingAdmissionPolicy"]);
    assert_eq!(kinds("1.35.0", &[], &json!({})), ["Deployment"]);
    // Served as beta only, the policy would be refused.
    let beta = "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy";
    assert_eq!(kinds("1.35.0", &[beta], &json!({})), ["Deployment"]);
    assert_eq!(kinds("1.36.0", &[policy], &mode("webhook")), ["Deployment"]);
    assert_eq!(kinds("1.35.0", &[], &mode("policy")), ["MutatingAdmissionPolicy"]);
    assert!(kinds("1.36.0", &[policy], &mode("none")).is_empty());
}

#[test]
fn the_policy_injects_new_pods_and_keeps_none_from_starting() {
    let policy = only(&mode("policy"), "MutatingAdmissionPolicy");
    let rules = &policy["spec"]["matchConstraints"]["resourceRules"];
    assert_eq!(
        *rules,
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}])
    );
    assert_eq!(policy["spec"]["failurePolicy"], "Ignore");
    assert_eq!(policy["spec"]["reinvocationPolicy"], "Never");
    let strict = json!({"injection": {"mode": "policy", "failurePolicy": "Fail"}});
    assert_eq!(only(&strict, "MutatingAdmissionPolicy")["spec"]["failurePolicy"], "Fail");
    let expression = &policy["spec"]["mutations"][0]["jsonPatch"]["expression"];
    let expression = expression.as_str().unwrap();
    assert!(expression.contains("image: 'ghcr.io/ebbtide/ebbtide:0.1.0'"), "{expression}");
    let digest = format!("sha256:{}", "a".repeat(64));
    let values = mode_with("policy", &json!({"image": {"repository": "r/e", "digest": digest}}));
    let policy = only(&values, "MutatingAdmissionPolicy").to_string();
    assert!(policy.contains(&format!("image: 'r/e@{digest}'")), "{policy}");
}

#[test]
fn labels_decide_who_is_injected() {
    selects(&bindings(&mode("policy")));
    let narrowed = json!({"injection": {"mode": "policy", "namespaceSelector": {
        "matchLabels": {"team": "mcp"},
        "matchExpressions": [{"key": "prod", "operator": "Exists"}],
    }}});
    selects(&bindings(&narrowed));
    for place in bindings(&narrowed) {
        let selector = &place["namespaceSelector"];
        assert_eq!(selector["matchLabels"], json!({"team": "mcp"}));
        assert_eq!(selector["matchExpressions"][2], json!({"key": "prod", "operator": "Exists"}));
    }
    // Both name the policy that is there.
    let names = |kind: &str, at: &str| -> Vec<Value> {
        let objects = of_kind(&mode("policy"), kind).into_iter();
        objects.map(|object| object.pointer(at).unwrap().clone()).collect()
    };
    let policy = names("MutatingAdmissionPolicy", "/metadata/name").remove(0);
    assert_eq!(
        names("MutatingAdmissionPolicyBinding", "/spec/policyName"),
        [policy.clone(), policy]
    );
}

#[test]
fn sidecars_get_the_resources_of_the_values() {
    let values = json!({"sidecar": {"resources": {"limits": {"cpu": "200m", "memory": null}}}});
    for (values, requests, limits) in [
        (mode("policy"), "cpu=10m,memory=16Mi", "memory=128Mi"),
        (mode_with("policy", &values), "cpu=10m,memory=16Mi", "cpu=200m"),
    ] {
        let policy = only(&values, "MutatingAdmissionPolicy");
        let variables = policy["spec"]["variables"].as_array().unwrap();
        for (name, expected) in [("requestsDefault", requests), ("limitsDefault", limits)] {
            let found = variables.iter().find(|variable| variable["name"] == name).unwrap();
            let expression = found["expression"].as_str().unwrap();
            assert!(expression.starts_with(&format!("'{expected}'.split")), "{expression}");
        }
    }
}

/// An annotation is a setting's if and only if `run` has it, and arguments come in its order.
#[test]
fn the_policy_knows_every_setting() {
    let policy = only(&mode("policy"), "MutatingAdmissionPolicy");
    let quoted = |name: &str| {
        let variables = policy["spec"]["variables"].as_array().unwrap();
        let found = variables.iter().find(|variable| variable["name"] == name).unwrap();
        let texts = found["expression"].as_str().unwrap().split('\'').skip(1).step_by(2);
        texts.map(str::to_owned).collect::<Vec<_>>()
    };
    let shapes = quoted("shapes");
    assert_eq!(shapes.len(), 2 * TABLE.len());
    let args = quoted("args");
    assert_eq!(args[0], "run");
    let mut patterns = BTreeMap::new();
    for (index, setting) in TABLE.iter().enumerate() {
        assert_eq!(args[1 + 2 * index..3 + 2 * index], [setting.name, setting.name]);
        assert_eq!(shapes[2 * index], setting.name);
        // One pattern for each shape, and another for every other.
        let pattern = &shapes[2 * index + 1];
        assert!(!pattern.is_empty(), "{}", setting.name);
        assert_eq!(patterns.entry(setting.shape).or_insert(pattern), &pattern, "{}", setting.name);
    }
    let different: BTreeSet<_> = patterns.values().collect();
    assert_eq!(different.len(), patterns.len(), "{patterns:#?}");
}

#[test]
fn the_warning_only_warns() {
    let policy = only(&mode("policy"), "ValidatingAdmissionPolicy");
    let binding = only(&mode("policy"), "ValidatingAdmissionPolicyBinding");
    assert_eq!(policy["spec"]["failurePolicy"], "Ignore");
    assert_eq!(binding["spec"]["validationActions"], json!(["Warn"]));
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    // Both policies decide alike.
    let mutating = only(&mode("policy"), "MutatingAdmissionPolicy");
    let refusal = |policy: &Value| {
        let variables = policy["spec"]["variables"].as_array().unwrap().iter();
        variables.filter(|variable| variable["name"] == "refusal").cloned().collect::<Vec<_>>()
    };
    assert_eq!(refusal(&policy), refusal(&mutating));
    for values in
        [json!({"injection": {"mode": "policy", "warn": false}}), mode("webhook"), mode("none")]
    {
        let objects = rendered(&values);
        assert!(objects.iter().all(|object| object["kind"] != "ValidatingAdmissionPolicy"));
    }
}
