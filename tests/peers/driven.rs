//! A real client that does what it is told, and what it saw.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Client, HANG, Running, spawn};

/// The transport, and of streamable HTTP the era.
#[derive(Clone, Copy)]
pub enum Kind {
    Legacy,
    Modern,
    Sse,
}

pub struct Driven {
    _process: Running,
    input: ChildStdin,
    lines: mpsc::Receiver<(Instant, Value)>,
    commands: u64,
}

/// A command that was given.
#[derive(Clone, Copy)]
pub struct Given(u64);

/// What became of a command, in words that do not depend on the run.
pub struct Saw {
    pub what: String,
    /// None: nothing came.
    pub at: Option<Instant>,
}

/// What the page calls a command that nothing became of.
pub const HANGS: &str = "nothing: it hangs";

impl Driven {
    pub fn start(client: Client, kind: Kind, port: u16) -> Self {
        let (path, kind) = match kind {
            Kind::Legacy => ("mcp", "legacy"),
            Kind::Modern => ("mcp", "modern"),
            Kind::Sse => ("sse", "sse"),
        };
        let mut command = client.command(&format!("http://127.0.0.1:{port}/{path}"), kind);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(command);
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_default();
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Self { _process: Running(child), input, lines, commands: 0 }
    }

    /// A client that is connected.
    pub fn connected(client: Client, kind: Kind, port: u16) -> Self {
        let mut driven = Self::start(client, kind, port);
        let connect = driven.connect();
        driven.until(connect, "connected");
        driven
    }

    pub fn connect(&mut self) -> Given {
        self.give(json!({ "do": "connect" }))
    }

    pub fn listen(&mut self) -> Given {
        self.give(json!({ "do": "listen" }))
    }

    pub fn echo(&mut self) -> Given {
        let arguments = json!({ "message": "hi" });
        self.give(json!({ "do": "call", "name": "echo", "arguments": arguments }))
    }

    pub fn slow(&mut self, seconds: u64) -> Given {
        let arguments = json!({ "duration": seconds, "steps": 2 * seconds });
        let name = "trigger-long-running-operation";
        self.give(json!({ "do": "call", "name": name, "arguments": arguments }))
    }

    fn give(&mut self, mut command: Value) -> Given {
        self.commands += 1;
        command["id"] = self.commands.into();
        // Where the client has ended, the wait for its answer says so.
        let _ = writeln!(self.input, "{command}");
        Given(self.commands)
    }

    /// Waits until that step of the command.
    pub fn until(&self, given: Given, step: &str) {
        loop {
            let (_, line) = self.lines.recv_timeout(HANG).expect("the client goes on");
            // The Rust SDK does not say of which call a progress is.
            if line["id"] == given.0 || (line["id"].is_null() && step == "progress") {
                assert_eq!(line["step"], step, "{line}");
                return;
            }
        }
    }

    /// What becomes of the command.
    pub fn saw(&self, given: Given, within: Duration) -> Saw {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (at, line) = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Saw { what: HANGS.into(), at: None };
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Saw { what: "the process ends".into(), at: Some(Instant::now()) };
                }
            };
            let what = match line["step"].as_str() {
                _ if line["id"] != given.0 => continue,
                Some("progress" | "acknowledged") => continue,
                Some("result") => "the result".into(),
                Some("connected") => "connected".into(),
                Some("ended") => format!("the end, {}", line["how"].as_str().unwrap()),
                Some("failed") => format!("`{}`", line["error"].as_str().unwrap()),
                _ => format!("`{line}`"),
            };
            return Saw { what, at: Some(at) };
        }
    }
}
