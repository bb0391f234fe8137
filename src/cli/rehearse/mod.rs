//! `ebbtide rehearse`: many MCP clients against a URL while somebody, or this, rolls it out; then
//! what became of every call and session.
//!
//! Never counts a call as right that a real client would have lost.

mod arguments;
mod histogram;
mod progress;
mod report;
mod rollout;
mod workload;

use std::{
    io::{IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::ArgMatches;
use k8s_openapi::jiff::Timestamp;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, timeout},
};

pub use self::arguments::command;
use self::{arguments::Options, report::Report, rollout::Workload};
use super::{
    Outcome, block_on,
    load::{Load, ledger::Ledger, outcome::Era},
};

/// Load before the first rollout, and after each.
const MARGIN: Duration = Duration::from_secs(3);

pub fn main(matches: &ArgMatches) -> Outcome {
    let options = match Options::parse(matches) {
        Ok(options) => options,
        Err(text) => return Outcome::Usage(text),
    };
    block_on(async {
        match run(options).await {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Negative,
            Err(error) => Outcome::Failed(format!("the rehearsal failed: {error:#}")),
        }
    })
}

/// Ctrl-C, and SIGTERM, which is how a pod is ended.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn catch() -> Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Plays, and prints what came of it; whether nothing was lost.
async fn run(options: Options) -> Result<bool> {
    let Options { plan, url, duration, rollout, json } = options;
    let rollout = match &rollout {
        Some(rollout) => Some((Workload::find(rollout).await?, rollout.times)),
        None => None,
    };
    let mut interrupts = Interrupts::catch()?;
    let mut eras = Vec::new();
    eras.extend((plan.modern > 0).then_some(Era::Modern));
    eras.extend((plan.legacy > 0).then_some(Era::Legacy));
    let began_at = Timestamp::now();
    let ledger = Arc::new(Ledger::new(Instant::now()));
    let (state, shown) = watch::channel(String::new());
    let patience = plan.timeout;
    let mut load = Load::start(plan, &ledger);
    let mut showing = std::pin::pin!(progress::show(&ledger, shown));

    let trouble = tokio::select! {
        trouble = last(rollout, duration, &ledger, &eras, patience, &state) => trouble,
        () = interrupts.next() => None,
        ended = load.ended() => {
            ended?;
            bail!("every client ended by itself, which is a bug of ebbtide");
        }
        () = &mut showing => None,
    };
    load.stop();
    state.send_replace("waiting for the calls under way".into());
    let waited = tokio::select! {
        ended = load.ended() => ended,
        () = interrupts.next() => Ok(()),
        () = &mut showing => Ok(()),
    };
    waited?;
    load.break_off().await;
    progress::clear();
    let took = ledger.elapsed();
    let record = ledger.note().clone();
    let report = Report { url, began_at, took, eras, record, trouble };
    let mut out = std::io::stdout();
    let text = if json {
        format!("{}\n", report.json())
    } else {
        report.page(out.is_terminal() && std::env::var_os("NO_COLOR").is_none())
    };
    // Who closed the pipe has seen enough; the exit code still tells.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(report.is_clean())
}

/// Returns when the load has lasted long enough: after the duration, or the last rollout. What
/// kept it from that, where something did.
async fn last(
    rollout: Option<(Workload, usize)>,
    duration: Option<Duration>,
    ledger: &Ledger,
    eras: &[Era],
    patience: Duration,
    state: &watch::Sender<String>,
) -> Option<String> {
    let limit = async {
        match duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let Some((workload, times)) = rollout else {
        limit.await;
        return None;
    };
    tokio::select! {
        rolled = roll(&workload, times, ledger, eras, patience, state) => {
            rolled.err().map(|error| format!("{error:#}"))
        }
        () = limit => Some(format!("--duration was over before the rollout: {}", *state.borrow())),
    }
}

/// So many rollouts, each with load before and after it.
async fn roll(
    workload: &Workload,
    times: usize,
    ledger: &Ledger,
    eras: &[Era],
    patience: Duration,
    state: &watch::Sender<String>,
) -> Result<()> {
    state.send_replace("before the rollout".into());
    // Nothing is rolled for a load that does not get through.
    let answered = async {
        while !eras.iter().all(|era| ledger.note().has_answered(*era)) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(patience, answered).await.is_err() {
        bail!("nothing was rolled out, since not every client was answered before");
    }
    sleep(MARGIN).await;
    for _ in 0..times {
        state.send_replace("rolling".into());
        workload.roll(state).await?;
        state.send_replace("after the rollout".into());
        sleep(MARGIN).await;
    }
    Ok(())
}
