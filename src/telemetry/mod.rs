//! The log and the metrics. A leaf: it counts what it is told and decides nothing.

pub mod keep;
pub mod log;
pub mod metrics;
pub mod webhook;

pub use metrics::Metrics;
