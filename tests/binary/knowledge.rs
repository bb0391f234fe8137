//! An API server that misbehaves, or that cannot be asked: what is not known from it is said so,
//! and used again once it is.

use std::{
    io::Write,
    net::TcpStream,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ebbtide::{
    drain::knowledge::{Endpoints, Fact},
    kubernetes::{Cluster, Identity},
};
use futures_util::{Stream, StreamExt};
use kube::Config;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use crate::{
    harness::{ANSWER, Ebbtide, HANG, server},
    rehearse::whole,
};

/// Answers by the number of the request: the script's own answer, or what a sound server says.
fn api(script: impl Fn(usize, &str) -> Option<String> + Send + Sync + 'static) -> u16 {
    let asked = Arc::new(AtomicUsize::new(0));
    server(move |stream, request| {
        let number = asked.fetch_add(1, Relaxed);
        match script(number, request) {
            Some(answer) => {
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            None => sound(stream, request),
        }
    })
}

fn sound(stream: &mut TcpStream, request: &str) {
    let path = request.split(' ').nth(1).unwrap();
    let watch = path.contains("watch=true");
    let _ = match (watch, path.contains("endpointslices")) {
        // Opened, and nothing happens.
        (true, _) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: \
                        chunked\r\n\r\n";
            stream.write_all(head.as_bytes())
        }
        (false, true) => stream.write_all(list("EndpointSlice", &json!([slice()])).as_bytes()),
        (false, false) if path.contains('?') => {
            stream.write_all(list("PartialObjectMetadata", &json!([pod()])).as_bytes())
        }
        (false, false) => stream.write_all(whole("200 OK", "", &pod().to_string()).as_bytes()),
    };
}

fn list(kind: &str, items: &Value) -> String {
    let list = json!({ "apiVersion": "v1", "kind": format!("{kind}List"),
        "metadata": { "resourceVersion": "7" }, "items": items });
    whole("200 OK", "", &list.to_string())
}

fn slice() -> Value {
    json!({ "metadata": { "name": "s", "resourceVersion": "1" },
        "endpoints": [{ "conditions": {}, "targetRef": { "uid": "u" } }] })
}

fn pod() -> Value {
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1" } })
}

fn follow(port: u16) -> (Pin<Box<dyn Stream<Item = Fact>>>, watch::Sender<bool>) {
    let config = Config::new(format!("http://127.0.0.1:{port}").parse().unwrap());
    let identity = Identity { name: "p".into(), namespace: "n".into(), uid: "u".into() };
    let (urgent, waits) = watch::channel(false);
    (Box::pin(Cluster::connect(&config, identity).unwrap().facts(waits, None)), urgent)
}

/// Waits until both are known.
async fn until_known(port: u16) -> Vec<Fact> {
    let (mut facts, _urgent) = follow(port);
    let mut seen = Vec::new();
    let offered = Fact::Endpoints(Some(Endpoints { named: 1, offering: 1, terminating: false }));
    while !(seen.contains(&offered) && seen.iter().any(|f| matches!(f, Fact::Pod(Some(_))))) {
        let next = timeout(HANG, facts.next()).await;
        seen.push(next.unwrap_or_else(|_| panic!("never known: {seen:?}")).unwrap());
    }
    seen
}

#[tokio::test]
async fn a_sound_api_server_is_believed() {
    let seen = until_known(api(|_, _| None)).await;
    assert!(!seen.contains(&Fact::Endpoints(None)), "{seen:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_not_known_and_is_asked_for_again() {
    let status = |code: u16| {
        let status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure",
            "code": code, "message": "no", "reason": "No" });
        whole(&format!("{code} Refused"), "", &status.to_string())
    };
    for bad in [
        status(401),
        status(403),
        status(500),
        whole("200 OK", "", "<html>nonsense</html>"),
        whole("200 OK", "", "{\"items\":7}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".into(),
        "not HTTP at all\r\n\r\n".into(),
        String::new(),
    ] {
        let told = bad.clone();
        let seen = until_known(api(move |number, _| (number < 2).then(|| bad.clone()))).await;
        let unknown = [Fact::Endpoints(None), Fact::Pod(None)];
        assert!(unknown.iter().any(|fact| seen.contains(fact)), "{told}: {seen:?}");
    }
}

/// Each watch is closed at once, and opened again at a pace.
#[tokio::test]
async fn a_server_that_closes_each_watch_is_not_hammered() {
    const WATCHES: usize = 25;
    let watches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&watches);
    let port = api(move |_, request| {
        request.contains("watch=true").then(|| {
            counted.fetch_add(1, Relaxed);
            whole("200 OK", "", "")
        })
    });
    let (mut facts, _urgent) = follow(port);
    let began = Instant::now();
    while watches.load(Relaxed) < WATCHES {
        assert!(began.elapsed() < HANG, "it gave up after {} watches", watches.load(Relaxed));
        // What was listed stays known, so that no news come: the stream has to be driven all the
        // same.
        drop(timeout(Duration::from_millis(50), facts.next()).await);
    }
    // At most ten requests in two seconds; no machine is too slow for that.
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

/// The next pod of a `StatefulSet` has the name of the one before it.
#[tokio::test]
async fn another_pod_of_the_same_name_tells_nothing() {
    let other = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "later" } });
    let port = api(move |_, request| {
        let reads = request.starts_with("GET /api/v1/namespaces/n/pods/p ");
        let lists = request.contains("/pods?") && !request.contains("watch=true");
        match (reads, lists) {
            (true, _) => Some(whole("200 OK", "", &other.to_string())),
            // The watch ends at once, and the Pod is read.
            (_, true) => Some(whole("500 No", "", "{}")),
            _ => None,
        }
    });
    let (mut facts, _urgent) = follow(port);
    loop {
        match timeout(HANG, facts.next()).await.expect("something is told").unwrap() {
            Fact::Pod(pod) => return assert_eq!(pod, None),
            Fact::Endpoints(_) => {}
        }
    }
}

/// The pod's spec lacks the fields of the downward API.
#[test]
fn a_pod_that_is_not_told_its_name_serves_and_says_what_to_add() {
    let upstream = server(|stream, _| drop(stream.write_all(ANSWER.as_bytes())));
    let environment =
        [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("POD_NAME", ""), ("HOSTNAME", "")];
    let mut ebbtide = Ebbtide::launch_in(&environment, upstream, &[]);
    let line = ebbtide.logged("who this pod is cannot be told; the drain goes by timers");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("POD_NAME") && error.contains("metadata.name"), "{error}");
    ebbtide.until_phase("Serving");
    assert_eq!(ebbtide.status()["knowledge"], "timers");
}
