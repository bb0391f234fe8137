//! What a session costs that is open and does nothing.

use super::memory::settled;
use crate::{
    contender::{Contender, Place},
    load, process,
};

pub const NUMBER: usize = 10_000;

/// Anonymous bytes of memory for each of them.
pub async fn measure(place: &Place) -> anyhow::Result<f64> {
    let running = Contender::Ebbtide.start(place, &[]).await?;
    // What the first requests leave behind is no session's.
    load::calls(running.port, NUMBER, "/small", 300).await?;
    let before = settled(running.pid(), process::anonymous).await?;
    load::open_sessions(load::loopback(running.port), NUMBER).await?;
    let after = settled(running.pid(), process::anonymous).await?;
    Ok(after.saturating_sub(before) as f64 / NUMBER as f64)
}
