//! Sessions across pods: two and three sidecars, each before a server that knows the sessions that
//! it has opened and no others.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use ebbtide::{
    config::value::Roaming,
    drain::{Phase, handle::Event},
    sessions::{heir::heir, keys::Keys, token::Token},
    telemetry::metrics::Move,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::harness::{
    ANSWER, EVENTS, Pods, Serve, Settings, Wire, World, body, call, get, post, seconds,
};

const VERSION: &str = "2025-06-18";
const PARAMS: &str =
    r#"{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}"#;
const NOT_FOUND: &str = r#"404 Not Found|{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#;
const BAD_REQUEST: &str = r#"400 Bad Request|{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#;

/// A legacy server.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    /// Lets the calls of the tool `slow` go on.
    goes_on: Notify,
}

struct State {
    opened: usize,
    open: HashSet<String>,
    /// What it was asked, each with its session.
    asked: Vec<String>,
    /// Whose each request was, as it was told.
    told: Vec<String>,
    /// What it says to a session that it does not know: status and body.
    unknown: &'static str,
    version: &'static str,
    /// Whether `initialize` gets no answer.
    hangs: bool,
    /// Whether it gets events.
    says_events: bool,
    /// Whether calls get an event's id, and the end.
    polls: bool,
    /// How long each answer takes.
    trip: Duration,
}

impl Server {
    pub fn new(name: &'static str) -> Self {
        let state = State {
            opened: 0,
            open: HashSet::new(),
            asked: Vec::new(),
            told: Vec::new(),
            unknown: NOT_FOUND,
            version: VERSION,
            hangs: false,
            says_events: false,
            polls: false,
            trip: Duration::ZERO,
        };
        Self(Arc::new(Shared { name, state: Mutex::new(state), goes_on: Notify::new() }))
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.state.lock().unwrap())
    }

    /// It dies, and another one comes that knows nothing.
    fn restarts(&self) {
        self.state(|state| state.open.clear());
    }

    /// Lets a call of the tool `slow` go on.
    pub fn goes_on(&self) {
        self.0.goes_on.notify_one();
    }

    pub fn asked(&self) -> Vec<String> {
        self.state(|state| std::mem::take(&mut state.asked))
    }

    fn decide(&self, request: &str) -> String {
        let head = request.to_ascii_lowercase();
        let field = |name: &str| {
            let value = head.split(&format!("\r\n{name}: ")).nth(1)?;
            value.lines().next().map(str::to_owned)
        };
        // The ids of this server have no capitals.
        let session = field("mcp-session-id");
        let method = head.split(r#""method":""#).nth(1).and_then(|rest| rest.split('"').next());
        let verb = head.split(' ').next().unwrap();
        assert!(!head.contains("ebbtide-peer"), "{head}");
        self.state(|state| {
            let what = method.unwrap_or(verb);
            let whose = ["for", "proto", "host"].map(|part| field(&format!("x-forwarded-{part}")));
            state.told.push(whose.map(Option::unwrap_or_default).join(" "));
            let more = field("last-event-id").map(|id| format!(" after {id}")).unwrap_or_default();
            let who = field("authorization").map(|who| format!(" by {who}")).unwrap_or_default();
            state.asked.push(format!("{what} {}{more}{who}", session.as_deref().unwrap_or("-")));
            if method == Some("initialize") {
                state.opened += 1;
                let id = format!("{}-{}", self.0.name, state.opened);
                state.open.insert(id.clone());
                let result = format!(
                    r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"{}","capabilities":{{"tools":{{"listChanged":true}}}}}}}}"#,
                    state.version
                );
                let named = format!("Mcp-Session-Id: {id}\r\n");
                if state.says_events {
                    return in_parts(&named, &format!(": hello\r\rdata: {result}\r\r"));
                }
                return json("200 OK", &named, &result);
            }
            let Some(session) = session.filter(|session| state.open.contains(session)) else {
                let (status, text) = state.unknown.split_once('|').unwrap();
                return json(status, "", text);
            };
            match (verb, method) {
                ("get", _) => EVENTS.replacen("\r\n", &format!("\r\nMcp-Session-Id: {session}\r\n"), 1),
                ("delete", _) => {
                    state.open.remove(&session);
                    json("200 OK", "", "")
                }
                (_, Some(method)) if method.starts_with("notifications/") => json("202 Accepted", "", ""),
                _ if state.polls => {
                    let event = "id: 1\nretry: 10\ndata:\n\n";
                    format!("{EVENTS}{:x}\r\n{event}\r\n0\r\n\r\n", event.len())
                }
                _ => {
                    let result = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{session}"}}"#);
                    json("200 OK", &format!("Mcp-Session-Id: {session}\r\n"), &result)
                }
            }
        })
    }
}

impl Serve for Server {
    async fn answer(&self, request: &str, wire: &mut Wire) {
        let answer = self.decide(request);
        if request.contains("slow") && answer.contains("200 OK") {
            self.0.goes_on.notified().await;
        }
        if request.contains("endless") {
            let event = format!("400\r\ndata: {}\n\n\r\n", "x".repeat(1016));
            // Small ones, each by itself: hyper takes so many before it waits for its client.
            let mut sent = wire.pipe.write_all(EVENTS.as_bytes()).await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                sent = wire.pipe.write_all(event.as_bytes()).await;
            }
            return;
        }
        if request.contains("\"initialize\"") && self.state(|state| state.hangs) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.state(|state| state.trip)).await;
        wire.send(&answer).await;
    }
}

/// Events that come a few bytes at a time.
fn in_parts(more: &str, events: &str) -> String {
    let head = EVENTS.replacen("\r\n", &format!("\r\n{more}"), 1);
    let parts = events
        .as_bytes()
        .chunks(3)
        .map(|part| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)));
    format!("{head}{}0\r\n\r\n", parts.collect::<String>())
}

fn json(status: &str, more: &str, text: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{text}",
        text.len()
    )
}

/// A pod: its sidecar, and its server.
async fn pod(uid: &'static str, pods: &Pods, roaming: Roaming) -> (World, Server) {
    before_a_server(Settings { pod: (uid, pods.clone()), roaming, ..Settings::default() }).await
}

/// A sidecar and a server that is named as its pod is.
pub async fn before_a_server(settings: Settings) -> (World, Server) {
    let server = Server::new(settings.pod.0);
    let mut world = World::start(settings).await;
    world.serve(server.clone());
    (world, server)
}

