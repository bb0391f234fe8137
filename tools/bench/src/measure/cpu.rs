//! Processor time per request. All contenders run at the same time and take turns in short slices,
//! so that what else the machine does hits all of them alike.

use super::median;
use crate::{
    contender::{Contender, Place, Running},
    load, process,
};

/// Requests of one slice.
const SLICE: usize = 10_000;

pub struct Cpu {
    pub contender: Contender,
    /// Seconds per 100,000 requests: the median of the slices.
    pub seconds: f64,
    /// The slices' times by those of each other contender in the same round, in the order of the
    /// contenders; the median.
    pub ratios: Vec<f64>,
}

pub async fn measure(
    place: &Place,
    contenders: &[Contender],
    rounds: usize,
    path: &str,
    size: usize,
) -> anyhow::Result<Vec<Cpu>> {
    let mut running = Vec::new();
    for contender in contenders {
        running.push(contender.start(place, &[]).await?);
    }
    for contender in &running {
        slice(contender, SLICE / 4, path, size).await?;
    }
    let mut seconds = vec![Vec::new(); running.len()];
    for round in 0..rounds {
        // Nobody always goes first.
        for turn in 0..running.len() {
            let index = (turn + round) % running.len();
            seconds[index].push(slice(&running[index], SLICE, path, size).await?);
        }
    }
    let ratios = |own: &[f64]| -> Vec<f64> {
        let to = |other: &Vec<f64>| median(own.iter().zip(other).map(|(a, b)| a / b).collect());
        seconds.iter().map(to).collect()
    };
    let cpus = contenders.iter().zip(&seconds).map(|(&contender, own)| Cpu {
        contender,
        seconds: median(own.clone()),
        ratios: ratios(own),
    });
    Ok(cpus.collect())
}

/// Seconds per 100,000 requests.
async fn slice(running: &Running, number: usize, path: &str, size: usize) -> anyhow::Result<f64> {
    let before = process::cpu(running.pid())?;
    load::calls(running.port, number, path, size).await?;
    let nanoseconds = process::cpu(running.pid())? - before;
    Ok(nanoseconds as f64 / 1e9 / number as f64 * 100_000.0)
}
