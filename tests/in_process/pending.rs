//! Calls whose exchange is over and whose answer is not: they hold the drain, up to a bound, and
//! are answered on whichever stream their client listens to.

use ebbtide::drain::{Phase, handle::Event};
use tokio::time::Instant;

use crate::harness::{EVENTS, Settings, Wire, World, call, get, post, seconds};

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
        world.drain.tell(Event::Requested).await;
        let began = Instant::now();
        world.reached(Phase::Drained).await;
        assert!(began.elapsed() <= seconds(1.0), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_client_that_does_not_come_back() {
    let mut settings = Settings::default();
    settings.rules.timings.drain_timeout = Some(seconds(600.0));
    let mut world = World::start(settings).await;
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
    world.drain.tell(Event::Requested).await;
    let began = Instant::now();
    world.reached(Phase::Drained).await;
    assert!(began.elapsed() <= seconds(1.0), "{:?}", began.elapsed());
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

#[tokio::test(start_paused = true)]
async fn a_post_that_the_server_refused_is_not_awaited() {
    let mut world = World::start(Settings::default()).await;
    let (client, _stream) = event_stream(&mut world).await;
    let request = call("7", "").replacen("/mcp", "/messages?session=1", 1);
    let (mut refused, mut server) = world.held(&request).await;
    server.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    refused.message().await;
    drop((client, refused));
    world.drain.tell(Event::Requested).await;
    let began = Instant::now();
    world.reached(Phase::Drained).await;
    assert!(began.elapsed() <= seconds(1.0), "{:?}", began.elapsed());
}
