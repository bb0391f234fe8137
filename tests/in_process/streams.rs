//! How streams end: spread, properly, and not while their session has a call.

use std::collections::BTreeMap;

use ebbtide::drain::{Phase, handle::Event};
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{ANSWER, EVENTS, Settings, Wire, World, call, get, post, seconds};

/// A client with an open stream of events.
async fn stream(world: &mut World, more: &str) -> (Wire, Wire) {
    let (mut client, mut server) = world.held(&get(more)).await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    (client, server)
}

/// How many of `count` streams end in which tick of 10 ms, with so much time to the cut.
async fn endings(count: usize, drain_timeout: f64) -> BTreeMap<u128, usize> {
    let mut settings = Settings::default();
    settings.pool.max_streams = count;
    settings.rules.timings.drain_timeout = Some(seconds(drain_timeout));
    let mut world = World::start(settings).await;
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(stream(&mut world, "").await);
    }
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;
    let mut ended = BTreeMap::new();
    for (client, _server) in &mut streams {
        let end = client.until("0\r\n\r\n").await;
        assert!(end.contains("retry: "), "{end}");
        *ended.entry(began.elapsed().as_millis() / 10).or_default() += 1;
    }
    assert_eq!(world.report().await.streams_ended, count as u64);
    ended
}

#[tokio::test(start_paused = true)]
async fn streams_end_ten_at_a_time() {
    let ended = endings(100, 30.0).await;
    assert_eq!(
        ended.into_iter().collect::<Vec<_>>(),
        (0..10).map(|tick| (tick, 10)).collect::<Vec<_>>()
    );
}

/// More at a time where there is less of it: half of what is left is enough.
#[tokio::test(start_paused = true)]
async fn streams_end_faster_where_there_is_less_time() {
    let ended = endings(200, 0.2).await;
    assert!(ended.values().all(|count| *count == 20), "{ended:?}");
    assert_eq!(ended.len(), 10);
}

/// Else the session's next call, which finds an idle connection, would overtake its stream, and
/// what the server says to the call on the stream would be lost.
#[tokio::test(start_paused = true)]
async fn a_stream_takes_a_connection_that_lies_idle() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    server.send(ANSWER).await;
    client.message().await;
    let mut listener = world.asked(&get("Mcp-Session-Id: s\r\n")).await;
    assert!(server.message().await.starts_with("GET "));
    server.send(EVENTS).await;
    listener.until("\r\n\r\n").await;
    // It is the stream's own now.
    let (_call, _fresh) = world.held(&call("2", "")).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_stays_while_its_session_has_a_call() {
    let mut world = World::start(Settings::default()).await;
    let session = "Mcp-Session-Id: s\r\n";
    let (mut own, mut server_of_own) = stream(&mut world, session).await;
    let (mut other, _server_of_other) = stream(&mut world, "Mcp-Session-Id: t\r\n").await;
    let (mut client, mut server) = world.held(&call("1", session)).await;
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;
    other.until("0\r\n\r\n").await;
    assert_eq!(began.elapsed().as_millis(), 0);
    // The server may still have to ask its client for something.
    sleep_until(began + seconds(8.0)).await;
    server_of_own.chunk("data: a question\n\n").await;
    own.until("data: a question\n\n").await;
    server.send(ANSWER).await;
    client.message().await;
    let end = own.until("0\r\n\r\n").await;
    assert!(end.contains("retry: ") && !end.contains("data:"), "{end}");
    assert_eq!(began.elapsed().as_secs(), 8);
    world.reached(Phase::Drained).await;
    assert_eq!(began.elapsed().as_secs(), 8);
}

/// A stream whose session keeps a call to the deadline ends with it, properly.
#[tokio::test(start_paused = true)]
async fn the_cut_ends_streams_properly() {
    let mut world = World::start(Settings::default()).await;
    let session = "Mcp-Session-Id: s\r\n";
    let (mut client, _server) = stream(&mut world, session).await;
    let (mut caller, _server) = world.held(&call("1", session)).await;
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;
    let end = client.until("0\r\n\r\n").await;
    assert!(end.contains("retry: "), "{end}");
    assert_eq!(began.elapsed().as_secs(), 30);
    assert!(caller.message().await.contains("-32010"));
    sleep(seconds(0.1)).await;
    assert_eq!(world.watch.phase(), Phase::Drained);
}

/// After an error clients stay without their stream for good; without a session (HTTP+SSE) there is
/// nothing to come back to.
#[tokio::test(start_paused = true)]
async fn a_session_s_stream_is_refused_by_ending_at_once() {
    let mut world = World::start(Settings::default()).await;
    let session = "Mcp-Session-Id: s\r\n";
    let (mut early, _server) = world.held(&get(session)).await;
    let (_caller, _server) = world.held(&call("1", "Mcp-Session-Id: t\r\n")).await;
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Draining).await;
    let mut late = world.asked(&get(session)).await;
    for client in [&mut early, &mut late] {
        let answer = client.message().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("text/event-stream") && answer.contains("retry: "), "{answer}");
    }
    let answer = world.asked(&get("")).await.message().await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

