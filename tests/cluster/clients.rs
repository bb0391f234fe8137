//! Real SDK clients through rolling updates: each holds a session with its stream open, and calls a
//! slow tool with progress all the while. They run on this machine, by a command that enters a
//! network from which the cluster's Services can be reached.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    kubectl::{self, Following, until},
    manifest::Manifest,
    namespace::Namespace,
};

/// Each generation of each SDK; the second Python one speaks the modern era, the others hold
/// legacy sessions.
const CLIENTS: [(&str, &str); 5] = [
    ("typescript-v1", "hold.mjs"),
    ("typescript-v2", "hold.mjs"),
    ("python-v1", "hold.py"),
    ("python-v2", "hold.py"),
    ("rmcp", "hold"),
];

/// A client that calls until it is told to end.
struct Client {
    name: &'static str,
    said: Following,
    stop: ChildStdin,
}

impl Client {
    fn start(name: &'static str, program: &str, url: &str, milliseconds: u32) -> Self {
        let peers = std::env::var_os("EBBTIDE_TEST_PEERS").map(PathBuf::from);
        let folder = peers.expect("EBBTIDE_TEST_PEERS is not set").join("clients").join(name);
        let enter = std::env::var("EBBTIDE_TEST_ENTER").expect("EBBTIDE_TEST_ENTER is not set");
        let program = folder.join(program);
        let command: Vec<PathBuf> = match program.extension().and_then(OsStr::to_str) {
            Some("py") => vec![folder.join("venv/bin/python"), program],
            Some("mjs") => vec!["node".into(), program],
            _ => vec![folder.join("bin/ebbtide-test-client")],
        };
        let mut words = enter.split_whitespace();
        let mut call = Command::new(words.next().expect("EBBTIDE_TEST_ENTER is empty"));
        call.args(words).args(command).arg(url);
        if name == "rmcp" {
            call.arg("hold");
        }
        call.arg(milliseconds.to_string());
        call.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (said, stop) = Following::of(call);
        Self { name, said, stop }
    }

    /// The calls that have ended.
    fn calls(&self) -> Vec<Value> {
        let lines = self.said.lines();
        let calls = lines.iter().filter(|line| line.contains("\"call\""));
        calls.map(|line| kubectl::json(line)).collect()
    }

    /// Lets the last call end; what became of each.
    fn end(self) -> (&'static str, Vec<Value>) {
        drop(self.stop);
        (self.name, self.said.to_the_end().iter().map(|line| kubectl::json(line)).collect())
    }
}

/// Two clients of each kind, each with a session and its stream open, behind a Service that sends
/// every connection to whichever pod it likes. Each call takes `milliseconds`.
struct Clients(Vec<Client>);

impl Clients {
    fn of(namespace: &Namespace, milliseconds: u32) -> Self {
        let address = namespace.get(&["service", "mcp-server"])["spec"]["clusterIP"].clone();
        let url = format!("http://{}/mcp", address.as_str().unwrap());
        let start = |(name, program): &(&'static str, &str)| {
            Client::start(name, program, &url, milliseconds)
        };
        let clients: Vec<Client> = CLIENTS.iter().chain(&CLIENTS).map(start).collect();
        for client in &clients {
            client.said.until("\"ready\"");
        }
        Self(clients)
    }

    /// Waits until each has begun and ended another call. Of those that ended since `before`, two of
    /// each at most were lost.
    fn lose_little(&self, before: &[usize]) {
        for ((client, before), now) in self.0.iter().zip(before).zip(self.called()) {
            // The first to end may have begun before.
            until("two calls", || (client.calls().len() > now + 1).then_some(()));
            let mut lost = client.calls().split_off(*before);
            lost.retain(|call| !call["error"].is_null());
            assert!(lost.len() <= 2, "{}: {lost:?}", client.name);
        }
    }

    /// How many calls of each have ended.
    fn called(&self) -> Vec<usize> {
        self.0.iter().map(|client| client.calls().len()).collect()
    }

    /// The calls that were lost, and the sessions that had to be opened anew by their clients.
    fn lost(self) -> (Vec<String>, Vec<String>) {
        let (mut lost, mut opened) = (Vec::new(), Vec::new());
        for (name, lines) in self.0.into_iter().map(Client::end) {
            let of = |step: &'static str| lines.iter().filter(move |line| line["step"] == step);
            assert!(of("call").count() > 1, "{name} did not call: {lines:?}");
            let errors = of("call").filter(|call| !call["error"].is_null());
            lost.extend(errors.map(|call| format!("{name}: {call}")));
            opened.extend(of("session").map(|session| format!("{name}: {session}")));
        }
        (lost, opened)
    }
}

/// How many rolling updates in a row; more than the default to find what is rare.
fn rollouts() -> u32 {
    let set = std::env::var("EBBTIDE_TEST_ROLLOUTS").ok();
    set.map_or(2, |number| number.parse().expect("EBBTIDE_TEST_ROLLOUTS is no number"))
}

fn roll(namespace: &Namespace, times: u32) {
    for _ in 0..times {
        namespace.kubectl(&["rollout", "restart", "deployment/mcp-server"]);
        namespace.rolled_out();
        namespace.only_stay(3);
    }
}

#[test]
fn real_clients_keep_one_session_through_rolling_updates_and_scaling() {
    let namespace = Namespace::with(Manifest::native_sidecar().replicas(3));
    let clients = Clients::of(&namespace, 2000);
    roll(&namespace, rollouts());
    for replicas in ["6", "2"] {
        namespace.kubectl(&["scale", "deployment/mcp-server", "--replicas", replicas]);
        namespace.rolled_out();
        namespace.only_stay(replicas.parse().unwrap());
    }
    assert_eq!(clients.lost(), (vec![], vec![]));
}

/// What is in flight on it is lost, at most once more what its client sends in the same moment, and
/// nothing else.
#[test]
fn real_clients_survive_a_server_and_a_pod_that_are_killed() {
    let mut manifest = Manifest::native_sidecar().replicas(3);
    manifest.pod()["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    let namespace = Namespace::with(manifest);
    let clients = Clients::of(&namespace, 500);
    let ends = [("/crash", "Error"), ("/hoard", "OOMKilled"), ("/crash", "Error")];
    for (pod, (path, reason)) in namespace.pods(|_| true).iter().zip(ends) {
        let before = clients.called();
        // There is nobody left to answer.
        let _ = namespace.ask(pod, 3000, path);
        namespace.server_restarted(pod);
        let server = namespace.get(&["pod", pod])["status"]["containerStatuses"][0].take();
        assert_eq!(server["lastState"]["terminated"]["reason"], reason, "{server}");
        clients.lose_little(&before);
    }
    let pod = namespace.pods(|_| true).remove(0);
    let before = clients.called();
    namespace.kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"]);
    clients.lose_little(&before);
    namespace.only_stay(3);
    let (_, opened) = clients.lost();
    assert_eq!(opened, [""; 0]);
}

#[test]
fn real_clients_without_ebbtide_lose_calls() {
    let mut manifest = Manifest::without_ebbtide().replicas(3);
    // Else they could not even begin.
    manifest.service()["sessionAffinity"] = "ClientIP".into();
    let namespace = Namespace::with(manifest);
    let clients = Clients::of(&namespace, 2000);
    roll(&namespace, 2);
    let (lost, opened) = clients.lost();
    assert!(!lost.is_empty() && !opened.is_empty(), "{lost:?} {opened:?}");
}
