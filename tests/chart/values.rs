//! values.yaml, values.schema.json, Chart.yaml and README.md, and what helm and kubeconform say
//! about the whole.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::helm::{CHART, all_of, objects, refused, rendered, run, template};

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(CHART).join(name)).unwrap()
}

#[test]
fn what_nobody_knows_is_refused_at_every_level() {
    let defaults: Value = serde_yaml::from_str(&file("values.yaml")).unwrap();
    let mut levels = vec![String::new()];
    let mut checked = 0;
    while let Some(at) = levels.pop() {
        for (name, value) in defaults.pointer(&at).unwrap().as_object().unwrap() {
            // An empty mapping is labels, annotations or a selector: the user's own names.
            if value.as_object().is_some_and(|map| !map.is_empty()) && free(name) {
                levels.push(format!("{at}/{name}"));
            }
        }
        let mut values = json!({});
        let mut place = &mut values;
        for name in at.split('/').skip(1) {
            place = &mut place[name];
        }
        place["nobodyKnowsThis"] = 1.into();
        let error = refused(&values);
        assert!(error.contains("nobodyKnowsThis"), "{values}: {error}");
        checked += 1;
    }
    assert!(checked >= 12, "{checked}");
}

/// Mappings whose keys are not the chart's.
fn free(name: &str) -> bool {
    !["labels", "requests", "limits"].contains(&name)
}

#[test]
fn what_does_not_fit_is_refused() {
    for (values, named) in [
        (json!({"injection": {"mode": "magic"}}), "/injection/mode"),
        (json!({"injection": {"failurePolicy": "ignore"}}), "/injection/failurePolicy"),
        (json!({"injection": {"warn": "yes"}}), "/injection/warn"),
        (
            json!({"injection": {"namespaceSelector": {"labels": {}}}}),
            "/injection/namespaceSelector",
        ),
        (
            json!({"injection": {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "in"}]}}}),
            "operator",
        ),
        (json!({"rbac": {"bind": true}}), "/rbac/bind"),
        (json!({"rbac": {"namespaces": "a"}}), "/rbac/namespaces"),
        (json!({"rbac": {"namespaces": ["Not_A_Name"]}}), "/rbac/namespaces/0"),
        (json!({"rbac": {"namespaces": [{"serviceAccounts": ["a"]}]}}), "/rbac/namespaces/0"),
        (json!({"rbac": {"namespaces": [{"name": "a", "accounts": ["a"]}]}}), "accounts"),
        // Nobody, where somebody was meant to be named.
        (
            json!({"rbac": {"namespaces": [{"name": "a", "serviceAccounts": []}]}}),
            "/rbac/namespaces/0",
        ),
        (json!({"image": {"tag": 1}}), "/image/tag"),
        (json!({"image": {"digest": "latest"}}), "/image/digest"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "/image/pullPolicy"),
        (json!({"webhook": {"replicas": 0}}), "/webhook/replicas"),
        (json!({"webhook": {"timeoutSeconds": 31}}), "/webhook/timeoutSeconds"),
        (json!({"webhook": {"certificate": {"source": "magic"}}}), "/webhook/certificate/source"),
        (json!({"webhook": {"certificate": {"caBundle": "x"}}}), "/webhook/certificate/caBundle"),
        (
            json!({"webhook": {"certificate": {"issuerRef": {"nam": "x"}}}}),
            "/webhook/certificate/issuerRef",
        ),
        (json!({"webhook": {"tolerations": [{"effekt": "NoSchedule"}]}}), "/webhook/tolerations/0"),
        (
            json!({"monitoring": {"podMonitor": {"interval": "often"}}}),
            "/monitoring/podMonitor/interval",
        ),
        (json!({"networkPolicy": {"from": [{"pods": {}}]}}), "/networkPolicy/from/0"),
        (json!({"networkPolicy": {"from": [{}]}}), "/networkPolicy/from/0"),
        (json!({"commonLabels": {"a": 1}}), "/commonLabels/a"),
        (json!({"sidecar": {"resources": {"limits": {"cpus": "1"}}}}), "cpus"),
        (json!({"sidecar": {"resources": {"limits": {"cpu": "much"}}}}), "limits/cpu"),
        (
            json!({"injection": {"mode": "policy"}, "sidecar": {"resources": {"limits": {"cpu": "9m"}}}}),
            "the limit of cpu, 9m, is below what is requested of it, 10m",
        ),
        (
            json!({"injection": {"mode": "webhook"}, "sidecar": {"resources": {"requests": {"memory": "1Gi"}}}}),
            "the limit of memory, 128Mi, is below",
        ),
    ] {
        let error = refused(&values);
        assert!(error.contains(named), "{values}: {error}");
    }
}