/// A call of the tool `slow`.
fn slow(session: &str) -> String {
    call("1", session).replace(r#""t""#, r#""slow""#)
}

/// Opens a session, of whose token anybody can read the params.
async fn open(world: &World) -> String {
    let session = opened(world).await;
    let id = session.split_whitespace().nth(1).unwrap();
    assert_eq!(Token::parse(id, &Keys::default()).unwrap().params(), Some(PARAMS));
    session
}

/// Opens a session; what its client calls it, as a header.
pub async fn opened(world: &World) -> String {
    let request = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{PARAMS}}}"#);
    let answer = world.asked(&post(&request, "")).await.message().await;
    let id = answer.split("mcp-session-id: ").nth(1).unwrap().lines().next().unwrap();
    format!("Mcp-Session-Id: {id}\r\n")
}

/// Calls a tool in it; the server's word for the session that answered.
pub async fn calls(world: &World, session: &str) -> String {
    let answer = world.asked(&call("1", session)).await.message().await;
    let result = body(&answer).split(r#""result":""#).nth(1);
    result.and_then(|rest| rest.split('"').next()).unwrap_or(&answer).to_owned()
}

#[tokio::test(start_paused = true)]
async fn every_pod_serves_a_session_by_the_pod_that_has_it() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false)]);
    let session = open(&a).await;
    for world in [&a, &b, &b, &a] {
        assert_eq!(calls(world, &session).await, "a-1");
    }
    // The client goes on to know it by one name.
    let answer = b.asked(&call("1", &session)).await.message().await;
    assert!(
        answer.contains(session.trim_end())
            || answer.to_ascii_lowercase().contains(&session.trim_end().to_ascii_lowercase()),
        "{answer}"
    );
    let mut stream = b.asked(&get(&session)).await;
    stream.until("\r\n\r\n").await;
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: a\r\n{session}\r\n");
    assert!(b.asked(&delete).await.message().await.contains("200 OK"));
    assert!(server.state(|state| state.open.is_empty()));
    // Who has ended a session does not get it back.
    for world in [&b, &a, &b, &a] {
        assert!(calls(world, &session).await.starts_with("HTTP/1.1 404"));
    }
    assert_eq!(server.state(|state| state.opened), 1);
    assert_eq!(other.asked(), [""; 0]);
}

/// Whoever is no pod, or does not say at first which one he means, may say what he likes.
#[tokio::test(start_paused = true)]
async fn only_a_sidecar_is_believed_about_its_clients() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false)]);
    let session = open(&a).await;
    let marked = format!("{session}X-Forwarded-For: 192.0.2.7\r\nebbtide-peer: owner\r\n");
    let greeting = |pod| format!("OPTIONS * HTTP/1.1\r\nHost: a\r\nebbtide-peer: {pod}\r\n\r\n");
    for (mut wire, greeted, told) in [
        (a.client(), "a", "192.0.2.7, 127.0.0.1 http a"),
        (pods.visit("a", "c"), "a", "192.0.2.7, 10.0.0.99 http a"),
        (pods.visit("a", "b"), "b", "192.0.2.7, 10.0.0.98 http a"),
        (pods.visit("a", "b"), "", "192.0.2.7, 10.0.0.98 http a"),
        (pods.visit("a", "b"), "a", "192.0.2.7 http a"),
    ] {
        for request in [greeting(greeted), call("1", &marked)] {
            wire.send(&request).await;
            wire.message().await;
        }
        assert_eq!(server.state(|state| state.told.pop()).as_deref(), Some(told));
    }
}

/// What its server hears of a client is the same through another pod.
#[tokio::test(start_paused = true)]
async fn a_server_hears_of_its_clients_and_not_of_the_pods_between() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    // Nobody knows the pod between.
    pods.tell(&[("a", true, false)]);
    let session = open(&a).await;
    assert_eq!(calls(&b, &session).await, "a-1");
    let told = server.state(|state| std::mem::take(&mut state.told));
    assert_eq!(told[1], "127.0.0.1, 10.0.0.98 http a");
    pods.tell(&[("a", true, false), ("b", true, false)]);
    let far = format!("{session}X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n");
    for world in [&a, &b] {
        for headers in [&session, &far] {
            assert_eq!(calls(world, headers).await, "a-1");
        }
    }
    let (near, far) = ("127.0.0.1 http a", "192.0.2.7, 127.0.0.1 https a");
    assert_eq!(server.state(|state| std::mem::take(&mut state.told)), [near, far, near, far]);
    // The same where it is opened anew, and where it stays since a call of it is in flight.
    drop(a);
    pods.tell(&[("b", true, false)]);
    assert_eq!(calls(&b, &session).await, "b-1");
    let _running = b.asked(&slow(&session)).await;
    while other.asked().last().is_none_or(|last| last != "tools/call b-1") {
        b.settled().await;
    }
    b.drain.tell(Event::Requested).await;
    b.reached(Phase::Draining).await;
    assert_eq!(calls(&b, &session).await, "b-1");
    assert_eq!(other.state(|state| std::mem::take(&mut state.told)), [near; 5]);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_with_its_pod_is_opened_anew_once() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    let (b, server) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false)]);
    let session = open(&a).await;
    drop(a);
    // Still in the endpoints, but nobody is there; then not even that.
    pods.remove("a");
    let session = format!("{session}Authorization: me\r\n");
    let (one, two) = tokio::join!(calls(&b, &session), calls(&b, &session));
    assert_eq!((&*one, &*two), ("b-1", "b-1"));
    pods.tell(&[("b", true, false)]);
    assert_eq!(calls(&b, &session).await, "b-1");
    let asked = server.asked();
    let expected =
        ["initialize - by me", "notifications/initialized b-1 by me", "tools/call b-1 by me"];
    assert_eq!(asked[..3], expected);
    assert_eq!(asked[3..], [expected[2]; 2]);
}

