//! templates/rbac.yaml.

use serde_json::{Value, json};

use crate::helm::{mode, objects, of_kind, only, rendered};

fn rbac(values: &Value) -> Value {
    json!({"injection": {"mode": "policy"}, "rbac": values})
}

fn bound(values: &Value) -> Vec<Value> {
    [of_kind(values, "RoleBinding"), of_kind(values, "ClusterRoleBinding")].concat()
}

#[test]
fn the_rights_are_those_of_deploy() {
    let deployed =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac.yaml"));
    let role = objects(&deployed.unwrap()).into_iter().find(|object| object["kind"] == "Role");
    for name in ["policy", "webhook", "none"] {
        assert_eq!(only(&mode(name), "ClusterRole")["rules"], role.as_ref().unwrap()["rules"]);
    }
}

#[test]
fn nobody_has_them_unasked() {
    assert!(bound(&mode("policy")).is_empty());
    assert!(bound(&mode("webhook")).is_empty());
    assert!(bound(&rbac(&json!({"bind": "none", "namespaces": ["a"]}))).is_empty());
    let none = rendered(&rbac(&json!({"create": false, "bind": "cluster"})));
    assert!(none.iter().all(|object| !object["kind"].as_str().unwrap().contains("Role")));
}

#[test]
fn a_namespace_gets_them_for_itself() {
    let values = rbac(&json!({"namespaces": ["a", "b"]}));
    let role = only(&values, "ClusterRole")["metadata"]["name"].clone();
    let bindings = bound(&values);
    assert_eq!(bindings.len(), 2);
    for (binding, namespace) in bindings.iter().zip(["a", "b"]) {
        assert_eq!(binding["kind"], "RoleBinding");
        assert_eq!(binding["metadata"]["namespace"], namespace);
        assert_eq!(binding["roleRef"]["name"], role);
        let group = &binding["subjects"][0]["name"];
        assert_eq!(*group, format!("system:serviceaccounts:{namespace}"));
    }
}

#[test]
fn named_service_accounts_get_them_alone() {
    let named = json!({"name": "b", "serviceAccounts": ["mcp", "other"]});
    let bindings = bound(&rbac(&json!({"namespaces": ["a", named, {"name": "c"}]})));
    let subjects: Vec<_> = bindings.iter().map(|binding| binding["subjects"].clone()).collect();
    let group = |namespace: &str| json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": format!("system:serviceaccounts:{namespace}")}]);
    let account = |name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": "b"});
    assert_eq!(subjects, [group("a"), json!([account("mcp"), account("other")]), group("c")]);
    let namespaces: Vec<_> =
        bindings.iter().map(|binding| binding["metadata"]["namespace"].clone()).collect();
    assert_eq!(namespaces, ["a", "b", "c"]);
}

#[test]
fn all_service_accounts_get_them_where_asked() {
    let bindings = bound(&rbac(&json!({"bind": "cluster", "namespaces": ["a"]})));
    assert_eq!(bindings.len(), 1);
    assert_eq!(bindings[0]["kind"], "ClusterRoleBinding");
    assert_eq!(bindings[0]["subjects"][0]["name"], "system:serviceaccounts");
}
