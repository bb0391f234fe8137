//! "Invisible otherwise": the conformance suites find the same through ebbtide as without it, check
//! by check.
//!
//! Never asks a server to pass: what it fails directly it has to fail in the same way through us.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    harness::{Ebbtide, Running, Server, peers, spawn},
    rewriting,
};

/// A scenario that is flaky by itself differs now and then; one that ebbtide breaks always.
const ROUNDS: usize = 3;

#[derive(Clone, Copy)]
enum Suite {
    V1All,
    V2Legacy,
    V2Modern,
}

impl Suite {
    fn command(self) -> Command {
        let modules = peers().join("clients/conformance/node_modules");
        let mut command = Command::new(modules.join("node/bin/node"));
        let (package, arguments) = match self {
            Suite::V1All => ("conformance-v1", ["--suite", "all"]),
            Suite::V2Legacy => ("conformance-v2", ["--requirements", "2025-11-25"]),
            Suite::V2Modern => ("conformance-v2", ["--requirements", "2026-07-28"]),
        };
        command.arg(modules.join(package).join("dist/index.js")).arg("server").args(arguments);
        command
    }

    /// Fewer scenarios than there are in these versions mean that the suite did not run.
    fn scenarios(self) -> usize {
        match self {
            Suite::V1All => 32,
            Suite::V2Legacy => 33,
            Suite::V2Modern => 50,
        }
    }
}

/// What the checks of each scenario found, in their order: id, status and what was wrong.
type Results = BTreeMap<String, Vec<String>>;

fn run(suite: Suite, port: u16, folder: &str) -> Results {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = fs::remove_dir_all(&folder);
    let mut command = suite.command();
    // By name: the suite's checks of DNS rebinding need `localhost` in the Host header.
    command.args(["--url", &format!("http://localhost:{port}/mcp"), "--output-dir"]).arg(&folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // The exit code says whether all passed, which is not the question.
    Running(spawn(&mut command)).ended();
    let scenario = |folder: fs::DirEntry| {
        // `server-NAME-2026-11-25T18-58-22-909Z`
        let name = folder.file_name().into_string().unwrap();
        let name = name.strip_prefix("server-").unwrap().split("-20").next().unwrap().to_owned();
        let text = fs::read_to_string(folder.path().join("checks.json")).unwrap();
        let checks: Vec<Value> = serde_json::from_str(&text).unwrap();
        let check = |check: &Value| {
            let wrong = check["errorMessage"].as_str().unwrap_or_default();
            let wrong = wrong.replace(&port.to_string(), "PORT");
            format!("{} {} {wrong}", check["id"], check["status"])
        };
        (name, checks.iter().map(check).collect())
    };
    fs::read_dir(&folder).unwrap().map(|entry| scenario(entry.unwrap())).collect()
}

fn differing(one: &Results, other: &Results) -> BTreeSet<String> {
    let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

fn same_results(name: &str, suite: Suite, server: Server) {
    let (_server, port) = server.start();
    let ebbtide = Ebbtide::start(port, None);
    let mut suspects: Option<BTreeSet<String>> = None;
    let mut seen = String::new();
    for _ in 0..ROUNDS {
        let direct = run(suite, port, &format!("{name}-direct"));
        let through = run(suite, ebbtide.data, &format!("{name}-through"));
        assert_eq!(direct.len(), suite.scenarios(), "{:?}", direct.keys());
        let differing = differing(&direct, &through);
        for scenario in &differing {
            let (direct, through) = (direct.get(scenario), through.get(scenario));
            let _ = writeln!(seen, "{scenario}:\n  direct  {direct:#?}\n  through {through:#?}");
        }
        let left = match suspects {
            Some(suspects) => suspects.intersection(&differing).cloned().collect(),
            None => differing,
        };
        if left.is_empty() {
            return;
        }
        suspects = Some(left);
    }
    panic!("{suspects:?} differ in each of {ROUNDS} rounds\n{seen}");
}

macro_rules! suites {
    ($($name:ident: $suite:ident, $server:expr;)*) => {
        $(#[test] fn $name() { same_results(stringify!($name), Suite::$suite, $server); })*
    };
}

suites! {
    v1_everything: V1All, Server::Everything;
    v1_python: V1All, Server::Python("resumable");
    v1_typescript: V1All, Server::TypeScript;
    v1_rmcp: V1All, Server::Rmcp;
    v2_legacy_everything: V2Legacy, Server::Everything;
    v2_legacy_python: V2Legacy, Server::Python("resumable");
    v2_legacy_typescript: V2Legacy, Server::TypeScript;
    v2_modern_python: V2Modern, Server::Python("resumable");
    v2_modern_typescript: V2Modern, Server::TypeScript;
    v2_modern_rmcp: V2Modern, Server::Rmcp;
}

/// The comparison sees a proxy that breaks streams, and one that hides a refusal; not one that
/// only forwards.
#[test]
fn the_harness_notices_what_a_proxy_breaks() {
    let (_server, port) = Server::TypeScript.start();
    let through = |from, with| run(Suite::V1All, rewriting::start(port, from, with), "breaking");
    let direct = run(Suite::V1All, port, "unbroken");
    assert_eq!(direct["dns-rebinding-protection"].len(), 2);
    let broken = differing(&direct, &through("text/event-stream", "text/event-strean"));
    assert!(broken.contains("tools-call-with-progress"), "{broken:?}");
    let refusal = "HTTP/1.1 403 Forbidden";
    let broken = differing(&direct, &through(refusal, "HTTP/1.1 200 OK"));
    assert!(broken.contains("dns-rebinding-protection"), "{broken:?}");
}