/// Its endpoint may reach somebody late, and a client may keep its connection: neither loses a call.
#[tokio::test(start_paused = true)]
async fn what_comes_to_a_pod_that_has_drained_goes_to_another_one() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let session = open(&a).await;
    let mut kept = a.asked(&call("1", &session)).await;
    kept.message().await;
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Drained).await;
    server.asked();
    // On the connection that it has kept, and on new ones.
    kept.send(&call("2", &session)).await;
    let answer = kept.message().await;
    assert!(answer.contains("b-1") && answer.contains("connection: close"), "{answer}");
    assert_eq!(calls(&a, &session).await, "b-1");
    let fresh = opened(&a).await;
    assert_eq!(calls(&b, &fresh).await, "b-2");
    other.asked();
    a.asked(&call("1", "")).await.message().await;
    assert_eq!(other.asked(), ["tools/call -"]);
    // What a peer sends here is not sent on: it may try another one.
    let sent = call("1", "ebbtide-peer: heir\r\n");
    let answer = a.asked(&sent).await.message().await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    // Nobody is there any more.
    pods.tell(&[("a", true, true)]);
    let answer = a.asked(&call("1", "")).await.message().await;
    assert!(answer.contains("-32010"), "{answer}");
    assert_eq!(server.asked(), [""; 0]);
}

/// Where nobody else is ready it hears 503, and tries again.
#[tokio::test(start_paused = true)]
async fn who_drains_has_new_sessions_opened_by_another_pod() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let session = open(&a).await;
    let _running = a.asked(&slow(&session)).await;
    a.settled().await;
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Draining).await;
    server.asked();
    let session = open(&a).await;
    assert_eq!(calls(&b, &session).await, "b-1");
    // Other calls have their time here.
    a.asked(&call("1", "")).await.message().await;
    assert_eq!(server.asked(), ["tools/call -"]);
    assert_eq!(other.asked().len(), 2);
    pods.tell(&[("a", true, true), ("b", false, false)]);
    let request = post(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#, "");
    let answer = a.asked(&request).await.message().await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

/// Most calls are short, and one that is refused is lost for certain.
#[tokio::test(start_paused = true)]
async fn who_has_drained_late_passes_on_all_the_same() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (_b, other) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let session = open(&a).await;
    let mut running = a.asked(&slow(&session)).await;
    while server.asked().last().is_none_or(|last| last != "tools/call a-1") {
        a.settled().await;
    }
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Drained).await;
    let answer = running.message().await;
    assert!(answer.contains("-32010"), "{answer}");
    a.asked(&call("1", "")).await.message().await;
    assert_eq!(other.asked(), ["tools/call -"]);
    assert_eq!(calls(&a, &session).await, "b-1");
}

/// A pod that is made to end at once, and another one; a client that does not read holds the cut.
async fn forced(pods: &Pods) -> ((World, Server), (World, Server), Wire) {
    let mut settings = Settings { pod: ("a", pods.clone()), ..Settings::default() };
    settings.rules.has_endpoints = true;
    settings.rules.timings.grace = Some(seconds(0.0));
    let (a, server) = before_a_server(settings).await;
    let other = pod("b", pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let stuck = a.asked(&call("1", "").replace(r#""t""#, r#""endless""#)).await;
    // More than the pipe to the client and hyper's buffers hold.
    tokio::time::sleep(seconds(1.0)).await;
    ((a, server), other, stuck)
}

/// By force, or with less grace than it takes to leave the endpoints: what is sent here still is not
/// in flight on the server, and has the time that the kubelet leaves behind its signal.
#[tokio::test(start_paused = true)]
async fn who_is_made_to_end_at_once_passes_on_until_the_kill() {
    // When the call is cut, or goes on; whether a second signal comes then, and whether our server is
    // a child that needs its time.
    for (at, is_cut, is_signalled_again, has_child) in [
        (1.0, false, false, false),
        (1.5, true, false, false),
        (1.0, true, true, false),
        (0.0, true, false, true),
    ] {
        let pods = Pods::default();
        let ((mut a, server), (_b, other), _stuck) = forced(&pods).await;
        a.has_child = has_child;
        let session = open(&a).await;
        // Its answer is awaited for a while.
        server.state(|state| state.polls = true);
        a.asked(&call("1", &session)).await.message().await;
        a.drain.tell(Event::Requested).await;
        a.reached(Phase::Cutting).await;
        let mut late = a.asked(&slow(&session)).await;
        while other.asked().last().is_none_or(|last| last != "tools/call b-1") {
            a.settled().await;
        }
        assert_eq!(a.watch.phase(), Phase::Cutting);
        a.reached(Phase::Drained).await;
        let (began, again) = (Instant::now(), Arc::clone(&a.again));
        let client = async {
            let ends = async {
                tokio::time::sleep(seconds(1.0)).await;
                if is_signalled_again {
                    again.notify_one();
                } else if !is_cut {
                    other.goes_on();
                }
            };
            let answer = async {
                let answer = late.message().await;
                assert_eq!(answer.contains("-32010"), is_cut, "{answer}");
                began.elapsed().as_secs_f64()
            };
            tokio::join!(answer, ends).0
        };
        let (took, ()) = tokio::join!(client, a.leave());
        assert!((took - at).abs() < 0.1, "{took} {at}");
    }
}

/// Two that end at once: one of them is not yet known to.
#[tokio::test(start_paused = true)]
async fn what_two_pods_do_not_serve_any_more_goes_to_the_third() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    let (_c, third) = pod("c", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, true), ("b", true, false), ("c", true, false)]);
    for world in [&a, &b] {
        world.drain.tell(Event::Requested).await;
        world.reached(Phase::Drained).await;
    }
    for _ in 0..8 {
        a.asked(&call("1", "")).await.message().await;
        assert_eq!(third.asked(), ["tools/call -"]);
    }
    // It could not be sent again.
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let text = r#"{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"t","text":""#;
    let request = post(&format!("{text}{}\"}}}}", "x".repeat(100_000)), "");
    let answer = a.asked(&request).await.message().await;
    assert!(answer.contains(r#""id":17,"error":{"code":-32010"#), "{answer}");
}

/// Nobody has been told yet to go elsewhere.
#[tokio::test(start_paused = true)]
async fn who_ends_before_the_endpoints_are_left_answers_until_the_kill() {
    let pods = Pods::default();
    let ((a, _), _other, stuck) = forced(&pods).await;
    let session = open(&a).await;
    drop(stuck);
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Drained).await;
    let client = async {
        tokio::time::sleep(seconds(1.4)).await;
        let mut client = pods.visit("a", "c");
        client.send(&call("1", &session)).await;
        assert!(client.message().await.contains("b-1"));
    };
    let began = Instant::now();
    tokio::join!(client, a.leave());
    assert!(began.elapsed() < seconds(2.0), "{:?}", began.elapsed());
}

/// It would stay for as long as its client does.
#[tokio::test(start_paused = true)]
async fn a_pod_that_has_drained_waits_for_no_stream() {
    let pods = Pods::default();
    let mut settings = Settings { pod: ("a", pods.clone()), ..Settings::default() };
    settings.rules.timings.drain_timeout = Some(seconds(3600.0));
    let (a, _) = before_a_server(settings).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let (session, second) = (open(&a).await, open(&b).await);
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Drained).await;
    let stream = a.asked(&get(&session)).await.message().await;
    assert!(stream.contains("retry: ") && stream.contains("connection: close"), "{stream}");
    // What a client is back for may still come; a call that runs elsewhere has its time.
    let mut resumed = a.asked(&get(&format!("{second}Last-Event-ID: 1\r\n"))).await;
    resumed.until("\r\n\r\n").await;
    let mut running = a.asked(&slow(&second)).await;
    while other.asked().last().is_none_or(|last| last != "tools/call b-1") {
        a.settled().await;
    }
    let began = Instant::now();
    let client = async {
        tokio::time::sleep(seconds(60.0)).await;
        other.goes_on();
        assert!(running.message().await.contains("b-1"));
        assert!(resumed.rest().await.contains("retry: "));
    };
    tokio::join!(a.leave(), client);
    assert!(began.elapsed() < seconds(65.0), "{:?}", began.elapsed());
}

