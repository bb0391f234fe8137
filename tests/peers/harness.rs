//! Processes: the real servers, ebbtide before them, the real clients; each dies with its test.
//!
//! Never waits for a time: only for a line, an answer or an end, each bounded so that a hang fails.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Only a test that hangs takes so long.
pub const HANG: Duration = Duration::from_mins(1);

pub fn peers() -> PathBuf {
    std::env::var_os("EBBTIDE_TEST_PEERS").map(PathBuf::from).expect(
        "EBBTIDE_TEST_PEERS is not set: run `make test`, or `EBBTIDE_TEST_PEERS=$(tests/setup)`",
    )
}

pub fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| {
        let program = command.get_program();
        panic!("{} does not start: {error}; run tests/setup again", program.display())
    })
}

/// Between two looks at a state: whoever is waited for needs the processor.
pub fn step_aside() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// A process that dies with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < HANG, "the process did not end");
            step_aside();
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn until_open(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < HANG, "nothing listens on port {port}");
        step_aside();
    }
}

#[derive(Clone, Copy)]
pub enum Server {
    Everything,
    FastMcp,
    /// By the Python SDK alone; its modes are those of its server.py.
    Python(&'static str),
    TypeScript,
    Rmcp,
}

impl Server {
    pub fn command(self, port: u16) -> Command {
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
            Server::Python(mode) => {
                let mut command = Command::new(peers().join("clients/python-v2/venv/bin/python"));
                command.arg(folder.join("python-v2/server.py")).arg(port.to_string()).arg(mode);
                command
            }
            Server::TypeScript => {
                let mut command = Command::new("node");
                command.arg(folder.join("typescript-v2/server.mjs")).arg(port.to_string());
                command
            }
            Server::Rmcp => {
                let mut command = Command::new(folder.join("rmcp/bin/mcp-server"));
                command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
                command
            }
        }
    }

    pub fn start(self) -> (Running, u16) {
        let port = free_port();
        (self.start_on(port), port)
    }

    pub fn start_on(self, port: u16) -> Running {
        let mut command = self.command(port);
        let child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        until_open(port);
        Running(child)
    }
}

/// ebbtide before a server; its ports from its own log.
pub struct Ebbtide {
    pub process: Running,
    pub data: u16,
    admin: u16,
    log: mpsc::Receiver<String>,
}

impl Ebbtide {
    pub fn start(upstream: u16, server: Option<Command>) -> Self {
        Self::launch(0, upstream, &[], server)
    }

    /// Port 0 is any.
    pub fn launch(port: u16, upstream: u16, flags: &[&str], server: Option<Command>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebbtide"));
        command.args(["run", "--listen", &format!("127.0.0.1:{port}"), "--admin", "127.0.0.1:0"]);
        command.args(flags);
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
        let mut ebbtide = Self { process: Running(child), data: 0, admin: 0, log };
        let listening = ebbtide.logged("listening");
        let port = |address: &Value| {
            address.as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
        };
        ebbtide.data = port(&listening["data"]);
        ebbtide.admin = port(&listening["admin"]);
        // Serving: the upstream has answered.
        ebbtide.until_phase("Serving");
        ebbtide
    }

    pub fn until_phase(&self, phase: &str) {
        while self.logged("phase")["phase"] != phase {}
    }

    pub fn status(&self) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        let request = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The next log line with that message.
    pub fn logged(&self, message: &str) -> Value {
        loop {
            let line = self.log.recv_timeout(HANG).expect("ebbtide logs on");
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == message {
                return line;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    TypeScript1,
    TypeScript2,
    Python1,
    Python2,
    Rmcp,
}

impl Client {
    pub fn start(self, port: u16, what: &str) -> (Running, std::io::Lines<BufReader<ChildStdout>>) {
        let mut command = self.command(&format!("http://127.0.0.1:{port}/mcp"), what);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (Running(child), lines)
    }

    pub fn command(self, url: &str, what: &str) -> Command {
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
        command.arg(url).arg(what);
        command
    }

    /// Everything that the client prints while it takes every step.
    pub fn transcript(self, port: u16) -> Vec<Value> {
        let (mut process, lines) = self.start(port, "steps");
        let lines = lines.map_while(Result::ok);
        let transcript: Vec<Value> =
            lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
        assert!(process.ended().success(), "the client failed after {transcript:?}");
        transcript
    }
}
