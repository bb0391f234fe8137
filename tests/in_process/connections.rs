//! A client's connection before there is a request: heads that do not end, and which HTTP it is.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

use crate::harness::{ANSWER, Settings, World, bounded, call, seconds};

#[tokio::test(start_paused = true)]
async fn a_head_has_header_timeout_and_not_a_moment_more() {
    let mut world = World::start(Settings::default()).await;
    let began = Instant::now();
    let mut never_began = world.client();
    let mut never_ends = world.asked("GET / HTTP/1.1\r\nX: ").await;
    let mut drips = world.client();
    let mut drip = Box::pin(async {
        loop {
            drips.send("G").await;
            let answer = tokio::time::timeout(seconds(3.0), drips.until("\r\n")).await;
            if let Ok(answer) = answer {
                return answer;
            }
        }
    });
    for answer in
        [never_began.until("\r\n").await, never_ends.until("\r\n").await, drip.as_mut().await]
    {
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert_eq!(began.elapsed().as_secs(), 10);
    }
    // A connection that lies idle between two requests is not in a head; then it is.
    let (mut idle, mut server) = world.held(&call("1", "")).await;
    server.send(ANSWER).await;
    idle.message().await;
    sleep(seconds(300.0)).await;
    let began = Instant::now();
    idle.send("POST /").await;
    assert!(idle.until("\r\n").await.starts_with("HTTP/1.1 408"));
    assert_eq!(began.elapsed().as_secs(), 10);
}

/// Nobody reads on while a call runs: what of the next head has come by then is no slow head.
#[tokio::test(start_paused = true)]
async fn a_head_behind_a_call_has_its_time_after_it() {
    let mut world = World::start(Settings::default()).await;
    let next = call("2", "");
    let (mut client, mut server) = world.held(&call("1", "")).await;
    client.send(&next[..20]).await;
    sleep(seconds(60.0)).await;
    server.send(ANSWER).await;
    assert!(client.message().await.ends_with("{}"));
    sleep(seconds(5.0)).await;
    client.send(&next[20..]).await;
    let (mut server, _) = world.asked_server().await;
    client.send(&next[..20]).await;
    server.send(ANSWER).await;
    assert!(client.message().await.ends_with("{}"));
    let began = Instant::now();
    assert!(client.until("\r\n").await.starts_with("HTTP/1.1 408"));
    assert_eq!(began.elapsed().as_secs(), 10);
}

/// The client's preface (RFC 9113, section 3.4), however it comes.
#[tokio::test(start_paused = true)]
async fn an_http2_preface_may_come_in_parts() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// A SETTINGS frame without a setting; what the server sends begins with one, too.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut world = World::start(Settings::default()).await;
    for at in 1..PREFACE.len() {
        let mut client = world.client();
        client.pipe.write_all(&PREFACE[..at]).await.unwrap();
        // The clock only moves once the first part was read.
        sleep(seconds(0.001)).await;
        client.pipe.write_all(&[&PREFACE[at..], &SETTINGS].concat()).await.unwrap();
        let mut frame = [0; 9];
        bounded(client.pipe.read_exact(&mut frame), "a frame").await.unwrap();
        assert_eq!((frame[3], &frame[5..]), (4, &[0; 4][..]), "split at {at}");
    }
    // What only begins like it is HTTP/1.
    let other = "PRI * HTTP/2.0\r\nHost: a\r\n\r\n";
    for (request, at) in [(call("1", ""), 1), (other.to_owned(), 2), (other.to_owned(), 16)] {
        let mut client = world.client();
        client.send(&request[..at]).await;
        sleep(seconds(0.001)).await;
        client.send(&request[at..]).await;
        if request.starts_with("POST") {
            let mut server = world.server().await;
            server.message().await;
            server.send(ANSWER).await;
        }
        assert!(client.until("\r\n").await.starts_with("HTTP/1.1 "), "split at {at}");
    }
}