/// Whatever a server says to a session that it does not know.
#[tokio::test(start_paused = true)]
async fn a_server_that_has_restarted_opens_its_sessions_anew() {
    for (uid, unknown) in [("", NOT_FOUND), ("a", NOT_FOUND), ("a", BAD_REQUEST)] {
        let (world, server) = pod(uid, &Pods::default(), Roaming::Reopen).await;
        server.state(|state| state.unknown = unknown);
        let session = open(&world).await;
        let name = calls(&world, &session).await;
        server.restarts();
        let (one, two) = tokio::join!(calls(&world, &session), calls(&world, &session));
        assert_eq!(one, two);
        assert_ne!(one, name);
        assert_eq!(server.state(|state| state.opened), 2);
        // A stream resumes nothing of before, and tells that the tools may be others.
        let mut stream = world.asked(&get(&format!("{session}Last-Event-ID: 7\r\n"))).await;
        let news = stream.until("list_changed\"}\n\n").await;
        assert!(news.contains("event: message"), "{news}");
        assert_eq!(server.asked().last().unwrap(), &format!("get {one}"));
        let mut later = world.asked(&get(&format!("{session}Last-Event-ID: 7\r\n"))).await;
        later.until("\r\n\r\n").await;
        assert_eq!(server.asked(), [format!("get {one} after 7")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_came_in_parts_is_sent_again_whole() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    server.restarts();
    let request = call("1", &session);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut wire = world.asked(&format!("{head}\r\n\r\n")).await;
    for part in [&body[..9], &body[9..20], &body[20..]] {
        world.settled().await;
        wire.send(part).await;
    }
    let answer = wire.message().await;
    assert!(answer.contains(r#""result":"a-2""#), "{answer}");
}

/// The client's stream comes back before it calls.
#[tokio::test(start_paused = true)]
async fn a_stream_that_meets_the_loss_is_opened_anew() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    server.state(|state| state.unknown = BAD_REQUEST);
    let session = open(&world).await;
    server.restarts();
    let mut stream = world.asked(&get(&format!("{session}Last-Event-ID: 7\r\n"))).await;
    stream.until("list_changed\"}\n\n").await;
    let asked = server.asked();
    assert_eq!(asked[asked.len() - 2..], ["notifications/initialized a-2", "get a-2"]);
}

/// As clients do that have heard 404, some with the old id still in the header.
#[tokio::test(start_paused = true)]
async fn who_initialises_in_a_session_gets_a_token_for_the_next() {
    let (world, _) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    let request = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{PARAMS}}}"#);
    let answer = world.asked(&post(&request, &session)).await.message().await;
    let id = answer.split("mcp-session-id: ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(Token::parse(id, &Keys::default()).unwrap().id(), "a-2");
    assert_eq!(calls(&world, &format!("Mcp-Session-Id: {id}\r\n")).await, "a-2");
}

#[tokio::test(start_paused = true)]
async fn a_server_may_answer_in_events_when_it_opens_a_session_anew() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    server.state(|state| state.says_events = true);
    server.restarts();
    assert_eq!(calls(&world, &session).await, "a-2");
}

/// Two round trips to the server, and one more where it first has to say that it does not know the
/// session.
#[tokio::test(start_paused = true)]
async fn a_session_is_opened_anew_in_two_round_trips() {
    const TRIP: Duration = Duration::from_millis(200);
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    for server in [&server, &other] {
        server.state(|state| state.trip = TRIP);
    }
    let session = open(&a).await;
    let timed = async |world: &World| {
        let began = Instant::now();
        assert!(!calls(world, &session).await.contains("error"));
        (began.elapsed() + TRIP / 2).as_millis() / TRIP.as_millis()
    };
    assert_eq!(timed(&a).await, 1);
    server.restarts();
    assert_eq!(timed(&a).await, 1 + 3);
    assert_eq!(timed(&a).await, 1);
    drop(a);
    pods.tell(&[("b", true, false)]);
    assert_eq!(timed(&b).await, 1 + 2);
    assert_eq!(timed(&b).await, 1);
}

/// A server closes its idle connections as it likes.
#[tokio::test(start_paused = true)]
async fn a_session_is_opened_on_connections_that_are_there() {
    let pods = Pods::default();
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    let session = open(&b).await;
    pods.tell(&[("a", true, false)]);
    let mut a = World::start(Settings { pod: ("a", pods.clone()), ..Settings::default() }).await;
    let (mut client, mut idle) = a.held(&call("1", "")).await;
    idle.send(ANSWER).await;
    client.message().await;
    client.send(&call("1", &session)).await;
    assert!(idle.message().await.contains("\"initialize\""));
    drop(idle);
    // It may be about to end.
    let began = Instant::now();
    let (mut server, request) = a.asked_server().await;
    assert!(began.elapsed() >= seconds(0.02), "{:?}", began.elapsed());
    assert!(request.contains("\"initialize\""), "{request}");
    let result = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}"#;
    server.send(&json("200 OK", "Mcp-Session-Id: a\r\n", result)).await;
    assert!(server.message().await.contains("notifications/initialized"));
    server.send(&json("202 Accepted", "", "")).await;
    assert!(server.message().await.contains("tools/call"));
    server.send(ANSWER).await;
    assert!(client.message().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_seen_to_end_is_not_asked_whether_it_knows_a_session() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let not_asked = ["initialize -", "notifications/initialized ", "tools/call "];
    let asked = ["tools/call ", "initialize -", "notifications/initialized ", "tools/call "];
    for (seen_by, expected) in [
        ("a stream", &not_asked[..]),
        ("an idle connection", &not_asked),
        ("the call", &not_asked),
        ("nothing", &asked),
    ] {
        let session = open(&world).await;
        assert!(!calls(&world, &session).await.contains("error"));
        let mut stream = world.asked(&get(&session)).await;
        stream.until("\r\n\r\n").await;
        if seen_by != "a stream" {
            drop(stream);
            world.settled().await;
        }
        if seen_by == "an idle connection" {
            // The stream has taken the one that was there.
            calls(&world, &session).await;
        }
        server.asked();
        world.kill_server().await;
        server.restarts();
        let mut late = None;
        match seen_by {
            "a stream" => tokio::time::sleep(seconds(0.1)).await,
            "an idle connection" => tokio::time::sleep(seconds(2.0)).await,
            "the call" => {
                late = Some(world.asked(&call("1", &session)).await);
                tokio::time::sleep(seconds(0.1)).await;
            }
            _ => {}
        }
        world.up.store(true, Relaxed);
        let answer = match late {
            Some(mut late) => late.message().await,
            None => calls(&world, &session).await,
        };
        assert!(!answer.contains("error"), "{seen_by}: {answer}");
        let was_asked = server.asked();
        let fits = was_asked.iter().zip(expected).all(|(asked, what)| asked.starts_with(what));
        assert!(fits && was_asked.len() == expected.len(), "{seen_by}: {was_asked:?}");
        assert!(!calls(&world, &session).await.contains("error"));
        assert_eq!(server.asked().len(), 1, "{seen_by}");
    }
}

/// They find the session as the first of them has left it, not as it was when they began to wait.
#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_a_server_open_their_session_once() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    assert_eq!(calls(&world, &session).await, "a-1");
    world.kill_server().await;
    server.restarts();
    server.asked();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(world.asked(&call("1", &session)).await);
        tokio::time::sleep(seconds(0.07)).await;
    }
    world.up.store(true, Relaxed);
    for mut call in waiting {
        assert!(body(&call.message().await).contains("a-2"));
    }
    let mut asked = server.asked();
    asked.sort();
    let call = "tools/call a-2";
    assert_eq!(asked, ["initialize -", "notifications/initialized a-2", call, call, call, call]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_through_two_restarts_is_served() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    assert_eq!(calls(&world, &session).await, "a-1");
    world.kill_server().await;
    server.restarts();
    let mut first = world.asked(&call("1", &session)).await;
    // It looks every 250 ms by then, and misses this.
    tokio::time::sleep(seconds(0.6)).await;
    world.up.store(true, Relaxed);
    assert_eq!(calls(&world, &session).await, "a-2");
    world.kill_server().await;
    server.restarts();
    tokio::time::sleep(seconds(0.3)).await;
    world.up.store(true, Relaxed);
    assert!(body(&first.message().await).contains("a-3"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_server_that_is_gone_is_no_answer_to_the_next() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    for is_seen in [true, false] {
        let session = open(&world).await;
        assert!(!calls(&world, &session).await.contains("error"));
        world.kill_server().await;
        server.restarts();
        tokio::time::sleep(seconds(if is_seen { 2.0 } else { 0.0 })).await;
        world.up.store(true, Relaxed);
        server.asked();
        let answer = post(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#, &session);
        let answer = world.asked(&answer).await.message().await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert!(!server.asked().iter().any(|asked| asked.starts_with("initialize")));
        assert!(!calls(&world, &session).await.contains("error"));
    }
}

/// The id comes last, and after the head, as some clients send it.
#[tokio::test(start_paused = true)]
async fn a_call_whose_session_cannot_be_opened_hears_its_own_id() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    assert_eq!(calls(&world, &session).await, "a-1");
    world.kill_server().await;
    server.restarts();
    server.state(|state| state.hangs = true);
    tokio::time::sleep(seconds(2.0)).await;
    world.up.store(true, Relaxed);
    let request = call("17", &session);
    let (head, text) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    let mut client = world.asked(head).await;
    world.settled().await;
    client.send(text).await;
    let answer = client.message().await;
    assert!(answer.contains(r#""id":17,"error":{"code":-32011"#), "{answer}");
}

/// Each of those that wait for a session would else wait for the one before it.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_open_a_session_holds_nobody_for_long() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    server.restarts();
    server.state(|state| state.hangs = true);
    let began = Instant::now();
    let all: Vec<_> = (0..10).map(|_| calls(&world, &session)).collect();
    for answer in futures_util::future::join_all(all).await {
        assert!(answer.contains("-32011"), "{answer}");
    }
    assert!(began.elapsed() < seconds(35.0), "{:?}", began.elapsed());
    server.state(|state| state.hangs = false);
    assert_eq!(calls(&world, &session).await, "a-3");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_hands_over_what_is_idle_and_finishes_what_is_not() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false)]);
    let (idle, busy) = (open(&a).await, open(&a).await);
    let mut running = b.asked(&slow(&busy)).await;
    while server.asked().last().is_none_or(|last| last != "tools/call a-2") {
        a.settled().await;
    }
    pods.tell(&[("a", true, true), ("b", true, false)]);
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Draining).await;
    // Whoever is asked, and whoever is first.
    for world in [&a, &b, &a] {
        assert_eq!(calls(world, &idle).await, "b-1");
    }
    assert_eq!(calls(&b, &busy).await, "a-2");
    server.goes_on();
    assert!(running.message().await.contains("a-2"));
    let report = a.report().await;
    assert_eq!(report.cut, 0);
    assert_eq!(report.sessions.of(Move::HandedOver), 1);
    assert_eq!(calls(&b, &busy).await, "b-2");
    assert_eq!(other.state(|state| state.opened), 2);
}

