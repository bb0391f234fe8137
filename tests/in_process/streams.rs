//! How streams end: properly, and not while their session has a call.

use ebbtide::drain::{Phase, handle::Event};
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{ANSWER, EVENTS, Settings, Wire, World, call, get, seconds};

/// A client with an open stream of events.
async fn stream(world: &mut World, more: &str) -> (Wire, Wire) {
    let (mut client, mut server) = world.held(&get(more)).await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    (client, server)
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
