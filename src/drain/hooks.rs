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
        seen.waiting += 1;
    }

    pub fn returned(&mut self, hook: Hook) {
        let seen = self.seen(hook);
        seen.waiting = seen.waiting.saturating_sub(1);
    }

    /// Whether both mean that the pod ends.
    #[must_use]
    pub fn corroborated(&self, now: Instant) -> bool {
        self.server.holds(now) && self.sidecar.holds(now)
    }

    fn seen(&mut self, hook: Hook) -> &mut Seen {
        match hook {
            Hook::Server => &mut self.server,
            Hook::Sidecar => &mut self.sidecar,
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
}
