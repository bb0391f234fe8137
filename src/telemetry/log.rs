//! The log: structured lines on stderr.
//!
//! The subscriber is the one thing that `tracing` keeps per process; only the binary sets it.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _};

use crate::config::value::{Format, Level};

/// Sends the log to stderr from now on. A second call changes nothing.
pub fn start(level: Level, format: Format) {
    let filter = filter(level);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let set = match format {
        Format::Json => {
            let subscriber = subscriber.json().flatten_event(true).with_current_span(false);
            let subscriber = subscriber.with_span_list(false).finish();
            tracing::subscriber::set_global_default(subscriber.with(filter))
        }
        Format::Text => tracing::subscriber::set_global_default(subscriber.finish().with(filter)),
    };
    // Only fails when there is one already, whose choice then holds.
    drop(set);
}

/// What is told. `kube` says every failed request, and not what to do about it: what matters of
/// that is ours to say, once, so that `kube` itself is heard only by who debugs.
pub fn filter(level: Level) -> Targets {
    let (level, kube) = match level {
        Level::Error => (LevelFilter::ERROR, LevelFilter::OFF),
        Level::Warn => (LevelFilter::WARN, LevelFilter::OFF),
        Level::Info => (LevelFilter::INFO, LevelFilter::OFF),
        Level::Debug => (LevelFilter::DEBUG, LevelFilter::DEBUG),
        Level::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(level).with_target("kube_", kube)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_debugs_hears_kube() {
        for target in ["kube_client::client::builder", "kube_runtime::watcher"] {
            let hears = |level| filter(level).would_enable(target, &tracing::Level::ERROR);
            assert!(hears(Level::Debug) && !hears(Level::Info) && !hears(Level::Error), "{target}");
        }
        assert!(filter(Level::Info).would_enable("ebbtide::kubernetes", &tracing::Level::INFO));
        assert!(!filter(Level::Info).would_enable("ebbtide::kubernetes", &tracing::Level::DEBUG));
    }
}