/// Every value has its place in the schema, described, and every place a value.
#[test]
fn schema_and_values_know_the_same() {
    fn compare(schema: &Value, value: &Value, at: &str) {
        assert!(at.is_empty() || schema["description"].is_string(), "{at} has no description");
        let Some(properties) = schema["properties"].as_object() else { return };
        assert_eq!(schema["additionalProperties"], false, "{at}");
        // Of Kubernetes, or the user's own.
        let Some(value) = value.as_object().filter(|value| !value.is_empty()) else { return };
        for name in value.keys() {
            assert!(properties.contains_key(name), "{at}.{name} is not in the schema");
        }
        for (name, schema) in properties {
            let known = value.contains_key(name) || ["global", "claims"].contains(&name.as_str());
            assert!(known, "{at}.{name} is not in values.yaml");
            compare(schema, &value.get(name).cloned().unwrap_or_default(), &format!("{at}.{name}"));
        }
    }
    let schema = serde_json::from_str(&file("values.schema.json")).unwrap();
    compare(&schema, &serde_yaml::from_str(&file("values.yaml")).unwrap(), "");
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    for name in ["policy", "webhook", "none"] {
        let values = all_of(name).to_string();
        let linted = run(
            "helm",
            &["lint", "--strict", CHART, "--kube-version", "1.36.0", "--values", "-"],
            &values,
        );
        linted.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_version_of_kubernetes_and_every_operator_knows_every_field() {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart/schemas");
    let places = ["{{ .NormalizedKubernetesVersion }}", "custom"].map(|folder| {
        format!("{FOLDER}/{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json")
    });
    let issued_by = |issuer: Value| {
        let mut values = all_of("webhook");
        values["webhook"]["certificate"] = json!({"source": "certManager", "issuerRef": issuer});
        values
    };
    let check = |version: &str, text: &str| {
        let of = ["-kubernetes-version", version];
        let schemas = ["-schema-location", &places[0], "-schema-location", &places[1]];
        let arguments = [&["-strict", "-summary", "-exit-on-error"][..], &of, &schemas].concat();
        run("kubeconform", &arguments, text)
    };
    for (version, modes) in [
        ("1.33.0", &["webhook"][..]),
        ("1.34.0", &["webhook"]),
        ("1.35.0", &["webhook"]),
        ("1.36.0", &["webhook", "policy", "none"]),
    ] {
        for name in modes {
            let text = template(Path::new(CHART), version, &[], &all_of(name)).unwrap();
            check(version, &text).unwrap_or_else(|error| panic!("{version} {name}: {error}"));
        }
        for issuer in [json!({}), json!({"kind": "ClusterIssuer", "name": "x"})] {
            let text = template(Path::new(CHART), version, &[], &issued_by(issuer)).unwrap();
            check(version, &text).unwrap_or_else(|error| panic!("{version}: {error}"));
        }
    }
    // It can say no, and has a schema for each kind.
    let text = template(Path::new(CHART), "1.36.0", &[], &issued_by(json!({}))).unwrap();
    for (right, wrong) in [
        ("replicas: 2", "replica: 2"),
        ("podMetricsEndpoints:", "podMetricEndpoints:"),
        ("scheme: https", "scheme: ftp"),
        ("expr:", "expression:"),
        ("dnsNames:", "dnsName:"),
        ("selfSigned:", "selfsigned:"),
    ] {
        assert!(text.contains(right), "{right}: {text}");
        assert!(check("1.36.0", &text.replace(right, wrong)).is_err(), "{wrong}");
    }
    assert!(check("1.35.0", "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy, metadata: {name: x}, spec: {}}").is_err());
}

#[test]
fn kubernetes_that_is_too_old_is_refused() {
    let error = template(Path::new(CHART), "1.28.9", &[], &json!({})).unwrap_err();
    assert!(error.contains(">= 1.29"), "{error}");
}

#[test]
fn every_object_says_whose_it_is() {
    for name in ["policy", "webhook"] {
        for object in rendered(&all_of(name)) {
            let labels = &object["metadata"]["labels"];
            for (label, value) in [
                ("app.kubernetes.io/name", "ebbtide"),
                ("app.kubernetes.io/instance", "tide"),
                ("app.kubernetes.io/version", "0.1.0"),
                ("app.kubernetes.io/managed-by", "Helm"),
                ("team", "mcp"),
            ] {
                assert_eq!(labels[label], value, "{label}: {object:#}");
            }
            assert_eq!(object["metadata"]["annotations"]["note"], "x", "{object:#}");
        }
    }
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart: Value = serde_yaml::from_str(&file("Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
    let annotations = chart["annotations"].as_object().unwrap();
    for name in ["images", "changes", "crds"] {
        let text = annotations[&format!("artifacthub.io/{name}")].as_str().unwrap();
        assert!(objects(text)[0].is_array(), "{name}: {text}");
    }
    let images = annotations["artifacthub.io/images"].as_str().unwrap();
    assert!(images.contains(&format!("ghcr.io/ebbtide/ebbtide:{version}")), "{images}");
}

#[test]
fn the_readme_is_what_helm_docs_writes() {
    let there = std::process::Command::new("helm-docs").arg("--version").output().is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "helm-docs is not installed");
        eprintln!("helm-docs is not installed: README.md was not compared");
        return;
    }
    let written = run("helm-docs", &["--dry-run", "--chart-search-root", CHART], "").unwrap();
    assert_eq!(written.trim(), file("README.md").trim(), "run helm-docs in charts/");
}
