//! A namespace of its own for each test, with an MCP server in it; deleted at the end. When the
//! test fails, all that its pods said is printed.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{
    kubectl::{Following, attempt, json, kubectl, until},
    manifest::Manifest,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Longer takes only what hangs.
const BOUND: &str = "--timeout=170s";

pub struct Namespace {
    pub name: String,
    /// What the pods that were there at the beginning say, to their end.
    pub log: Option<Following>,
}

impl Namespace {
    /// A namespace with the server in it, ready, and the log of its pods followed.
    pub fn with(manifest: Manifest) -> Self {
        let mut namespace = Self::empty();
        namespace.serve(manifest);
        namespace
    }

    /// Puts the server in, waits until it is ready, and follows the log of its pods.
    pub fn serve(&mut self, manifest: Manifest) {
        self.apply(&manifest.into_list());
        self.rolled_out();
        let from = ["logs", "--follow", "--all-containers", "--prefix", "--max-log-requests=20"];
        let of = ["--selector=app=mcp-server", "--namespace", &self.name];
        self.log = Some(Following::start(&[&from[..], &of].concat()));
    }

    pub fn empty() -> Self {
        // Never a cluster that happens to be kubectl's default.
        let set = std::env::var_os("KUBECONFIG").is_some();
        assert!(set, "KUBECONFIG is not set: `make test` leaves these tests out then");
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ebbtide-test-{:x}-{nanoseconds:x}-{count}", std::process::id());
        kubectl(&["create", "namespace", &name]);
        Self { name, log: None }
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[&["--namespace", &self.name], arguments].concat())
    }

    pub fn apply(&self, objects: &Value) {
        let arguments = ["--namespace", &self.name, "apply", "--filename", "-"];
        attempt(&arguments, Some(&objects.to_string())).unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn get(&self, what: &[&str]) -> Value {
        json(&self.kubectl(&[&["get", "--output", "json"], what].concat()))
    }

    pub fn wait(&self, what: &str, condition: &str) {
        self.kubectl(&["wait", what, "--for", condition, BOUND]);
    }

    /// Waits until the Deployment is what it was last told to be.
    pub fn rolled_out(&self) {
        self.kubectl(&["rollout", "status", "deployment/mcp-server", BOUND]);
    }

    /// Waits for a line of the pods' log.
    pub fn logged(&self, text: &str) -> String {
        self.log.as_ref().unwrap().until(text)
    }

    /// Waits until a pod has a call in it; which one.
    pub fn busy_pod(&self) -> String {
        let line = self.logged("/server] call slow");
        line.split('/').nth(1).unwrap().to_owned()
    }

    /// The pod of a single replica.
    pub fn only_pod(&self) -> String {
        let [pod] = &self.pods(|_| true)[..] else { panic!("this test is about a single replica") };
        pod.clone()
    }

    /// Waits until only so many pods stay, and the others are gone to the last container.
    pub fn only_stay(&self, number: usize) {
        let is_leaving = |pod: &Value| !pod["metadata"]["deletionTimestamp"].is_null();
        until("the pods leave", || {
            (self.pods(|pod| !is_leaving(pod)).len() == number).then_some(())
        });
        for pod in self.pods(is_leaving) {
            self.wait(&format!("pod/{pod}"), "delete");
        }
    }

    pub fn pods(&self, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
        let pods = self.get(&["pods", "--selector=app=mcp-server"]);
        let pods = pods["items"].as_array().unwrap().iter().filter(|pod| wanted(pod));
        pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the pod's server was restarted and the pod is ready again.
    pub fn server_restarted(&self, pod: &str) {
        self.restarted(pod, "containerStatuses");
    }

    /// The same for its native sidecar.
    pub fn sidecar_restarted(&self, pod: &str) {
        self.restarted(pod, "initContainerStatuses");
    }

    fn restarted(&self, pod: &str, statuses: &str) {
        let pod = format!("pod/{pod}");
        self.wait(&pod, &format!("jsonpath={{.status.{statuses}[0].restartCount}}=1"));
        self.wait(&pod, "condition=Ready");
    }

    /// What a GET to a port of the pod answers, asked through the API server.
    pub fn ask(&self, pod: &str, port: u16, path: &str) -> Result<String, String> {
        attempt(&["get", "--raw", &self.proxied(pod, port, path)], None)
    }

    /// The same for a POST, without a body.
    pub fn post(&self, pod: &str, port: u16, path: &str) -> Result<String, String> {
        let arguments = ["create", "--filename", "-", "--raw", &self.proxied(pod, port, path)];
        attempt(&arguments, None)
    }

    fn proxied(&self, pod: &str, port: u16, path: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}", self.name)
    }

    /// `GET /status` of the pod's sidecar.
    pub fn status(&self, pod: &str) -> Value {
        json(&self.ask(pod, 7071, "/status").unwrap())
    }

    /// The reasons of the Events that ebbtide wrote about the pod, in any order.
    pub fn reasons(&self, pod: &str) -> Vec<String> {
        let events = self.get(&["events.v1.events.k8s.io"]);
        let events = events["items"].as_array().unwrap().iter();
        let about = events.filter(|event| {
            event["regarding"]["name"] == pod && event["reportingController"] == "ebbtide"
        });
        about.map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn show(&self) {
        let attempt = |arguments: &[&str]| {
            let arguments = [&["--namespace", &self.name], arguments].concat();
            eprintln!("{}", attempt(&arguments, None).unwrap_or_else(|error| error));
        };
        attempt(&["get", "pods,endpointslices", "--output=wide"]);
        attempt(&["get", "events"]);
        eprintln!("What the first pods said:");
        for line in self.log.iter().flat_map(Following::lines) {
            eprintln!("{line}");
        }
        eprintln!("What those say that are there now:");
        let now = ["logs", "--all-containers", "--prefix", "--max-log-requests=20", "--tail=200"];
        attempt(&[&now[..], &["--selector=app=mcp-server"]].concat());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        let _ = attempt(&["delete", "namespace", &self.name, "--wait=false"], None);
    }
}
