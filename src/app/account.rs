//! The account of a drain: told to the log, to the cluster, and to who reads why the container
//! ended.

use tokio::{sync::oneshot, time::Instant};
use tracing::info;

use crate::{
    drain::{DrainWatch, Phase, report::Report},
    inflight::Inflight,
    kubernetes::{self, Teller},
    pool::{self, Pool},
    proxy::RequestBody,
};

/// Tells the cluster that a drain began; and writes the account of it once it is over: one line,
/// the termination message, and one Event. `_told` is dropped when all is written.
pub async fn write(
    mut watch: DrainWatch,
    pool: Pool<RequestBody>,
    inflight: Inflight,
    teller: Option<Teller>,
    in_kubernetes: bool,
    _told: oneshot::Sender<()>,
) {
    let begun = watch.reached(Phase::Withdrawing).await;
    let started = async {
        if let Some(teller) = &teller {
            let why = begun.trigger.map_or("unknown", |trigger| trigger.name());
            let (calls, streams) = (inflight.finite(), inflight.streams());
            teller.started(format!("{why}: {calls} calls and {streams} streams in flight")).await;
        }
    };
    let ended = async {
        let report = watch.reached(Phase::Drained).await.report?;
        log_report(&report, pool.drain(Instant::now()).await);
        if in_kubernetes {
            kubernetes::leave_termination_message(&report);
        }
        Some(report)
    };
    if let ((), Some(report)) = tokio::join!(started, ended)
        && let Some(teller) = &teller
    {
        teller.ended(&report).await;
    }
}

fn log_report(report: &Report, pool: pool::Counts) {
    let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    let account = serde_json::to_value(report).unwrap_or_default();
    info!(
        why = report.trigger.name(),
        seconds = report.seconds,
        phases = json(serde_json::to_string(&report.phases)),
        completed = report.completed,
        refused = report.refused,
        streams_ended = report.streams_ended,
        abandoned = report.abandoned,
        lost = report.lost,
        cut = report.cut,
        cut_calls = json(serde_json::to_string(&report.cut_calls)),
        in_flight_at_trigger = account["in_flight_at_trigger"].to_string(),
        since_start = account["since_start"].to_string(),
        pool = json(serde_json::to_string(&pool)),
        "drain report"
    );
}
