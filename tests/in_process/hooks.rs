//! What the two preStop hooks wait for, and when they begin a drain.

use std::sync::atomic::Ordering::Relaxed;

use ebbtide::drain::{Phase, Trigger, handle::Event, hooks::Restart};
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{ANSWER, EVENTS, Settings, World, body, call, get, post, seconds};

const SERVER: &str = "/prestop";
const SIDECAR: &str = "/prestop/self";
const SESSION: &str = "Mcp-Session-Id: s\r\n";

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_holds_new_calls_until_it_is_back() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    let mut waiting = world.begin_hook(SERVER).await;
    // The other hook may still come: this one is served as ever.
    sleep_until(began + seconds(1.0)).await;
    let (mut early, mut early_server) = world.held(&call("2", "")).await;
    world.until_restart(Restart::Finishing).await;
    assert_eq!(began.elapsed().as_secs(), 2);
    let mut late = world.asked(&call("3", "")).await;
    sleep_until(began + seconds(4.0)).await;
    server.send(ANSWER).await;
    assert!(client.message().await.ends_with("{}"));
    sleep_until(began + seconds(5.0)).await;
    early_server.send(ANSWER).await;
    assert!(early.message().await.ends_with("{}"));

    assert!(body(&waiting.message().await).contains("its calls have ended"));
    assert_eq!(began.elapsed().as_secs(), 5);
    world.up.store(false, Relaxed);
    drop((server, early_server));
    sleep_until(began + seconds(6.0)).await;
    world.up.store(true, Relaxed);
    let (mut server, request) = world.asked_server().await;
    assert!(request.contains("\"id\":3"), "{request}");
    assert!(began.elapsed() < seconds(6.1), "{:?}", began.elapsed());
    server.send(ANSWER).await;
    assert!(late.message().await.ends_with("{}"));
    world.until_restart(Restart::No).await;
    assert_eq!(world.watch.phase(), Phase::Serving);
}

