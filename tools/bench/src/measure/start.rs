//! How long after its start a contender gives the first 200.

use std::time::Instant;

use super::median;
use crate::contender::{Contender, Place};

const TIMES: usize = 15;

/// Milliseconds; the median. Interleaved.
pub async fn measure(place: &Place, contenders: &[Contender]) -> anyhow::Result<Vec<f64>> {
    let mut all = vec![Vec::new(); contenders.len()];
    for _ in 0..TIMES {
        for (contender, times) in contenders.iter().zip(&mut all) {
            let began = Instant::now();
            let running = contender.start(place, &[]).await?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
            drop(running);
        }
    }
    Ok(all.into_iter().map(median).collect())
}
