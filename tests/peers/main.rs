//! Real MCP clients through the real binary to real MCP servers: the same transcript with and
//! without ebbtide, and no call lost to a SIGTERM. Needs what `tests/setup` installs.
//!
//! Never waits for a time: only for a line, an answer or an end, each bounded so that a hang fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Only a test that hangs takes so long.
const HANG: Duration = Duration::from_mins(1);

fn peers() -> PathBuf {
    std::env::var_os("EBBTIDE_TEST_PEERS").map(PathBuf::from).expect(
        "EBBTIDE_TEST_PEERS is not set: run `make test`, or `EBBTIDE_TEST_PEERS=$(tests/setup)`",
    )
}

fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| {
        let program = command.get_program();
        panic!("{} does not start: {error}; run tests/setup again", program.display())
    })
}

/// A process that dies with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < HANG, "the process did not end");
            std::thread::yield_now();
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until_open(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < HANG, "nothing listens on port {port}");
        std::thread::yield_now();
    }
}

#[derive(Clone, Copy)]
enum Server {
    Everything,
    FastMcp,
}

impl Server {
    fn command(self, port: u16) -> Command {
        let folder = peers().join("servers");
        match self {
            Server::Everything => {
                let mut command = Command::new("node");
                let main = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";
                command.arg(folder.join("everything").join(main)).arg("streamableHttp");
                command.env("PORT", port.to_string());
                command
            }
            Server::FastMcp => {
                let mut command = Command::new(folder.join("fastmcp/venv/bin/python"));
                command.arg(folder.join("fastmcp/server.py")).arg(port.to_string());
                command
            }
        }
    }

    fn start(self) -> (Running, u16) {
        let port = free_port();
        let mut command = self.command(port);
        let child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        until_open(port);
        (Running(child), port)
    }
}

/// ebbtide before a server; its ports from its own log.
struct Ebbtide {
    process: Running,
    data: u16,
    log: mpsc::Receiver<String>,
}

impl Ebbtide {
    fn start(upstream: u16, server: Option<Command>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebbtide"));
        command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--upstream", &format!("http://127.0.0.1:{upstream}")]);
        if let Some(server) = server {
            command.arg("--").arg(server.get_program()).args(server.get_args());
            command.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut ebbtide = Self { process: Running(child), data: 0, log };
        let listening = ebbtide.logged("listening");
        let address = listening["data"].as_str().unwrap();
        ebbtide.data = address.rsplit_once(':').unwrap().1.parse().unwrap();
        // Serving: the upstream has answered.
        while ebbtide.logged("phase")["phase"] != "Serving" {}
        ebbtide
    }

    /// The next log line with that message.
    fn logged(&self, message: &str) -> Value {
        loop {
            let line = self.log.recv_timeout(HANG).expect("ebbtide logs on");
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == message {
                return line;
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Client {
    TypeScript1,
    TypeScript2,
    Python1,
    Python2,
    Rmcp,
}

impl Client {
    fn start(self, port: u16, what: &str) -> (Running, std::io::Lines<BufReader<ChildStdout>>) {
        let folder = peers().join("clients");
        let node = |name: &str| {
            let mut command = Command::new("node");
            command.arg(folder.join(name).join("client.mjs"));
            command
        };
        let python = |name: &str| {
            let mut command = Command::new(folder.join(name).join("venv/bin/python"));
            command.arg(folder.join(name).join("client.py"));
            command
        };
        let mut command = match self {
            Client::TypeScript1 => node("typescript-v1"),
            Client::TypeScript2 => node("typescript-v2"),
            Client::Python1 => python("python-v1"),
            Client::Python2 => python("python-v2"),
            Client::Rmcp => Command::new(folder.join("rmcp/bin/ebbtide-test-client")),
        };
        command.arg(format!("http://127.0.0.1:{port}/mcp")).arg(what);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (Running(child), lines)
    }

    /// Everything that the client prints while it takes every step.
    fn transcript(self, port: u16) -> Vec<Value> {
        let (mut process, lines) = self.start(port, "steps");
        let lines = lines.map_while(Result::ok);
        let transcript: Vec<Value> =
            lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
        assert!(process.ended().success(), "the client failed after {transcript:?}");
        transcript
    }
}

fn same_with_and_without(client: Client, server: Server) {
    let (_server, port) = server.start();
    let direct = client.transcript(port);
    let ebbtide = Ebbtide::start(port, None);
    assert_eq!(client.transcript(ebbtide.data), direct);
    assert_eq!(direct.last().unwrap()["step"], "terminated");
}

/// Runs a slow call, sends the signal once its progress shows that it runs; the call's last line.
fn signalled(
    client: Client,
    mut ebbtide: Ebbtide,
    signal: &str,
) -> (Option<Value>, ExitStatus, Ebbtide) {
    let (_client, mut lines) = client.start(ebbtide.data, "slow");
    let mut last = None;
    let mut sent = false;
    while let Some(Ok(line)) = lines.next() {
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["step"] == "progress" && !sent {
            ebbtide.process.signal(signal);
            sent = true;
        }
        if line["step"] != "terminated" {
            last = Some(line);
        }
        if sent && signal == "-KILL" {
            break;
        }
    }
    assert!(sent, "the call never ran");
    let status = ebbtide.process.ended();
    (last, status, ebbtide)
}

fn survives_sigterm(client: Client, server: Server) {
    let (_server, port) = server.start();
    let (last, status, ebbtide) = signalled(client, Ebbtide::start(port, None), "-TERM");
    assert_eq!(last.expect("the client saw something")["step"], "result");
    assert_eq!(status.code(), Some(0));
    let report = ebbtide.logged("drain report");
    assert_eq!((&report["cut"], &report["lost"]), (&Value::from(0), &Value::from(0)));
}

macro_rules! pairs {
    ($($name:ident: $client:ident, $server:ident;)*) => {
        mod same_transcript {
            use super::*;
            $(#[test] fn $name() { same_with_and_without(Client::$client, Server::$server); })*
        }
        mod sigterm_in_a_call {
            use super::*;
            $(#[test] fn $name() { survives_sigterm(Client::$client, Server::$server); })*
        }
    };
}

pairs! {
    typescript_v1_everything: TypeScript1, Everything;
    typescript_v2_everything: TypeScript2, Everything;
    python_v1_everything: Python1, Everything;
    python_v2_everything: Python2, Everything;
    rmcp_everything: Rmcp, Everything;
    typescript_v1_fastmcp: TypeScript1, FastMcp;
    typescript_v2_fastmcp: TypeScript2, FastMcp;
    python_v1_fastmcp: Python1, FastMcp;
    python_v2_fastmcp: Python2, FastMcp;
    rmcp_fastmcp: Rmcp, FastMcp;
}

/// As in a container's ENTRYPOINT: the server is ebbtide's child.
#[test]
fn a_supervised_server_is_stopped_after_the_call() {
    for server in [Server::Everything, Server::FastMcp] {
        let port = free_port();
        let ebbtide = Ebbtide::start(port, Some(server.command(port)));
        let (last, status, _) = signalled(Client::Python2, ebbtide, "-TERM");
        assert_eq!(last.unwrap()["step"], "result");
        assert_eq!(status.code(), Some(0));
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the server runs on");
    }
}

/// The harness sees a lost call: SIGKILL gives the proxy no chance.
#[test]
fn the_harness_notices_a_lost_call() {
    let (_server, port) = Server::FastMcp.start();
    let (last, status, _) = signalled(Client::Python2, Ebbtide::start(port, None), "-KILL");
    assert_ne!(last.unwrap()["step"], "result");
    assert_eq!(status.code(), None);
}
