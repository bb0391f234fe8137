//! What becomes of calls in flight and open streams when a contender is told to stop.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::{io::AsyncWriteExt as _, task::JoinSet, time::sleep};

use crate::{
    contender::{Contender, Place},
    load::{self, CONNECTIONS},
    upstream::Upstream,
};

/// A neighbour on the same machine may delay any one of them.
pub const TIMES: usize = 5;
/// A contender that is still there after this time is said to stay.
const PATIENCE: Duration = Duration::from_secs(6);

pub struct Stop {
    pub contender: Contender,
    pub signal: Signal,
    pub streams: usize,
    /// Of 64 calls in flight.
    pub completed: usize,
    /// Of the streams: ended as HTTP wants it.
    pub ended_properly: usize,
    /// From the last completed call (from the signal, if none was) to the end of the process.
    pub exit: Option<Duration>,
}

/// Several times: what was lost in the worst of them, and how long the one in the middle took.
pub async fn measure(
    place: &Place,
    upstream: &Upstream,
    contender: Contender,
    signal: Signal,
    streams: usize,
) -> anyhow::Result<Stop> {
    let mut worst = once(place, upstream, contender, signal, streams).await?;
    let mut exits = Vec::from_iter(worst.exit);
    // Who stays, stays.
    while worst.exit.is_some() && exits.len() < TIMES {
        let next = once(place, upstream, contender, signal, streams).await?;
        worst.completed = worst.completed.min(next.completed);
        worst.ended_properly = worst.ended_properly.min(next.ended_properly);
        worst.exit = next.exit;
        exits.extend(next.exit);
    }
    exits.sort();
    worst.exit = worst.exit.and(exits.get(exits.len() / 2).copied());
    Ok(worst)
}

async fn once(
    place: &Place,
    upstream: &Upstream,
    contender: Contender,
    signal: Signal,
    streams: usize,
) -> anyhow::Result<Stop> {
    let mut running = contender.start(place, &[]).await?;
    let mut open = JoinSet::new();
    for _ in 0..streams {
        let stream = load::stream(running.port).await?;
        open.spawn(load::ends_properly(stream));
    }
    let before = upstream.arrived.load(Relaxed);
    let mut calls = JoinSet::new();
    let port = running.port;
    for _ in 0..CONNECTIONS {
        calls.spawn(async move {
            let mut stream = load::connect(port).await?;
            stream.write_all(&load::post("/slow", 300)).await?;
            load::answer(&mut stream, &mut vec![0; 4096]).await?;
            Ok::<_, anyhow::Error>(Instant::now())
        });
    }
    while upstream.arrived.load(Relaxed) < before + CONNECTIONS {
        sleep(Duration::from_millis(1)).await;
    }
    let mut last = Instant::now();
    running.signal(signal)?;
    // Watched from now on: whoever loses the calls is gone before they would have ended.
    let mut end = JoinSet::new();
    end.spawn(async move { running.ends(PATIENCE).await.then(Instant::now) });
    // The calls go on for a while, as slow ones do.
    sleep(Duration::from_millis(500)).await;
    upstream.answered.send_replace(before + CONNECTIONS);
    let mut completed = 0;
    while let Some(call) = calls.join_next().await {
        if let Ok(at) = call? {
            completed += 1;
            last = last.max(at);
        }
    }
    let ended = end.join_next().await.transpose()?.flatten();
    let exit = ended.map(|at| at.saturating_duration_since(last));
    let mut ended_properly = 0;
    while let Some(properly) = open.join_next().await {
        ended_properly += usize::from(properly? && exit.is_some());
    }
    Ok(Stop { contender, signal, streams, completed, ended_properly, exit })
}
