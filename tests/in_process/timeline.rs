//! When each phase begins, to the millisecond.

use std::time::Duration;

use ebbtide::drain::{Phase, handle::Event};
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{ANSWER, EVENTS, Settings, World, call, seconds};

/// Hundredths of a second: more than the grain of a timer, less than any time that is set.
fn hundredths(took: Duration) -> u128 {
    (took.as_millis() + 5) / 10
}

/// What a drain is told, and when its phases begin while one call never ends.
struct Case {
    name: &'static str,
    change: fn(&mut Settings),
    /// New connections, in seconds after the trigger.
    arrivals: &'static [f64],
    draining: Duration,
    cutting: Duration,
}

#[tokio::test(start_paused = true)]
async fn each_phase_begins_at_its_instant() {
    let cases = [
        Case {
            name: "no endpoints to leave, nothing set",
            change: |_| (),
            arrivals: &[],
            draining: seconds(0.0),
            cutting: seconds(30.0),
        },
        Case {
            name: "settle is waited for",
            change: |s| s.rules.timings.settle = seconds(2.0),
            arrivals: &[],
            draining: seconds(2.0),
            cutting: seconds(30.0),
        },
        Case {
            name: "quiet begins anew with each connection",
            change: |s| {
                s.rules.timings.settle = seconds(2.0);
                s.rules.timings.quiet = seconds(1.0);
            },
            arrivals: &[0.5, 1.7, 2.4],
            draining: seconds(3.4),
            cutting: seconds(30.0),
        },
        Case {
            name: "quiet that never comes ends with withdraw_timeout",
            change: |s| {
                s.rules.timings.settle = seconds(1.0);
                s.rules.timings.quiet = seconds(1.0);
                s.rules.timings.withdraw_timeout = seconds(3.0);
            },
            arrivals: &[0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5],
            draining: seconds(3.0),
            cutting: seconds(30.0),
        },
        Case {
            name: "endpoints that nobody sees take withdraw_timeout",
            change: |s| {
                s.rules.has_endpoints = true;
                s.rules.timings.settle = seconds(2.0);
            },
            arrivals: &[],
            draining: seconds(15.0),
            cutting: seconds(30.0),
        },
        Case {
            name: "drain_timeout bounds everything",
            change: |s| {
                s.rules.has_endpoints = true;
                s.rules.timings.drain_timeout = Some(seconds(10.0));
            },
            arrivals: &[],
            draining: seconds(10.0),
            cutting: seconds(10.0),
        },
        Case {
            name: "the grace less what stopping takes",
            change: |s| s.rules.timings.grace = Some(seconds(60.0)),
            arrivals: &[],
            draining: seconds(0.0),
            cutting: seconds(57.0),
        },
    ];
    for case in cases {
        let mut settings = Settings::default();
        (case.change)(&mut settings);
        let mut world = World::start(settings).await;
        let (mut client, _server) = world.held(&call("1", "")).await;

        let began = Instant::now();
        world.drain.tell(Event::Requested).await;
        world.reached(Phase::Withdrawing).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "{}", case.name);
        let watcher = async { world.reached(Phase::Draining).await - began };
        let arrivals = async {
            let mut clients = Vec::new();
            for at in case.arrivals {
                sleep_until(began + seconds(*at)).await;
                clients.push(world.client());
            }
            clients
        };
        let (draining, clients) = tokio::join!(watcher, arrivals);
        assert_eq!(hundredths(draining), hundredths(case.draining), "{}", case.name);
        let cutting = world.reached(Phase::Cutting).await - began;
        assert_eq!(hundredths(cutting), hundredths(case.cutting), "{}", case.name);
        assert!(client.message().await.contains("-32010"), "{}", case.name);

        let report = world.report().await;
        let phases: Vec<_> = report.phases.iter().map(|(phase, _)| *phase).collect();
        assert_eq!(phases, [Phase::Withdrawing, Phase::Draining, Phase::Cutting], "{}", case.name);
        let took = report.phases.iter().map(|(_, took)| hundredths(seconds(*took)));
        let expected = [case.draining, case.cutting.saturating_sub(case.draining), Duration::ZERO];
        assert_eq!(took.collect::<Vec<_>>(), expected.map(hundredths), "{}", case.name);
        assert_eq!((report.cut, report.completed), (1, 0), "{}", case.name);
        drop(clients);
    }
}

#[tokio::test(start_paused = true)]
async fn the_drain_ends_with_the_last_call() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    world.drain.tell(Event::Signal).await;
    sleep_until(began + seconds(12.0)).await;
    assert_eq!(world.watch.phase(), Phase::Draining);
    server.send(ANSWER).await;
    assert!(client.message().await.ends_with("{}"));
    assert_eq!((world.reached(Phase::Drained).await - began).as_secs(), 12);
    assert_eq!(world.report().await.completed, 1);
}

/// A request that comes while idle connections are about to close is still served: after the end it
/// would be refused, or meet a closed connection.
#[tokio::test(start_paused = true)]
async fn the_request_that_meets_the_close_of_its_connection_is_served() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    let mut fresh = world.client();
    server.send(ANSWER).await;
    client.message().await;
    world.settled().await;
    world.drain.tell(Event::Requested).await;
    let closes = world.watch.clone().until(|now| now.closes_idle).await;
    assert_eq!(closes.phase, Phase::Draining);
    client.send(&call("2", "")).await;
    fresh.send(&call("3", "")).await;
    server.message().await;
    server.send(ANSWER).await;
    let (mut other, _) = world.asked_server().await;
    other.send(ANSWER).await;
    for client in [&mut client, &mut fresh] {
        let answer = client.message().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"));
    }
    world.reached(Phase::Drained).await;
    assert_eq!(world.report().await.completed, 2);
}

