//! Calls whose exchange is over and whose answer is not: they hold the drain, up to a bound, and
//! are answered on whichever stream their client listens to.

use ebbtide::drain::{Phase, handle::Event};
use tokio::time::Instant;

use crate::harness::{ANSWER, EVENTS, Settings, Wire, World, call, get, post, seconds};

const SESSION: &str = "Mcp-Session-Id: s\r\n";
const RESUME: &str = "Mcp-Session-Id: s\r\nLast-Event-ID: 1\r\n";
const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
const WITH_ID: &str = "id: 1\ndata: {\"method\":\"notifications/progress\"}\n\n";

fn answer(id: &str) -> String {
    format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n")
}

/// A call that is answered by a stream, of which one event has passed.
async fn begun(world: &mut World, request: &str, event: &str) -> (Wire, Wire) {
    let (mut client, mut server) = world.held(request).await;
    server.send(EVENTS).await;
    server.chunk(event).await;
    client.until(event).await;
    (client, server)
}

/// Nothing is pending: a drain ends at once.
async fn ends_at_once(world: &World) {
    world.drain.tell(Event::Requested).await;
    let began = Instant::now();
    world.reached(Phase::Drained).await;
    assert!(began.elapsed() <= seconds(1.0), "{:?}", began.elapsed());
}

/// A call of the session `s` whose client has left.
async fn left(world: &mut World) {
    let (client, mut server) = begun(world, &call("7", SESSION), WITH_ID).await;
    drop(client);
    // The upstream is let go at once: holding it would make the resuming GET fail.
    assert_eq!(server.rest().await, "");
    world.settled().await;
}

async fn drains(world: &World) -> Instant {
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Draining).await;
    world.settled().await;
    assert_eq!(world.watch.phase(), Phase::Draining, "something is pending");
    Instant::now()
}

