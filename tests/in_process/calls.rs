//! How a call ends that does not end by itself: always with its own id, always at its instant.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use ebbtide::{
    config::value::Refusal,
    drain::{Phase, handle::Event},
};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::harness::{ANSWER, EVENTS, Settings, World, body, call, get, post, seconds};

fn cut_after(drain_timeout: f64) -> Settings {
    let mut settings = Settings::default();
    settings.rules.timings.drain_timeout = Some(seconds(drain_timeout));
    settings
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_head_is_cut_with_http_200_and_its_id() {
    let mut world = World::start(cut_after(10.0)).await;
    let batch = r#"[{"method":"a","id":1},{"method":"n"},{"method":"b","id":"2"}]"#;
    let mut clients = Vec::new();
    for request in [call("7", ""), call("\"7\"", ""), post(batch, ""), call("8", "X: half\r\n")] {
        clients.push(world.asked(&request).await);
    }
    let mut servers = Vec::new();
    for _ in &clients {
        let mut server = world.server().await;
        // A JSON answer that is not whole: its head was not passed on.
        if server.message().await.contains("x: half") {
            let half = ANSWER.replace("Content-Length: 2", "Content-Length: 3");
            server.send(&half).await;
        }
        servers.push(server);
    }
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;
    let mut answers = Vec::new();
    for client in &mut clients {
        answers.push(client.message().await);
        assert_eq!(began.elapsed().as_secs(), 10);
    }
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    }
    let errors: Vec<Value> =
        answers.iter().map(|answer| serde_json::from_str(body(answer)).unwrap()).collect();
    let expected = [Value::from(7), Value::from("7"), Value::Null, Value::from(8)];
    for (error, id) in errors.iter().zip(&expected).filter(|(_, id)| !id.is_null()) {
        assert_eq!((&error["id"], &error["error"]["code"]), (id, &Value::from(-32010)));
    }
    let ids: Vec<_> =
        errors[2].as_array().unwrap().iter().map(|error| error["id"].clone()).collect();
    assert_eq!(ids, [Value::from(1), Value::from("2")]);
    // The server is let go: it may stop what it does.
    for server in &mut servers {
        assert_eq!(server.rest().await, "");
    }
    assert_eq!(world.report().await.cut, 4);
}