/// Outside Kubernetes, or without the right to look: the way to the next pod is the next connection.
#[tokio::test(start_paused = true)]
async fn a_pod_that_knows_no_other_sends_its_sessions_on_and_ends_none() {
    let (a, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let (b, _) = pod("b", &Pods::default(), Roaming::Reopen).await;
    let (session, busy) = (open(&a).await, open(&a).await);
    // The drain lasts as long as this call.
    let _running = a.asked(&slow(&busy)).await;
    while server.asked().last().is_none_or(|last| last != "tools/call a-2") {
        a.settled().await;
    }
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Draining).await;
    a.watch.clone().until(|now| now.last_call).await;
    let answer = a.asked(&call("1", &session)).await.message().await;
    assert!(answer.contains("a-1") && answer.contains("connection: close"), "{answer}");
    assert_eq!(calls(&b, &session).await, "b-1");
}

/// Whoever calls without pause: two calls that overlap.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_never_idle_begins_its_next_call_elsewhere() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let session = open(&a).await;
    let mut running = a.asked(&slow(&session)).await;
    while server.asked().last().is_none_or(|last| last != "tools/call a-1") {
        a.settled().await;
    }
    a.drain.tell(Event::Requested).await;
    let mut watch = a.watch.clone();
    watch.until(|now| now.last_call).await;
    assert_eq!(calls(&a, &session).await, "b-1");
    assert_eq!(calls(&b, &session).await, "b-1");
    // What the running call may wait for comes to it.
    let message = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#;
    a.asked(&post(message, &session)).await.message().await;
    assert_eq!(server.asked(), ["notifications/progress a-1"]);
    server.0.goes_on.notify_one();
    assert!(running.message().await.contains("a-1"));
    assert_eq!(a.report().await.cut, 0);
}

