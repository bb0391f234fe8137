//! What the two preStop hooks wait for, and when they begin a drain.

use ebbtide::drain::{Phase, Trigger, handle::Event};
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{ANSWER, Settings, Wire, World, body, call, seconds};

const SERVER: &str = "/prestop";
const SIDECAR: &str = "/prestop/self";

async fn hook(world: &World, path: &str) -> Wire {
    let mut hook = world.admin();
    hook.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    hook
}

#[tokio::test(start_paused = true)]
async fn a_lone_hook_returns_after_its_calls_and_begins_nothing() {
    for path in [SERVER, SIDECAR] {
        let mut world = World::start(Settings::default()).await;
        let (mut client, mut server) = world.held(&call("1", "")).await;
        let began = Instant::now();
        let mut waiting = hook(&world, path).await;
        // What begins later belongs to the container that comes next.
        sleep_until(began + seconds(1.0)).await;
        let (_later, _server) = world.held(&call("2", "")).await;
        sleep_until(began + seconds(7.0)).await;
        server.send(ANSWER).await;
        assert!(client.message().await.ends_with("{}"));
        assert!(body(&waiting.message().await).starts_with("no drain"));
        // It looks every 20 ms.
        let took = began.elapsed();
        assert!(took >= seconds(7.0) && took < seconds(7.1), "{path}: {took:?}");
        assert_eq!(world.watch.phase(), Phase::Serving);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_hook_waits_for_the_other_and_at_most_its_time() {
    let mut world = World::start(Settings::default()).await;
    let began = Instant::now();
    assert!(body(&hook(&world, SERVER).await.message().await).starts_with("no drain"));
    assert_eq!(began.elapsed().as_millis(), 2000);

    let (_client, _server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    let answer = hook(&world, SERVER).await.message().await;
    assert!(body(&answer).contains("1 calls did not end in time"), "{answer}");
    assert_eq!(began.elapsed().as_secs(), 30);
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
        let mut early = hook(&world, first).await;
        sleep(seconds(apart)).await;
        assert_eq!(world.watch.phase(), Phase::Serving);
        let mut late = hook(&world, second).await;
        world.reached(Phase::Draining).await;
        assert_eq!(world.watch.snapshot().trigger, Some(Trigger::PreStop));
        // Twice, as a kubelet that restarts does.
        let mut again = hook(&world, second).await;
        let began = Instant::now();
        sleep(seconds(20.0)).await;
        server.send(ANSWER).await;
        for waiting in [&mut early, &mut late, &mut again] {
            assert!(waiting.message().await.ends_with("drained\n"));
            assert_eq!(began.elapsed().as_secs(), 20);
        }
        assert!(client.message().await.ends_with("{}"));
        let mut after = hook(&world, first).await;
        assert!(after.message().await.ends_with("drained\n"));
        assert_eq!(world.report().await.trigger, Trigger::PreStop);
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_of_two_restarts_are_no_drain() {
    let world = World::start(Settings::default()).await;
    assert!(body(&hook(&world, SERVER).await.message().await).starts_with("no drain"));
    sleep(seconds(0.1)).await;
    assert!(body(&hook(&world, SIDECAR).await.message().await).starts_with("no drain"));
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
            vec![hook(&world, SERVER).await, hook(&world, SIDECAR).await]
        } else {
            world.drain.tell(Event::Requested).await;
            Vec::new()
        };
        world.reached(Phase::Withdrawing).await;
        let ready = hook(&world, "/readyz").await.message().await;
        assert!(ready.starts_with(&format!("HTTP/1.1 {status}")), "{ready}");
        assert!(hook(&world, "/livez").await.message().await.starts_with("HTTP/1.1 200"));
    }
}
