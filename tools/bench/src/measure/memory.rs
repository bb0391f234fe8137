//! What a contender needs when nothing happens, and what an open event stream costs.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::sleep;

use crate::{
    contender::{Contender, Place},
    load, process,
};

pub struct Memory {
    /// Resident bytes after the first answer.
    pub idle: u64,
    /// Bytes per stream with 1,000 open.
    pub at_thousand: f64,
    /// Bytes per stream with as many open as the limit on open files allows.
    pub at_most: f64,
}

/// Beyond this many the ports of one address run short.
const MOST: usize = 20_000;
/// Files that a process needs beside its streams; `HAProxy` asks for most, and for all at its start.
const OTHER_FILES: usize = 400;

/// As many streams as may be open: the clients' and the upstream's ends are in one process, and a
/// contender holds two as well.
pub fn most_streams() -> anyhow::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok((usize::try_from(hard)?.saturating_sub(OTHER_FILES) / 2).min(MOST))
}

pub async fn measure(place: &Place, contender: Contender, most: usize) -> anyhow::Result<Memory> {
    let running = contender.start(place, &[]).await?;
    let idle = settled(running.pid(), process::resident).await?;
    let mut streams = Vec::new();
    let mut per_stream = [0.0; 2];
    for (figure, number) in per_stream.iter_mut().zip([1000.min(most), most]) {
        while streams.len() < number {
            streams.push(load::stream(running.port).await?);
        }
        let more = settled(running.pid(), process::resident).await?.saturating_sub(idle);
        *figure = more as f64 / number as f64;
    }
    let [at_thousand, at_most] = per_stream;
    Ok(Memory { idle, at_thousand, at_most })
}

/// So many bytes once they have stopped changing.
pub async fn settled(pid: u32, bytes: impl Fn(u32) -> anyhow::Result<u64>) -> anyhow::Result<u64> {
    let mut last = bytes(pid)?;
    loop {
        sleep(Duration::from_millis(500)).await;
        let now = bytes(pid)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}
