//! `ebbtide rehearse` against scripted servers: each way to lose a call is counted as what it is,
//! and what is no loss is not.
//!
//! A script tells when it has seen enough; only then the rehearsal is interrupted.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Instant,
};

use serde_json::{Value, json};

use crate::harness::{HANG, command, server};

/// A running `ebbtide rehearse --json`, killed when dropped.
pub struct Rehearsal {
    child: Child,
    output: mpsc::Receiver<String>,
}

impl Rehearsal {
    fn start(port: u16, arguments: &[&str]) -> Self {
        Self::launch(
            command(&["rehearse", &format!("http://127.0.0.1:{port}/mcp"), "--json"])
                .args(arguments),
        )
    }

    pub fn launch(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            let _ = sender.send(text);
        });
        Self { child, output }
    }

    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Its exit code, and what it printed.
    pub fn ended(mut self) -> (Option<i32>, Value) {
        let text = self.output.recv_timeout(HANG).expect("the rehearsal did not end");
        (self.child.wait().unwrap().code(), serde_json::from_str(&text).unwrap_or_default())
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a script's word.
fn heard(word: &mpsc::Receiver<()>) {
    word.recv_timeout(HANG).expect("the script never came to its end");
}

fn message(request: &str) -> Value {
    let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_default()
}

pub fn whole(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const END: &str = "0\r\n\r\n";

fn event(value: &Value) -> String {
    chunk(&format!("event: message\ndata: {value}\n\n"))
}

fn result(request: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": message(request)["id"], "result": { "tools": [] } })
}

fn error(request: &str) -> Value {
    error_of(request, -32010)
}

fn error_of(request: &str, code: i32) -> Value {
    let error = json!({ "code": code, "message": "draining" });
    json!({ "jsonrpc": "2.0", "id": message(request)["id"], "error": error })
}

/// What a server without trouble answers; it offers no stand-alone stream.
pub fn fine(request: &str) -> String {
    let method = message(request)["method"].as_str().unwrap_or_default().to_owned();
    match (request.split(' ').next().unwrap_or_default(), method.as_str()) {
        ("GET", _) => whole("405 Method Not Allowed", "", ""),
        ("DELETE", _) => whole("200 OK", "", ""),
        (_, "initialize") => {
            let mut value = result(request);
            value["result"]["protocolVersion"] = "2025-11-25".into();
            whole("200 OK", "Mcp-Session-Id: s\r\n", &value.to_string())
        }
        (_, "notifications/initialized") => whole("202 Accepted", "", ""),
        _ => whole("200 OK", "", &result(request).to_string()),
    }
}

fn is_call(request: &str) -> bool {
    message(request)["method"] == "tools/list"
}

/// Plays one client whose second call meets `trouble`, and interrupts it two calls later; where
/// the client hangs, at once.
fn second_call(
    era: &str,
    hangs: bool,
    trouble: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (Option<i32>, Value) {
    let calls = AtomicUsize::new(0);
    let (sender, word) = mpsc::channel();
    let port = server(move |stream, request| {
        // Pings are left out, so that calls can be counted.
        let number = if is_call(request) { calls.fetch_add(1, SeqCst) + 1 } else { 0 };
        let answer = if number == 2 { trouble(request) } else { fine(request) };
        let _ = stream.write_all(answer.as_bytes());
        let broken = number == 2 && !answer.ends_with(END) && !answer.contains("Content-Length");
        let short = answer.contains("Content-Length: 100\r\n");
        if broken || short {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if (hangs && number == 2) || number == 4 {
            let _ = sender.send(());
        }
    });
    let rehearsal = Rehearsal::start(port, &["--clients", "1", "--era", era, "--pause", "1ms"]);
    heard(&word);
    rehearsal.interrupt();
    rehearsal.ended()
}

/// The only lost call.
fn lost(report: &Value) -> &Value {
    assert_eq!(report["lost"].as_array().map(Vec::len), Some(1), "{report:#}");
    assert_eq!(report["total"]["lost"], 1);
    &report["lost"][0]
}

#[test]
fn every_loss_is_counted_as_what_it_is() {
    type Trouble = fn(&str) -> String;
    let cases: [(&str, bool, Trouble); 10] = [
        ("error", false, |request| whole("200 OK", "", &error(request).to_string())),
        ("error", false, |request| format!("{EVENTS}{}{END}", event(&error(request)))),
        ("status", false, |_| whole("503 Service Unavailable", "Retry-After: 1\r\n", "")),
        ("status", false, |request| whole("400 Bad Request", "", &error(request).to_string())),
        ("no_answer", false, |_| {
            whole("200 OK", "", &json!({ "id": "other", "result": {} }).to_string())
        }),
        ("reset", false, |_| String::new()),
        ("broken_answer", false, |_| "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".into()),
        ("stream_ended", true, |_| format!("{EVENTS}{}{END}", chunk(": working\n\n"))),
        ("stream_ended", true, |_| format!("{EVENTS}{END}")),
        ("stream_broke", true, |_| format!("{EVENTS}{}", chunk("data: {\n"))),
    ];
    for era in ["modern", "legacy"] {
        for (number, (saw, hangs, trouble)) in cases.iter().enumerate() {
            let (code, report) = second_call(era, *hangs, *trouble);
            let call = lost(&report);
            assert_eq!(
                (&call["saw"], &call["era"]),
                (&json!(saw), &json!(era)),
                "{number}: {call}"
            );
            assert_eq!((&call["hung"], &call["call"]), (&json!(hangs), &json!("tools/list")));
            assert_eq!(code, Some(1), "{number}: {report:#}");
        }
    }
}

#[test]
fn an_error_is_told_with_its_code_and_who_gave_it() {
    let (_, report) = second_call("modern", false, |request| {
        whole("200 OK", "X-Ebbtide-Pod: mcp-1\r\n", &error(request).to_string())
    });
    let call = lost(&report);
    assert_eq!((&call["code"], &call["pod"]), (&json!(-32010), &json!("mcp-1")));
    assert_eq!(call["text"], "error -32010: draining");
    assert_eq!(report["pods"], json!({ "mcp-1": 1 }));

    let (_, report) = second_call("modern", false, |request| {
        whole("400 Bad Request", "", &error(request).to_string())
    });
    let call = lost(&report);
    assert_eq!((&call["code"], &call["status"]), (&json!(-32010), &json!(400)));
}

#[test]
fn an_error_of_the_servers_own_is_its_answer() {
    type Answer = fn(&str) -> String;
    let cases: [(&str, Answer); 3] = [
        ("error", |request| whole("200 OK", "", &error_of(request, -32602).to_string())),
        ("error", |request| format!("{EVENTS}{}{END}", event(&error_of(request, -32000)))),
        ("tool_error", |request| {
            let mut value = result(request);
            value["result"]["isError"] = true.into();
            whole("200 OK", "", &value.to_string())
        }),
    ];
    for era in ["modern", "legacy"] {
        for (saw, answer) in cases {
            let (code, report) = second_call(era, false, answer);
            let total = &report["total"];
            assert_eq!((&total["lost"], &total["errors"]), (&json!(0), &json!(1)), "{report:#}");
            let mut calls = report["calls"].as_array().unwrap().iter();
            assert!(calls.any(|call| call["saw"] == saw && call["lost"] == false), "{report:#}");
            assert_eq!(code, Some(0), "{report:#}");
        }
    }
}

#[test]
fn no_answer_before_the_time_out_is_a_hang() {
    let calls = AtomicUsize::new(0);
    let (sender, word) = mpsc::channel();
    let port = server(move |stream, request| {
        match if is_call(request) { calls.fetch_add(1, SeqCst) } else { 0 } {
            1 => {}
            2 => {
                let _ = stream.write_all(fine(request).as_bytes());
                let _ = sender.send(());
            }
            _ => stream.write_all(fine(request).as_bytes()).unwrap(),
        }
    });
    let arguments = ["--clients", "1", "--era", "modern", "--timeout", "3s"];
    let rehearsal = Rehearsal::start(port, &arguments);
    heard(&word);
    rehearsal.interrupt();
    let (code, report) = rehearsal.ended();
    let call = lost(&report);
    assert_eq!((&call["saw"], &call["hung"], code), (&json!("time_out"), &json!(true), Some(1)));
}

/// An SSE stream that ends after an event id, as the 2025-11-25 polling allows.
fn polling() -> String {
    format!("{EVENTS}{}{END}", chunk("id: 7\nretry: 1\ndata:\n\n"))
}

#[test]
fn a_session_comes_back_for_the_rest_of_a_stream() {
    let asked = Mutex::new(Value::Null);
    let calls = AtomicUsize::new(0);
    let (sender, word) = mpsc::channel();
    let port = server(move |stream, request| {
        let head = request.to_ascii_lowercase();
        let answer = if is_call(request) && calls.fetch_add(1, SeqCst) == 1 {
            *asked.lock().unwrap() = result(request);
            polling()
        } else if head.contains("last-event-id: 7\r\n") && head.contains("mcp-session-id: s\r\n") {
            let _ = sender.send(());
            format!("{EVENTS}{}{END}", event(&asked.lock().unwrap()))
        } else {
            fine(request)
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    let rehearsal = Rehearsal::start(port, &["--clients", "1", "--era", "legacy"]);
    heard(&word);
    rehearsal.interrupt();
    let (code, report) = rehearsal.ended();
    assert_eq!((code, &report["total"]["lost"]), (Some(0), &json!(0)), "{report:#}");
}

#[test]
fn a_stream_that_cannot_be_resumed_hangs() {
    // Refused: tried twice, and no more.
    let (code, report) = second_call("legacy", true, |_| polling());
    let call = lost(&report);
    assert_eq!((&call["saw"], &call["status"]), (&json!("resume_refused"), &json!(405)));
    assert_eq!((&call["hung"], code), (&json!(true), Some(1)));
    // Modern streams are not resumed at all.
    let (code, report) = second_call("modern", true, |_| polling());
    assert_eq!((&lost(&report)["saw"], code), (&json!("stream_ended"), Some(1)));
}

/// Plays one legacy client whose session the server forgets with the second call, and answers so
/// from then on; two more calls are waited for. What the report says, and how often a session was
/// opened.
fn forgotten(status: &'static str, body: &'static str) -> (Option<i32>, Value, usize) {
    let (calls, opened) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let openings = Arc::clone(&opened);
    let (sender, word) = mpsc::channel();
    let port = server(move |stream, request| {
        let method = message(request)["method"].clone();
        openings.fetch_add(usize::from(method == "initialize"), SeqCst);
        let number =
            if is_call(request) || method == "ping" { calls.fetch_add(1, SeqCst) + 1 } else { 0 };
        let answer = if number > 1 { whole(status, "", body) } else { fine(request) };
        let _ = stream.write_all(answer.as_bytes());
        if number == 4 {
            let _ = sender.send(());
        }
    });
    let rehearsal = Rehearsal::start(port, &["--clients", "1", "--era", "legacy"]);
    heard(&word);
    rehearsal.interrupt();
    let (code, report) = rehearsal.ended();
    (code, report, opened.load(SeqCst))
}

#[test]
fn a_lost_session_loses_every_later_call_and_no_other_is_opened() {
    let without = r#"{"error":{"code":-32000,"message":"Bad Request: No valid session ID"}}"#;
    for (status, body) in [("404 Not Found", ""), ("400 Bad Request", without)] {
        let (code, report, opened) = forgotten(status, body);
        assert_eq!((code, opened), (Some(1), 1), "{report:#}");
        let expected = json!({ "opened": 1, "held": 0, "lost": 1, "refused": 0 });
        assert_eq!(report["sessions"], expected, "{report:#}");
        let lost = report["lost"].as_array().unwrap();
        assert!(lost.len() >= 3, "{report:#}");
        assert!(lost.iter().all(|call| call["saw"] == "session_gone"), "{report:#}");
        assert!(report["verdict"].as_str().unwrap().contains("1 of 1 sessions were lost"));
    }
    // To a modern client a 404 is no more than an error.
    let (code, report) = second_call("modern", false, |_| whole("404 Not Found", "", ""));
    assert_eq!((&lost(&report)["status"], code), (&json!(404), Some(1)));
    assert_eq!(report["sessions"]["lost"], 0);
}

#[test]
fn a_session_that_only_its_stream_finds_lost_is_lost() {
    let gets = AtomicUsize::new(0);
    let (sender, word) = mpsc::channel();
    let port = server(move |stream, request| {
        let number = if request.starts_with("GET") { gets.fetch_add(1, SeqCst) + 1 } else { 0 };
        let answer = match number {
            0 => fine(request),
            1 => format!("{EVENTS}{}{END}", chunk("retry: 1\n\n")),
            _ => whole("404 Not Found", "", ""),
        };
        let _ = stream.write_all(answer.as_bytes());
        if number == 3 {
            // The client lets go of the connection once it has given up.
            let _ = stream.read(&mut [0]);
            let _ = sender.send(());
        }
    });
    let rehearsal = Rehearsal::start(port, &["--clients", "1", "--era", "legacy"]);
    heard(&word);
    rehearsal.interrupt();
    let (code, report) = rehearsal.ended();
    assert_eq!((code, &report["total"]["lost"]), (Some(1), &json!(0)), "{report:#}");
    assert_eq!(
        (&report["sessions"]["lost"], &report["streams"]["given_up"]),
        (&json!(1), &json!(1))
    );
}

/// Refuses `initialize` so often; tells when a call came, or the last refusal was given.
fn refusing(times: usize) -> (u16, mpsc::Receiver<()>) {
    let refused = AtomicUsize::new(0);
    let (sender, word) = mpsc::channel();
    let port = server(move |stream, request| {
        let opens = message(request)["method"] == "initialize";
        let answer = if opens && refused.fetch_add(1, SeqCst) < times {
            whole("503 Service Unavailable", "Connection: close\r\n", "")
        } else {
            fine(request)
        };
        let _ = stream.write_all(answer.as_bytes());
        if is_call(request) {
            let _ = sender.send(());
        }
    });
    (port, word)
}

#[test]
fn a_refused_session_is_asked_for_again() {
    let (port, word) = refusing(2);
    let rehearsal = Rehearsal::start(port, &["--clients", "1", "--era", "legacy"]);
    heard(&word);
    rehearsal.interrupt();
    let (code, report) = rehearsal.ended();
    assert_eq!((code, &report["sessions"]["refused"]), (Some(0), &json!(2)), "{report:#}");
}

#[test]
fn a_session_that_is_refused_up_to_the_time_out_is_lost() {
    let (port, _) = refusing(usize::MAX);
    let arguments = ["--clients", "1", "--era", "legacy", "--timeout", "3s", "--duration", "1s"];
    let (code, report) = Rehearsal::start(port, &arguments).ended();
    let call = &report["lost"][0];
    assert_eq!((&call["call"], &call["status"]), (&json!("initialize"), &json!(503)), "{report:#}");
    assert_eq!(code, Some(1));
    assert!(report["verdict"].as_str().unwrap().contains("No call of a legacy client"));
}

#[test]
fn a_stand_alone_stream_is_reopened_and_given_up_after_two_refusals() {
    let gets = AtomicUsize::new(0);
    let (sender, word) = mpsc::channel();
    let port = server(move |stream, request| {
        let number = if request.starts_with("GET") { gets.fetch_add(1, SeqCst) + 1 } else { 0 };
        let answer = match number {
            1 => format!("{EVENTS}{}{END}", chunk("retry: 1\n\n")),
            2 => format!("{EVENTS}{}{END}", chunk("data: an event without its end\n")),
            3 => format!("{EVENTS}{}", chunk("data: whole\n\n")),
            _ => fine(request),
        };
        let _ = stream.write_all(answer.as_bytes());
        if number == 3 {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if number == 5 {
            // The client lets go of the connection once it has given up.
            let _ = stream.read(&mut [0]);
            let _ = sender.send(());
        }
    });
    let rehearsal = Rehearsal::start(port, &["--clients", "1", "--era", "legacy"]);
    heard(&word);
    rehearsal.interrupt();
    let (code, report) = rehearsal.ended();
    let expected = json!({ "opened": 3, "ended": 1, "broken": 2, "came_back": 2, "given_up": 1 });
    assert_eq!((&report["streams"], code), (&expected, Some(0)), "{report:#}");
}

#[test]
fn a_second_interrupt_does_not_wait_and_proves_nothing() {
    let (sender, word) = mpsc::channel();
    let (held, holds) = mpsc::channel();
    let (called, calls) = mpsc::channel();
    let port = server(move |stream, request| {
        if request.to_ascii_lowercase().contains("mcp-method: tools/list") {
            // This call is never answered.
            let _ = held.send(());
            return;
        }
        let _ = stream.write_all(fine(request).as_bytes());
        if request.starts_with("DELETE") {
            let _ = sender.send(());
        } else if message(request)["method"] == "ping" {
            let _ = called.send(());
        }
    });
    let rehearsal = Rehearsal::start(port, &["--clients", "2"]);
    heard(&holds);
    heard(&calls);
    rehearsal.interrupt();
    // The other client ends its session, since the first interrupt came.
    heard(&word);
    rehearsal.interrupt();
    let (code, report) = rehearsal.ended();
    assert_eq!((code, &report["unfinished"]), (Some(1), &json!(1)), "{report:#}");
    assert_eq!(report["clean"], false);
}

/// The server of the demo, killed when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_without_trouble_loses_nothing() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _demo = Demo(command(&["demo-server", "--port", &port.to_string()]).spawn().unwrap());
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < HANG, "the demo's server did not start");
    }
    let url = format!("http://127.0.0.1:{port}/mcp");
    let report = r#"report={"milliseconds":200}"#;
    let mut child = command(&["rehearse", &url, "--tool", report, "--tool", "search", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    // Both eras had their turn by then.
    assert!(lines.any(|line| {
        let ok = line.split(" s  ").nth(1).and_then(|rest| rest.split(' ').next());
        ok.and_then(|ok| ok.parse::<u32>().ok()).is_some_and(|ok| ok > 60)
    }));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", report["verdict"]);
    let expected = json!({ "opened": 10, "held": 10, "lost": 0, "refused": 0 });
    assert_eq!(report["sessions"], expected);
    for (era, call) in [
        ("modern", "tools/call report"),
        ("modern", "tools/call search"),
        ("legacy", "tools/call report"),
        ("legacy", "tools/call search"),
    ] {
        let mut rows = report["table"].as_array().unwrap().iter();
        let row = rows.find(|row| row["era"] == era && row["call"] == call).unwrap();
        assert!(row["ok"].as_u64() > Some(0), "{row}");
    }
}

#[test]
fn bad_arguments_are_64() {
    for arguments in [
        &["rehearse"][..],
        &["rehearse", "mcp"],
        &["rehearse", "http://mcp/", "--clients", "1"],
        &["rehearse", "http://mcp/", "--tool", "a={"],
        &["rehearse", "http://mcp/", "--rollout", "pod/a"],
    ] {
        let output = command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
    }
}

#[test]
fn without_a_cluster_nothing_is_rolled_out() {
    let output = command(&["rehearse", "http://127.0.0.1:1/mcp", "--rollout", "deployment/mcp"])
        .env("KUBECONFIG", "/nowhere/at/all")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--rollout needs a cluster"), "{text}");
}