/// Better than to tell its client that it is over.
#[tokio::test(start_paused = true)]
async fn what_nobody_takes_over_stays_as_long_as_it_can() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let session = open(&a).await;
    let _running = a.asked(&slow(&open(&a).await)).await;
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Draining).await;
    assert_eq!(calls(&a, &session).await, "a-1");
}

/// What its server keeps in memory for it is not lost once more.
#[tokio::test(start_paused = true)]
async fn a_session_stays_where_it_was_opened_anew_when_another_heir_comes() {
    let pods = Pods::default();
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    let (c, other) = pod("c", &pods, Roaming::Reopen).await;
    let (d, _) = pod("d", &pods, Roaming::Reopen).await;
    let (gone, _) = pod("a", &pods, Roaming::Reopen).await;
    for _ in 0..8 {
        let session = open(&gone).await;
        pods.tell(&[("b", true, false)]);
        let first = calls(&b, &session).await;
        assert!(first.starts_with("b-"), "{first}");
        let mut stream = b.asked(&get(&session)).await;
        stream.until("\r\n\r\n").await;
        pods.tell(&[("b", true, false), ("c", true, false), ("d", true, false)]);
        for world in [&b, &c, &d, &c, &d, &b] {
            assert_eq!(calls(world, &session).await, first);
        }
    }
    assert_eq!(other.state(|state| state.opened), 0);
}

/// Its new heir is asked by others, and has never heard of it.
#[tokio::test(start_paused = true)]
async fn what_a_call_waits_for_comes_to_it_though_another_heir_has_come() {
    let pods = Pods::default();
    let (b, server) = pod("b", &pods, Roaming::Reopen).await;
    let (c, _) = pod("c", &pods, Roaming::Reopen).await;
    let (d, _) = pod("d", &pods, Roaming::Reopen).await;
    let (gone, _) = pod("a", &pods, Roaming::Reopen).await;
    for round in 0..8 {
        let session = open(&gone).await;
        pods.tell(&[("b", true, false)]);
        let id = calls(&b, &session).await;
        server.asked();
        let mut running = b.asked(&slow(&session)).await;
        while server.asked().last().is_none_or(|last| *last != format!("tools/call {id}")) {
            b.settled().await;
        }
        pods.tell(&[("b", true, round % 2 == 0), ("c", true, false), ("d", true, false)]);
        for world in [&c, &d] {
            let message = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
            world.asked(&post(message, &session)).await.message().await;
            assert_eq!(server.asked(), [format!("post {id}")]);
        }
        server.goes_on();
        assert!(running.message().await.contains(&id));
    }
}

/// A dead pod is still in the endpoints, so that each question takes its second: whoever comes
/// meanwhile finds the session that the first one opens.
#[tokio::test(start_paused = true)]
async fn requests_that_come_one_after_the_other_open_a_session_once() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    let (b, server) = pod("b", &pods, Roaming::Reopen).await;
    let session = open(&a).await;
    pods.tell(&[("a", false, true), ("b", true, false), ("x", false, false)]);
    // It takes connections, and says nothing.
    let (silent, _visitors) = mpsc::unbounded_channel();
    pods.put("x", silent);
    let late = async {
        tokio::time::sleep(seconds(0.5)).await;
        calls(&b, &session).await
    };
    let names = tokio::join!(calls(&b, &session), late);
    assert_eq!(names, ("b-1".into(), "b-1".into()));
    assert_eq!(server.state(|state| state.opened), 1);
}

/// The session's next call has begun elsewhere by then, where the answer would be nobody's.
#[tokio::test(start_paused = true)]
async fn what_a_call_waits_for_comes_to_the_owner_that_drains() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    let (c, third) = pod("c", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false), ("c", true, false)]);
    let session = open(&a).await;
    let mut running = b.asked(&slow(&session)).await;
    while server.asked().last().is_none_or(|last| last != "tools/call a-1") {
        a.settled().await;
    }
    pods.tell(&[("a", true, true), ("b", true, false), ("c", true, false)]);
    a.drain.tell(Event::Requested).await;
    a.watch.clone().until(|now| now.last_call).await;
    let name = calls(&b, &session).await;
    assert!(name.starts_with("b-") || name.starts_with("c-"), "{name}");
    assert_eq!(calls(&c, &session).await, name);
    drop((other.asked(), third.asked()));
    for world in [&a, &b, &c] {
        let message = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
        world.asked(&post(message, &session)).await.message().await;
        assert_eq!(server.asked(), ["post a-1"]);
    }
    assert_eq!((other.asked(), third.asked()), (vec![], vec![]));
    server.goes_on();
    assert!(running.message().await.contains("a-1"));
    assert_eq!(a.report().await.cut, 0);
    // Nothing waits for it any more.
    let message = r#"{"jsonrpc":"2.0","id":8,"result":{}}"#;
    b.asked(&post(message, &session)).await.message().await;
    assert_eq!(server.asked(), [""; 0]);
}

