//! What turns one JSON value into another, as a JSON patch (RFC 6902). Pure.
//!
//! Never names what both have, so that who reads the patch sees what changed.

use serde_json::{Map, Value, json};

/// The operations, in the order in which they are to be applied.
pub fn between(old: &Value, new: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    walk("", old, new, &mut operations);
    operations
}

fn walk(at: &str, old: &Value, new: &Value, operations: &mut Vec<Value>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => object(at, old, new, operations),
        (Value::Array(old), Value::Array(new)) => list(at, old, new, operations),
        _ if old == new => {}
        _ => operations.push(json!({"op": "replace", "path": at, "value": new})),
    }
}

fn object(
    at: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    operations: &mut Vec<Value>,
) {
    let path = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    for (key, value) in old {
        match new.get(key) {
            Some(new) => walk(&path(key), value, new, operations),
            None => operations.push(json!({"op": "remove", "path": path(key)})),
        }
    }
    for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        operations.push(json!({"op": "add", "path": path(key), "value": value}));
    }
}

/// Items that are alike at both ends stay; what is between is changed, goes, or comes.
fn list(at: &str, old: &[Value], new: &[Value], operations: &mut Vec<Value>) {
    let alike = |pair: &(&Value, &Value)| are_alike(pair.0, pair.1);
    let before = old.iter().zip(new).take_while(alike).count();
    let most = old.len().min(new.len()) - before;
    let after = old.iter().rev().zip(new.iter().rev()).take(most).take_while(alike).count();
    // Up to here both have an item in each place.
    let shared = old.len().min(new.len()) - after;
    for index in 0..shared {
        walk(&format!("{at}/{index}"), &old[index], &new[index], operations);
    }
    // From the end, so that no place moves before its turn.
    for index in (shared..old.len() - after).rev() {
        operations.push(json!({"op": "remove", "path": format!("{at}/{index}")}));
    }
    for (index, value) in new.iter().enumerate().take(new.len() - after).skip(shared) {
        operations.push(json!({"op": "add", "path": format!("{at}/{index}"), "value": value}));
    }
    for back in (1..=after).rev() {
        let index = new.len() - back;
        walk(&format!("{at}/{index}"), &old[old.len() - back], &new[index], operations);
    }
}

/// Whether two items are the same thing, perhaps changed: containers and volumes have names.
fn are_alike(old: &Value, new: &Value) -> bool {
    let name = |value: &Value| value.get("name").cloned();
    old == new || (name(old).is_some() && name(old) == name(new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As another reader of patches applies it.
    fn patched(old: &Value, operations: Vec<Value>) -> Value {
        let patch: json_patch::Patch = serde_json::from_value(operations.into()).unwrap();
        let mut value = old.clone();
        json_patch::patch(&mut value, &patch).unwrap();
        value
    }

    #[test]
    fn it_says_what_changed_and_no_more() {
        let add = |path: &str, value: Value| json!({"op": "add", "path": path, "value": value});
        let server = json!({"name": "server", "ports": [1]});
        for (old, new, expected) in [
            (json!({"a": 1}), json!({"a": 1}), vec![]),
            (
                json!({"a": 1}),
                json!({"a": 2}),
                vec![json!({"op": "replace", "path": "/a", "value": 2})],
            ),
            (json!({"a": null}), json!({}), vec![json!({"op": "remove", "path": "/a"})]),
            (json!({}), json!({"x/y~z": null}), vec![add("/x~1y~0z", Value::Null)]),
            // A container that comes first leaves the others where they are.
            (
                json!([server]),
                json!([{"name": "ebbtide"}, {"name": "server", "ports": [1, 2]}]),
                vec![add("/0", json!({"name": "ebbtide"})), add("/1/ports/1", json!(2))],
            ),
            (
                json!([1, 2, 3, 4]),
                json!([1, 4]),
                vec![json!({"op": "remove", "path": "/2"}), json!({"op": "remove", "path": "/1"})],
            ),
            (json!([1]), json!([1, 1]), vec![add("/1", json!(1))]),
        ] {
            let operations = between(&old, &new);
            assert_eq!(operations, expected, "{old} {new}");
            assert_eq!(patched(&old, operations), new);
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let name = "[ab~/]{0,2}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_u8).prop_map(Value::from),
            name.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            let named = (name, inner.clone()).prop_map(|(n, v)| json!({"name": n, "value": v}));
            prop_oneof![
                proptest::collection::vec(prop_oneof![inner.clone(), named], 0..5)
                    .prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_leads_from_any_value_to_any_other(old in values(), new in values()) {
            prop_assert_eq!(patched(&old, between(&old, &new)), new);
        }
    }
}
