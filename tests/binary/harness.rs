//! Starts the real binary, reads its log, and talks raw HTTP to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Only a test that hangs takes so long.
pub const HANG: Duration = Duration::from_mins(1);

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebbtide"));
    command.args(arguments);
    command
}

/// A running `ebbtide run`, killed when dropped.
pub struct Ebbtide {
    child: Child,
    pub data: u16,
    pub admin: u16,
    log: mpsc::Receiver<String>,
    pub seen: Vec<String>,
}

impl Ebbtide {
    /// Starts and waits until it serves.
    pub fn start(upstream: u16, arguments: &[&str]) -> Self {
        let mut ebbtide = Self::launch(upstream, arguments);
        while ebbtide.logged("phase")["phase"] != "Serving" {}
        ebbtide
    }

    /// Starts and waits until it listens.
    pub fn launch(upstream: u16, arguments: &[&str]) -> Self {
        Self::launch_in(&[], upstream, arguments)
    }

    /// The same with an environment that says more.
    pub fn launch_in(environment: &[(&str, &str)], upstream: u16, arguments: &[&str]) -> Self {
        let url = format!("http://127.0.0.1:{upstream}");
        let own = ["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", &url];
        let mut command = command(&own);
        command.args(arguments).envs(environment.iter().copied());
        let mut ebbtide = Self::spawn(command);
        let listening = ebbtide.logged("listening");
        (ebbtide.data, ebbtide.admin) = (port(&listening["data"]), port(&listening["admin"]));
        ebbtide
    }

    /// Any command that logs.
    pub fn spawn(mut command: Command) -> Self {
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
        Self { child, data: 0, admin: 0, log, seen: Vec::new() }
    }

    /// The next log line with that message.
    pub fn logged(&mut self, message: &str) -> Value {
        let until = Instant::now() + HANG;
        loop {
            // Other lines may come for ever.
            let left = until.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).ok().filter(|_| !left.is_zero());
            let line = line.unwrap_or_else(|| {
                panic!("no line `{message}` in the log: {:#?}", self.seen);
            });
            self.seen.push(line.clone());
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == message {
                return line;
            }
        }
    }

    pub fn until_phase(&mut self, phase: &str) {
        while self.logged("phase")["phase"] != phase {}
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // To the end of the log, unless a process that it left behind holds that open.
                while let Ok(line) = self.log.recv_timeout(Duration::from_secs(5)) {
                    self.seen.push(line);
                }
                assert!(
                    !self.seen.iter().any(|line| line.contains("panicked")),
                    "{:#?}",
                    self.seen
                );
                return status;
            }
            assert!(began.elapsed() < HANG, "ebbtide did not end: {:#?}", self.seen);
            std::thread::yield_now();
        }
    }

    /// The most memory that it ever had, in MiB.
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    pub fn ask(&self, request: &str) -> String {
        exchange(self.data, request)
    }

    pub fn admin(&self, method: &str, path: &str) -> String {
        exchange(
            self.admin,
            &format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        )
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(body(&self.admin("GET", "/status"))).unwrap()
    }

    /// Waits until `status` shows what is asked for.
    pub fn until(&self, wanted: impl Fn(&Value) -> bool) {
        let began = Instant::now();
        while !wanted(&self.status()) {
            assert!(began.elapsed() < HANG, "it never came to that: {}", self.status());
        }
    }
}

impl Drop for Ebbtide {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port of an address in the log.
pub fn port(address: &Value) -> u16 {
    address.as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

/// Sends bytes and reads until the other side closes.
pub fn exchange(port: u16, request: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    rest(&mut stream)
}

pub fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// A JSON-RPC call as a whole HTTP request on a connection of its own.
pub fn call(id: &str, more: &str) -> String {
    let body =
        format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"t"}},"id":{id}}}"#);
    post(&body, more)
}

pub fn post(body: &str, more: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n\
         {more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub const ANSWER: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// A server that plays a script on each connection that sends something, on a thread of its own.
pub fn server(script: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = std::sync::Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let script = std::sync::Arc::clone(&script);
            std::thread::spawn(move || {
                let mut stream = stream;
                while let Some(request) = request(&mut stream) {
                    script(&mut stream, &request);
                }
            });
        }
    });
    port
}

/// One whole request, or nothing when the connection ends before.
fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        (stream.read(&mut byte).ok()? == 1).then(|| text.push(byte[0]))?;
    }
    let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut rest = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut rest).ok()?;
    text.extend(rest);
    Some(String::from_utf8_lossy(&text).into_owned())
}
