//! Reviews and what becomes of them, case by case; and that no review is ever refused.

use proptest::prelude::*;

use super::*;
use crate::cli::podspec::{Mode, RECORD, resources::Resources, tests::pods};

fn rules() -> Rules {
    let (image, resources) = ("registry.example/e:1".into(), Resources::default());
    let options = Options { mode: Mode::Native, image, port: None, resources, forgives: true };
    Rules { options, own: Some("ebbtide-system".into()) }
}

/// As the API server shows a pod that a `ReplicaSet` makes.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "mcp-5d9-", "labels": {"app": "a"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "mcp-5d9", "controller": true}],
        },
        "spec": {
            "containers": [
                {"name": "server", "image": "i", "ports": [{"name": "http", "containerPort": 3000}]},
            ],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        },
    })
}

fn review(object: &Value) -> Value {
    json!({"apiVersion": API, "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "default",
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "dryRun": false, "object": object,
    }})
}

/// A review with one thing changed, or taken away.
fn with(pointer: &str, value: Value) -> Value {
    changed(review(&pod()), pointer, value)
}

fn changed(mut review: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/");
    let parent = review.pointer_mut(parent).unwrap();
    if let (Value::Object(parent), Value::Null) = (&mut *parent, &value) {
        parent.remove(&key);
    } else {
        parent[key] = value;
    }
    review
}

