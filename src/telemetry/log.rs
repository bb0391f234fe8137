//! The log: structured lines on stderr.
//!
//! The subscriber is the one thing that `tracing` keeps per process; only the binary sets it.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;

use crate::config::value::{Format, Level};

/// Sends the log to stderr from now on. A second call changes nothing.
pub fn start(level: Level, format: Format) {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let set = match format {
        Format::Json => {
            let subscriber = subscriber.json().flatten_event(true).with_current_span(false);
            tracing::subscriber::set_global_default(subscriber.with_span_list(false).finish())
        }
        Format::Text => tracing::subscriber::set_global_default(subscriber.finish()),
    };
    // Only fails when there is one already, whose choice then holds.
    drop(set);
}
