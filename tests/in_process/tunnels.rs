//! Upgraded connections: from the server's 101 on, no byte of the client is taken for HTTP.

use ebbtide::drain::{Phase, handle::Event};
use tokio::{io::AsyncWriteExt, time::Instant};

use crate::harness::{ANSWER, EVENTS, PIPE, Settings, Wire, World, bounded, call, get, post};

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const TWO_FRAMINGS: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
                            Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

/// More lines than a head may have fields, and more bytes than one may have.
fn no_head() -> String {
    format!("{}\n", "x".repeat(299)).repeat(300)
}

/// Sends all of it, while the server reads; whether the same bytes came.
async fn passes(client: &mut Wire, server: &mut Wire, text: &str) -> bool {
    let read = async {
        while server.read.len() < text.len() {
            assert!(server.more().await, "{} of {} bytes came", server.read.len(), text.len());
        }
    };
    let write = bounded(client.pipe.write_all(text.as_bytes()), "room for what is sent");
    let (written, ()) = tokio::join!(write, read);
    written.unwrap();
    std::mem::take(&mut server.read) == text.as_bytes()
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sends_after_an_upgrade_is_no_head() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(UPGRADE).await;
    server.send(SWITCHED).await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 101"));
    for _ in 0..3 {
        assert!(passes(&mut client, &mut server, &no_head()).await);
    }
    server.send("bye").await;
    client.until("bye").await;
}

/// A client may not wait for the 101.
#[tokio::test(start_paused = true)]
async fn what_a_client_sends_before_the_upgrade_arrives_behind_it() {
    let few_lines = "x".repeat(100_000);
    for early in ["early", "GET / HTTP/1.1\r\n", TWO_FRAMINGS, &no_head(), &few_lines] {
        // In one write, and in two.
        for at in [UPGRADE.len(), UPGRADE.len() - 2, UPGRADE.len() + 2] {
            let mut world = World::start(Settings::default()).await;
            let mut client = world.client();
            let whole = format!("{UPGRADE}{early}");
            client.send(&whole[..at]).await;
            if at > UPGRADE.len() {
                world.settled().await;
            }
            let mut rest = whole[at..].to_owned();
            let most = rest.len().min(8000);
            client.send(&rest[..most]).await;
            rest.drain(..most);
            let mut server = world.server().await;
            server.message().await;
            world.settled().await;
            server.send(SWITCHED).await;
            assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 101"), "{early:.20}");
            let mut seen = String::new();
            if rest.is_empty() {
                seen.push_str(&server.until(&early[early.len() - 1..]).await);
            } else {
                seen.push_str(&early[..early.len() - rest.len()]);
                server.until(&seen).await;
                assert!(passes(&mut client, &mut server, &rest).await, "{early:.20}");
            }
        }
    }
}

/// The request's own word changes nothing.
#[tokio::test(start_paused = true)]
async fn heads_are_looked_at_where_the_server_does_not_upgrade() {
    for is_early in [false, true] {
        let mut world = World::start(Settings::default()).await;
        let early = if is_early { TWO_FRAMINGS } else { "" };
        let (mut client, mut server) = world.held(&format!("{UPGRADE}{early}")).await;
        server.send(ANSWER).await;
        assert!(client.message().await.ends_with("{}"));
        if !is_early {
            client.send(TWO_FRAMINGS).await;
        }
        let refused = client.rest().await;
        assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("Transfer-Encoding"));
    }
}

/// What stands behind a request is judged behind its answer, also where its client reads late.
#[tokio::test(start_paused = true)]
async fn a_head_that_is_refused_leaves_the_answer_before_it_whole() {
    for length in [2, 3 * PIPE] {
        let mut world = World::start(Settings::default()).await;
        let both = format!("{}{TWO_FRAMINGS}", call("1", ""));
        let (mut client, mut server) = world.held(&both).await;
        world.settled().await;
        let head = ANSWER.replace("Length: 2", &format!("Length: {length}"));
        server.send(head.trim_end_matches("{}")).await;
        server.send(&"x".repeat(length)).await;
        world.settled().await;
        assert!(client.message().await.ends_with(&"x".repeat(length)));
        assert!(client.rest().await.starts_with("HTTP/1.1 400"));
    }
}

/// A server that does not hear that its client is done is cut all the same.
#[tokio::test(start_paused = true)]
async fn a_tunnel_that_was_told_to_end_hears_of_the_cut() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(UPGRADE).await;
    server.send(SWITCHED).await;
    client.until("\r\n\r\n").await;
    let (mut busy, _server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Cutting).await;
    busy.message().await;
    assert_eq!(client.rest().await, "");
    world.reached(Phase::Drained).await;
    assert_eq!(began.elapsed().as_secs(), 30);
}

/// Java's client offers HTTP/2 with every request. It is none the less one of its session.
#[tokio::test(start_paused = true)]
async fn an_offer_of_http2_changes_nothing() {
    let mut world = World::start(Settings::default()).await;
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n";
    let mut open = Vec::new();
    for (more, class) in [("", "stream"), ("Last-Event-ID: 7\r\n", "resume")] {
        let mut client = world.asked(&get(&format!("{offer}{more}"))).await;
        let (mut server, request) = world.asked_server().await;
        assert!(!request.to_ascii_lowercase().contains("h2c"), "{request}");
        server.send(EVENTS).await;
        client.until("\r\n\r\n").await;
        let status = world.ask_admin("/status").await;
        assert!(status.contains(&format!("\"class\":\"{class}\"")), "{status}");
        open.push((client, server));
    }
}

/// The server hears its own word for the session, here too.
#[tokio::test(start_paused = true)]
async fn an_upgrade_in_a_session_names_it_as_the_server_does() {
    let mut world = World::start(Settings::default()).await;
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;
    let (mut client, mut server) = world.held(&post(initialize, "")).await;
    server.send(&ANSWER.replace("Content-Type", "Mcp-Session-Id: own-id\r\nContent-Type")).await;
    let answer = client.message().await;
    let session = answer.split("mcp-session-id: ").nth(1).unwrap().lines().next().unwrap();
    assert_ne!(session, "own-id");
    let upgrade =
        UPGRADE.replace("Host: a\r\n", &format!("Host: a\r\nMcp-Session-Id: {session}\r\n"));
    let _client = world.asked(&upgrade).await;
    let (_server, request) = world.asked_server().await;
    assert!(request.contains("mcp-session-id: own-id\r\n"), "{request}");
}
