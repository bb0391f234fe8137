//! How many exchanges ended how. Pure.

use crate::telemetry::metrics::Outcome;

/// How many exchanges ended how, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals(pub(super) [u64; Outcome::ALL.len()]);

impl Totals {
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    /// The same, but for those of one outcome.
    #[must_use]
    pub fn with(mut self, outcome: Outcome, count: u64) -> Totals {
        self.0[outcome as usize] = count;
        self
    }

    /// What was added since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Totals) -> Totals {
        let mut difference = *self;
        for (now, before) in difference.0.iter_mut().zip(earlier.0) {
            *now -= before;
        }
        difference
    }
}
