//! What a request's body tells of its exchange as it passes: the class, where the head could not
//! tell it, and which call the client gives up.
//!
//! Never holds the exchange in flight.

use std::sync::{Arc, atomic::Ordering};

use super::{Entry, Shared, lock};
use crate::mcp::told::Told;

/// Where the parts of a request's body are noted as they pass.
pub struct Note {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry>,
}

impl Note {
    /// Notes the next part.
    pub fn pass(&self, part: &[u8]) {
        let entry = &*self.entry;
        let told = self.tell(part);
        if entry.pends.load(Ordering::Relaxed)
            && let Some(session) = entry.session()
        {
            let calls = entry.calls();
            entry.pends.store(calls.is_empty(), Ordering::Relaxed);
            session.pend(calls);
        }
        if let Some(id) = told.and_then(|told| told.cancels) {
            // The server has not heard of it, and may end the call's stream once it has.
            self.shared.cancels(entry, &id);
        }
    }

    /// What the body tells, with the part that does.
    fn tell(&self, part: &[u8]) -> Option<Told> {
        let entry = &*self.entry;
        // Held until the class is set: a ticket that ends meanwhile counts as what it is then.
        let mut peek = lock(&entry.peek);
        peek.note(part);
        if !entry.untold.load(Ordering::Relaxed) {
            return None;
        }
        let told = peek.told()?;
        entry.untold.store(false, Ordering::Relaxed);
        self.shared.reclassify(entry, told.class);
        Some(told)
    }

    /// Whether only the rest of the body can tell what the exchange is.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        self.entry.untold.load(Ordering::Relaxed)
    }

    /// Whether the message was seen to its end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        lock(&self.entry.peek).scanner().is_complete()
    }
}
