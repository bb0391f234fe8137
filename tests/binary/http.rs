//! HTTP by the RFCs: what passes byte for byte, what does not pass, and what leaves early.

use std::io::{Read, Write};

use crate::harness::{ANSWER, Ebbtide, HANG, body, call, connect, exchange, rest, server};

/// Answers with the request as it came.
fn mirror() -> u16 {
    server(|stream, request| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", request.len());
        let _ = stream.write_all(
            format!(
                "{head}Keep-Alive: timeout=5\r\nX-Own: 1\r\nConnection: X-Own\r\n\r\n{request}"
            )
            .as_bytes(),
        );
    })
}

#[test]
fn what_belongs_to_one_connection_does_not_pass() {
    let ebbtide = Ebbtide::start(mirror(), &[]);
    let answer = ebbtide.ask(
        "GET //a/%2e%2E/b?x=%20&y=/ HTTP/1.1\r\nHost: Example.com:81\r\nOrigin: http://O\r\n\
         Connection: close, X-Drop\r\nX-Drop: 1\r\nKeep-Alive: 5\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
    );
    let (head, seen) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("x-own") && !head.to_lowercase().contains("timeout=5"));
    assert!(seen.starts_with("GET //a/%2e%2E/b?x=%20&y=/ HTTP/1.1\r\n"), "{seen}");
    for part in [
        "host: Example.com:81\r\n",
        "origin: http://O\r\n",
        "x-forwarded-for: 192.0.2.1, 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: Example.com:81\r\n",
    ] {
        assert!(seen.contains(part), "{seen} lacks {part}");
    }
    assert!(!seen.to_lowercase().contains("x-drop") && !seen.contains("keep-alive"), "{seen}");
}

#[test]
fn an_upgraded_connection_passes_bytes_both_ways() {
    let upstream = server(|stream, request| {
        if !request.to_lowercase().contains("upgrade: websocket") {
            return;
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst";
        stream.write_all(head.as_bytes()).unwrap();
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..count]).unwrap();
        }
        // The client is done, or the drain said so: the last word is the server's.
        let _ = stream.write_all(b"bye");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let mut ebbtide = Ebbtide::start(upstream, &[]);
    let mut client = connect(ebbtide.data);
    let request =
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut until = |client: &mut std::net::TcpStream, end: &[u8]| {
        let mut byte = [0];
        while !seen.ends_with(end) {
            client.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    };
    let head = until(&mut client, b"first");
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    client.write_all(b"ping").unwrap();
    until(&mut client, b"ping");
    assert_eq!(ebbtide.status()["in_flight"]["streams"], 1);
    ebbtide.signal("-TERM");
    assert_eq!(rest(&mut client), "bye");
    assert_eq!(ebbtide.ended().code(), Some(0));
}

#[test]
fn chunked_bodies_trailers_and_heads_pass() {
    let upstream = server(|stream, request| {
        let answer = if request.starts_with("HEAD") {
            "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n"
        };
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let ebbtide = Ebbtide::start(upstream, &[]);
    let head = ebbtide.ask("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(head.contains("content-length: 1234") && body(&head).is_empty(), "{head}");
    let get =
        ebbtide.ask("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, te\r\n\r\n");
    assert!(get.contains("hello") && get.contains(" world"), "{get}");
    assert!(get.to_lowercase().contains("x-sum: 11\r\n") && get.ends_with("\r\n\r\n"), "{get}");
}

#[test]
fn large_bodies_pass_whole() {
    let ebbtide = Ebbtide::start(mirror(), &[]);
    let text = "0123456789".repeat(500_000);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    let answer = exchange(ebbtide.data, &request);
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), "{answer:.99}");
    assert!(answer.ends_with(&text));
}

#[test]
fn a_client_that_leaves_lets_the_server_go_at_once() {
    let (left, gone) = std::sync::mpsc::channel();
    let upstream = server(move |stream, _| {
        let _ = left.send("arrived");
        let _ = stream.read(&mut [0]);
        let _ = left.send("left");
    });
    let ebbtide = Ebbtide::start(upstream, &[]);
    let mut client = connect(ebbtide.data);
    client.write_all(call("1", "").as_bytes()).unwrap();
    assert_eq!(gone.recv_timeout(HANG).unwrap(), "arrived");
    drop(client);
    assert_eq!(gone.recv_timeout(HANG).unwrap(), "left");
    ebbtide.until(|status| status["in_flight"]["finite"] == 0);
}

#[test]
fn the_admin_port_answers_every_path() {
    let ebbtide =
        Ebbtide::start(server(|stream, _| stream.write_all(ANSWER.as_bytes()).unwrap()), &[]);
    ebbtide.ask(&call("1", ""));
    for (method, path, status) in [
        ("GET", "/livez", "200"),
        ("HEAD", "/readyz", "200"),
        ("GET", "/status", "200"),
        ("POST", "/status", "405"),
        ("GET", "/drain", "405"),
        ("GET", "/nowhere", "404"),
    ] {
        let answer = ebbtide.admin(method, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    let metrics = ebbtide.admin("GET", "/metrics");
    for name in [
        "requests_total{class=\"call\",result=\"completed\"} 1",
        "request_duration_seconds_bucket",
        "in_flight{class=\"call\"} 0",
        "pool_connections{state=\"idle\"} 1",
        "pool_acquire_duration_seconds_count 1",
        "pool_events_total{event=\"created\",reason=\"\"} 1",
        "drain_phase{phase=\"Serving\"} 1",
        "knowledge_level 0",
        "drain_deadline_seconds -1",
    ] {
        assert!(metrics.contains(&format!("ebbtide_{name}")), "{metrics} lacks {name}");
    }
}