fn answered(rules: &Rules, review: &Value) -> Answer {
    rules.answer(review.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {review}"))
}

/// The pod as the API server goes on with it, where there is a patch.
fn patched(answer: &Answer, pod: &Value) -> Option<Value> {
    let response = &answer.review["response"];
    let patch = BASE64_STANDARD.decode(response.get("patch")?.as_str().unwrap()).unwrap();
    assert_eq!(response["patchType"], "JSONPatch");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    Some(pod)
}

#[test]
fn a_pod_gets_what_inject_gives_it() {
    for mode in [Mode::Native, Mode::Classic] {
        let rules = Rules { options: Options { mode, ..rules().options }, ..rules() };
        let answer = answered(&rules, &review(&pod()));
        let mut expected = pod();
        podspec::inject(&mut expected, "ReplicaSet", &rules.options).unwrap();
        let after = patched(&answer, &pod()).unwrap();
        assert_eq!(after, expected);
        assert_ne!(after, pod());
        assert_eq!(answer.verdict, Verdict::Injected);
        assert_eq!((&*answer.pod, &*answer.owner), ("Pod/mcp-5d9-", "ReplicaSet/mcp-5d9"));
        let uid = "705ab4f5-6393-11e8-b7cc-42010a800002";
        assert_eq!(answer.review["apiVersion"], API);
        assert_eq!(answer.review["kind"], "AdmissionReview");
        assert_eq!(answer.review["response"]["uid"], uid);
        assert_eq!(answer.review["response"].get("warnings"), None);

        // Asked again, as after another webhook's change: that stays.
        let mut again = after;
        again["spec"]["initContainers"] = again["spec"]["initContainers"].clone();
        let ours = if mode == Mode::Native { "initContainers" } else { "containers" };
        again["spec"][ours][0]["resources"]["requests"]["cpu"] = "20m".into();
        let answer = answered(&rules, &review(&again));
        assert_eq!((answer.verdict, patched(&answer, &again)), (Verdict::Left, None));
    }
}

#[test]
fn what_becomes_of_a_review() {
    let object = "/request/object";
    let label = "/request/object/metadata/labels";
    let (injected, left, failed) = (Verdict::Injected, Verdict::Left, Verdict::Failed);
    let enabled = json!({ LABEL: "enabled" });
    let own_hook = json!({"preStop": {"exec": {"command": ["/bye"]}}});
    for (review, verdict, parts) in [
        (with("/request/dryRun", json!(true)), injected, &[][..]),
        (with(label, enabled.clone()), injected, &[]),
        (with(label, Value::Null), injected, &[]),
        (with(label, json!({ LABEL: "yes" })), injected, &["\"yes\"", "neither"]),
        (with(label, json!({ LABEL: "disabled" })), left, &[]),
        (
            with("/request/object/spec/containers/0/lifecycle", own_hook),
            Verdict::Unprotected,
            &["Pod/mcp-5d9-", "ebbtide drain --wait"],
        ),
        // Places that are never touched.
        (with("/request/namespace", json!("kube-system")), left, &[]),
        (with("/request/namespace", json!("ebbtide-system")), left, &[]),
        (
            changed(with("/request/namespace", json!("kube-system")), label, enabled.clone()),
            left,
            &["kube-system", "never"],
        ),
        (
            changed(
                with("/request/namespace", Value::Null),
                "/request/object/metadata/namespace",
                json!("kube-system"),
            ),
            left,
            &[],
        ),
        (with("/request/namespace", Value::Null), failed, &["namespace"]),
        // What podspec cannot do.
        (
            with("/request/object/spec/containers/0/ports", json!([{"containerPort": 3000}])),
            failed,
            &["Pod/mcp-5d9- comes without", "mcp or http", "config.ebbtide.dev/port"],
        ),
        (with("/request/object/spec/hostNetwork", json!(true)), failed, &["hostNetwork"]),
        (with("/request/object/spec/containers", json!("x")), failed, &["no pod"]),
        (with("/request/object/metadata", json!([1])), failed, &["metadata"]),
        (
            with("/request/object/metadata/annotations", json!({"config.ebbtide.dev/setle": "5s"})),
            failed,
            &["`setle`", "max_connections"],
        ),
        // Resources are no reason to go without: the default does.
        (
            with(
                "/request/object/metadata/annotations",
                json!({"config.ebbtide.dev/limits": "cpu=1O0m"}),
            ),
            injected,
            &["config.ebbtide.dev/limits", "`cpu=1O0m`", "default"],
        ),
        // An older injection is replaced; one that says more than we know is not.
        (with("/request/object/metadata/annotations", json!({VERSION: "0.0.1"})), injected, &[]),
        (with("/request/object/metadata/annotations", json!({RECORD: "{"})), failed, &[RECORD]),
        // An annotation alone is no sidecar.
        (
            with(
                "/request/object/metadata/annotations",
                json!({VERSION: env!("CARGO_PKG_VERSION")}),
            ),
            injected,
            &[],
        ),
        // What the webhook's configuration should not send.
        (with("/apiVersion", json!("admission.k8s.io/v1beta1")), failed, &["v1beta1", "[v1]"]),
        (with("/apiVersion", json!("v1")), failed, &["of v1;"]),
        (with("/kind", json!("Review")), failed, &["the review is Review"]),
        (with("/request/operation", json!("UPDATE")), failed, &["UPDATE", "[CREATE]"]),
        (with("/request/operation", json!("DELETE")), failed, &["DELETE"]),
        (with("/request/operation", Value::Null), failed, &["the operation is nothing"]),
        (with("/request/subResource", json!("status")), failed, &["status", "[pods]"]),
        (with(object, Value::Null), failed, &["no pod", "[pods]"]),
        (with(object, json!("x")), failed, &["no pod"]),
        (with(object, json!({})), failed, &["does not say"]),
        (
            with(object, json!({"apiVersion": "apps/v1", "kind": "Deployment"})),
            failed,
            &["a Deployment of apps/v1", "[pods]"],
        ),
    ] {
        let pod = &review["request"]["object"];
        let answer = answered(&rules(), &review);
        let response = &answer.review["response"];
        assert_eq!(answer.verdict, verdict, "{review:#}: {response}");
        assert_eq!(response["allowed"], true);
        let is_injected = matches!(verdict, Verdict::Injected | Verdict::Unprotected);
        assert_eq!(patched(&answer, pod).is_some(), is_injected, "{review:#}");
        let warnings = response["warnings"].as_array().cloned().unwrap_or_default();
        let warnings: Vec<_> = warnings.iter().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(warnings.is_empty(), parts.is_empty(), "{warnings:?}: {review:#}");
        // Each is read alone.
        assert!(warnings.iter().rev().skip(1).all(|it| it.ends_with('.')), "{warnings:#?}");
        for part in parts {
            assert!(warnings.join(" ").contains(part), "{warnings:?} lacks {part}");
        }
    }
}

#[test]
fn an_answer_speaks_the_version_that_was_asked_in() {
    let answer = answered(&rules(), &with("/apiVersion", json!("admission.k8s.io/v1beta1")));
    assert_eq!(answer.review["apiVersion"], "admission.k8s.io/v1beta1");
    let answer = answered(&rules(), &with("/apiVersion", json!("v1")));
    assert_eq!(answer.review["apiVersion"], API);
}

#[test]
fn who_made_the_pod_tells_whether_it_ends() {
    let rules = Rules { options: Options { mode: Mode::Classic, ..rules().options }, ..rules() };
    let owner =
        |kind: &str, controller: bool| json!({"kind": kind, "name": "n", "controller": controller});
    for (owners, verdict) in [
        (json!([owner("ReplicaSet", true)]), Verdict::Injected),
        (json!([owner("Job", true)]), Verdict::Failed),
        (json!([owner("Job", false), owner("StatefulSet", true)]), Verdict::Injected),
        (json!([owner("Job", false)]), Verdict::Failed),
        (Value::Null, Verdict::Injected),
        (json!("x"), Verdict::Injected),
    ] {
        let review = with("/request/object/metadata/ownerReferences", owners.clone());
        let answer = answered(&rules, &review);
        assert_eq!(answer.verdict, verdict, "{owners}: {:?}", answer.said);
    }
}

#[test]
fn what_cannot_be_answered_says_why() {
    for (body, part) in [
        ("", "no JSON"),
        ("{\"apiVersion\": \"admission.k8s.io/v1\", \"kind\": \"Admi", "no JSON"),
        ("[]", "request.uid"),
        ("null", "request.uid"),
        ("{\"request\": {}}", "request.uid"),
        ("{\"request\": {\"uid\": \"\"}}", "request.uid"),
        ("{\"request\": {\"uid\": 7}}", "request.uid"),
    ] {
        let error = rules().answer(body.as_bytes()).unwrap_err();
        assert!(error.contains(part) && error.contains(API), "{body}: {error}");
    }
    assert!(rules().answer(b"\xff\xfe").unwrap_err().contains("no JSON"));
    let deep = "[".repeat(100_000);
    assert!(rules().answer(deep.as_bytes()).unwrap_err().contains("no JSON"));
}

/// Every place of a value, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                places(value, &format!("{at}/{}", key.replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn any_pod_gets_what_inject_gives_it(pod in pods(), native: bool) {
        let mut pod = pod;
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        let mode = if native { Mode::Native } else { Mode::Classic };
        let rules = Rules { options: Options { mode, ..rules().options }, ..rules() };
        let answer = answered(&rules, &review(&pod));
        let mut expected = pod.clone();
        podspec::inject(&mut expected, "Pod", &rules.options).unwrap();
        let after = patched(&answer, &pod).unwrap();
        prop_assert_eq!(&after, &expected);
        let again = answered(&rules, &review(&after));
        prop_assert_eq!((again.verdict, patched(&again, &after)), (Verdict::Left, None));
    }

    /// Whatever stands wherever: an answer that lets the pod through, or a word why there is none.
    #[test]
    fn no_review_is_refused(pod in pods(), place: prop::sample::Index, junk in 0..8_usize) {
        let mut pod = pod;
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        podspec::inject(&mut pod, "Pod", &rules().options).unwrap();
        pod["metadata"]["annotations"][VERSION] = "0.0.1".into();
        let mut review = review(&pod);
        let mut found = Vec::new();
        places(&review, "", &mut found);
        let junk = [json!(null), json!("x"), json!(-1), json!(1e300), json!([]), json!({}), json!([null]), json!({"a": [1]})][junk].clone();
        *review.pointer_mut(place.get::<String>(&found)).unwrap() = junk;
        match rules().answer(review.to_string().as_bytes()) {
            Ok(answer) => {
                prop_assert_eq!(&answer.review["response"]["allowed"], true);
                prop_assert_eq!(&answer.review["response"]["uid"], &review["request"]["uid"]);
                patched(&answer, &review["request"]["object"]);
            }
            Err(problem) => prop_assert!(problem.contains("request.uid"), "{}", problem),
        }
    }
}
