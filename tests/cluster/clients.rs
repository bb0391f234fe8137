//! Real SDK clients through rolling updates: each holds a session with its stream open, and calls a
//! slow tool with progress all the while. They run on this machine, by a command that enters a
//! network from which the cluster's Services can be reached.

use std::{
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
};

use serde_json::Value;

use crate::{
    kubectl::{Following, json},
    manifest::Manifest,
    namespace::Namespace,
};

/// Each generation of each SDK; the second Python one speaks the modern era, the others hold
/// legacy sessions.
const CLIENTS: [(&str, &str); 4] = [
    ("typescript-v1", "hold.mjs"),
    ("typescript-v2", "hold.mjs"),
    ("python-v1", "hold.py"),
    ("python-v2", "hold.py"),
];

/// A client that calls until it is told to end.
struct Client {
    name: &'static str,
    said: Following,
    stop: ChildStdin,
}

impl Client {
    fn start(name: &'static str, program: &str, url: &str) -> Self {
        let peers = std::env::var_os("EBBTIDE_TEST_PEERS").map(PathBuf::from);
        let folder = peers.expect("EBBTIDE_TEST_PEERS is not set").join("clients").join(name);
        let enter = std::env::var("EBBTIDE_TEST_ENTER").expect("EBBTIDE_TEST_ENTER is not set");
        let runtime = if Path::new(program).extension().is_some_and(|end| end == "py") {
            folder.join("venv/bin/python")
        } else {
            "node".into()
        };
        let mut words = enter.split_whitespace();
        let mut command = Command::new(words.next().expect("EBBTIDE_TEST_ENTER is empty"));
        command.args(words).arg(runtime).arg(folder.join(program)).arg(url);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (said, stop) = Following::of(command);
        Self { name, said, stop }
    }

    /// Lets the last call end; what became of each.
    fn end(self) -> (&'static str, Vec<Value>) {
        drop(self.stop);
        (self.name, self.said.to_the_end().iter().map(|line| json(line)).collect())
    }
}

/// Two rolling updates in a row under two clients of each kind; the calls that were lost.
fn lost(mut manifest: Manifest) -> Vec<String> {
    // Until sessions can move between pods, a session's client has to come back to its pod.
    manifest.service()["sessionAffinity"] = "ClientIP".into();
    let namespace = Namespace::with(manifest.replicas(3));
    let address = namespace.get(&["service", "mcp-server"])["spec"]["clusterIP"].clone();
    let url = format!("http://{}/mcp", address.as_str().unwrap());
    let clients: Vec<Client> = CLIENTS
        .iter()
        .chain(&CLIENTS)
        .map(|(name, program)| Client::start(name, program, &url))
        .collect();
    for client in &clients {
        client.said.until("\"ready\"");
    }
    for _ in 0..2 {
        namespace.kubectl(&["rollout", "restart", "deployment/mcp-server"]);
        namespace.rolled_out();
        namespace.only_stay(3);
    }
    let mut lost = Vec::new();
    for (name, lines) in clients.into_iter().map(Client::end) {
        let calls: Vec<&Value> = lines.iter().filter(|line| line["step"] == "call").collect();
        assert!(calls.len() > 1, "{name} did not call: {lines:?}");
        let errors = calls.iter().filter(|call| !call["error"].is_null());
        lost.extend(errors.map(|call| format!("{name}: {call}")));
    }
    lost
}

#[test]
fn real_clients_lose_no_call_in_two_rolling_updates() {
    assert_eq!(lost(Manifest::native_sidecar()), [""; 0]);
}

#[test]
fn real_clients_without_ebbtide_lose_calls() {
    assert!(!lost(Manifest::without_ebbtide()).is_empty());
}
