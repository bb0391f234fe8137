//! charts/ebbtide, installed with helm: pods get their sidecar, the same that `ebbtide inject`
//! gives them, roll without a loss, and nothing stays behind.

mod installation;
mod pods;

use serde_json::json;

use self::{
    installation::{Installation, Mode},
    pods::{
        assert_same, injected, is_injected, plain, pods, pods_forgiven, pods_left_alone,
        restricted_pod, with, workload,
    },
};
use crate::{
    kubectl::{kubectl, until},
    manifest::Manifest,
    namespace::Namespace,
};

fn it_gives_what_inject_gives(mode: Mode) {
    let (labelled, other) = (Namespace::empty(), Namespace::empty());
    let installation = Installation::new(mode, &labelled);
    let pods = pods();
    let expected: Vec<_> = pods.iter().map(|pod| injected(pod).unwrap()).collect();
    let (expected, _) = other.all_admitted(&expected);
    let (found, said) = labelled.all_admitted(&pods);
    // The webhook has more to say, also of pods that it injects.
    assert!(mode != Mode::Policy || !said.contains("Warning"), "{said}");
    for ((pod, found), expected) in pods.iter().zip(&found).zip(&expected) {
        assert!(is_injected(expected));
        assert_same(found, expected, pod);
    }
    assert!(!other.all_admitted(&pods).0.iter().any(is_injected));

    let (pods, reasons): (Vec<_>, Vec<_>) = pods_left_alone().into_iter().unzip();
    let (found, expected) = (labelled.all_admitted(&pods).0, other.all_admitted(&pods).0);
    for ((pod, found), expected) in pods.iter().zip(&found).zip(&expected) {
        assert_same(found, expected, pod);
        assert!(injected(pod).map_or(true, |same| same["spec"] == pod["spec"]), "{pod}");
    }
    for (pod, why) in pods.iter().zip(reasons).filter(|_| mode == Mode::Policy) {
        let said = labelled.admitted(pod).unwrap().1;
        let warned = said.contains("these pods get no ebbtide sidecar");
        assert!(warned != why.is_empty() && said.contains(why), "{said} lacks {why}: {pod}");
    }
    let expected = other.admitted(&injected(&plain()).unwrap()).unwrap().0;
    for (pod, why) in pods_forgiven() {
        let (found, said) = labelled.admitted(&pod).unwrap();
        let at = "/spec/initContainers/0/resources";
        assert_eq!(found.pointer(at), expected.pointer(at), "{pod}");
        assert!(said.contains(why) && said.contains("default"), "{said} lacks {why}: {pod}");
        assert!(injected(&pod).unwrap_err().contains(why), "{pod}");
    }
    // Where every container has to have a limit, the annotation gives ours one.
    labelled
        .apply(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "cpu"},
        "spec": {"hard": {"limits.cpu": "2"}}}));
    let mut counted = with(&[("/spec/containers/0/resources", json!({"limits": {"cpu": "1"}}))]);
    until("the quota is counted", || labelled.admitted(&counted).is_err().then_some(()));
    counted["metadata"]["annotations"] = json!({"config.ebbtide.dev/limits": "cpu=100m"});
    until("it fits the quota", || labelled.admitted(&counted).is_ok().then_some(()));
    labelled.kubectl(&["delete", "resourcequota/cpu"]);
    // Once is enough.
    let once = labelled.admitted(&injected(&plain()).unwrap()).unwrap().0;
    assert_eq!(once["spec"]["initContainers"].as_array().unwrap().len(), 1);
    // Pods come from controllers: whoever applies these is told.
    for (kind, wrap) in [("apps/v1/Deployment", "template"), ("batch/v1/CronJob", "jobTemplate")] {
        for (port, warned) in [("mcp", false), ("web", true)] {
            let object = workload(kind, wrap, port);
            let said = labelled.admitted(&object).unwrap().1;
            let warned = warned && mode == Mode::Policy;
            assert_eq!(said.contains("no port is named mcp or http"), warned, "{said}: {object}");
        }
    }
    let mut keeps = workload("apps/v1/Deployment", "template", "mcp");
    for (hook, waits) in [
        (json!({"sleep": {"seconds": 1}}), false),
        (json!({"exec": {"command": ["/ebbtide", "drain"]}}), false),
        (json!({"exec": {"command": ["sh", "-c", "/prestop.sh"]}}), false),
        (json!({"exec": {"command": ["/ebbtide", "drain", "--wait"]}}), true),
        (json!({"exec": {"command": ["sh", "-c", "flush; curl localhost:7071/prestop"]}}), true),
        (json!({"httpGet": {"path": "/prestop", "port": 7071}}), true),
    ] {
        keeps["spec"]["template"]["spec"]["containers"][0]["lifecycle"] =
            json!({ "preStop": hook });
        let said = labelled.admitted(&keeps).unwrap().1;
        let warned = !waits && mode == Mode::Policy;
        assert_eq!(said.contains("keeps its own preStop hook"), warned, "{said}: {keeps}");
    }
    // A namespace that says nothing: the label on the pod counts.
    kubectl(&["label", "namespace", &labelled.name, "ebbtide.dev/inject-"]);
    let yes = with(&[("/metadata/labels", json!({"ebbtide.dev/inject": "enabled"}))]);
    until("the namespace's label is gone", || {
        (!is_injected(&labelled.admitted(&plain()).unwrap().0)).then_some(())
    });
    assert!(is_injected(&labelled.admitted(&yes).unwrap().0));
    installation.uninstall();
}

