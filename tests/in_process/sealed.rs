//! Sessions whose tokens are sealed: what the pods make of each other's, while their keys are the
//! same, change one after the other, or differ.

use ebbtide::{
    drain::{Phase, handle::Event},
    sessions::keys::Keys,
};

use crate::{
    across::{Server, before_a_server, calls, opened},
    harness::{Pods, Settings, World, call, get},
};

const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const ONE_AND_OTHER: &str =
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const OTHER_AND_ONE: &str =
    "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const UNSEALED_AND_ONE: &str = "unsealed\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const ONE_AND_UNSEALED: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nunsealed";

async fn pod(uid: &'static str, pods: &Pods, keys: &'static str) -> (World, Server) {
    let settings = Settings { pod: (uid, pods.clone()), keys, ..Settings::default() };
    before_a_server(settings).await
}

fn is_over(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 404")
}

#[tokio::test(start_paused = true)]
async fn pods_of_one_key_serve_each_others_sessions_and_open_them_anew() {
    let pods = Pods::default();
    let (a, _) = pod("a", &pods, ONE).await;
    let (b, server) = pod("b", &pods, ONE).await;
    pods.tell(&[("a", true, false), ("b", true, false)]);
    let session = opened(&a).await;
    assert!(session.contains(": e2."), "{session}");
    for world in [&a, &b] {
        assert_eq!(calls(world, &session).await, "a-1");
    }
    drop(a);
    pods.remove("a");
    pods.tell(&[("b", true, false)]);
    assert_eq!(calls(&b, &session).await, "b-1");
    assert_eq!(server.asked()[0], "initialize -");
}

/// Each pod reads the file when it does: any two steps that follow each other meet.
#[tokio::test(start_paused = true)]
async fn keys_come_and_go_without_a_session_lost() {
    for steps in [
        ["unsealed", UNSEALED_AND_ONE, ONE_AND_UNSEALED, ONE],
        [ONE, ONE_AND_OTHER, OTHER_AND_ONE, OTHER],
        [ONE, ONE_AND_UNSEALED, UNSEALED_AND_ONE, "unsealed"],
    ] {
        for met in steps.windows(2).map(|step| [step[0], step[1]]) {
            let pods = Pods::default();
            let (a, _) = pod("a", &pods, met[0]).await;
            let (b, _) = pod("b", &pods, met[1]).await;
            pods.tell(&[("a", true, false), ("b", true, false)]);
            let (of_a, of_b) = (opened(&a).await, opened(&b).await);
            for (world, session, name) in
                [(&a, &of_a, "a-1"), (&a, &of_b, "b-1"), (&b, &of_a, "a-1"), (&b, &of_b, "b-1")]
            {
                assert_eq!(calls(world, session).await, name, "{met:?}");
            }
        }
    }
}

/// Without the steps between: what a client sends that cannot be opened is a foreign id, and our
/// server's to refuse.
#[tokio::test(start_paused = true)]
async fn a_token_of_another_key_or_none_is_none_of_ours() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, "unsealed").await;
    let (b, other) = pod("b", &pods, ONE).await;
    let (c, _) = pod("c", &pods, OTHER).await;
    pods.tell(&[("a", true, false), ("b", true, false), ("c", true, false)]);
    let (clear, sealed) = (opened(&a).await, opened(&b).await);
    server.asked();
    other.asked();
    for (world, session) in [(&b, &clear), (&c, &clear), (&a, &sealed), (&c, &sealed)] {
        assert!(is_over(&calls(world, session).await));
    }
    // As it came.
    let id = |session: &str| session.trim_end().rsplit(' ').next().unwrap().to_lowercase();
    assert_eq!(server.asked(), [format!("tools/call {}", id(&sealed))]);
    assert_eq!(other.asked(), [format!("tools/call {}", id(&clear))]);
}

/// Its pod knows it by its name, and nobody else by anything.
#[tokio::test(start_paused = true)]
async fn a_session_whose_key_is_gone_lives_as_long_as_its_pod() {
    let pods = Pods::default();
    let (a, server) = pod("a", &pods, ONE).await;
    let (b, _) = pod("b", &pods, OTHER).await;
    pods.tell(&[("a", true, false), ("b", true, false)]);
    let session = opened(&a).await;
    a.sessions.set_keys(Keys::parse(OTHER).unwrap());
    assert_eq!(calls(&a, &session).await, "a-1");
    server.asked();
    let mut running = a.asked(&call("1", &session).replace(r#""t""#, r#""slow""#)).await;
    while server.asked().last().is_none_or(|last| last != "tools/call a-1") {
        a.settled().await;
    }
    pods.tell(&[("a", true, true), ("b", true, false)]);
    a.drain.tell(Event::Requested).await;
    a.reached(Phase::Draining).await;
    assert_eq!(calls(&a, &session).await, "a-1");
    let mut stream = a.asked(&get(&session)).await;
    let answer = stream.message().await;
    assert!(answer.contains("retry: "), "{answer}");
    assert!(is_over(&calls(&b, &session).await));
    server.goes_on();
    assert!(running.message().await.contains("a-1"));
    assert_eq!(a.report().await.cut, 0);
}
