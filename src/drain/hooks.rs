//! What the two preStop hooks mean. Pure.
//!
//! The kubelet calls both containers' hooks within milliseconds when the pod ends, and one alone
//! when one container restarts. A hook alone never begins a drain.

use std::time::{Duration, Instant};

/// Which container's hook was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `/prestop`, on the server's container.
    Server,
    /// `/prestop/self`, on ours.
    Sidecar,
}

/// How far apart the two may be called and still mean one event; a hook that was called alone
/// waits at least as long for the other.
pub const WINDOW: Duration = Duration::from_secs(2);

/// When each hook was last called, and how many calls still wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hooks {
    server: Seen,
    sidecar: Seen,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    last: Option<Instant>,
    /// When the first of those that wait was called.
    first: Option<Instant>,
    waiting: usize,
}

impl Seen {
    fn holds(&self, now: Instant) -> bool {
        self.waiting > 0 || self.last.is_some_and(|last| now.duration_since(last) <= WINDOW)
    }
}

impl Hooks {
    pub fn called(&mut self, hook: Hook, now: Instant) {
        let seen = self.seen(hook);
        seen.last = Some(now);
        seen.first.get_or_insert(now);
        seen.waiting += 1;
    }

    pub fn returned(&mut self, hook: Hook) {
        let seen = self.seen(hook);
        seen.waiting = seen.waiting.saturating_sub(1);
        if seen.waiting == 0 {
            seen.first = None;
        }
    }

    /// Whether both mean that the pod ends.
    #[must_use]
    pub fn corroborated(&self, now: Instant) -> bool {
        self.server.holds(now) && self.sidecar.holds(now)
    }

    /// From when on the server's hook, if it is still alone then, means that the server's
    /// container restarts.
    #[must_use]
    pub fn server_restarts_at(&self) -> Option<Instant> {
        self.server.first.map(|first| first + WINDOW)
    }

    fn seen(&mut self, hook: Hook) -> &mut Seen {
        match hook {
            Hook::Server => &mut self.server,
            Hook::Sidecar => &mut self.sidecar,
        }
    }
}

/// How far the restart of the server's container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    #[default]
    No,
    /// Its calls in flight finish; new ones are held.
    Finishing,
    /// Nothing runs on it: its hook may return.
    Idle,
    /// The hook has returned: the kubelet stops the server, and starts it again.
    Stopping,
}

/// What moves a restart on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The server's hook has waited alone for [`WINDOW`].
    Alone,
    /// No call runs on the server any more.
    Idle,
    /// No server hook waits any more.
    Returned,
    /// The server is back; or it never went, and nobody waits for it any longer.
    Back,
}

impl Restart {
    /// The state after the step; one that makes no sense changes nothing.
    #[must_use]
    pub fn step(self, step: Step) -> Self {
        match (self, step) {
            (Restart::No, Step::Alone) => Restart::Finishing,
            (Restart::Finishing, Step::Idle) => Restart::Idle,
            (Restart::Finishing | Restart::Idle, Step::Returned) => Restart::Stopping,
            (Restart::Stopping, Step::Back) => Restart::No,
            (same, _) => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hooks_mean_the_end_and_one_alone_never() {
        let now = Instant::now();
        for (first, second) in [(Hook::Server, Hook::Sidecar), (Hook::Sidecar, Hook::Server)] {
            let mut hooks = Hooks::default();
            hooks.called(first, now);
            hooks.called(first, now);
            assert!(!hooks.corroborated(now));
            hooks.called(second, now + Duration::from_millis(1));
            assert!(hooks.corroborated(now + Duration::from_millis(1)));
        }
    }

    #[test]
    fn a_hook_that_has_returned_is_forgotten() {
        let now = Instant::now();
        let mut hooks = Hooks::default();
        hooks.called(Hook::Server, now);
        hooks.returned(Hook::Server);
        let later = now + WINDOW + Duration::from_millis(1);
        hooks.called(Hook::Sidecar, later);
        assert!(!hooks.corroborated(later));
    }

    #[test]
    fn a_hook_that_still_waits_counts_however_old() {
        let now = Instant::now();
        let mut hooks = Hooks::default();
        hooks.called(Hook::Server, now);
        let later = now + WINDOW * 10;
        hooks.called(Hook::Sidecar, later);
        assert!(hooks.corroborated(later));
    }

    #[test]
    fn only_a_waiting_server_hook_means_a_restart() {
        let now = Instant::now();
        let mut hooks = Hooks::default();
        hooks.called(Hook::Sidecar, now);
        assert_eq!(hooks.server_restarts_at(), None);
        hooks.called(Hook::Server, now);
        hooks.called(Hook::Server, now + WINDOW);
        assert_eq!(hooks.server_restarts_at(), Some(now + WINDOW));
        hooks.returned(Hook::Server);
        assert_eq!(hooks.server_restarts_at(), Some(now + WINDOW));
        hooks.returned(Hook::Server);
        assert_eq!(hooks.server_restarts_at(), None);
    }

    #[test]
    fn a_restart_goes_its_way_and_no_other() {
        use Restart::{Finishing, Idle, No, Stopping};
        for (from, step, to) in [
            (No, Step::Alone, Finishing),
            (No, Step::Idle, No),
            (No, Step::Returned, No),
            (No, Step::Back, No),
            (Finishing, Step::Alone, Finishing),
            (Finishing, Step::Idle, Idle),
            // The kubelet's patience was over before the calls were.
            (Finishing, Step::Returned, Stopping),
            (Finishing, Step::Back, Finishing),
            (Idle, Step::Alone, Idle),
            (Idle, Step::Returned, Stopping),
            (Idle, Step::Back, Idle),
            (Stopping, Step::Alone, Stopping),
            (Stopping, Step::Idle, Stopping),
            (Stopping, Step::Back, No),
        ] {
            assert_eq!(from.step(step), to, "{from:?} {step:?}");
        }
    }
}