/// Its head could not say `Connection: close`: the next call on it would hold up the drain.
#[tokio::test(start_paused = true)]
async fn an_answer_that_began_before_draining_takes_its_connection_along() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, mut server) = world.held(&call("1", "")).await;
    let (mut session, mut other) = world.held(&call("2", "Mcp-Session-Id: s\r\n")).await;
    for server in [&mut server, &mut other] {
        server.send(EVENTS).await;
    }
    for client in [&mut client, &mut session] {
        let head = client.until("\r\n\r\n").await;
        assert!(!head.contains("connection: close"), "{head}");
    }
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Draining).await;
    world.settled().await;
    for (server, id) in [(&mut server, 1), (&mut other, 2)] {
        server
            .chunk(&format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n"))
            .await;
        server.send("0\r\n\r\n").await;
    }
    // It is closed behind the answer.
    assert!(client.rest().await.ends_with("0\r\n\r\n"));
    session.until("\r\n0\r\n\r\n").await;
    // A session's next call has to meet this pod.
    session.send(&call("3", "Mcp-Session-Id: s\r\n")).await;
    other.message().await;
    other.send(ANSWER).await;
    assert!(session.message().await.starts_with("HTTP/1.1 200"));
}

/// A client that does not read its error holds the cut for as long as a cut may take, and not at all
/// where it had stopped reading long before.
#[tokio::test(start_paused = true)]
async fn a_cut_takes_a_second_at_most() {
    for (reads_until, drained_at) in [(31.0, 34), (0.0, 33)] {
        let mut settings = Settings::default();
        settings.rules.timings.drain_timeout = Some(seconds(33.0));
        let mut world = World::start(settings).await;
        let (mut client, mut server) = world.held(&call("1", "")).await;
        server.send(EVENTS).await;
        client.until("\r\n\r\n").await;
        let began = Instant::now();
        world.drain.tell(Event::Requested).await;
        sleep(seconds(reads_until)).await;
        // The error finds no room.
        server.fill_with_events().await;
        let drained = world.reached(Phase::Drained).await;
        assert_eq!((drained - began).as_secs(), drained_at);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_cuts_at_once() {
    let mut world = World::start(Settings::default()).await;
    let (mut client, _server) = world.held(&call("1", "")).await;
    let began = Instant::now();
    world.drain.tell(Event::Signal).await;
    world.reached(Phase::Draining).await;
    world.drain.tell(Event::Signal).await;
    assert!(client.message().await.contains("-32010"));
    world.reached(Phase::Drained).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// A moment after the trigger a session ends between two calls, never in one.
#[tokio::test(start_paused = true)]
async fn an_idle_session_is_over_a_moment_after_the_trigger() {
    let mut world = World::start(Settings::default()).await;
    let session = "Mcp-Session-Id: s\r\n";
    let (_held, _server) = world.held(&call("0", "Mcp-Session-Id: other\r\n")).await;
    let began = Instant::now();
    world.drain.tell(Event::Requested).await;

    // Before: served.
    sleep_until(began + seconds(1.9)).await;
    let (mut client, mut server) = world.held(&call("1", session)).await;
    // After, with one call pending: served too.
    sleep_until(began + seconds(20.0)).await;
    let (mut beside, mut second) = world.held(&call("2", session)).await;
    // The last one is told to go elsewhere; not the one before, whose session is in use.
    let both = [(&mut server, &mut client, false), (&mut second, &mut beside, true)];
    for (server, client, is_last) in both {
        server.send(ANSWER).await;
        let answer = client.message().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(answer.contains("connection: close"), is_last, "{answer}");
    }
    // After, with nothing pending: over.
    client.send(&call("3", session)).await;
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains(r#""id":3"#), "{answer}");
    assert!(answer.contains("connection: close"), "what comes next goes elsewhere: {answer}");
}

/// Most processes end with their drain: nobody could ask later.
#[tokio::test(start_paused = true)]
async fn what_becomes_of_calls_is_counted_while_the_drain_goes_on() {
    let mut world = World::start(Settings::default()).await;
    let counted = |metrics: &str, result: &str| {
        let name = format!("ebbtide_drain_calls_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
    };
    let before = world.ask_admin("/metrics").await;
    for result in ["completed", "refused", "cut", "ended", "lost"] {
        assert_eq!(counted(&before, result).as_deref(), Some("0"), "{before}");
    }
    let (mut client, mut server) = world.held(&call("1", "")).await;
    let (_stuck, _its_server) = world.held(&call("2", "")).await;
    world.drain.tell(Event::Requested).await;
    world.reached(Phase::Draining).await;
    server.send(ANSWER).await;
    client.message().await;
    let during = world.ask_admin("/metrics").await;
    assert_eq!(counted(&during, "completed").as_deref(), Some("1"), "{during}");
    assert!(during.contains("ebbtide_drain_phase_duration_seconds{phase=\"Withdrawing\"}"));
    world.reached(Phase::Drained).await;
    let after = world.ask_admin("/metrics").await;
    assert_eq!(counted(&after, "cut").as_deref(), Some("1"), "{after}");
}
