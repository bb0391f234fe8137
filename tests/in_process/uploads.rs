//! Bodies that come late, slowly, or not at all: who does not send keeps nobody else from the
//! server.

use tokio::time::{Instant, sleep};

use crate::harness::{ANSWER, Settings, Wire, World, call, post, seconds};

const CHUNKED: &str = "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                       Transfer-Encoding: chunked\r\n\r\n";

fn one_call_at_once() -> Settings {
    let mut settings = Settings::default();
    settings.pool.max_connections = 1;
    settings
}

/// Whether a call of somebody else is answered at once.
async fn serves_others(world: &mut World) {
    let began = Instant::now();
    let (mut other, mut server) = world.held(&call("1", "Connection: close\r\n")).await;
    server.send(&ANSWER.replace("Content-Type", "Connection: close\r\nContent-Type")).await;
    assert!(other.message().await.ends_with("{}"));
    assert!(began.elapsed() < seconds(0.01), "{:?}", began.elapsed());
}

/// Hears that its request did not come whole, and that the connection is over.
async fn is_timed_out(client: &mut Wire, error: &str) {
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains(error) && answer.contains("header_timeout"), "{answer}");
    assert_eq!(client.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_takes_no_place_at_the_server() {
    let whole = call("7", "");
    let modern = call("7", "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n");
    let plain = post("no message", "").replace("application/json", "text/plain");
    for (request, missing, error) in [
        (&whole, 7, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600"#),
        (&whole, call("7", "").len() - whole.find('{').unwrap(), r#""error":{"code":-32600"#),
        (&modern, 7, r#""error":{"code":-32600"#),
        (&plain, 10, "ebbtide: nothing more"),
        (&CHUNKED.to_owned(), 0, r#""error":{"code":-32600"#),
    ] {
        let mut world = World::start(one_call_at_once()).await;
        let began = Instant::now();
        let mut stalled = Vec::new();
        for _ in 0..5 {
            stalled.push(world.asked(&request[..request.len() - missing]).await);
        }
        world.settled().await;
        serves_others(&mut world).await;
        for client in &mut stalled {
            is_timed_out(client, error).await;
        }
        let took = began.elapsed();
        assert!(took >= seconds(10.0) && took < seconds(10.1), "{took:?}");
        assert!(world.no_server().await, "the server saw one of them");
    }
}

/// One that has begun to be sent ends as well.
#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_gives_its_place_back() {
    let mut world = World::start(one_call_at_once()).await;
    let mut client = world.asked(CHUNKED).await;
    client.chunk(r#"{"id":7,"method":"tools/call","#).await;
    let mut server = world.server().await;
    server.until("tools/call").await;
    let began = Instant::now();
    is_timed_out(&mut client, r#""error":{"code":-32600"#).await;
    let took = began.elapsed();
    assert!(took > seconds(9.9) && took < seconds(10.1), "{took:?}");
    assert!(!server.rest().await.ends_with("0\r\n\r\n"), "it looked whole");
    serves_others(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_slowly_arrives() {
    let mut world = World::start(one_call_at_once()).await;
    // Small: the server sees it once it is whole.
    let whole = call("7", "");
    let (start, end) = whole.split_at(whole.len() - 5);
    let mut client = world.asked(start).await;
    for at in 0..end.len() {
        sleep(seconds(9.0)).await;
        client.send(&end[at..=at]).await;
    }
    let mut server = world.server().await;
    assert!(server.message().await.ends_with(end));
    server.send(ANSWER).await;
    assert!(client.message().await.ends_with("{}"));
    // Of unknown length: each part is passed on as it comes.
    client.send(CHUNKED).await;
    sleep(seconds(9.0)).await;
    client.chunk("{").await;
    let mut server = world.server().await;
    for part in ["\"method\":", "\"tools/call\"", ",\"id\":7", "}"] {
        sleep(seconds(9.0)).await;
        client.chunk(part).await;
        server.until(part).await;
    }
    client.send("0\r\n\r\n").await;
    server.until("0\r\n\r\n").await;
    server.send(ANSWER).await;
    assert!(client.message().await.ends_with("{}"));
}