#[tokio::test(start_paused = true)]
async fn an_open_stream_of_events_is_cut_with_one_event_and_a_last_chunk() {
    let mut world = World::start(cut_after(10.0)).await;
    let (mut client, mut server) = world.held(&call("\"s\"", "")).await;
    server.send(EVENTS).await;
    server.chunk("id: 1\ndata: first\n\n").await;
    client.until("data: first\n\n").await;
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;
    let end = client.until("0\r\n\r\n").await;
    assert_eq!(began.elapsed().as_secs(), 10);
    let events: Vec<_> = end.matches("event: message\ndata: ").collect();
    assert_eq!(events.len(), 1, "{end}");
    assert!(end.contains(r#""id":"s","error":{"code":-32010"#), "{end}");
    assert!(!end.contains("\nid:"), "{end}");
    assert_eq!(server.rest().await, "");
}

/// Half an event is finished if that comes soon; else it becomes one that is no message.
#[tokio::test(start_paused = true)]
async fn an_event_under_way_ends_before_the_error() {
    for (more_after, last) in [
        // With all that has come by then.
        (0.2, "data: {\"half\":true}\n\ndata: next\n\n"),
        (0.4, "data: {\"half\":\nevent: ebbtide-cut\n\n"),
    ] {
        let mut world = World::start(cut_after(10.0)).await;
        let (mut client, mut server) = world.held(&call("1", "")).await;
        server.send(EVENTS).await;
        server.chunk("data: {\"half\":").await;
        client.until("half\":").await;
        let began = Instant::now();
        world.drain.tell(Event::Requested).await;
        let cut = began + seconds(10.0);
        sleep_until(cut + seconds(more_after)).await;
        // Let go, where that was too late.
        let rest = "true}\n\ndata: next\n\n";
        let _ = tokio::io::AsyncWriteExt::write_all(
            &mut server.pipe,
            format!("{:x}\r\n{rest}\r\n", rest.len()).as_bytes(),
        )
        .await;
        let end = client.until("0\r\n\r\n").await;
        let events: String = format!("data: {{\"half\":{}", without_chunks(&end));
        let (first, error) = events.split_once("event: message\n").unwrap();
        assert_eq!(first, last);
        assert!(error.starts_with("data: {\"jsonrpc\":\"2.0\",\"id\":1,"), "{error}");
    }
}

/// The bytes of a chunked body, which `until` has split behind its first part.
fn without_chunks(body: &str) -> String {
    let lines = body.trim_start_matches("\r\n").split("\r\n");
    let is_size = |line: &&str| !line.is_empty() && u32::from_str_radix(line, 16).is_ok();
    lines.filter(|line| !is_size(line)).collect()
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_in_line_gets_503() {
    let mut settings = Settings::default();
    settings.pool.max_connections = 1;
    let mut world = World::start(settings).await;
    let (mut first, mut server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    let mut second = world.asked(&call("\"second\"", "")).await;
    sleep(seconds(1.0)).await;
    let mut third = world.asked(&call("3", "")).await;

    let refused = second.message().await;
    assert_eq!(began.elapsed().as_millis(), 5000);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    assert!(refused.contains(r#""id":"second","error":{"code":-32012"#), "{refused}");
    assert!(refused.contains("max_connections"), "{refused}");
    // The line moves: the third had a second left.
    server.send(ANSWER).await;
    assert!(first.message().await.ends_with("{}"));
    assert!(server.message().await.contains(r#""id":3"#));
    server.send(ANSWER).await;
    assert!(third.message().await.ends_with("{}"));
    assert_eq!(began.elapsed().as_millis(), 5000);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_in_time_is_given_up() {
    let mut settings = Settings::default();
    settings.rules.response_timeout = seconds(20.0);
    let mut world = World::start(settings).await;
    let began = Instant::now();
    let (mut silent, _server) = world.held(&call("\"silent\"", "")).await;
    // An answer that has begun may last.
    let (mut stream, mut events) = world.held(&call("2", "")).await;
    events.send(EVENTS).await;
    let (mut plain, _server) = world.held("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

    let answer = silent.message().await;
    // Looked for ten times in the time that was given.
    let took = began.elapsed();
    assert!(took >= seconds(20.0) && took <= seconds(22.0), "{took:?}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""id":"silent","error":{"code":-32011"#), "{answer}");
    assert!(plain.message().await.starts_with("HTTP/1.1 504"));
    sleep(seconds(60.0)).await;
    events.chunk("data: late\n\n").await;
    stream.until("data: late\n\n").await;
}

/// The phase is read after the ticket is taken: who comes in the middle of the change is seen.
#[tokio::test(start_paused = true)]
async fn draining_refuses_what_would_not_end() {
    let mut world = World::start(Settings::default()).await;
    let (_held, _server) = world.held(&call("1", "")).await;
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Draining).await;
    let initialize = post(r#"{"method":"initialize","id":"i"}"#, "");
    let mut client = world.asked(&initialize).await;
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(r#""id":"i""#), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(client.rest().await, "");
    let mut client = world.asked(&get("")).await;
    assert!(client.message().await.starts_with("HTTP/1.1 503"));
    // Calls in flight may be waiting for these.
    for message in [r#"{"id":0,"result":{}}"#, r#"{"method":"notifications/cancelled"}"#] {
        let mut client = world.asked(&post(message, "")).await;
        let mut server = world.server().await;
        assert!(server.message().await.ends_with(message));
        server
            .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
        assert!(client.message().await.starts_with("HTTP/1.1 202"));
    }
}

/// What comes too late: a JSON-RPC error in HTTP 200, or, for gateways, in 503.
#[tokio::test(start_paused = true)]
async fn what_comes_too_late_is_refused_in_the_way_that_was_set() {
    for (refuse_with, status) in [(Refusal::JsonRpc, "200"), (Refusal::Status, "503")] {
        let world = World::start(Settings { refuse_with, ..Settings::default() }).await;
        world.drain.tell(Event::Requested).await;
        world.reached(Phase::Drained).await;
        for (more, status) in [
            ("", status),
            ("Mcp-Method: tools/call\r\n", status),
            // Elsewhere nobody knows the session; idle, it is over.
            ("Mcp-Session-Id: s\r\n", "404"),
        ] {
            let mut client = world.asked(&call("7", more)).await;
            let answer = client.message().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert_eq!(answer.contains("retry-after: 1\r\n"), status == "503", "{answer}");
            assert!(answer.contains(r#""id":7,"error":{"code":-32010"#), "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
        }
    }
}

/// In a session it is an error in any case: a gateway that tries elsewhere would meet a pod that does
/// not know it, and a 503 ends some clients.
#[tokio::test(start_paused = true)]
async fn a_call_of_a_busy_session_is_refused_with_an_error_whatever_was_set() {
    for (refuse_with, of_none) in [(Refusal::JsonRpc, "200"), (Refusal::Status, "503")] {
        let settings = Settings { refuse_with, ..cut_after(13.0) };
        let mut world = World::start(settings).await;
        let session = "Mcp-Session-Id: s\r\n";
        let (mut client, mut server) = world.held(&call("1", session)).await;
        server.send(EVENTS).await;
        client.until("\r\n\r\n").await;
        world.drain.tell(Event::Requested).await;
        sleep(seconds(11.0)).await;
        // Its client has just stopped reading, so that it is still there at the cut.
        server.fill_with_events().await;
        world.reached(Phase::Cutting).await;
        let (mut late, mut none) =
            (world.asked(&call("2", session)).await, world.asked(&call("3", "")).await);
        let answer = late.message().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("-32010"), "{answer}");
        let answer = none.message().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {of_none}")), "{answer}");
    }
}

/// It may have opened a session by then: it hears what any call does.
#[tokio::test(start_paused = true)]
async fn an_initialize_that_is_cut_gets_an_error_and_one_that_comes_late_503() {
    let mut world = World::start(cut_after(10.0)).await;
    let initialize = post(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#, "");
    let (mut client, _server) = world.held(&initialize).await;
    world.drain.tell(Event::Requested).await;
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("-32010"), "{answer}");
    world.reached(Phase::Drained).await;
    let late = world.asked(&initialize).await.message().await;
    assert!(late.starts_with("HTTP/1.1 503") && late.contains("-32010"), "{late}");
}

/// The word that the server is gone may be quicker than what it has sent.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_goes_before_the_end() {
    let answer = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";
    for more in ["", "data: {\"method\":\"notifications/progress\"}\n\n"] {
        let mut world = World::start(Settings::default()).await;
        let (mut client, mut server) = world.held(&call("1", "")).await;
        server.send(EVENTS).await;
        client.until("\r\n\r\n").await;
        world.drain.tell(Event::ServerEnded).await;
        server.chunk(&format!("{more}{answer}")).await;
        let end = client.until("0\r\n\r\n").await;
        assert!(end.contains(answer) && !end.contains("error"), "{end}");
        assert_eq!(world.report().await.completed, 1);
    }
}

/// They are lost a moment before anybody hears of its end.
#[tokio::test(start_paused = true)]
async fn the_calls_of_a_server_that_ended_are_in_the_report() {
    let mut world = World::start(Settings::default()).await;
    // Those of before are not.
    for (id, pause) in [("1", 60.0), ("2", 0.001)] {
        let (mut client, server) = world.held(&call(id, "")).await;
        drop(server);
        assert!(client.message().await.contains("-32011"));
        sleep(seconds(pause)).await;
    }
    world.drain.tell(Event::ServerEnded).await;
    assert_eq!(world.report().await.lost, 1);
}

/// However many it answers in one stream, and whatever their ids look like.
#[tokio::test(start_paused = true)]
async fn a_batch_is_settled_by_its_last_answer() {
    let mut world = World::start(Settings::default()).await;
    let id = |number: usize| format!("\"\\n{}{number}\"", "x".repeat(900));
    let ping = |number| format!("{{\"id\":{},\"method\":\"ping\"}}", id(number));
    let batch: Vec<String> = (0..60).map(ping).collect();
    let (mut client, mut server) = world.held(&post(&format!("[{}]", batch.join(",")), "")).await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    for number in (1..60).rev() {
        server.chunk(&format!("data: {{\"id\":{},\"result\":{{}}}}\n\n", id(number))).await;
        client.until("result").await;
    }
    world.drain.tell(Event::ServerEnded).await;
    let end = client.until("0\r\n\r\n").await;
    // Nobody has answered the first.
    assert_eq!(end.matches("-32011").count(), 1, "{end}");
    assert!(end.contains(&id(0)), "{end}");
}

/// A server that writes no length and no chunks ends an answer by closing: whether it was whole
/// only the last event tells.
#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_within_an_event_is_a_server_that_is_gone() {
    let mut world = World::start(Settings::default()).await;
    let answer = "data: {\"result\":{},\"id\":1}\n\n";
    for (sent, lost, cut) in [
        (answer, false, false),
        ("data: 1\n\n", true, false),
        ("data: 1\n\ndata: {\"a", true, true),
    ] {
        let (mut client, mut server) = world.held(&call("1", "")).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
        server.send(sent).await;
        drop(server);
        let end = client.until("0\r\n\r\n").await;
        assert_eq!(end.contains(r#""id":1,"error":{"code":-32011"#), lost, "{end}");
        assert_eq!(end.contains("event: ebbtide-cut"), cut, "{end}");
    }
}

/// Its last event may be ours, so that its length is not known.
#[tokio::test(start_paused = true)]
async fn a_sized_stream_of_events_has_room_for_the_error() {
    let mut world = World::start(cut_after(10.0)).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\n";
    server.send(head).await;
    server.send("data: 1\n\n").await;
    world.drain.tell(Event::Requested).await;
    let answer = client.until("0\r\n\r\n").await;
    assert!(!answer.contains("content-length"), "{answer}");
    assert!(answer.contains(r#""id":1,"error":{"code":-32010"#), "{answer}");
}

/// What cannot be read cannot be added to: it breaks, and does not look whole.
#[tokio::test(start_paused = true)]
async fn a_compressed_stream_of_events_is_broken_off() {
    let mut world = World::start(cut_after(10.0)).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    let head = EVENTS.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n");
    server.send(&head).await;
    server.chunk("squeezed").await;
    world.drain.tell(Event::Requested).await;
    let answer = client.rest().await;
    assert!(answer.contains("squeezed") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    assert!(!answer.contains("event:"), "{answer}");
}

/// A tool that asks its client is not left waiting, however many calls and streams there are.
#[tokio::test(start_paused = true)]
async fn the_answer_of_a_client_passes_a_full_pool() {
    let mut settings = Settings::default();
    (settings.pool.max_connections, settings.pool.max_streams) = (1, 1);
    let mut world = World::start(settings).await;
    let (_stream, _open) = world.held(&get("")).await;
    let (_client, _server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    let answer = post(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, "Mcp-Session-Id: s\r\n");
    let (_answering, _server) = world.held(&answer).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// A process that ends closes its connections one by one: the client that hears of the first would
/// send its next call on one of the others.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_to_a_server_that_has_just_broken_a_connection() {
    for ends in [true, false] {
        let mut world = World::start(Settings::default()).await;
        let (mut kept, mut idle) = world.held(&call("1", "")).await;
        let (mut client, broken) = world.held(&call("2", "")).await;
        idle.send(ANSWER).await;
        kept.message().await;
        drop(broken);
        assert!(client.message().await.contains("-32011"));
        client.send(&call("3", "")).await;
        let early = timeout(seconds(0.015), idle.more()).await;
        assert!(early.is_err(), "{early:?}");
        if ends {
            world.up.store(false, Relaxed);
            drop(idle);
            sleep(seconds(1.0)).await;
            world.up.store(true, Relaxed);
            idle = world.asked_server().await.0;
        } else {
            assert!(idle.message().await.contains("\"id\":3"));
        }
        idle.send(ANSWER).await;
        assert!(client.message().await.starts_with("HTTP/1.1 200"));
    }
}

/// One that breaks connections as it likes, or as a client makes it.
#[tokio::test(start_paused = true)]
async fn a_server_that_goes_on_listening_is_waited_for_once_a_second() {
    let mut world = World::start(Settings::default()).await;
    for (pause, waits) in [(0.0, true), (0.1, false), (0.6, false), (0.3, true)] {
        sleep(seconds(pause)).await;
        let (mut client, broken) = world.held(&call("1", "")).await;
        drop(broken);
        assert!(client.message().await.contains("-32011"));
        let began = Instant::now();
        let (mut next, mut server) = world.held(&call("2", "")).await;
        assert_eq!(began.elapsed() >= seconds(0.02), waits, "{pause} {:?}", began.elapsed());
        server.send(&ANSWER.replace("Content-Type", "Connection: close\r\nContent-Type")).await;
        next.message().await;
        sleep(seconds(0.1)).await;
    }
}
