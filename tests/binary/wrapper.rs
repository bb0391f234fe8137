//! ebbtide as the parent of the server.

use std::io::Write;

use crate::harness::{Ebbtide, call, command, connect, rest};

/// A server in Python's standard library: holds POSTs for as many seconds as their path says.
const SERVER: &str = r#"
import http.server, signal, sys, time, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if self.headers["x-do"] == "die": os.kill(os.getpid(), 9)
        if self.headers["x-do"] == "slow": time.sleep(1)
        self.send_response(200); self.send_header("content-length", "2")
        self.send_header("content-type", "application/json"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *arguments): pass
if sys.argv[2] == "stubborn": signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[2] == "three": signal.signal(signal.SIGTERM, lambda *a: os._exit(3))
if sys.argv[2] == "orphan":
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

fn start(mode: &str) -> Ebbtide {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = port.to_string();
    let server = ["--stop-reserve", "500ms", "--", "python3", "-c", SERVER, &text, mode];
    Ebbtide::start(port, &server)
}

#[test]
fn the_server_is_stopped_only_after_the_last_call() {
    for (mode, code) in [("plain", 0), ("three", 3), ("stubborn", 137), ("orphan", 0)] {
        let mut ebbtide = start(mode);
        let mut client = connect(ebbtide.data);
        client.write_all(call("1", "X-Do: slow\r\n").as_bytes()).unwrap();
        ebbtide.until(|status| status["pool"]["in_use"] == 1);
        ebbtide.signal("-TERM");
        assert!(rest(&mut client).ends_with("{}"), "{mode}");
        assert_eq!(ebbtide.ended().code(), Some(code), "{mode}");
    }
}

#[test]
fn a_server_that_dies_in_a_call_ends_it_at_once_with_its_id() {
    let mut ebbtide = start("plain");
    let answer = ebbtide.ask(&call("\"last\"", "X-Do: die\r\n"));
    assert!(answer.contains(r#""id":"last","error":{"code":-32011"#), "{answer}");
    assert_eq!(ebbtide.ended().code(), Some(137));
}

#[test]
fn the_exit_code_is_the_servers() {
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
    {
        let arguments =
            ["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--", "sh", "-c", script];
        let output = command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
    }
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let arguments =
        ["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--", "no-such-server"];
    let output = command(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-server"));
}
