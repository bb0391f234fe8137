//! Processor time of a call that comes to the pod which has not got its session, beside one that
//! comes to the pod which has: of both sidecars together, in turns.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::median;
use crate::{
    cluster::{self, Sidecar},
    contender::Place,
    load, process,
    upstream::Upstream,
};

/// Requests of one slice. Small, and many: a neighbour's load on the same machine then meets both
/// ways alike.
const SLICE: usize = 2_000;
/// Slices for each of the other measurements' rounds.
const ROUNDS: usize = 5;
/// Only sidecars that hang, or never hear of each other, take so long.
const HANG: Duration = Duration::from_mins(1);

/// The one by the other; the median of the rounds.
pub async fn measure(place: &Place, upstream: &Upstream, rounds: usize) -> anyhow::Result<f64> {
    let sidecars = cluster::start(place).await?;
    let [owner, other] = &sidecars;
    let request = known_to_both(owner, other, upstream).await?;
    let opened = upstream.opened.load(Relaxed);
    let ways = [other, owner];
    for way in ways {
        load::repeat(way.address, SLICE, &request).await?;
    }
    let mut ratios = Vec::new();
    for round in 0..rounds * ROUNDS {
        let mut spent = [0.0; 2];
        // Neither always goes first.
        for turn in 0..ways.len() {
            let index = (turn + round) % ways.len();
            spent[index] = slice(&sidecars, ways[index], &request).await?;
        }
        let [forwarded, direct] = spent;
        ratios.push(forwarded / direct);
    }
    let is_one = upstream.opened.load(Relaxed) == opened;
    ensure!(is_one, "the session was opened anew, so that its calls were not forwarded");
    Ok(median(ratios))
}

/// A call in a session that the owner has, once the other sends it there: before it knows the
/// owner it opens the session itself.
async fn known_to_both(
    owner: &Sidecar,
    other: &Sidecar,
    upstream: &Upstream,
) -> anyhow::Result<Vec<u8>> {
    let began = Instant::now();
    loop {
        let forwards = async {
            let session = load::open_sessions(owner.address, 1).await?;
            let request = load::post_in("/small", 300, &session);
            let opened = upstream.opened.load(Relaxed);
            load::repeat(other.address, 1, &request).await?;
            ensure!(upstream.opened.load(Relaxed) == opened, "it does not know the owner");
            Ok(request)
        };
        match forwards.await {
            Ok(request) => return Ok(request),
            Err(error) => {
                ensure!(began.elapsed() < HANG, "no call is forwarded: {error}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Nanoseconds of both sidecars.
async fn slice(sidecars: &[Sidecar; 2], to: &Sidecar, request: &[u8]) -> anyhow::Result<f64> {
    let both = || {
        Ok::<_, anyhow::Error>(process::cpu(sidecars[0].pid())? + process::cpu(sidecars[1].pid())?)
    };
    let before = both()?;
    load::repeat(to.address, SLICE, request).await?;
    Ok((both()? - before) as f64)
}
