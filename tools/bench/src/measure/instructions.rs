//! Instructions in user space per request: the figure to watch, since it repeats where times do
//! not. By the processor's counters where there are any, else by callgrind; the difference between
//! a run of N and one of 2N requests, so that start and end do not count.

use std::{fs, process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::process::Command;

use crate::{
    contender::{Contender, Place, find},
    load,
};

/// Callgrind is some fifty times slower.
const REQUESTS: usize = 4_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instrument {
    Perf,
    Callgrind,
}

impl Instrument {
    pub fn name(self) -> &'static str {
        match self {
            Instrument::Perf => "perf stat -e instructions:u",
            Instrument::Callgrind => "valgrind --tool=callgrind",
        }
    }

    /// What this machine has.
    pub async fn here() -> Option<Self> {
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "instructions:u", "true"])
            .output()
            .await;
        if perf.is_ok_and(|output| counted_by_perf(&output.stderr).is_some()) {
            return Some(Self::Perf);
        }
        find("valgrind").is_file().then_some(Self::Callgrind)
    }

    fn command(self, file: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Instrument::Perf => &["perf", "stat", "-x", ",", "-e", "instructions:u", "-o", file],
            Instrument::Callgrind => {
                let log = &format!("--log-file={file}");
                return ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", log]
                    .map(str::to_owned)
                    .to_vec();
            }
        };
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn counted(self, account: &[u8]) -> Option<u64> {
        match self {
            Instrument::Perf => counted_by_perf(account),
            Instrument::Callgrind => String::from_utf8_lossy(account)
                .lines()
                .find_map(|line| line.split_once("Collected : "))
                .and_then(|(_, count)| count.trim().parse().ok()),
        }
    }
}

fn counted_by_perf(account: &[u8]) -> Option<u64> {
    let account = String::from_utf8_lossy(account);
    let line = account.lines().find(|line| line.contains("instructions"))?;
    line.split(',').next()?.parse().ok()
}

/// Instructions per request.
pub async fn measure(
    place: &Place,
    contender: Contender,
    instrument: Instrument,
    path: &str,
    size: usize,
) -> anyhow::Result<f64> {
    let once = counted(place, contender, instrument, REQUESTS, path, size).await?;
    let twice = counted(place, contender, instrument, 2 * REQUESTS, path, size).await?;
    Ok((twice as f64 - once as f64) / REQUESTS as f64)
}

async fn counted(
    place: &Place,
    contender: Contender,
    instrument: Instrument,
    requests: usize,
    path: &str,
    size: usize,
) -> anyhow::Result<u64> {
    let file = place.scratch.join("account");
    let command = instrument.command(&file.display().to_string());
    let running = contender.start(place, &command).await?;
    load::calls(running.port, requests, path, size).await?;
    // perf passes no signal on to the program that it started.
    if instrument == Instrument::Perf {
        let parent = running.pid().to_string();
        let signal = format!("-{}", contender.gentle().as_str());
        Command::new("pkill").args([&signal, "-P", &parent]).stdout(Stdio::null()).status().await?;
        let mut running = running;
        running.ends(Duration::from_mins(1)).await;
    } else {
        running.stop().await?;
    }
    let account = fs::read(&file)?;
    instrument.counted(&account).with_context(|| {
        format!("no count for {}: {}", contender.name(), String::from_utf8_lossy(&account))
    })
}
