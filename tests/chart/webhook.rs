//! templates/webhook-*.yaml.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    helm::{
        CHART, NAMESPACE, all_of, mode, mode_with, objects, of_kind, only, refused, rendered, run,
        template,
    },
    policy::selects,
};

const NAME: &str = "tide-ebbtide-webhook";

fn webhook(values: &Value) -> Value {
    mode_with("webhook", &json!({"webhook": values}))
}

fn certificate(values: &Value) -> Value {
    webhook(&json!({"certificate": values}))
}

#[test]
fn nothing_of_it_is_there_in_the_other_modes() {
    for name in ["policy", "none"] {
        let objects = rendered(&all_of(name));
        let of_it: Vec<_> = objects
            .iter()
            .filter(|object| object["metadata"]["name"].as_str().unwrap().ends_with("webhook"))
            .collect();
        assert!(of_it.is_empty(), "{of_it:#?}");
        assert!(objects.iter().all(|object| object["kind"] != "MutatingWebhookConfiguration"));
    }
}

#[test]
fn the_deployment_passes_restricted_and_calls_the_program_as_it_wants() {
    let deployment = only(&mode("webhook"), "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["serviceAccountName"], NAME);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(
        container["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arg| arg.as_str().unwrap())
            .collect::<Vec<_>>()
            .join(" "),
        "webhook --listen 0.0.0.0:7443 --certificate /etc/ebbtide/tls/tls.crt --key \
         /etc/ebbtide/tls/tls.key --image ghcr.io/ebbtide/ebbtide:0.1.0 --mode native --requests \
         cpu=10m,memory=16Mi --limits memory=128Mi"
    );
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "metadata.namespace");
    assert_eq!(
        container["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = json!({"path": path, "port": "https", "scheme": "HTTPS"});
        assert_eq!(container[probe]["httpGet"], get);
    }
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/ebbtide/tls");
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], format!("{NAME}-tls"));
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(spread["labelSelector"], deployment["spec"]["selector"]);
}

#[test]
fn what_the_deployment_takes_from_the_values() {
    let pod = only(&all_of("webhook"), "Deployment")["spec"]["template"].clone();
    assert_eq!(pod["metadata"]["labels"]["a"], "b");
    assert_eq!(pod["metadata"]["annotations"], json!({"a": "b"}));
    for (field, value) in [
        ("imagePullSecrets", json!([{"name": "s"}])),
        ("nodeSelector", json!({"a": "b"})),
        ("tolerations", json!([{"key": "k", "operator": "Exists"}])),
        ("affinity", json!({"nodeAffinity": {}})),
        ("priorityClassName", json!("p")),
    ] {
        assert_eq!(pod["spec"][field], value, "{field}");
    }
}

#[test]
fn sidecars_get_the_resources_of_the_values() {
    let values = json!({"sidecar": {"resources": {
        "requests": {"cpu": 1, "memory": null}, "limits": {"cpu": "1500m", "ephemeral-storage": "1Gi"},
    }}});
    let values = mode_with("webhook", &values);
    let args = &only(&values, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"];
    let flags = args.as_array().unwrap()[11..].to_vec();
    let limits = "cpu=1500m,ephemeral-storage=1Gi,memory=128Mi";
    assert_eq!(flags, ["--requests", "cpu=1", "--limits", limits]);
    // As the program reads them.
    let error = run(
        env!("CARGO_BIN_EXE_ebbtide"),
        &["inject", "--requests", "cpu=1", "--limits", limits],
        "kind: List",
    );
    assert!(error.is_ok(), "{error:?}");
}

/// Selectors that do not select what they mean fail silently.
#[test]
fn service_budget_and_account_find_the_pods() {
    let values = mode("webhook");
    let labels = only(&values, "Deployment")["spec"]["template"]["metadata"]["labels"].clone();
    let service = only(&values, "Service");
    let budget = only(&values, "PodDisruptionBudget");
    for selector in [&service["spec"]["selector"], &budget["spec"]["selector"]["matchLabels"]] {
        let selector = selector.as_object().unwrap();
        assert!(selector.len() == 3 && selector.iter().all(|(name, value)| labels[name] == *value));
    }
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "https", "port": 443, "targetPort": "https"}])
    );
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    let account = only(&values, "ServiceAccount");
    assert_eq!(account["metadata"]["name"], NAME);
    assert_eq!(account["automountServiceAccountToken"], false);
    // With one replica, a budget would hold up every drain of a node.
    for without in [json!({"replicas": 1}), json!({"podDisruptionBudget": {"enabled": false}})] {
        assert!(of_kind(&webhook(&without), "PodDisruptionBudget").is_empty());
    }
}