/// A `listen` that is answered by JSON is no stream, also if it was told to end as one in the very
/// moment in which that is seen.
#[tokio::test(start_paused = true)]
async fn a_listen_that_is_no_stream_ends_by_itself() {
    let mut world = World::start(Settings::default()).await;
    let listen =
        post(r#"{"method":"subscriptions/listen","id":1}"#, "Mcp-Method: subscriptions/listen\r\n");
    let (mut client, mut server) = world.held(&listen).await;
    // The driver is told first, and the head is there before the exchange looks.
    world.drain.tell(Event::Requested).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{}";
    server.send(head).await;
    world.reached(Phase::Draining).await;
    sleep(seconds(1.0)).await;
    server.send("  ").await;
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}  "), "{answer}");
}

/// It is us who break it, and not a server that is about to end.
#[tokio::test(start_paused = true)]
async fn a_stream_that_a_drain_ends_holds_no_call_up() {
    let mut world = World::start(Settings::default()).await;
    let (_held, _busy) = world.held(&call("1", "")).await;
    let (mut stream, mut server) = world.held(&get("")).await;
    server.send(EVENTS).await;
    stream.until("\r\n\r\n").await;
    world.drain.tell(Event::Requested).await;
    stream.until("retry: ").await;
    stream.until("0\r\n\r\n").await;
    let began = Instant::now();
    let (_client, _server) = world.held(&call("2", "")).await;
    assert!(began.elapsed() < seconds(0.01), "{:?}", began.elapsed());
}

/// A subscription that the drain ends is complete; one whose server is gone is not.
#[tokio::test(start_paused = true)]
async fn a_subscription_ends_well_only_where_the_drain_ends_it() {
    for (event, last) in [
        (Event::Requested, r#""id":"s","result":{"resultType":"complete""#),
        (Event::ServerEnded, r#""id":"s","error":{"code":-32011"#),
    ] {
        let mut world = World::start(Settings::default()).await;
        let listen = r#"{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{}}"#;
        let (mut client, mut server) =
            world.held(&post(listen, "Mcp-Method: subscriptions/listen\r\n")).await;
        server.send(EVENTS).await;
        client.until("\r\n\r\n").await;
        world.drain.tell(event).await;
        let end = client.until("0\r\n\r\n").await;
        assert!(end.contains(last), "{end}");
    }
}

/// One that the server has ended itself, a moment before.
#[tokio::test(start_paused = true)]
async fn a_subscription_gets_one_result() {
    let mut world = World::start(Settings::default()).await;
    let listen = r#"{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{}}"#;
    let (mut client, mut server) = world.held(&post(listen, "")).await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    world.drain.tell(Event::Requested).await;
    server.chunk("data: {\"id\":\"s\",\"result\":{}}\n\n").await;
    let end = client.until("0\r\n\r\n").await;
    assert_eq!(end.matches("result").count(), 1, "{end}");
}

/// It may have come as a call: in two parts, of which only the second tells.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_comes_in_parts_leaves_the_place_of_a_call() {
    let mut settings = Settings::default();
    settings.pool.max_connections = 1;
    let mut world = World::start(settings).await;
    let head = "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut client = world.asked(head).await;
    client.chunk(r#"{"id":1,"method":"subscriptions/listen","#).await;
    let mut server = world.server().await;
    server.until("listen").await;
    client.chunk(r#""params":{}}"#).await;
    client.send("0\r\n\r\n").await;
    server.until("0\r\n\r\n").await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    let (_call, _its_server) = world.held(&call("2", "")).await;
}

/// Whoever says so in the head alone, and calls, is counted as a call.
#[tokio::test(start_paused = true)]
async fn who_only_says_that_he_subscribes_takes_the_place_of_a_call() {
    let mut settings = Settings::default();
    settings.pool.max_connections = 1;
    let mut world = World::start(settings).await;
    let (_client, _server) = world.held(&call("1", "")).await;
    let twice = r#"{"id":2,"method":"subscriptions/listen","method":"tools/call"}"#;
    for said in ["subscriptions/listen", "notifications/x"] {
        for body in [r#"{"id":2,"method":"tools/call"}"#, twice] {
            let refused = world.asked(&post(body, &format!("Mcp-Method: {said}\r\n"))).await;
            let refused = { refused }.message().await;
            assert!(refused.contains("-32012"), "{refused}");
        }
    }
}
