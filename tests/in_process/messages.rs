//! What a POST is taken for when its body comes in parts, with the id last, or is unusual: as long
//! as it may be a request it is one, and it never ends without an error.

use ebbtide::drain::{Phase, handle::Event};
use tokio::time::Instant;

use crate::harness::{ANSWER, EVENTS, Settings, Wire, World, call, post, seconds};

fn cut_after(drain_timeout: f64) -> Settings {
    let mut settings = Settings::default();
    settings.rules.timings.drain_timeout = Some(seconds(drain_timeout));
    settings.header_timeout = seconds(60.0);
    settings
}

/// Sends the head and the start of the body, and the rest once that has been read.
async fn ask_in_parts(world: &World, start: &str, rest: &str) -> Wire {
    let whole = post(&format!("{start}{rest}"), "");
    let mut client = world.asked(&whole[..whole.len() - rest.len()]).await;
    world.settled().await;
    client.send(rest).await;
    client
}

#[tokio::test(start_paused = true)]
async fn a_request_in_parts_waits_in_line_and_hears_its_id() {
    let mut settings = Settings::default();
    settings.pool.max_connections = 1;
    let mut world = World::start(settings).await;
    let (_first, _server) = world.held(&call("1", "")).await;
    for (start, rest) in [
        (r#"{"method":"tools/call","params":{"#, r#"},"jsonrpc":"2.0","id":7}"#),
        (r#"[{"method":"notifications/initialized"},"#, r#"{"method":"ping","id":7}]"#),
        (r#"[{"method":"notifications/initialized"},{"method":"ping","id":7}]"#, ""),
    ] {
        let began = Instant::now();
        let refused = ask_in_parts(&world, start, rest).await.message().await;
        assert_eq!(began.elapsed().as_secs(), 5, "{start}");
        assert!(refused.contains(r#""id":7,"error":{"code":-32012"#), "{refused}");
    }
    // What calls in flight may wait for goes past them.
    let start = r#"{"method":"notifications/cancelled","params":{"#;
    let mut client = ask_in_parts(&world, start, r#""requestId":1},"jsonrpc":"2.0"}"#).await;
    let (mut server, _) = world.asked_server().await;
    server.send(ANSWER).await;
    assert!(client.message().await.ends_with("{}"));
}

#[tokio::test(start_paused = true)]
async fn initialize_in_parts_is_refused_by_a_drain() {
    let mut world = World::start(cut_after(100.0)).await;
    let (_first, _server) = world.held(&call("1", "")).await;
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Draining).await;
    let start = r#"{"method":"initialize","params":{"#;
    let refused = ask_in_parts(&world, start, r#"},"jsonrpc":"2.0","id":0}"#).await.message().await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains(r#""id":0,"error":{"code":-32010"#), "{refused}");
}

/// Where the id never came, the error has none; it is still a JSON-RPC error.
#[tokio::test(start_paused = true)]
async fn a_request_whose_id_never_came_is_cut_with_an_error() {
    for start in [
        r#"{"method":"tools/call","params":{"#,
        r#"{"method":"subscriptions/listen","params":{"#,
        r#"{"params":{"#,
        r#"[{"method":"notifications/initialized"},"#,
        "[",
    ] {
        for streams in [false, true] {
            let mut world = World::start(cut_after(10.0)).await;
            let mut client = world.asked(&chunked()).await;
            client.chunk(start).await;
            let mut server = world.server().await;
            server.until(start).await;
            if streams {
                server.send(EVENTS).await;
                client.until("\r\n\r\n").await;
            }
            world.drain.tell(Event::Requested).await;
            let error = if streams {
                let end = client.until("0\r\n\r\n").await;
                assert_eq!(end.matches("event: message\ndata: ").count(), 1, "{start}: {end}");
                end
            } else {
                let answer = client.message().await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{start}: {answer}");
                answer
            };
            assert!(error.contains(r#""id":null,"error":{"code":-32010"#), "{start}: {error}");
        }
    }
}

/// The head of a request whose length is not known.
fn chunked() -> String {
    post("", "").replace("Content-Length: 0", "Transfer-Encoding: chunked")
}

/// How a call ends whose body is still on its way.
enum End {
    Broken,
    TimedOut,
    Cut,
}

/// Its client may send the id last; it is read on for, and nothing is sent twice.
#[tokio::test(start_paused = true)]
async fn an_id_behind_the_end_of_its_call_is_echoed() {
    for (end, code) in [(End::Broken, -32011), (End::TimedOut, -32011), (End::Cut, -32010)] {
        let mut settings = cut_after(10.0);
        settings.rules.response_timeout = seconds(20.0);
        let mut world = World::start(settings).await;
        // Of a reused connection not even a close would be surprising.
        let (mut first, mut server) = world.held(&call("1", "")).await;
        server.send(ANSWER).await;
        first.message().await;
        let mut client = world.asked(&chunked()).await;
        client.chunk(r#"{"method":"tools/call","params":{"#).await;
        server.until(r#""params":{"#).await;
        if let End::Cut = end {
            world.drain.tell(Event::Requested).await;
        }
        if let End::Broken = end {
            drop(server);
        } else {
            assert!(!server.rest().await.contains('7'));
        }
        world.settled().await;
        client.chunk(r#"},"jsonrpc":"2.0","id":7}"#).await;
        client.send("0\r\n\r\n").await;
        let answer = client.message().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let expected = format!(r#""id":7,"error":{{"code":{code}"#);
        assert!(answer.contains(&expected), "{answer}");
        assert!(world.no_server().await, "it was sent twice");
    }
}

/// The id may come when the answer is already on its way.
#[tokio::test(start_paused = true)]
async fn an_id_behind_the_answers_head_is_echoed() {
    let mut world = World::start(cut_after(10.0)).await;
    let (start, rest) = (r#"{"method":"tools/call","params":{"#, r#"},"id":7}"#);
    let mut client = world.asked(&chunked()).await;
    client.chunk(start).await;
    let mut server = world.server().await;
    server.until(start).await;
    server.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    client.chunk(rest).await;
    server.until(rest).await;
    world.drain.tell(Event::Requested).await;
    let end = client.until("0\r\n\r\n").await;
    assert!(end.contains(r#""id":7,"error":{"code":-32010"#), "{end}");
}

#[tokio::test(start_paused = true)]
async fn an_unusual_request_is_cut_with_its_id() {
    let deep = format!(
        r#"{{"method":"m","params":{{"a":{}{}}},"id":7}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let mut world = World::start(cut_after(10.0)).await;
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for (body, id) in [
        (deep.as_str(), "7"),
        (r#"{"method":"m","id":1e999}"#, "1e999"),
        (r#"{"method":"m","id":"\ud800"}"#, r#""\ud800""#),
        (r#"{"method":"m","id":{"a":1}}"#, "null"),
        (r#"{"method":"m","id":true}"#, "null"),
        (&format!(r#"{{"method":"{}","id":7}}"#, "m".repeat(300)), "7"),
        (r#"{"method":"\ud800","id":7}"#, "7"),
        (r#"{"id":1,"method":"m","id":7}"#, "7"),
    ] {
        clients.push((world.asked(&post(body, "")).await, id.to_owned()));
        let mut server = world.server().await;
        server.message().await;
        servers.push(server);
    }
    world.drain.tell(Event::Requested).await;
    for (client, id) in &mut clients {
        let answer = client.message().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{id}: {answer}");
        assert!(
            answer.contains(&format!(r#""id":{id},"error":{{"code":-32010"#)),
            "{id}: {answer}"
        );
    }
}