#[test]
fn the_configuration_keeps_no_pod_from_starting() {
    let configuration = only(&mode("webhook"), "MutatingWebhookConfiguration");
    let webhooks = configuration["webhooks"].as_array().unwrap();
    selects(webhooks);
    let mut names = Vec::new();
    for webhook in webhooks {
        names.push(webhook["name"].as_str().unwrap());
        assert_eq!(webhook["failurePolicy"], "Ignore");
        assert_eq!(webhook["timeoutSeconds"], 5);
        assert_eq!(webhook["sideEffects"], "None");
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        assert_eq!(webhook["admissionReviewVersions"], json!(["v1"]));
        assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE"]));
        let service = &webhook["clientConfig"]["service"];
        assert_eq!(
            *service,
            json!({"name": NAME, "namespace": NAMESPACE, "path": "/mutate", "port": 443})
        );
    }
    assert_eq!(names, ["namespaces.inject.ebbtide.dev", "pods.inject.ebbtide.dev"]);
    let values = json!({"injection": {"mode": "webhook", "failurePolicy": "Fail"}, "webhook": {"timeoutSeconds": 3}});
    let webhook = &only(&values, "MutatingWebhookConfiguration")["webhooks"][1];
    assert_eq!(
        (&webhook["failurePolicy"], &webhook["timeoutSeconds"]),
        (&"Fail".into(), &3.into())
    );
}

#[test]
fn a_certificate_of_its_own_is_trusted_and_says_when_it_is_renewed() {
    let objects = rendered(&mode("webhook"));
    let find = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let secret = find("Secret");
    assert_eq!(secret["type"], "kubernetes.io/tls");
    for webhook in find("MutatingWebhookConfiguration")["webhooks"].as_array().unwrap() {
        assert_eq!(webhook["clientConfig"]["caBundle"], secret["data"]["ca.crt"]);
    }
    for entry in ["ca.crt", "tls.crt", "tls.key"] {
        // Of PEM's `-----`.
        assert!(secret["data"][entry].as_str().unwrap().starts_with("LS0tLS1"), "{entry}");
    }
    let at = |values| {
        let annotations = only(values, "Secret")["metadata"]["annotations"].clone();
        annotations["ebbtide.dev/renew-at"].as_str().unwrap().parse::<u64>().unwrap()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // In two thirds of 3 days, give or take an hour of rendering.
    let in_two_days = at(&certificate(&json!({"days": 3}))) - now;
    assert!((in_two_days).abs_diff(2 * 86_400) < 3_600, "{in_two_days}");
}

#[test]
fn cert_manager_makes_the_certificate_where_asked() {
    let values = certificate(&json!({"source": "certManager"}));
    let found = only(&values, "Certificate");
    let issuer = only(&values, "Issuer");
    assert_eq!(
        found["spec"]["issuerRef"],
        json!({"kind": "Issuer", "name": issuer["metadata"]["name"]})
    );
    let volumes = only(&values, "Deployment")["spec"]["template"]["spec"]["volumes"].clone();
    assert_eq!(volumes[0]["secret"]["secretName"], found["spec"]["secretName"]);
    assert_eq!(found["spec"]["dnsNames"][0], format!("{NAME}.{NAMESPACE}.svc"));
    let configuration = only(&values, "MutatingWebhookConfiguration");
    let from = &configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
    assert_eq!(*from, format!("{NAMESPACE}/{}", found["metadata"]["name"].as_str().unwrap()));
    assert!(configuration["webhooks"][0]["clientConfig"]["caBundle"].is_null());
    assert!(of_kind(&values, "Secret").is_empty());

    let own = json!({"name": "corporate", "kind": "ClusterIssuer"});
    let values = certificate(&json!({"source": "certManager", "issuerRef": own}));
    assert!(of_kind(&values, "Issuer").is_empty());
    assert_eq!(only(&values, "Certificate")["spec"]["issuerRef"], own);
}

#[test]
fn a_certificate_of_the_users_needs_its_authority() {
    let pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";
    let values = certificate(&json!({"source": "secret", "secretName": "mine", "caBundle": pem}));
    let webhook = &only(&values, "MutatingWebhookConfiguration")["webhooks"][0];
    let bundle = webhook["clientConfig"]["caBundle"].as_str().unwrap();
    assert!(bundle.starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"), "{bundle}");
    let volumes = only(&values, "Deployment")["spec"]["template"]["spec"]["volumes"].clone();
    assert_eq!(volumes[0]["secret"]["secretName"], "mine");
    assert!(of_kind(&values, "Secret").is_empty());
    for (without, named) in [
        (json!({"source": "secret", "caBundle": pem}), "webhook.certificate.secretName"),
        (json!({"source": "secret", "secretName": "mine"}), "webhook.certificate.caBundle"),
    ] {
        let error = refused(&certificate(&without));
        assert!(error.contains(named), "{error}");
    }
}

/// What an upgrade would restart: the pod's template may change with its own values alone.
#[test]
fn other_values_restart_no_pod() {
    let template_of = |values: &Value| {
        let mut deployment = only(values, "Deployment");
        deployment["spec"]["template"].take()
    };
    let before = template_of(&mode("webhook"));
    let more = json!({
        "commonLabels": {"a": "b"},
        "rbac": {"namespaces": ["a"]},
        "monitoring": {"dashboard": {"enabled": true}, "podMonitor": {"enabled": true}},
        "webhook": {"timeoutSeconds": 7, "replicas": 3},
    });
    assert_eq!(template_of(&mode_with("webhook", &more)), before);
    let chart = Path::new(CHART);
    let older = template(chart, "1.33.0", &[], &mode("webhook")).unwrap();
    let mut older =
        objects(&older).into_iter().find(|object| object["kind"] == "Deployment").unwrap();
    assert_eq!(older["spec"]["template"].take(), before);
}
