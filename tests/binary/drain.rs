//! What a drain does to exchanges in flight and to new ones.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Condvar, Mutex},
};

use crate::harness::{ANSWER, Ebbtide, body, call, command, connect, post, rest, server};

/// A gate that a test opens.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes());
}

/// Holds calls until the gate opens; GETs and calls named `sse` get a stream with one event.
pub fn gated() -> (u16, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    let port = server(move |stream, request| {
        if request.starts_with("GET") || request.contains("sse") {
            stream.write_all(STREAM.as_bytes()).unwrap();
            chunk(stream, "data: first\n\n");
            if request.contains("half") {
                chunk(stream, "data: {\"half\":");
            }
            let _ = stream.read(&mut [0]);
        } else if request.contains("hold") {
            held.wait();
            let _ = stream.write_all(ANSWER.as_bytes());
        } else {
            stream.write_all(ANSWER.as_bytes()).unwrap();
        }
    });
    (port, gate)
}

fn begin(ebbtide: &Ebbtide, request: &str, until: &str) -> TcpStream {
    let mut stream = connect(ebbtide.data);
    stream.write_all(request.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !until.is_empty() && !seen.ends_with(until.as_bytes()) {
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    stream
}

#[test]
fn sixty_four_calls_survive_sigterm() {
    let (port, gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &["--withdraw-timeout", "0", "--quiet", "0"]);
    let mut clients: Vec<_> =
        (0..64).map(|id| begin(&ebbtide, &call(&id.to_string(), "X: hold\r\n"), "")).collect();
    ebbtide.until(|status| status["in_flight"]["finite"] == 64);
    ebbtide.signal("-TERM");
    ebbtide.until_phase("Draining");
    gate.open();
    for client in &mut clients {
        assert!(rest(client).ends_with("{}"));
    }
    assert_eq!(ebbtide.ended().code(), Some(0));
    let report = ebbtide.seen.iter().find(|line| line.contains("drain report")).unwrap();
    assert!(report.contains("\"completed\":64") && report.contains("\"cut\":0"), "{report}");
}

#[test]
fn draining_refuses_sessions_serves_calls_and_ends_streams() {
    let (port, gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &[]);
    let get =
        "GET /mcp HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n";
    let mut stream = begin(&ebbtide, get, "data: first\n\n");
    let listen = post(
        r#"{"method":"subscriptions/listen","id":"sse-l"}"#,
        "Mcp-Method: subscriptions/listen\r\n",
    );
    let mut listen = begin(&ebbtide, &listen, "data: first\n\n");
    let mut held = begin(&ebbtide, &call("1", "X: hold\r\n"), "");
    ebbtide.until(|status| status["in_flight"]["finite"] == 1);
    ebbtide.signal("-TERM");
    ebbtide.until_phase("Draining");

    let ended = rest(&mut stream);
    assert!(ended.contains("retry: ") && ended.ends_with("0\r\n\r\n"), "{ended:?}");
    assert!(!ended.contains("id:") && !ended.contains("data:"), "{ended:?}");
    let ended = rest(&mut listen);
    assert!(ended.contains(r#""id":"sse-l","result":{"resultType":"complete""#), "{ended}");
    assert!(ended.ends_with("0\r\n\r\n"), "{ended:?}");

    let refused = ebbtide.ask(&post(r#"{"method":"initialize","id":0}"#, ""));
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n") && refused.contains("connection: close\r\n"));
    assert!(ebbtide.ask(get).starts_with("HTTP/1.1 503"));
    let served = ebbtide.ask(&call("2", ""));
    assert!(served.starts_with("HTTP/1.1 200") && served.contains("connection: close"), "{served}");
    let keep = call("3", "Mcp-Session-Id: s\r\n").replace("Connection: close\r\n", "");
    let mut kept = begin(&ebbtide, &keep, "");
    let mut answer = vec![0; 40];
    kept.read_exact(&mut answer).unwrap();
    let mut more = [0; 4096];
    let count = kept.read(&mut more).unwrap();
    answer.extend(&more[..count]);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"),
        "{answer}"
    );
    for message in [r#"{"id":0,"result":{}}"#, r#"{"method":"notifications/cancelled"}"#] {
        assert!(ebbtide.ask(&post(message, "")).starts_with("HTTP/1.1 200"), "{message}");
    }
    let resumed = get.replace("Host: a", "Host: a\r\nLast-Event-ID: 1");
    drop(begin(&ebbtide, &resumed, "data: first\n\n"));
    assert!(ebbtide.admin("GET", "/readyz").starts_with("HTTP/1.1 503"));
    assert!(ebbtide.admin("GET", "/livez").starts_with("HTTP/1.1 200"));
    gate.open();
    assert!(rest(&mut held).ends_with("{}"));
    drop(kept);
    assert_eq!(ebbtide.ended().code(), Some(0));
}

#[test]
fn the_cut_gives_every_call_its_own_error() {
    let (port, _gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &["--drain-timeout", "300ms"]);
    let filler = "x".repeat(1_000_000);
    let large = format!(r#"{{"method":"tools/call","params":{{"a":"{filler}"}},"id":"end"}}"#);
    let batch = r#"[{"method":"a","id":1},{"method":"n"},{"method":"b","id":"2"}]"#;
    let mut calls = [
        begin(&ebbtide, &call("7", "X: hold\r\n"), ""),
        begin(&ebbtide, &post(&large, "X: hold\r\n"), ""),
        begin(&ebbtide, &post(batch, "X: hold\r\n"), ""),
        begin(&ebbtide, &call("\"s\"", "X: sse\r\n"), "data: first\n\n"),
        begin(&ebbtide, &call("\"h\"", "X: sse half\r\n"), "half\":"),
    ];
    ebbtide.until(|status| {
        let exchanges = status["in_flight"]["exchanges"].as_array().unwrap();
        exchanges.len() == 5 && exchanges.iter().all(|exchange| !exchange["id"].is_null())
    });
    ebbtide.signal("-TERM");
    let ended: Vec<String> = calls.iter_mut().map(rest).collect();
    assert!(ended[0].starts_with("HTTP/1.1 200"), "{}", ended[0]);
    assert!(body(&ended[0]).contains(r#""id":7,"error":{"code":-32010"#), "{}", ended[0]);
    assert!(body(&ended[1]).contains(r#""id":"end","error":{"code":-32010"#), "{}", ended[1]);
    let batch: serde_json::Value = serde_json::from_str(body(&ended[2])).unwrap();
    assert_eq!(batch[0]["id"], 1);
    assert_eq!(batch[1]["id"], "2");
    assert_eq!(batch.as_array().unwrap().len(), 2);
    for (ended, id) in [(&ended[3], "s"), (&ended[4], "h")] {
        let error = format!(
            "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":\"{id}\",\"error\":{{\"code\":-32010"
        );
        assert!(ended.contains(&error) && ended.ends_with("0\r\n\r\n"), "{ended:?}");
        assert!(!ended.contains("\nid:"), "{ended:?}");
    }
    assert_eq!(ebbtide.ended().code(), Some(0));
    let report = ebbtide.seen.iter().find(|line| line.contains("drain report")).unwrap();
    assert!(report.contains("\"cut\":5") && report.contains("tools/call"), "{report}");
}

/// A client that calls without pause does not hold the pod to the cut: its last call ends, and
/// then its session.
#[test]
fn an_idle_session_is_over_before_the_cut() {
    let (port, gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &["--drain-timeout", "6s"]);
    let mut held = begin(&ebbtide, &call("1", "Mcp-Session-Id: busy\r\nX: hold\r\n"), "");
    ebbtide.until(|status| status["in_flight"]["finite"] == 1);
    ebbtide.signal("-TERM");
    ebbtide.until_phase("Draining");
    let last = loop {
        let answer = ebbtide.ask(&call("2", "Mcp-Session-Id: idle\r\n"));
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        assert!(answer.ends_with("{}"), "cut before it was over: {answer}");
    };
    assert!(last.starts_with("HTTP/1.1 404") && last.contains("-32010"), "{last}");
    // The session with a call in flight is not over, and gets another call.
    assert!(ebbtide.ask(&call("3", "Mcp-Session-Id: busy\r\n")).ends_with("{}"));
    gate.open();
    assert!(rest(&mut held).ends_with("{}"));
    assert_eq!(ebbtide.ended().code(), Some(0));
}

#[test]
fn a_second_signal_cuts_at_once() {
    let (port, _gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &["--drain-timeout", "1h"]);
    let mut held = begin(&ebbtide, &call("1", "X: hold\r\n"), "");
    ebbtide.until(|status| status["in_flight"]["finite"] == 1);
    ebbtide.signal("-TERM");
    ebbtide.until_phase("Draining");
    ebbtide.signal("-INT");
    assert!(rest(&mut held).contains("-32010"));
    assert_eq!(ebbtide.ended().code(), Some(0));
}

#[test]
fn a_drain_on_request_waits_for_the_signal() {
    let (port, _gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &[]);
    let admin = format!("127.0.0.1:{}", ebbtide.admin);
    let page =
        "POST /drain HTTP/1.1\r\nHost: a\r\nOrigin: http://evil\r\nConnection: close\r\n\r\n";
    assert!(crate::harness::exchange(ebbtide.admin, page).starts_with("HTTP/1.1 403"));
    assert_eq!(ebbtide.status()["phase"], "Serving");
    let ready = || command(&["status", "--ready", "--admin", &admin]).output().unwrap();
    assert_eq!((ready().status.code(), &*ready().stdout), (Some(0), &b"ready\n"[..]));
    let drained = command(&["drain", "--wait", "--admin", &admin]).output().unwrap();
    assert!(drained.status.success(), "{drained:?}");
    assert_eq!(ebbtide.status()["phase"], "Drained");
    assert!(ebbtide.ask(&call("1", "")).contains("-32010"));
    let status = command(&["status", "--admin", &admin]).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("Drained (why: request)"));
    assert_eq!((status.status.code(), ready().status.code()), (Some(0), Some(1)));
    assert!(String::from_utf8_lossy(&ready().stderr).contains("503"), "{:?}", ready());
    ebbtide.signal("-TERM");
    assert_eq!(ebbtide.ended().code(), Some(0));
}

#[test]
fn it_is_not_ready_before_the_server_is() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ebbtide = Ebbtide::launch(nobody, &[]);
    let admin = format!("127.0.0.1:{}", ebbtide.admin);
    let ready = command(&["status", "--ready", "--admin", &admin]).output().unwrap();
    assert_eq!(ready.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ready.stderr).contains("upstream"), "{ready:?}");
    let status = command(&["status", "--admin", &admin]).output().unwrap();
    assert_eq!(status.status.code(), Some(0));
}

#[test]
fn both_hooks_begin_a_drain_and_one_alone_does_not() {
    let (port, _gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &[]);
    assert!(body(&ebbtide.admin("GET", "/prestop")).starts_with("no drain"));
    assert_eq!(ebbtide.status()["phase"], "Serving");
    let hook = "GET /prestop HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut server_hook = connect(ebbtide.admin);
    server_hook.write_all(hook.as_bytes()).unwrap();
    assert!(ebbtide.admin("GET", "/prestop/self").ends_with("drained\n"));
    assert!(rest(&mut server_hook).ends_with("drained\n"));
    ebbtide.signal("-TERM");
    assert_eq!(ebbtide.ended().code(), Some(0));
}

/// The harness sees a call that is lost.
#[test]
fn the_harness_notices_a_lost_call() {
    let (port, _gate) = gated();
    let ebbtide = Ebbtide::start(port, &[]);
    let mut held = begin(&ebbtide, &call("1", "X: hold\r\n"), "");
    ebbtide.until(|status| status["in_flight"]["finite"] == 1);
    ebbtide.signal("-KILL");
    let mut bytes = Vec::new();
    assert!(held.read_to_end(&mut bytes).is_err() || bytes.is_empty());
}