/// A tool that asks its client something waits for the answer, however many calls wait.
#[tokio::test(start_paused = true)]
async fn what_a_call_in_flight_waits_for_passes_a_restart() {
    let mut world = World::start(Settings::default()).await;
    let (_client, _server) = world.held(&call("1", "")).await;
    let _hook = world.begin_hook(SERVER).await;
    world.until_restart(Restart::Finishing).await;
    let _late = world.asked(&call("2", "")).await;
    let _answer = world.asked(&post(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, "")).await;
    let (_server, request) = world.asked_server().await;
    assert!(request.contains("\"id\":7"), "{request}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_goes_is_not_waited_for() {
    let world = World::start(Settings::default()).await;
    let began = Instant::now();
    assert!(body(&world.begin_hook(SERVER).await.message().await).starts_with("no drain"));
    assert_eq!(began.elapsed().as_secs(), 2);
    world.until_restart(Restart::No).await;
    assert!(began.elapsed() < seconds(5.1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_in_vain_for_the_restart_hears_why() {
    let mut world = World::start(Settings::default()).await;
    let (_client, _server) = world.held(&call("1", "")).await;
    let mut waiting = world.begin_hook(SERVER).await;
    world.until_restart(Restart::Finishing).await;
    let began = Instant::now();
    let answer = world.asked(&call("2", "")).await.message().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("-32011"), "{answer}");
    assert!(answer.contains("the server restarts"), "{answer}");
    assert_eq!(began.elapsed().as_secs(), 5);
    // It is no want of places.
    let status = world.ask_admin("/status").await;
    assert!(status.contains("\"timed_out\":0") && status.contains("\"unreachable\":1"), "{status}");
    // Nor does the hook wait for ever.
    assert!(body(&waiting.message().await).contains("not all its calls have ended"));
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(world.watch.phase(), Phase::Serving);
}

#[tokio::test(start_paused = true)]
async fn the_sidecars_hook_alone_leaves_the_drain_to_sigterm() {
    let mut world = World::start(Settings::default()).await;
    let (_client, _server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    assert!(body(&world.begin_hook(SIDECAR).await.message().await).starts_with("no drain"));
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(world.watch.snapshot().restart, Restart::No);
    assert_eq!(world.watch.phase(), Phase::Serving);
}

#[tokio::test(start_paused = true)]
async fn both_hooks_begin_a_drain_and_return_with_its_end() {
    // Also long after another, while the first still waits for a call.
    for (first, second, apart) in
        [(SERVER, SIDECAR, 0.0), (SIDECAR, SERVER, 1.9), (SERVER, SIDECAR, 10.0)]
    {
        let mut world = World::start(Settings::default()).await;
        let (mut client, mut server) = world.held(&call("1", "")).await;
        let mut early = world.begin_hook(first).await;
        sleep(seconds(apart)).await;
        assert_eq!(world.watch.phase(), Phase::Serving);
        let mut late = world.begin_hook(second).await;
        world.reached(Phase::Draining).await;
        assert_eq!(world.watch.snapshot().trigger, Some(Trigger::PreStop));
        // Twice, as a kubelet that restarts does.
        let mut again = world.begin_hook(second).await;
        let began = Instant::now();
        sleep(seconds(20.0)).await;
        server.send(ANSWER).await;
        for waiting in [&mut early, &mut late, &mut again] {
            assert!(waiting.message().await.ends_with("drained\n"));
            assert_eq!(began.elapsed().as_secs(), 20);
        }
        assert!(client.message().await.ends_with("{}"));
        let mut after = world.begin_hook(first).await;
        assert!(after.message().await.ends_with("drained\n"));
        assert_eq!(world.report().await.trigger, Trigger::PreStop);
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_of_two_restarts_are_no_drain() {
    let world = World::start(Settings::default()).await;
    assert!(body(&world.begin_hook(SERVER).await.message().await).starts_with("no drain"));
    sleep(seconds(0.1)).await;
    assert!(body(&world.begin_hook(SIDECAR).await.message().await).starts_with("no drain"));
    assert_eq!(world.watch.phase(), Phase::Serving);
}

/// Readiness stays while the pod is deleted, and fails at once where only the probe can tell.
#[tokio::test(start_paused = true)]
async fn readiness_follows_the_trigger() {
    for (by_hooks, status) in [(true, "200"), (false, "503")] {
        let mut settings = Settings::default();
        settings.rules.has_endpoints = true;
        let world = World::start(settings).await;
        let _hooks = if by_hooks {
            vec![world.begin_hook(SERVER).await, world.begin_hook(SIDECAR).await]
        } else {
            world.drain.tell(Event::Requested).await;
            Vec::new()
        };
        world.reached(Phase::Withdrawing).await;
        let ready = world.begin_hook("/readyz").await.message().await;
        assert!(ready.starts_with(&format!("HTTP/1.1 {status}")), "{ready}");
        assert!(world.begin_hook("/livez").await.message().await.starts_with("HTTP/1.1 200"));
    }
}

/// A client has left in the middle of its call, which goes on.
async fn left_in_a_call() -> World {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(&call("1", SESSION)).await;
    server.send(EVENTS).await;
    server.chunk("id: 1\ndata: {\"method\":\"notifications/progress\"}\n\n").await;
    client.until("progress").await;
    drop(client);
    assert_eq!(server.rest().await, "");
    world
}

/// A call that has no exchange any more runs on the server all the same.
#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_waits_for_calls_that_are_pending() {
    let mut world = left_in_a_call().await;
    let began = Instant::now();
    let mut waiting = world.begin_hook(SERVER).await;
    world.until_restart(Restart::Finishing).await;
    sleep_until(began + seconds(8.0)).await;
    assert_eq!(world.watch.snapshot().restart, Restart::Finishing);
    // Its client is back, and hears the answer.
    let (mut back, mut server) = world.held(&get(&format!("{SESSION}Last-Event-ID: 1\r\n"))).await;
    server.send(EVENTS).await;
    sleep_until(began + seconds(25.0)).await;
    assert_eq!(world.watch.snapshot().restart, Restart::Finishing);
    server.chunk("data: {\"id\":1,\"result\":{}}\n\n").await;
    back.until("result").await;
    assert!(body(&waiting.message().await).contains("its calls have ended"));
    assert_eq!(began.elapsed().as_secs(), 25);
}

/// For one that does not come back, new calls are not kept waiting.
#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_does_not_wait_for_a_client_that_left() {
    let world = left_in_a_call().await;
    let began = Instant::now();
    assert!(body(&world.begin_hook(SERVER).await.message().await).contains("have ended"));
    assert_eq!(began.elapsed().as_secs(), 10);
}

/// A pod that has drained, since somebody asked for it or since both hooks say that it ends.
async fn drained(asked: bool) -> World {
    let world = World::start(Settings::default()).await;
    world.listener.store(7, Relaxed);
    let mut hooks = Vec::new();
    if asked {
        world.drain.tell(Event::Requested).await;
    } else {
        hooks = vec![world.begin_hook(SERVER).await, world.begin_hook(SIDECAR).await];
    }
    world.reached(Phase::Drained).await;
    drop(hooks);
    sleep(seconds(60.0)).await;
    assert!(!world.drain.is_over(), "the server is as it was");
    world
}

/// With `ebbtide drain --wait` as its hook, the server's container may restart and the pod go on:
/// whoever runs this sidecar starts it anew.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_behind_a_drain_that_was_asked_for_ends_it() {
    for asked in [true, false] {
        let world = drained(asked).await;
        world.up.store(false, Relaxed);
        world.listener.store(0, Relaxed);
        sleep(seconds(60.0)).await;
        assert!(!world.drain.is_over(), "it is not back");
        world.up.store(true, Relaxed);
        sleep(seconds(1.0)).await;
        assert_eq!(world.drain.is_over(), asked);
    }
    // Also one that has changed before the drain was over.
    let mut world = World::start(Settings::default()).await;
    world.listener.store(7, Relaxed);
    let (mut client, mut server) = world.held(&call("1", "")).await;
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Draining).await;
    world.listener.store(8, Relaxed);
    server.send(ANSWER).await;
    client.message().await;
    world.reached(Phase::Drained).await;
    sleep(seconds(1.0)).await;
    assert!(world.drain.is_over());
    // Also one that was back before anybody looked.
    for asked in [true, false] {
        let world = drained(asked).await;
        world.listener.store(8, Relaxed);
        sleep(seconds(1.0)).await;
        assert_eq!(world.drain.is_over(), asked);
    }
}