/// From `helm install` to `helm uninstall`, in a `restricted` namespace.
fn its_whole_life(mode: Mode) {
    let mut namespace = Namespace::empty();
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(&["label", "namespace", &namespace.name, restricted]);
    let installation = Installation::new(mode, &namespace);
    // Of the manifest only what a user has: its own account may look at nothing.
    let manifest = Manifest::without_ebbtide()
        .without_rights()
        .replicas(2)
        .asks("secret", "keys")
        .asks("session_key_file", "/etc/ebbtide/secret/session");
    // It starts only with a file that it can read.
    namespace.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "stringData": {"session": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}}));
    namespace.serve(manifest);

    let load = namespace.rehearse(2_000);
    namespace.kubectl(&["rollout", "restart", "deployment/mcp-server"]);
    namespace.rolled_out();
    namespace.only_stay(2);
    load.end().assert_nothing_lost();
    let pods = namespace.get(&["pods", "--selector=app=mcp-server"]);
    assert!(pods["items"].as_array().unwrap().iter().all(is_injected), "{pods}");
    // By the chart's RoleBinding.
    let pod = &namespace.pods(|_| true)[0];
    until("the pod is watched", || (namespace.status(pod)["knowledge"] == "pod").then_some(()));

    // The older values, and one more: nothing restarts.
    let before = (namespace.uids("app=mcp-server"), installation.namespace.uids(""));
    let mut values = installation.values.clone();
    values["monitoring"] = json!({"dashboard": {"enabled": true}});
    values["injection"]["failurePolicy"] = "Fail".into();
    installation.helm("upgrade", &values, &["--wait"]);
    installation.namespace.get(&["configmap", "tide-ebbtide-dashboard"]);
    assert_eq!((namespace.uids("app=mcp-server"), installation.namespace.uids("")), before);
    assert!(is_injected(&namespace.admitted(&restricted_pod()).unwrap().0));

    assert!(!installation.objects().is_empty());
    installation.uninstall();
    // The webhook's pods leave after their Deployment.
    until("nothing is left", || installation.objects().is_empty().then_some(()));
    assert_eq!(namespace.uids("app=mcp-server"), before.0);
    until("nobody injects", || {
        (!is_injected(&namespace.admitted(&restricted_pod()).unwrap().0)).then_some(())
    });
}

#[test]
fn the_policy_gives_what_inject_gives() {
    it_gives_what_inject_gives(Mode::Policy);
}

#[test]
fn the_policy_from_install_to_uninstall() {
    its_whole_life(Mode::Policy);
}

#[test]
fn the_webhook_gives_what_inject_gives() {
    it_gives_what_inject_gives(Mode::Webhook);
}

#[test]
fn the_webhook_from_install_to_uninstall() {
    its_whole_life(Mode::Webhook);
}

#[test]
fn pods_start_without_a_webhook_that_is_down() {
    let namespace = Namespace::empty();
    let installation = Installation::new(Mode::Webhook, &namespace);
    assert!(is_injected(&namespace.admitted(&plain()).unwrap().0));
    let down = ["scale", "deployment/tide-ebbtide-webhook", "--replicas=0"];
    installation.namespace.kubectl(&down);
    until("pods start without it", || {
        (!is_injected(&namespace.admitted(&plain()).unwrap().0)).then_some(())
    });
    installation.uninstall();
}

/// No pod starts without its sidecar while the webhook's pods take a new certificate up.
#[test]
fn the_webhooks_certificate_is_rotated_under_load() {
    let namespace = Namespace::empty();
    let mut installation = Installation::new(Mode::Webhook, &namespace);
    // An answer that is not trusted would then be an error here.
    installation.values["injection"]["failurePolicy"] = "Fail".into();
    let due = ["annotate", "--overwrite", "secret/tide-ebbtide-webhook-tls"];
    installation.namespace.kubectl(&[&due[..], &["ebbtide.dev/renew-at=1"]].concat());
    installation.helm("upgrade", &installation.values, &["--wait"]);
    until("both pods have the new certificate", || {
        assert!(is_injected(&namespace.admitted(&plain()).unwrap().0));
        let pods = ["logs", "--prefix", "--selector=app.kubernetes.io/component=webhook"];
        let log = installation.namespace.kubectl(&[&pods[..], &["--tail=-1"]].concat());
        (log.matches("certificate loaded").count() >= 4).then_some(())
    });
    assert!(is_injected(&namespace.admitted(&plain()).unwrap().0));
    installation.uninstall();
}

/// Where Helm makes the webhook's certificate: kept over upgrades, renewed when its time has come,
/// and the old authority is trusted until the pods see the new certificate.
#[test]
fn the_webhooks_certificate_is_kept_until_it_is_to_be_renewed() {
    let installation = Installation::prepared(Mode::Webhook);
    let certificate =
        || ["ca.crt", "tls.crt", "tls.key"].map(|name| installation.certificate(name));
    let upgrade = || installation.helm("upgrade", &installation.values, &[]);
    // Whether its pods run is nothing to this test.
    installation.helm("install", &installation.values, &[]);
    let first = certificate();
    upgrade();
    assert_eq!(certificate(), first);
    assert_eq!(installation.trusted(), first[0]);

    let due = ["annotate", "--overwrite", "secret/tide-ebbtide-webhook-tls"];
    installation.namespace.kubectl(&[&due[..], &["ebbtide.dev/renew-at=1"]].concat());
    upgrade();
    let second = certificate();
    assert!(first.iter().zip(&second).all(|(first, second)| first != second));
    assert_eq!(installation.trusted(), second[0].clone() + &first[0]);
    upgrade();
    assert_eq!(certificate(), second);
    assert_eq!(installation.trusted(), second[0]);
    installation.uninstall();
    // The webhook's pods leave after their Deployment.
    until("nothing is left", || installation.objects().is_empty().then_some(()));
}
