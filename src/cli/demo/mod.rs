//! `ebbtide demo`: a rolling update under load on this machine, without ebbtide and with it.
//!
//! Never scripts an outcome: real processes, real signals, real connections. Loopback only.

mod balancer;
mod clients;
mod kubelet;
mod picture;
mod server;

use std::{
    io::{IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

pub use self::server::run as server;
use self::{balancer::Balancer, kubelet::Kubelet, picture::Run};
use super::load::ledger::Ledger;
use crate::tasks::Group;

pub struct Options {
    pub json: bool,
}

/// Traffic before the first pod is rolled, and after the last.
const MARGIN: Duration = Duration::from_millis(1200);

/// Plays both runs; whether the one with ebbtide lost nothing.
pub async fn run(options: Options) -> Result<bool> {
    let without = play(false, options.json).await.context("the run without ebbtide")?;
    let with = play(true, options.json).await.context("the run with ebbtide")?;
    let clean = with.lost() == 0;
    if options.json {
        let both = serde_json::json!({ "without": without.json(), "with": with.json() });
        super::say(std::io::stdout(), &format_args!("{both}\n"));
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        super::say(std::io::stdout(), &picture::draw(&without, &with, colour));
    }
    Ok(clean)
}

async fn play(protected: bool, quiet: bool) -> Result<Run> {
    let began = Instant::now();
    let ledger = Arc::new(Ledger::new(began));
    let balancer = Arc::new(Balancer::bind().await?);
    let mut group = Group::default();
    group.spawn("balancer", Arc::clone(&balancer).run());
    let mut kubelet = Kubelet::new(protected, Arc::clone(&balancer), began);
    kubelet.start_pod("mcp-0").await?;
    kubelet.start_pod("mcp-1").await?;
    let mut load = clients::start(balancer.port(), &ledger);
    let show = !quiet && std::io::stderr().is_terminal();
    let roll = async {
        sleep(MARGIN).await;
        kubelet.replace(0, "mcp-2").await?;
        kubelet.replace(1, "mcp-3").await?;
        sleep(MARGIN).await;
        load.stop();
        // Calls that run when the play is over end by themselves, or count as hung.
        load.ended().await
    };
    tokio::select! {
        result = roll => result?,
        () = live(&ledger, protected, show) => {}
    }
    if show {
        eprint!("\r\x1b[2K");
    }
    let seconds = began.elapsed().as_secs_f64();
    let pods = kubelet.finish().await;
    let record = ledger.note().clone();
    Ok(Run { protected, seconds, pods, record })
}

/// One line that tells what happens, until dropped.
async fn live(ledger: &Ledger, protected: bool, show: bool) {
    loop {
        if show {
            let (ok, lost) = {
                let record = ledger.note();
                (record.calls.len() - record.lost, record.lost)
            };
            let how = if protected { "with ebbtide   " } else { "without ebbtide" };
            let seconds = ledger.elapsed().as_secs_f64();
            eprint!("\r\x1b[2K  rolling {how}  {seconds:4.1} s   {ok} calls ok, {lost} lost");
            let _ = std::io::stderr().flush();
        }
        sleep(Duration::from_millis(200)).await;
    }
}
