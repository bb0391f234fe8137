//! What ebbtide reads of a real API server. The pod and its slices are the test's own: they are on
//! no node, so that nobody else writes them.

use std::{pin::Pin, time::Duration};

use ebbtide::{
    drain::knowledge::{Endpoints, Fact},
    kubernetes::{Cluster, Identity},
};
use futures_util::{Stream, StreamExt};
use kube::Config;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use crate::{kubectl::HANG, namespace::Namespace};

struct Followed {
    facts: Pin<Box<dyn Stream<Item = Fact>>>,
    urgent: watch::Sender<bool>,
    seen: Vec<Fact>,
}

impl Followed {
    /// Follows what is told of the pod; as the namespace's default service account, if asked.
    async fn start(namespace: &Namespace, as_the_account: bool) -> Self {
        let mut config = Config::infer().await.unwrap();
        if as_the_account {
            let account = format!("system:serviceaccount:{}:default", namespace.name);
            config.auth_info.impersonate = Some(account);
        }
        let uid = namespace.get(&["pod", "alone"])["metadata"]["uid"].clone();
        let identity = Identity {
            name: "alone".into(),
            namespace: namespace.name.clone(),
            uid: uid.as_str().unwrap().into(),
        };
        let (urgent, waits) = watch::channel(false);
        let facts = Box::pin(Cluster::connect(&config, identity).unwrap().facts(waits, None));
        Self { facts, urgent, seen: Vec::new() }
    }

    /// Waits for a fact.
    async fn until<T>(&mut self, what: &str, find: impl Fn(&Fact) -> Option<T>) -> T {
        loop {
            let next = timeout(HANG, self.facts.next()).await;
            let fact = next.unwrap_or_else(|_| panic!("{what} was never told: {:?}", self.seen));
            let fact = fact.expect("it goes on for ever");
            self.seen.push(fact);
            if let Some(found) = find(&fact) {
                return found;
            }
        }
    }

    async fn until_endpoints(&mut self, named: usize, offering: usize, terminating: bool) {
        let wanted = Fact::Endpoints(Some(Endpoints { named, offering, terminating }));
        self.until(&format!("{wanted:?}"), |fact| (*fact == wanted).then_some(())).await;
    }
}

/// A pod bound to a node that is not there; it stays until it is let go.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "alone", "finalizers": ["ebbtide.test/hold"] },
        "spec": {
            "nodeName": "nowhere", "terminationGracePeriodSeconds": 60,
            "containers": [{ "name": "c", "image": "ebbtide.test/nothing:1" }]
        }
    })
}

fn slice(name: &str, uid: &Value, conditions: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "endpoints": [
            { "addresses": ["10.9.9.8"], "conditions": { "ready": true } },
            { "addresses": ["10.9.9.9"], "conditions": conditions,
              "targetRef": { "kind": "Pod", "name": "alone", "uid": uid } }
        ],
        "ports": []
    })
}

fn let_go(namespace: &Namespace) {
    let free = "{\"metadata\":{\"finalizers\":null}}";
    namespace.kubectl(&["patch", "pod/alone", "--type=merge", "--patch", free]);
}

#[tokio::test]
async fn slices_and_the_pod_are_followed() {
    let namespace = Namespace::empty();
    namespace.apply(&pod());
    let mut followed = Followed::start(&namespace, false).await;
    followed.until_endpoints(0, 0, false).await;
    let uid = namespace.get(&["pod", "alone"])["metadata"]["uid"].clone();
    namespace.apply(&slice("one", &uid, &json!({ "ready": true, "terminating": false })));
    followed.until_endpoints(1, 1, false).await;
    // A second Service; the conditions are not known yet.
    namespace.apply(&slice("two", &uid, &json!({})));
    followed.until_endpoints(2, 2, false).await;
    namespace.apply(&slice("one", &uid, &json!({ "ready": false, "terminating": true })));
    followed.until_endpoints(2, 1, true).await;
    namespace.kubectl(&["delete", "endpointslice", "two"]);
    followed.until_endpoints(1, 0, true).await;

    namespace.kubectl(&["delete", "pod", "alone", "--wait=false"]);
    let deletion = |fact: &Fact| match fact {
        Fact::Pod(Some(pod)) => pod.deletion.map(|deletion| (deletion, pod.as_of)),
        _ => None,
    };
    let (first, seen) = followed.until("the deletion", deletion).await;
    assert!(first.kill_at <= seen + Duration::from_mins(1));
    // Told at once, so that the clock of the API server matters little.
    assert!(first.kill_at >= seen + Duration::from_secs(58), "{first:?} {seen:?}");
    namespace.kubectl(&["delete", "pod", "alone", "--wait=false", "--grace-period=5"]);
    let moved = |fact: &Fact| deletion(fact).filter(|(deletion, _)| *deletion != first);
    let (second, seen) = followed.until("the second deletion", moved).await;
    assert!(second.kill_at <= seen + Duration::from_secs(5), "{second:?}");
    assert!(second.kill_at < first.kill_at);
    let_go(&namespace);
}

/// With the right to get its Pod and no other: read when somebody waits.
#[tokio::test]
async fn a_pod_that_may_only_be_read_is_read() {
    let namespace = Namespace::empty();
    namespace.kubectl(&["create", "role", "reader", "--verb=get", "--resource=pods"]);
    let account = format!("--serviceaccount={}:default", namespace.name);
    namespace.kubectl(&["create", "rolebinding", "reader", "--role=reader", &account]);
    namespace.apply(&pod());
    let mut followed = Followed::start(&namespace, true).await;
    let alive = |fact: &Fact| match fact {
        Fact::Pod(Some(pod)) if pod.deletion.is_none() => Some(()),
        _ => None,
    };
    followed.until("the pod", alive).await;
    namespace.kubectl(&["delete", "pod", "alone", "--wait=false"]);
    followed.urgent.send_replace(true);
    let deletion = |fact: &Fact| match fact {
        Fact::Pod(Some(pod)) => pod.deletion,
        _ => None,
    };
    followed.until("the deletion", deletion).await;
    let slices = followed.seen.iter().any(|fact| matches!(fact, Fact::Endpoints(Some(_))));
    assert!(!slices, "the slices may not be read: {:?}", followed.seen);
    // The rights come late, and are used then.
    let verbs = "--verb=get,list,watch";
    namespace.kubectl(&[
        "create",
        "role",
        "w",
        verbs,
        "--resource=endpointslices.discovery.k8s.io",
    ]);
    namespace.kubectl(&["create", "rolebinding", "w", "--role=w", &account]);
    followed.until_endpoints(0, 0, false).await;
    let_go(&namespace);
}
