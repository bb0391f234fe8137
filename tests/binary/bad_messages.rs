//! Bad MCP, from clients and from servers: it passes unread or is refused, memory stays what it was,
//! and whoever else calls at the same time is served.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
};

use crate::harness::{Ebbtide, call, connect, post, rest};

/// What the sidecar may need on top of what it has when idle, in MiB, whatever it is sent.
const ROOM: u64 = 32;

const MIB: usize = 1024 * 1024;

/// A server of both transports that reads fast, and says how long each body was.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while serve(&mut reader, &stream).is_some() {}
            });
        }
    });
    port
}

fn serve(reader: &mut BufReader<TcpStream>, mut stream: &TcpStream) -> Option<()> {
    let (mut target, mut length) = (String::new(), 0);
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).ok().filter(|count| *count > 0)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_ascii_lowercase();
        if target.is_empty() {
            line.split(' ').nth(1).unwrap().clone_into(&mut target);
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let read = std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    if read < length {
        return None;
    }
    let events = |stream: &mut &TcpStream, start: &str, size: usize, end: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{:x}\r\n{start}\r\n", start.len()).as_bytes())?;
        let part = vec![b'x'; size.clamp(1, MIB)];
        for _ in 0..size / part.len() {
            write!(stream, "{:x}\r\n", part.len())?;
            stream.write_all(&part)?;
            stream.write_all(b"\r\n")?;
        }
        write!(stream, "{:x}\r\n{end}\r\n", end.len())
    };
    let written = match target.as_str() {
        "/large-event" => {
            let start = "data: {\"jsonrpc\":\"2.0\",\"result\":\"";
            events(&mut stream, start, 100 * MIB, "\",\"id\":7}\n\n")
                .and_then(|()| stream.write_all(b"0\r\n\r\n"))
        }
        "/sse" => events(&mut stream, "event: endpoint\ndata: /messages", 0, "\n\n"),
        "/large-endpoint" => events(&mut stream, "event: endpoint\ndata: /", MIB, "\n\n"),
        "/messages" => stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"),
        _ => {
            let body = format!("{{\"read\":{read}}}");
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
            let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes())
        }
    };
    written.ok()
}

