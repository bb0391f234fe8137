//! What became of every call, session and stream of a load.
//!
//! Never judges: it notes, and the notes are complete. A call that was begun is in it, ended or
//! unfinished.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::outcome::{Era, Saw};

/// The kind of the call that opens a session.
pub const INITIALIZE: &str = "initialize";

/// One call that ended.
#[derive(Debug, Clone)]
pub struct Call {
    /// Since the load began.
    pub started: Duration,
    pub took: Duration,
    pub era: Era,
    /// The method, and the tool where it is one.
    pub kind: Arc<str>,
    pub id: String,
    /// Who answered, where the answer told.
    pub pod: Option<String>,
    /// `None`: its result came.
    pub lost: Option<Saw>,
}

/// Everything that was noted.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub calls: Vec<Call>,
    pub lost: usize,
    pub in_flight: usize,
    /// Calls that nobody waited for any more.
    pub unfinished: usize,
    pub sessions: Sessions,
    pub streams: Streams,
}

impl Record {
    /// Whether a client of that era got an answer; to open a session is none.
    pub fn has_answered(&self, era: Era) -> bool {
        let is_answer =
            |call: &Call| call.era == era && call.lost.is_none() && &*call.kind != INITIALIZE;
        self.calls.iter().any(is_answer)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Sessions {
    pub opened: u64,
    /// Ended by a 404 while the client used it.
    pub lost: u64,
    /// Times that a new session was refused with 503 and asked for again.
    pub refused: u64,
}

/// The stand-alone GET streams.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    pub opened: u64,
    /// The server ended it between two events, with a last chunk.
    pub ended: u64,
    pub broken: u64,
    /// Reopening was refused twice: the client hears nothing any more.
    pub given_up: u64,
}

#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    record: Mutex<Record>,
}

impl Ledger {
    pub fn new(began: Instant) -> Self {
        Self { began, record: Mutex::default() }
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What is noted so far.
    pub fn note(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(self: &Arc<Self>, era: Era, kind: Arc<str>, id: String) -> UnderWay {
        self.note().in_flight += 1;
        let call = Call {
            started: self.began.elapsed(),
            took: Duration::ZERO,
            era,
            kind,
            id,
            pod: None,
            lost: None,
        };
        UnderWay { ledger: Arc::clone(self), call: Some(call) }
    }
}

/// A call under way. Dropped without its end, it counts as unfinished.
#[derive(Debug)]
#[must_use]
pub struct UnderWay {
    ledger: Arc<Ledger>,
    call: Option<Call>,
}

impl UnderWay {
    pub fn end(mut self, pod: Option<String>, result: Result<(), Saw>) {
        let Some(mut call) = self.call.take() else { return };
        call.took = self.ledger.began.elapsed().saturating_sub(call.started);
        call.pod = pod;
        call.lost = result.err();
        let mut record = self.ledger.note();
        record.in_flight -= 1;
        record.lost += usize::from(call.lost.is_some());
        record.calls.push(call);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.call.is_some() {
            let mut record = self.ledger.note();
            record.in_flight -= 1;
            record.unfinished += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_call_that_began_is_noted() {
        let ledger = Arc::new(Ledger::new(Instant::now()));
        let begin = |id: &str| ledger.begin(Era::Modern, "ping".into(), id.into());
        let (right, wrong, left) = (begin("1"), begin("2"), begin("3"));
        assert_eq!(ledger.note().in_flight, 3);
        right.end(None, Ok(()));
        wrong.end(Some("mcp-0".into()), Err(Saw::TimeOut));
        drop(left);
        let record = ledger.note();
        assert_eq!((record.in_flight, record.lost, record.unfinished), (0, 1, 1));
        let ids: Vec<&str> = record.calls.iter().map(|call| call.id.as_str()).collect();
        assert_eq!(ids, ["1", "2"]);
    }
}
