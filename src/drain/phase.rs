//! The phases, in the only order in which they happen, and what begins a drain.

use serde::Serialize;

/// `Starting → Serving → Withdrawing → Draining → Cutting → Drained`, only forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub enum Phase {
    /// The upstream has not answered yet.
    #[default]
    Starting,
    Serving,
    /// A drain began; new traffic may still come, and is served.
    Withdrawing,
    /// No new sessions; what is in flight finishes.
    Draining,
    /// The deadline: what did not finish is ended properly.
    Cutting,
    /// Nothing is in flight, and nothing more is accepted.
    Drained,
}

impl Phase {
    pub const ALL: [Phase; 6] = [
        Phase::Starting,
        Phase::Serving,
        Phase::Withdrawing,
        Phase::Draining,
        Phase::Cutting,
        Phase::Drained,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "Starting",
            Phase::Serving => "Serving",
            Phase::Withdrawing => "Withdrawing",
            Phase::Draining => "Draining",
            Phase::Cutting => "Cutting",
            Phase::Drained => "Drained",
        }
    }
}

/// What began a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub enum Trigger {
    /// SIGTERM or SIGINT to ebbtide.
    Signal,
    /// `POST /drain` or `ebbtide drain`.
    Request,
    /// Both preStop hooks: the pod ends.
    PreStop,
    /// Our pod has a `deletionTimestamp`.
    Deleted,
    /// An endpoint of ours is `terminating`.
    Terminating,
    /// The server that ebbtide supervises ended by itself.
    ServerEnded,
}

impl Trigger {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Signal => "signal",
            Trigger::Request => "request",
            Trigger::PreStop => "prestop",
            Trigger::Deleted => "pod_deleted",
            Trigger::Terminating => "endpoint_terminating",
            Trigger::ServerEnded => "server_ended",
        }
    }
}

impl From<Trigger> for &'static str {
    fn from(trigger: Trigger) -> Self {
        trigger.name()
    }
}
