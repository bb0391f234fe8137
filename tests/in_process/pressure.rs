//! Back-pressure: who does not read is not written to, and nothing piles up in between.

use bytes::Bytes;
use ebbtide::{
    drain::{Phase, handle::Event},
    tasks::Group,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::harness::{ANSWER, EVENTS, PIPE, Settings, Wire, World, call, get, seconds};

/// Far more than any buffer on the way.
const MUCH: usize = 16 * 1024 * 1024;
/// The two pipes, and what hyper buffers on each side.
const BOUND: usize = 2 * PIPE + 512 * 1024;

/// Writes until nothing more is taken; how many bytes were.
async fn fill(wire: &mut Wire, most: usize) -> usize {
    let part = [b'x'; 1000];
    let mut written = 0;
    while written < most {
        let room = part.len().min(most - written);
        // Of a clock that jumps when everybody waits: nobody will take more.
        match timeout(seconds(1.0), wire.pipe.write(&part[..room])).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => break,
        }
    }
    written
}

/// Reads the bytes; a panic when they do not come.
async fn read(wire: &mut Wire, count: usize) {
    let mut part = vec![0; PIPE];
    let mut left = count - wire.read.len();
    while left > 0 {
        let room = part.len().min(left);
        let read = timeout(seconds(1.0), wire.pipe.read(&mut part[..room])).await;
        let read = read.expect("the rest comes").unwrap();
        assert!(read > 0, "{left} bytes never came");
        left -= read;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_stops_the_server() {
    for head in [
        EVENTS.replace("Transfer-Encoding: chunked", &format!("Content-Length: {MUCH}")),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {MUCH}\r\n\r\n"
        ),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"),
    ] {
        let mut world = World::start(Settings::default()).await;
        let (mut client, mut server) = world.held(&call("1", "")).await;
        server.send(&head).await;
        let written = fill(&mut server, MUCH).await;
        assert!(written < BOUND, "{written} bytes piled up: {head}");
        // It goes on as soon as somebody reads, and all of it arrives.
        client.until("\r\n\r\n").await;
        let (rest, ()) = tokio::join!(fill(&mut server, MUCH - written), read(&mut client, MUCH));
        assert_eq!(written + rest, MUCH);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_stops_the_client() {
    let mut world = World::start(Settings::default()).await;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {MUCH}\r\n\r\n"
    );
    let mut client = world.asked(&head).await;
    let written = fill(&mut client, MUCH).await;
    let mut server = world.server().await;
    assert!(written < BOUND, "{written} bytes piled up");
    // It is not the client who is late.
    sleep(seconds(60.0)).await;
    server.until("\r\n\r\n").await;
    let (rest, ()) = tokio::join!(fill(&mut client, MUCH - written), read(&mut server, MUCH));
    assert_eq!(written + rest, MUCH);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_his_answer_keeps_no_place_at_the_server() {
    let mut settings = Settings::default();
    settings.pool.max_connections = 1;
    let mut world = World::start(settings).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    // One that takes everything, and waits for its server, has all the time.
    sleep(seconds(120.0)).await;
    server.chunk("data: 1\n\n").await;
    client.until("data: 1\n\n").await;
    server.fill_with_events().await;
    let began = Instant::now();
    while server.more().await {}
    let took = began.elapsed();
    assert!(took > seconds(50.0) && took < seconds(70.0), "{took:?}");
    let (mut other, mut server) = world.held(&call("2", "")).await;
    server.send(ANSWER).await;
    assert!(other.message().await.ends_with("{}"));
    // It is no end, and nothing that looks like one.
    assert!(!client.rest().await.ends_with("0\r\n\r\n"));
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_a_stream_that_nobody_reads() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(&get("")).await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    server.fill_with_events().await;
    // While the pod serves, it may stay as long as it likes.
    sleep(seconds(300.0)).await;
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Drained).await;
    assert!(began.elapsed() < seconds(12.0), "{:?}", began.elapsed());
}

/// Over HTTP/2 a client may take heads and nothing else, on as many streams as it likes.
#[tokio::test(start_paused = true)]
async fn a_window_of_nothing_keeps_no_place_and_holds_no_drain() {
    let mut settings = Settings::default();
    settings.pool.max_connections = 1;
    let mut world = World::start(settings).await;
    let mut builder = h2::client::Builder::new();
    let pipe = world.client().pipe;
    let (mut send, connection) =
        builder.initial_window_size(0).handshake::<_, Bytes>(pipe).await.unwrap();
    let mut driver = Group::default();
    driver.spawn("h2 connection", async move { drop(connection.await) });
    let mut unread = Vec::new();
    for answer in [&format!("{EVENTS}7\r\ndata: 1\r\n"), ANSWER] {
        let body = Bytes::from(r#"{"jsonrpc":"2.0","method":"tools/call","id":1}"#);
        let request = http::Request::post("http://a/mcp")
            .header("content-type", "application/json")
            .header("content-length", body.len());
        let (head, mut stream) = send.send_request(request.body(()).unwrap(), false).unwrap();
        stream.send_data(body, true).unwrap();
        let (mut server, _) = world.asked_server().await;
        server.send(answer).await;
        unread.push((head.await.unwrap(), server));
        // The place is given back, however the answer came.
        sleep(seconds(70.0)).await;
        let mut waits = world.asked(&call("2", "Connection: close\r\n")).await;
        let (mut server, _) = world.asked_server().await;
        server.send(&ANSWER.replace("Content-Type", "Connection: close\r\nContent-Type")).await;
        assert!(waits.message().await.ends_with("{}"));
    }
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Drained).await;
    assert!(began.elapsed() < seconds(2.0), "{:?}", began.elapsed());
}