/// The pod that drains has sent it to one that is not its heir any more.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_given_away_goes_where_it_went_before() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    let (c, _) = pod("c", &pods, Roaming::Reopen).await;
    let sessions = [open(&a).await, open(&a).await, open(&a).await, open(&a).await];
    let _running = a.asked(&slow(&open(&a).await)).await;
    pods.tell(&[("a", true, true), ("b", true, false)]);
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Draining).await;
    let mut names = Vec::new();
    for session in &sessions {
        // By the pod that takes it, so that the one which gives it does not know where it went.
        names.push(calls(&b, session).await);
    }
    pods.tell(&[("a", true, true), ("b", true, false), ("c", true, false)]);
    for (session, name) in sessions.iter().zip(&names) {
        assert!(name.starts_with("b-"), "{name}");
        for world in [&a, &c, &a, &b] {
            assert_eq!(calls(world, session).await, *name);
        }
    }
    server.goes_on();
}

/// Late in its drain it takes no more calls, but what those in flight wait for.
#[tokio::test(start_paused = true)]
async fn what_a_call_waits_for_finds_the_pod_that_drains() {
    let pods = Pods::default();
    let (b, server) = pod("b", &pods, Roaming::Reopen).await;
    let (c, _) = pod("c", &pods, Roaming::Reopen).await;
    let (d, _) = pod("d", &pods, Roaming::Reopen).await;
    let (e, _) = pod("e", &pods, Roaming::Reopen).await;
    let (gone, _) = pod("a", &pods, Roaming::Reopen).await;
    let (session, idle) = (open(&gone).await, open(&gone).await);
    pods.tell(&[("b", true, false)]);
    let ids = [calls(&b, &session).await, calls(&b, &idle).await];
    assert_eq!(ids, ["b-1", "b-2"]);
    server.asked();
    let mut running = b.asked(&slow(&session)).await;
    while server.asked().last().is_none_or(|last| last != "tools/call b-1") {
        b.settled().await;
    }
    pods.tell(&[("b", true, true), ("c", true, false), ("d", true, false), ("e", true, false)]);
    b.drain.tell(Event::Requested).await;
    b.watch.clone().until(|now| now.last_call).await;
    for world in [&c, &d, &e] {
        let message = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
        world.asked(&post(message, &session)).await.message().await;
        assert_eq!(server.asked(), ["post b-1"]);
    }
    // Its next calls begin where its heir is, and so do those of what is idle.
    for session in [&session, &idle] {
        let text = session.trim_end().rsplit(' ').next().unwrap();
        let heir = heir(text, ["c", "d", "e"]).unwrap();
        for world in [&c, &d, &e, &c] {
            let name = calls(world, session).await;
            assert!(name.starts_with(heir), "{name} {heir}");
        }
    }
    server.goes_on();
    assert!(running.message().await.contains("b-1"));
    assert_eq!(b.report().await.cut, 0);
}

/// Its owner has answered nobody for a while: one pod has opened it anew, and the others find it
/// there. Once the owner is back, it is the owner's again.
#[tokio::test(start_paused = true)]
async fn a_session_of_an_owner_that_hangs_is_opened_anew_once() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    let (c, _) = pod("c", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false), ("c", true, false)]);
    let sessions = [open(&a).await, open(&a).await, open(&a).await, open(&a).await];
    let door = pods.remove("a").unwrap();
    let (silent, _visitors) = mpsc::unbounded_channel();
    pods.put("a", silent);
    for session in &sessions {
        let name = calls(&b, session).await;
        assert!(!name.starts_with("a-"), "{name}");
        for world in [&c, &b, &c] {
            let began = Instant::now();
            assert_eq!(calls(world, session).await, name);
            assert!(began.elapsed() < seconds(2.5), "{:?}", began.elapsed());
        }
        // It is known where it is: nobody waits for the owner again.
        let began = Instant::now();
        assert_eq!(calls(&c, session).await, name);
        assert!(began.elapsed() < seconds(0.1), "{:?}", began.elapsed());
    }
    pods.put("a", door);
    tokio::time::sleep(seconds(61.0)).await;
    for session in &sessions {
        let names = [calls(&b, session).await, calls(&c, session).await];
        let ours = names.iter().filter(|name| name.starts_with("a-")).count();
        // Who has opened it goes on with it.
        assert!(ours >= 1, "{names:?}");
    }
}

/// Its calls go on, and wait for answers of their clients.
#[tokio::test(start_paused = true)]
async fn an_owner_that_is_not_ready_for_a_moment_is_still_the_owner() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, other) = pod("b", &pods, Roaming::Reopen).await;
    let session = open(&a).await;
    pods.tell(&[("a", false, false), ("b", true, false)]);
    assert_eq!(calls(&b, &session).await, "a-1");
    let message = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    let answer = b.asked(&post(message, &session)).await.message().await;
    assert!(server.asked().len() == 3, "{answer}");
    assert_eq!(other.asked(), [""; 0]);
}

/// 2025-11-25: the server ends the stream after an event's id, and its client comes back.
#[tokio::test(start_paused = true)]
async fn a_polled_call_gets_no_error_from_the_pod_in_between() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, Roaming::Reopen).await;
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false)]);
    let session = open(&a).await;
    server.state(|state| state.polls = true);
    for world in [&a, &b] {
        let mut client = world.asked(&call("1", &session)).await;
        let events = client.until("0\r\n\r\n").await;
        assert!(events.contains("retry: 10") && !events.contains("error"), "{events}");
    }
}

