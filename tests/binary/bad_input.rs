//! Bad HTTP from clients, and servers that lie.

use std::io::{Read, Write};

use crate::harness::{ANSWER, Ebbtide, body, call, connect, exchange, post, rest, server};

fn honest() -> u16 {
    server(|stream, _| stream.write_all(ANSWER.as_bytes()).unwrap())
}

#[test]
fn bad_http_is_refused_and_costs_nobody_else_anything() {
    let mut ebbtide = Ebbtide::start(honest(), &["--header-timeout", "200ms"]);
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for (request, status) in [
        ("NO SUCH THING\r\n\r\n".to_owned(), "400"),
        (format!("{head}bad header\r\n\r\n"), "400"),
        (format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400"),
        (format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), "400"),
        (format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), "400"),
        (format!("{head}Content-Length: -1\r\n\r\n"), "400"),
        (format!("{head}A: {}\r\n\r\n", "b".repeat(40_000)), "431"),
        (format!("{head}{}\r\n", "A: b\r\n".repeat(200)), "431"),
        (
            format!("{head}Transfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"),
            "501",
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(), "405"),
        (format!("{head}X: never ends"), "408"),
        ("GET / HT".to_owned(), "408"),
    ] {
        let answer = exchange(ebbtide.data, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:.80?}: {answer:?}");
    }
    assert!(ebbtide.ask(&call("1", "")).starts_with("HTTP/1.1 200"));
    assert!(ebbtide.admin("GET", "/livez").starts_with("HTTP/1.1 200"));
    ebbtide.signal("-TERM");
    assert_eq!(ebbtide.ended().code(), Some(0));
}

#[test]
fn clients_beyond_the_limit_get_503() {
    let ebbtide = Ebbtide::start(honest(), &["--max-inbound", "1"]);
    let mut first = connect(ebbtide.data);
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut start = [0; 12];
    first.read_exact(&mut start).unwrap();
    let second = rest(&mut connect(ebbtide.data));
    assert!(second.starts_with("HTTP/1.1 503") && second.contains("max_inbound"), "{second}");
}

/// Each lie gives -32011 with the call's own id, or 502, and the next exchange is served.
#[test]
fn servers_that_lie_are_reported() {
    for lie in [
        "this is not HTTP\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"half\":",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"hal",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let upstream = server(move |stream, request| {
            let answer = if request.contains("lie") { lie } else { ANSWER };
            let _ = stream.write_all(answer.as_bytes());
            if request.contains("lie") {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        });
        let ebbtide = Ebbtide::start(upstream, &[]);
        for id in ["7", "\"lie-7\""] {
            let answer = ebbtide.ask(&call(id, "X-Lie: lie\r\n"));
            assert!(answer.starts_with("HTTP/1.1 200"), "{lie:?}: {answer}");
            let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32011,"#);
            assert!(body(&answer).starts_with(&expected), "{lie:?}: {answer}");
        }
        if !lie.starts_with("HTTP/1.1 200 OK\r\nContent-Type") {
            let plain = ebbtide.ask("GET /lie HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            assert!(plain.starts_with("HTTP/1.1 502"), "{lie:?}: {plain}");
        }
        assert!(ebbtide.ask(&call("8", "")).ends_with("{}"));
    }
}

#[test]
fn a_second_answer_reaches_nobody() {
    let upstream = server(|stream, _| {
        let stray = ANSWER.replace("{}", "[]");
        stream.write_all(format!("{ANSWER}{stray}").as_bytes()).unwrap();
    });
    let ebbtide = Ebbtide::start(upstream, &[]);
    for _ in 0..20 {
        assert!(ebbtide.ask(&call("1", "")).ends_with("{}"));
    }
}

#[test]
fn a_server_that_never_answers_times_out() {
    let upstream = server(|stream, _| {
        let _ = stream.read(&mut [0]);
    });
    let ebbtide = Ebbtide::start(upstream, &["--response-timeout", "100ms"]);
    assert!(ebbtide.ask(&call("\"a\"", "")).contains(r#""id":"a","error":{"code":-32011"#));
    let plain = ebbtide.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(plain.starts_with("HTTP/1.1 504"), "{plain}");
}

#[test]
fn a_stream_that_breaks_ends_with_the_calls_error_and_a_last_chunk() {
    let upstream = server(|stream, _| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let ebbtide = Ebbtide::start(upstream, &[]);
    let answer = ebbtide.ask(&call("\"x\"", ""));
    assert!(answer.contains("data: 1\n\n"), "{answer}");
    assert!(
        answer.contains(
            "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\":{\"code\":-32011"
        ),
        "{answer}"
    );
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[test]
fn the_pool_refuses_when_the_line_does_not_move() {
    let upstream = server(|stream, _| {
        let _ = stream.read(&mut [0]);
    });
    let ebbtide =
        Ebbtide::start(upstream, &["--max-connections", "1", "--acquire-timeout", "100ms"]);
    let mut first = connect(ebbtide.data);
    first.write_all(call("1", "").as_bytes()).unwrap();
    ebbtide.until(|status| status["pool"]["in_use"] == 1);
    let answer = ebbtide.ask(&call("\"second\"", ""));
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains(r#""id":"second","error":{"code":-32012"#), "{answer}");
    // The client leaves: its connection to the server is let go, and the next is served.
    drop(first);
    ebbtide.until(|status| status["pool"]["in_use"] == 0);
}

#[test]
fn requests_wait_for_a_server_that_is_away() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ebbtide = Ebbtide::start(port, &["--acquire-timeout", "30s"]);
    drop(listener);
    let mut client = connect(ebbtide.data);
    client.write_all(post("{}", "").as_bytes()).unwrap();
    ebbtide.until(|status| status["in_flight"]["finite"] == 1);
    let back = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (mut stream, _) = back.accept().unwrap();
    while !std::str::from_utf8(&peeked(&stream)).unwrap().contains("{}") {}
    stream.write_all(ANSWER.as_bytes()).unwrap();
    assert!(rest(&mut client).ends_with("{}"));
}

fn peeked(stream: &std::net::TcpStream) -> Vec<u8> {
    let mut bytes = [0; 4096];
    let count = stream.peek(&mut bytes).unwrap();
    bytes[..count].to_vec()
}