/// Another client is served.
fn serves(ebbtide: &Ebbtide) {
    let answer = ebbtide.ask(&call("\"other\"", "Mcp-Session-Id: other\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("{\"read\":"), "{answer}");
}

fn at(request: &str, path: &str) -> String {
    request.replacen("/mcp", path, 1)
}

/// Reads until the text has come; how much that was.
fn until(stream: &mut TcpStream, end: &[u8]) -> usize {
    let (mut total, mut tail, mut part) = (0, Vec::new(), vec![0; MIB]);
    while !tail.windows(end.len()).any(|found| found == end) {
        let count = stream.read(&mut part).unwrap();
        assert!(count > 0, "it ended after {total} bytes");
        total += count;
        tail.drain(..tail.len().saturating_sub(end.len()));
        tail.extend_from_slice(&part[..count]);
    }
    total
}

/// What cannot be made sense of is the server's business.
#[test]
fn strange_messages_pass_whole() {
    let ebbtide = Ebbtide::start(upstream(), &[]);
    serves(&ebbtide);
    let before = ebbtide.peak_memory();
    let long = format!(r#"{{"method":"m","id":"{}"}}"#, "i".repeat(50 * MIB));
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let deep = format!(r#"{{"method":"m","params":{{"a":{open}{close}}},"id":7}}"#);
    let deep_id =
        format!(r#"{{"method":"m","id":{}1{}}}"#, r#"{"id":"#.repeat(100_000), "}".repeat(100_000));
    let batch = format!("[{}]", vec![r#"{"method":"m","id":7}"#; 100_000].join(","));
    for body in [
        long.as_bytes(),
        deep.as_bytes(),
        deep_id.as_bytes(),
        open.as_bytes(),
        batch.as_bytes(),
        br#"{"method":"m","id":{"a":[]}}"#,
        br#"{"method":"m","id":7,"id":7}"#,
        b"{\"method\":\"\xff\xfe\",\"id\":\"\xff\"}",
        b"\xff\x00\xff",
        b"",
    ] {
        for session in ["", "Mcp-Session-Id: s\r\n"] {
            let head = post("", session).replace(": 0", &format!(": {}", body.len()));
            let mut client = connect(ebbtide.data);
            client.write_all(head.as_bytes()).unwrap();
            client.write_all(&body[..body.len() / 2]).unwrap();
            serves(&ebbtide);
            client.write_all(&body[body.len() / 2..]).unwrap();
            let answer = rest(&mut client);
            let read = format!("{{\"read\":{}}}", body.len());
            assert!(answer.ends_with(&read), "{:.80?}: {answer}", String::from_utf8_lossy(body));
        }
    }
    let peak = ebbtide.peak_memory();
    assert!(peak <= before + ROOM, "{before} MiB, then {peak} MiB");
}

#[test]
fn one_id_in_flight_many_times_is_answered_each_time() {
    let upstream = crate::harness::server(|stream, request| {
        if request.contains("\"go\"") {
            return stream.write_all(crate::harness::ANSWER.as_bytes()).unwrap();
        }
        let _ = stream.read(&mut [0]);
    });
    let ebbtide = Ebbtide::start(upstream, &["--drain-timeout", "1s"]);
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = connect(ebbtide.data);
            client.write_all(call("7", "Mcp-Session-Id: s\r\n").as_bytes()).unwrap();
            client
        })
        .collect();
    ebbtide.until(|status| status["pool"]["in_use"] == 20);
    assert!(ebbtide.ask(&call("\"go\"", "")).starts_with("HTTP/1.1 200"));
    // One that leaves ends none of the others.
    drop(clients.pop());
    ebbtide.until(|status| status["pool"]["in_use"] == 19);
    ebbtide.signal("-TERM");
    for client in &mut clients {
        let answer = rest(client);
        assert_eq!(answer.matches(r#""id":7,"error":{"code":-32010"#).count(), 1, "{answer}");
    }
}

#[test]
fn a_length_that_lies_costs_nobody_else_anything() {
    let ebbtide = Ebbtide::start(upstream(), &[]);
    let honest = call("7", "");
    let length = |request: &str, more: &str| request.replacen("Content-Length: ", more, 1);
    // Longer than what comes: the client leaves in the middle.
    let mut client = connect(ebbtide.data);
    client.write_all(length(&honest, "Content-Length: 1").as_bytes()).unwrap();
    serves(&ebbtide);
    client.shutdown(std::net::Shutdown::Both).unwrap();
    ebbtide.until(|status| status["pool"]["in_use"] == 0 && status["in_flight"]["finite"] == 0);
    // Shorter: the rest is no request.
    let open = honest.replace("Connection: close\r\n", "");
    let mut client = connect(ebbtide.data);
    client.write_all(format!("{open}}}}}}}\r\n\r\n").as_bytes()).unwrap();
    let answers = rest(&mut client);
    assert!(answers.starts_with("HTTP/1.1 200") && answers.contains("HTTP/1.1 400"), "{answers}");
    serves(&ebbtide);
}

#[test]
fn a_session_header_that_is_none_passes_or_is_refused() {
    let ebbtide = Ebbtide::start(upstream(), &[]);
    for (value, status) in [
        (b"\xff\xfe\xc3\x28".to_vec(), "200"),
        (vec![b's'; 20_000], "200"),
        (vec![b's'; 64 * 1024], "431"),
        (b"".to_vec(), "200"),
    ] {
        let request = call("7", "Mcp-Session-Id: ?\r\n");
        let (head, tail) = request.split_once('?').unwrap();
        let mut client = connect(ebbtide.data);
        // What is refused is not read to its end.
        let _ = client.write_all(&[head.as_bytes(), &value, tail.as_bytes()].concat());
        let answer = rest(&mut client);
        let size = value.len();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{size}: {answer}");
        serves(&ebbtide);
    }
    // Nothing of a client is left behind that is not a session.
    assert_eq!(ebbtide.status()["in_flight"]["finite"], 0);
}

#[test]
fn a_large_event_passes_and_is_not_kept() {
    let ebbtide = Ebbtide::start(upstream(), &[]);
    serves(&ebbtide);
    let before = ebbtide.peak_memory();
    for session in ["", "Mcp-Session-Id: s\r\n"] {
        let mut client = connect(ebbtide.data);
        client.write_all(at(&call("7", session), "/large-event").as_bytes()).unwrap();
        until(&mut client, b"\"result\":\"");
        // In the middle of it, with a client that does not read on.
        serves(&ebbtide);
        assert!(until(&mut client, b"\r\n0\r\n\r\n") > 99 * MIB);
    }
    let peak = ebbtide.peak_memory();
    assert!(peak <= before + ROOM, "{before} MiB, then {peak} MiB");
    // Its end was seen: nothing is pending.
    assert_eq!(ebbtide.status()["in_flight"]["pending"], 0);
}

#[test]
fn many_sessions_are_bounded() {
    const SESSIONS: usize = 20_000;
    let ebbtide = Ebbtide::start(upstream(), &[]);
    serves(&ebbtide);
    let before = ebbtide.peak_memory();
    std::thread::scope(|scope| {
        let mut reader = connect(ebbtide.data);
        let mut writer = reader.try_clone().unwrap();
        scope.spawn(move || {
            for number in 0..SESSIONS {
                let session = format!("Mcp-Session-Id: {number:0>100}\r\n");
                let request = call("7", &session).replace("Connection: close\r\n", "");
                writer.write_all(request.as_bytes()).unwrap();
            }
        });
        let mut answers = BufReader::new(&mut reader);
        let mut line = String::new();
        for number in 0..SESSIONS {
            while !line.starts_with("HTTP/1.1 200") && !line.contains("}HTTP/1.1 200") {
                line.clear();
                assert!(answers.read_line(&mut line).unwrap() > 0, "{number}");
            }
            line.clear();
            if number % 5000 == 0 {
                serves(&ebbtide);
            }
        }
    });
    let known = ebbtide.status()["in_flight"]["sessions"].as_u64().unwrap();
    assert!((10_000..=16 * 1024).contains(&known), "{known}");
    let peak = ebbtide.peak_memory();
    assert!(peak <= before + ROOM, "{before} MiB, then {peak} MiB");
}

#[test]
fn many_pending_calls_of_a_session_are_bounded_and_the_last_ones_answered() {
    const CALLS: usize = 10_000;
    let ebbtide = Ebbtide::start(upstream(), &["--drain-timeout", "1s"]);
    let listen = "GET /sse HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
    let mut stream = connect(ebbtide.data);
    stream.write_all(listen.as_bytes()).unwrap();
    until(&mut stream, b"/messages\r\n");
    ebbtide.until(|status| status["in_flight"]["sessions"] == 1);
    std::thread::scope(|scope| {
        let mut reader = connect(ebbtide.data);
        let mut writer = reader.try_clone().unwrap();
        scope.spawn(move || {
            for number in 0..CALLS {
                let request = at(&call(&number.to_string(), ""), "/messages");
                let request = request.replace("Connection: close\r\n", "");
                writer.write_all(request.as_bytes()).unwrap();
            }
        });
        let mut answers = BufReader::new(&mut reader);
        let mut line = String::new();
        for number in 0..CALLS {
            while !line.starts_with("HTTP/1.1 202") {
                line.clear();
                assert!(answers.read_line(&mut line).unwrap() > 0, "{number}");
            }
            line.clear();
        }
    });
    serves(&ebbtide);
    assert_eq!(ebbtide.status()["in_flight"]["pending"], 64);
    ebbtide.signal("-TERM");
    let end = rest(&mut stream);
    assert_eq!(end.matches("\"error\":{\"code\":-32010").count(), 64, "{end}");
    assert!(end.contains("\"id\":9999,") && end.ends_with("0\r\n\r\n"), "{end}");
}

#[test]
fn an_endless_endpoint_names_none() {
    let ebbtide = Ebbtide::start(upstream(), &[]);
    let listen = "GET /large-endpoint HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
    let mut stream = connect(ebbtide.data);
    stream.write_all(listen.as_bytes()).unwrap();
    assert!(until(&mut stream, b"\n\n\r\n") > MIB);
    serves(&ebbtide);
    let in_flight = &ebbtide.status()["in_flight"];
    // The one session that `serves` brings.
    assert_eq!((&in_flight["sessions"], &in_flight["streams"]), (&1.into(), &1.into()));
}