/// Its client comes back for an answer that a server has taken with it; while nobody is there, and
/// once somebody is, who has opened the session anew for another call.
#[tokio::test(start_paused = true)]
async fn who_is_back_for_a_lost_answer_hears_that_it_is_lost() {
    for (is_up, calls_first) in [(false, false), (true, false), (true, true)] {
        let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
        let session = open(&world).await;
        server.state(|state| state.polls = true);
        let answer = world.asked(&call("5", &session)).await.until("0\r\n\r\n").await;
        assert!(answer.contains("id: 1"), "{answer}");
        assert_eq!(world.sessions.pending(), 1);
        server.state(|state| state.polls = false);
        world.kill_server().await;
        server.restarts();
        world.up.store(is_up, Relaxed);
        if calls_first {
            assert_eq!(calls(&world, &session).await, "a-2");
        }
        let resume = get(&format!("{session}Last-Event-ID: 1\r\n"));
        let mut back = world.asked(&resume).await;
        let heard = back.until("\n\n").await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        let lost = r#""id":5,"error":{"code":-32011"#;
        assert!(heard.contains(lost), "{is_up} {calls_first}: {heard:?} {:?}", server.asked());
        assert_eq!(world.sessions.pending(), 0);
        world.up.store(true, Relaxed);
        // Once is enough.
        let mut again = world.asked(&resume).await;
        let heard = again.until("\r\n\r\n").await;
        world.settled().await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        drop((back, again));
        assert!(!calls(&world, &session).await.contains("error"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_opened_as_it_was_is_over() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    let (b, server) = pod("b", &pods, Roaming::Reopen).await;
    let (pinned, _) = pod("p", &pods, Roaming::Pin).await;
    let session = open(&a).await;
    pods.tell(&[("b", true, false)]);
    // Another version of the protocol than the client speaks.
    server.state(|state| state.version = "2025-11-25");
    assert!(calls(&b, &session).await.starts_with("HTTP/1.1 404"));
    server.state(|state| state.version = VERSION);
    assert_eq!(calls(&b, &session).await, "b-2");
    assert!(calls(&pinned, &session).await.starts_with("HTTP/1.1 404"));
    // What it would tell of is gone.
    let cancelled =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let late = open(&a).await;
    let answer = b.asked(&post(cancelled, &late)).await.message().await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert!(!server.asked().iter().any(|asked| asked.contains("cancelled")));
}

/// The heir is there, but says nothing as long as the client waits.
#[tokio::test(start_paused = true)]
async fn a_session_that_did_not_arrive_is_not_given_away() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    let (door, _visitors) = mpsc::unbounded_channel();
    pods.put("b", door);
    pods.tell(&[("a", true, true), ("b", true, false)]);
    let session = open(&a).await;
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Drained).await;
    let known = a.sessions.known(session.split_whitespace().nth(1).unwrap()).unwrap();
    let client = a.asked(&call("1", &session)).await;
    while !known.is_given() {
        a.settled().await;
    }
    drop(client);
    while known.is_given() {
        a.settled().await;
    }
}

/// What stands at a peer's address may be anybody.
#[tokio::test(start_paused = true)]
async fn a_stranger_hears_nothing_of_a_session() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false)]);
    for answer in [
        "",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nebbtide-peer: other\r\n\r\n",
        "HTTP/1.1 421 Misdirected Request\r\nebbtide-peer: a\r\n\r\n",
    ] {
        let session = open(&a).await;
        let (door, mut visitors) = mpsc::unbounded_channel();
        pods.put("a", door);
        let stranger = async {
            let mut heard = String::new();
            while let Some((pipe, _)) = visitors.recv().await {
                let mut wire = Wire { pipe, read: Vec::new() };
                heard += &wire.message().await;
                // One that says nothing hangs.
                if !answer.is_empty() {
                    wire.send(answer).await;
                }
                heard += &wire.rest().await;
            }
            heard
        };
        let asked = async {
            let name = calls(&b, &session).await;
            pods.remove("a");
            name
        };
        let (heard, name) = tokio::join!(stranger, asked);
        assert!(name.starts_with("b-"), "{answer}: {name}");
        assert!(heard.starts_with("OPTIONS * ") && !heard.contains("e1."), "{heard}");
        // What could not be reached is not tried again at once.
        tokio::time::sleep(seconds(1.1)).await;
    }
}

/// Two that each think the other has it, and one that says so of everybody.
#[tokio::test(start_paused = true)]
async fn no_request_goes_in_a_circle() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, Roaming::Reopen).await;
    let (b, _) = pod("b", &pods, Roaming::Reopen).await;
    pods.tell(&[("a", true, false), ("b", true, false), ("c", true, false)]);
    let session = open(&a).await;
    // Of a pod that is not there any more.
    let token = Token::new("c", "x", VERSION, Some(PARAMS)).unwrap().text(&Keys::default());
    let other = format!("Mcp-Session-Id: {token}\r\n");
    for mark in ["owner", "heir", "elsewhere", ""] {
        let marked = format!("{other}ebbtide-peer: {mark}\r\n");
        let answer = b.asked(&call("1", &marked)).await.message().await;
        let is_refused = answer.starts_with("HTTP/1.1 421");
        assert_eq!(is_refused, mark == "owner", "{answer}");
        let marked = format!("{session}ebbtide-peer: {mark}\r\n");
        let answer = a.asked(&call("1", &marked)).await.message().await;
        assert!(answer.contains("a-1"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_to_be_sent_again_gets_an_error_and_the_next_call_works() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    server.restarts();
    let blob = "x".repeat(70 * 1024);
    let large = format!(
        r#"{{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{{"name":"t","blob":"{blob}"}}}}"#
    );
    let answer = world.asked(&post(&large, &session)).await.message().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""id":9,"error""#), "{answer}");
    assert_eq!(calls(&world, &session).await, "a-2");
    assert_eq!(server.state(|state| state.opened), 2);
}

/// Another pod opens it anew, if its client can go on with it.
#[tokio::test(start_paused = true)]
async fn a_drained_pod_that_knows_no_other_ends_no_session() {
    let (world, _) = pod("a", &Pods::default(), Roaming::Reopen).await;
    let session = open(&world).await;
    let mut client = world.asked(&call("1", &session)).await;
    client.message().await;
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Drained).await;
    let answer = world.asked(&call("2", &session)).await.message().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("-32010"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn without_sessions_ids_pass_unchanged() {
    let (world, server) = pod("a", &Pods::default(), Roaming::Off).await;
    let request = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;
    let answer = world.asked(&post(request, "")).await.message().await;
    assert!(answer.contains("mcp-session-id: a-1\r\n"), "{answer}");
    assert_eq!(calls(&world, "Mcp-Session-Id: a-1\r\n").await, "a-1");
    server.restarts();
    assert!(calls(&world, "Mcp-Session-Id: a-1\r\n").await.starts_with("HTTP/1.1 404"));
}
