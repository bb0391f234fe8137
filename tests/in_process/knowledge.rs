//! What the cluster tells, and what the drain makes of it.

use ebbtide::drain::{
    Phase, Trigger,
    handle::Event,
    knowledge::{Deletion, Endpoints, Fact, Level, Pod},
};
use tokio::time::{Instant, sleep};

use crate::harness::{ANSWER, Settings, World, body, call, seconds};

/// In a cluster: 15 s of `withdraw_timeout`, 2 s of settle, 1 s of quiet.
async fn world() -> World {
    let mut settings = Settings::default();
    settings.rules.has_endpoints = true;
    settings.rules.timings.settle = seconds(2.0);
    settings.rules.timings.quiet = seconds(1.0);
    World::start(settings).await
}

async fn learn(world: &World, fact: Fact) {
    world.drain.tell(Event::Learned(fact)).await;
}

fn endpoints(named: usize, offering: usize, terminating: bool) -> Fact {
    Fact::Endpoints(Some(Endpoints { named, offering, terminating }))
}

fn pod(kill_in: Option<f64>) -> Fact {
    let now = Instant::now().into_std();
    let deletion = kill_in.map(|left| Deletion {
        #[allow(clippy::cast_possible_truncation, reason = "seconds of a test")]
        timestamp: left as i64,
        kill_at: now + seconds(left),
    });
    Fact::Pod(Some(Pod { as_of: now, deletion }))
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_drains_once_its_endpoints_are_left_and_until_the_kill() {
    let mut world = world().await;
    learn(&world, endpoints(2, 2, false)).await;
    learn(&world, pod(None)).await;
    let (mut client, _server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    learn(&world, pod(Some(60.0))).await;
    world.reached(Phase::Withdrawing).await;
    assert_eq!(world.watch.snapshot().level, Level::SlicesAndPod);
    assert!(world.ask_admin("/readyz").await.starts_with("HTTP/1.1 200"));
    sleep(seconds(1.0)).await;
    // One of two Services follows, then the other.
    learn(&world, endpoints(2, 1, true)).await;
    sleep(seconds(1.0)).await;
    learn(&world, endpoints(2, 0, true)).await;
    assert_eq!((world.reached(Phase::Draining).await - began).as_millis(), 4000);
    // 60 s to the kill, less what the server gets to stop, less the cut itself.
    assert_eq!((world.reached(Phase::Cutting).await - began).as_millis(), 57_000);
    assert!(client.message().await.contains("-32010"));
    let report = world.report().await;
    assert_eq!((report.trigger, report.cut), (Trigger::Deleted, 1));
}

#[tokio::test(start_paused = true)]
async fn a_second_delete_with_a_shorter_grace_moves_the_cut() {
    let mut world = world().await;
    learn(&world, endpoints(0, 0, false)).await;
    let (_client, _server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    learn(&world, pod(Some(60.0))).await;
    world.reached(Phase::Draining).await;
    sleep(seconds(10.0)).await;
    learn(&world, pod(Some(5.0))).await;
    let cut = world.reached(Phase::Cutting).await - began;
    // Settled at 2 s, asked again at 12 s: 5 s to the kill, less 3 s.
    assert_eq!(cut.as_millis(), 14_000);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_service_selects_does_not_wait() {
    for before in [seconds(0.0), seconds(30.0)] {
        let world = world().await;
        learn(&world, endpoints(0, 0, false)).await;
        sleep(before).await;
        let began = Instant::now();
        learn(&world, pod(Some(60.0))).await;
        let took = (world.reached(Phase::Draining).await - began).as_millis();
        // What left its endpoints long ago has settled.
        assert_eq!(took, if before.is_zero() { 2000 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn new_connections_keep_a_settled_pod_withdrawing() {
    let world = world().await;
    learn(&world, endpoints(1, 1, false)).await;
    let began = Instant::now();
    learn(&world, endpoints(1, 0, true)).await;
    world.reached(Phase::Withdrawing).await;
    for _ in 0..6 {
        sleep(seconds(0.8)).await;
        drop(world.client());
    }
    let took = world.reached(Phase::Draining).await - began;
    assert_eq!(took.as_millis(), 4800 + 1000);
    assert_eq!(world.watch.snapshot().trigger, Some(Trigger::Terminating));
}

#[tokio::test(start_paused = true)]
async fn a_lost_api_server_leaves_the_timers() {
    let mut world = world().await;
    learn(&world, endpoints(1, 1, false)).await;
    learn(&world, pod(None)).await;
    learn(&world, Fact::Endpoints(None)).await;
    learn(&world, Fact::Pod(None)).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    world.drain.tell(Event::Signal).await;
    assert_eq!((world.reached(Phase::Draining).await - began).as_secs(), 15);
    assert_eq!(world.watch.snapshot().level, Level::Timers);
    server.send(ANSWER).await;
    assert!(client.message().await.ends_with("{}"));
    assert_eq!(world.report().await.lost, 0);
}

#[tokio::test(start_paused = true)]
async fn readiness_fails_where_a_node_shuts_down_and_holds_where_the_pod_is_deleted() {
    // Both hooks, and then what the Pod says, read after them.
    for (deleted, status) in [(true, "200"), (false, "503")] {
        let world = world().await;
        learn(&world, endpoints(1, 1, false)).await;
        let _server = world.begin_hook("/prestop").await;
        let _sidecar = world.begin_hook("/prestop/self").await;
        world.reached(Phase::Withdrawing).await;
        assert!(world.ask_admin("/readyz").await.starts_with("HTTP/1.1 200"), "not known yet");
        sleep(seconds(0.1)).await;
        learn(&world, pod(deleted.then_some(60.0))).await;
        world.settled().await;
        let ready = world.ask_admin("/readyz").await;
        assert!(ready.starts_with(&format!("HTTP/1.1 {status}")), "{ready}");
    }
}

#[tokio::test(start_paused = true)]
async fn status_tells_what_is_known() {
    let world = world().await;
    for (fact, level) in
        [(endpoints(1, 1, false), "slices"), (pod(None), "pod"), (Fact::Endpoints(None), "timers")]
    {
        learn(&world, fact).await;
        world.settled().await;
        let status = world.ask_admin("/status").await;
        let status: serde_json::Value = serde_json::from_str(body(&status)).unwrap();
        assert_eq!(status["knowledge"], level);
    }
}