/// A stream that a client opens to listen on.
async fn listening(world: &mut World, more: &str) -> (Wire, Wire) {
    let (mut client, mut server) = world.held(&get(more)).await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    (client, server)
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_left_is_awaited_until_it_passes_on_a_resumed_get() {
    let mut world = World::start(Settings::default()).await;
    left(&mut world).await;
    drains(&world).await;
    let (mut back, mut server) = listening(&mut world, RESUME).await;
    server.chunk(&answer("7")).await;
    let end = back.until("0\r\n\r\n").await;
    // What came is passed on, and then the stream is one like any other.
    assert!(end.contains("\"result\":{}") && end.contains("retry: "), "{end}");
    assert!(!end.contains("error"), "{end}");
    world.report().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_may_end_a_calls_stream_and_have_its_client_come_back() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = begun(&mut world, &call("7", SESSION), WITH_ID).await;
    server.send("0\r\n\r\n").await;
    assert_eq!(client.until("0\r\n\r\n").await, "\r\n0\r\n\r\n");
    drop(server);
    drains(&world).await;
    let (mut back, mut server) = listening(&mut world, RESUME).await;
    server.chunk(&answer("7")).await;
    back.until("0\r\n\r\n").await;
    world.report().await;
}

/// Nobody can come back without an event's id: the client would wait for ever.
#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_its_answer_gets_an_error() {
    let mut world = World::start(Settings::default()).await;
    let note = "data: {\"method\":\"notifications/progress\"}\n\n";
    for (request, event, lost) in [
        (call("7", SESSION), note, true),
        // A modern client cannot come back at all.
        (call("7", "Mcp-Method: tools/call\r\n"), WITH_ID, true),
        (call("7", SESSION), &*answer("7"), false),
    ] {
        let (mut client, mut server) = begun(&mut world, &request, event).await;
        server.send("0\r\n\r\n").await;
        let end = client.until("0\r\n\r\n").await;
        assert_eq!(end.contains(r#""id":7,"error":{"code":-32011"#), lost, "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_client_gave_up_is_not_awaited() {
    let mut world = World::start(Settings::default()).await;
    left(&mut world).await;
    let (mut running, mut server) = begun(&mut world, &call("8", SESSION), WITH_ID).await;
    for id in ["7", "8"] {
        let body = format!(
            r#"{{"method":"notifications/cancelled","params":{{"reason":"","requestId":{id}}}}}"#
        );
        let mut client = world.asked(&post(&body, SESSION)).await;
        let (mut server, _) = world.asked_server().await;
        server.send(ACCEPTED).await;
        client.message().await;
    }
    // A server that was told to stop owes no answer: no error takes its place.
    server.send("0\r\n\r\n").await;
    assert_eq!(running.until("0\r\n\r\n").await, "\r\n0\r\n\r\n");
    world.drain.tell(Event::Requested).await;
    let began = Instant::now();
    drop(running);
    world.reached(Phase::Drained).await;
    assert!(began.elapsed() <= seconds(1.0), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_takes_what_is_pending_with_it() {
    for (request, answer) in [
        (format!("DELETE /mcp HTTP/1.1\r\nHost: a\r\n{SESSION}\r\n"), ACCEPTED),
        (get(RESUME), "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut world = World::start(Settings::default()).await;
        left(&mut world).await;
        let (mut client, mut server) = world.held(&request).await;
        server.send(answer).await;
        client.message().await;
        drop(client);
        ends_at_once(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_client_that_does_not_come_back() {
    let mut settings = Settings::default();
    settings.rules.timings.drain_timeout = Some(seconds(600.0));
    let mut world = World::start(settings).await;
    // A stream that it resumed before is not where it would hear the answer.
    let (_listening, _server) = listening(&mut world, RESUME).await;
    world.settled().await;
    left(&mut world).await;
    let left_at = Instant::now();
    drains(&world).await;
    world.reached(Phase::Drained).await;
    let waited = left_at.elapsed().as_millis();
    assert!((59_900..=61_000).contains(&waited), "{waited}");
}

/// The tool of a modern client stops when its client leaves.
#[tokio::test(start_paused = true)]
async fn a_modern_client_that_leaves_leaves_nothing() {
    let mut world = World::start(Settings::default()).await;
    let modern = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n";
    let (client, mut server) = begun(&mut world, &call("7", modern), WITH_ID).await;
    drop(client);
    assert_eq!(server.rest().await, "");
    ends_at_once(&world).await;
}

/// A GET with `Last-Event-ID` is let through, and is one more endless stream where nothing of its
/// session is pending.
#[tokio::test(start_paused = true)]
async fn a_resumed_get_without_a_call_holds_nothing() {
    let mut world = World::start(Settings::default()).await;
    let (mut early, _server) = listening(&mut world, RESUME).await;
    let (_held, _held_server) = world.held(&call("1", "")).await;
    drains(&world).await;
    assert!(early.until("0\r\n\r\n").await.contains("retry: "));
    let (mut late, _server) = listening(&mut world, RESUME).await;
    assert!(late.until("0\r\n\r\n").await.contains("retry: "));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_after_the_deadline_gets_the_error() {
    for resumed in [false, true] {
        let mut settings = Settings::default();
        settings.rules.timings.drain_timeout = Some(seconds(10.0));
        let mut world = World::start(settings).await;
        left(&mut world).await;
        drains(&world).await;
        let end = if resumed {
            let (mut back, _server) = listening(&mut world, RESUME).await;
            back.until("0\r\n\r\n").await
        } else {
            world.reached(Phase::Drained).await;
            let mut back = world.asked(&get(RESUME)).await;
            let answer = back.message().await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains("content-type: text/event-stream"), "{answer}");
            answer
        };
        assert!(end.contains(r#""id":7,"error":{"code":-32010"#), "{end}");
        let report = world.report().await;
        assert_eq!((report.cut, report.cut_calls[0].id.as_deref()), (1, Some("7")));
    }
}

/// HTTP+SSE 2024-11-05: a stream that names where its client POSTs.
async fn event_stream(world: &mut World) -> (Wire, Wire) {
    let (mut client, mut server) = world.held(&get("")).await;
    server.send(EVENTS).await;
    server.chunk("event: endpoint\ndata: /messages?session=1\n\n").await;
    client.until("session=1\n\n").await;
    (client, server)
}

async fn posted(world: &mut World, id: &str) {
    let request = call(id, "").replacen("/mcp", "/messages?session=1", 1);
    // The body comes after the head, as from the Python SDK.
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    let mut client = world.asked(head).await;
    world.settled().await;
    client.send(body).await;
    let mut server = world.server().await;
    server.message().await;
    server.send(ACCEPTED).await;
    assert!(client.message().await.starts_with("HTTP/1.1 202"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_answered_on_the_other_stream_is_awaited() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = event_stream(&mut world).await;
    posted(&mut world, "7").await;
    posted(&mut world, "8").await;
    server.chunk(&answer("7")).await;
    client.until("\"id\":7").await;
    drains(&world).await;
    server.chunk(&answer("8")).await;
    let end = client.until("0\r\n\r\n").await;
    assert!(end.contains("\"id\":8,\"result\"") && !end.contains("error"), "{end}");
    assert_eq!(world.report().await.cut, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_other_stream_owes_is_answered_there_when_it_ends() {
    for lost in [false, true] {
        let mut settings = Settings::default();
        settings.rules.timings.drain_timeout = Some(seconds(10.0));
        let mut world = World::start(settings).await;
        let (mut client, server) = event_stream(&mut world).await;
        posted(&mut world, "7").await;
        let code = if lost {
            // In the middle of a chunked body: the server is gone.
            drop(server);
            "-32011"
        } else {
            drains(&world).await;
            "-32010"
        };
        let end = client.until("0\r\n\r\n").await;
        assert!(end.contains(&format!(r#""id":7,"error":{{"code":{code}"#)), "{end}");
    }
}

/// Its status is all that an HTTP+SSE client hears of a POST: one that failed awaits nothing.
#[tokio::test(start_paused = true)]
async fn a_post_that_failed_is_not_awaited() {
    for refusal in ["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", ""] {
        let mut world = World::start(Settings::default()).await;
        let (client, _stream) = event_stream(&mut world).await;
        let request = call("7", "").replacen("/mcp", "/messages?session=1", 1);
        let (mut refused, mut server) = world.held(&request).await;
        server.send(refusal).await;
        drop(server);
        let answer = refused.message().await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
        // The stream that would keep it waiting is open.
        world.drain.tell(Event::Requested).await;
        let began = Instant::now();
        drop(refused);
        world.reached(Phase::Drained).await;
        assert!(began.elapsed() <= seconds(1.0), "{:?}", began.elapsed());
        drop(client);
    }
}

/// Most HTTP clients send the body behind the head, and many have the id last in it.
#[tokio::test(start_paused = true)]
async fn a_call_whose_id_comes_late_is_awaited_on_the_other_stream() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut stream) = event_stream(&mut world).await;
    let request = call("7", "").replacen("/mcp", "/messages?session=1", 1);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let (head, _) = head.split_once("Content-Length").unwrap();
    let mut poster = world.asked(&format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
    poster.chunk(&body[..20]).await;
    let mut server = world.server().await;
    server.until(&body[..20]).await;
    poster.chunk(&body[20..]).await;
    server.until(&body[20..]).await;
    poster.send("0\r\n\r\n").await;
    server.send(ACCEPTED).await;
    assert!(poster.message().await.starts_with("HTTP/1.1 202"));
    drains(&world).await;
    stream.chunk(&answer("7")).await;
    let end = client.until("0\r\n\r\n").await;
    assert!(end.contains("\"id\":7,\"result\"") && !end.contains("error"), "{end}");
}

/// However long it takes: a call is given up only where nobody is there to hear its answer.
#[tokio::test(start_paused = true)]
async fn a_long_call_is_awaited_while_its_client_listens() {
    for elsewhere in [false, true] {
        let mut world = World::start(Settings::default()).await;
        let (mut client, mut stream) = if elsewhere {
            let open = event_stream(&mut world).await;
            posted(&mut world, "7").await;
            open
        } else {
            left(&mut world).await;
            listening(&mut world, RESUME).await
        };
        tokio::time::sleep(seconds(600.0)).await;
        drains(&world).await;
        stream.chunk(&answer("7")).await;
        let end = client.until("0\r\n\r\n").await;
        assert!(end.contains("\"id\":7,\"result\"") && !end.contains("error"), "{end}");
    }
}

/// Nobody can look into it: its end is taken for an answer.
#[tokio::test(start_paused = true)]
async fn a_compressed_stream_leaves_nothing_pending() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(&call("7", SESSION)).await;
    server.send(&EVENTS.replacen("\r\n", "\r\nContent-Encoding: gzip\r\n", 1)).await;
    server.chunk("compressed").await;
    server.send("0\r\n\r\n").await;
    assert!(client.until("0\r\n\r\n").await.ends_with("compressed\r\n0\r\n\r\n"));
    drop(client);
    ends_at_once(&world).await;
}

/// The answer to `initialize` opens the session that its client comes back with.
#[tokio::test(start_paused = true)]
async fn initialize_may_be_answered_later() {
    let mut world = World::start(Settings::default()).await;
    let request = post(r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#, "");
    let (mut client, mut server) = world.held(&request).await;
    server.send(&EVENTS.replacen("\r\n", "\r\nMcp-Session-Id: s\r\n", 1)).await;
    server.chunk("id: 1\ndata:\n\n").await;
    server.send("0\r\n\r\n").await;
    let end = client.until("0\r\n\r\n").await;
    assert!(!end.contains("error"), "{end}");
    drop(server);
    drains(&world).await;
    let (mut back, mut server) = listening(&mut world, RESUME).await;
    server.chunk(&answer("0")).await;
    back.until("0\r\n\r\n").await;
    world.report().await;
}

/// Behind a connection balancer the next connection meets a pod that does not know the session.
#[tokio::test(start_paused = true)]
async fn a_session_that_a_drain_finds_in_its_opening_keeps_its_connection() {
    let mut world = World::start(Settings::default()).await;
    let request = post(r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#, "");
    let (mut client, mut server) = world.held(&request).await;
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Draining).await;
    server.send(&ANSWER.replacen("\r\n", "\r\nMcp-Session-Id: s\r\n", 1)).await;
    let answer = client.message().await.to_ascii_lowercase();
    assert!(answer.contains("mcp-session-id: e1."), "{answer}");
    assert!(!answer.contains("connection: close"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_one_call_of_a_batch_awaits_the_others() {
    let mut world = World::start(Settings::default()).await;
    let batch = r#"[{"id":1,"method":"a"},{"id":2,"method":"b"},{"id":3,"method":"c"}]"#;
    let (mut running, mut server) = begun(&mut world, &post(batch, SESSION), &answer("1")).await;
    let body = r#"{"method":"notifications/cancelled","params":{"requestId":3}}"#;
    let mut client = world.asked(&post(body, SESSION)).await;
    let (mut other, _) = world.asked_server().await;
    other.send(ACCEPTED).await;
    client.message().await;
    server.send("0\r\n\r\n").await;
    let end = running.until("0\r\n\r\n").await;
    assert!(end.contains(r#""id":2,"error":{"code":-32011"#), "{end}");
    assert!(!end.contains(r#""id":1,"error""#), "{end}");
}

/// Whatever the server makes of an id that its client still knows, in one piece with the end.
#[tokio::test(start_paused = true)]
async fn an_answer_counts_however_its_id_is_written() {
    let mut world = World::start(Settings::default()).await;
    for (id, written) in [("7", "7.0"), ("7", "\"7\""), ("\"a\"", "\"\\u0061\"")] {
        let (mut client, mut server) = world.held(&call(id, SESSION)).await;
        let answer = answer(written);
        server.send(&format!("{EVENTS}{:x}\r\n{answer}\r\n0\r\n\r\n", answer.len())).await;
        let end = client.until("0\r\n\r\n").await;
        assert!(end.contains("result") && !end.contains("error"), "{end}");
    }
    ends_at_once(&world).await;
}

/// A second answer is no answer to another call, and neither is one to a call of another client.
#[tokio::test(start_paused = true)]
async fn a_server_that_lies_about_ids_settles_nobody_elses_call() {
    let mut world = World::start(Settings::default()).await;
    left(&mut world).await;
    let batch = r#"[{"id":1,"method":"a"},{"id":2,"method":"b"}]"#;
    let other = "Mcp-Session-Id: other\r\n";
    let (mut client, mut server) = begun(&mut world, &post(batch, other), &answer("1")).await;
    for id in ["1", "7", "9"] {
        server.chunk(&answer(id)).await;
    }
    server.send("0\r\n\r\n").await;
    let end = client.until("0\r\n\r\n").await;
    assert_eq!(end.matches("error").count(), 1, "{end}");
    assert!(end.contains(r#""id":2,"error":{"code":-32011"#), "{end}");
    drains(&world).await;
}
