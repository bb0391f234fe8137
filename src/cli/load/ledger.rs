//! What became of every call, session and stream of a load.
//!
//! Never judges: it notes, and the notes are complete. A call that was begun is in it, ended or
//! unfinished.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
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
    /// What the client saw, where no answer came.
    pub lost: Option<Saw>,
    /// The answer, where it was an error of the server's own.
    pub error: Option<Saw>,
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
    /// Whether a client of that era got a result: a tool's failure is one, too, but an error that
    /// refuses every call may come from anything, and to open a session is no call.
    pub fn has_answered(&self, era: Era) -> bool {
        let is_result = |call: &Call| {
            let refused = matches!(call.error, Some(Saw::Error(_)));
            call.era == era && call.lost.is_none() && !refused && &*call.kind != INITIALIZE
        };
        self.calls.iter().any(is_result)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Sessions {
    pub opened: u64,
    /// Of these: the server did not know it any more.
    pub lost: u64,
    /// Times that a new session was refused with 503 and asked for again.
    pub refused: u64,
}

impl Sessions {
    /// Those that were never lost.
    pub fn held(&self) -> u64 {
        self.opened - self.lost
    }
}

/// The stand-alone GET streams.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    pub opened: u64,
    /// The server ended it between two events, with a last chunk.
    pub ended: u64,
    pub broken: u64,
    /// Times that one was open again after its end.
    pub came_back: u64,
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

    pub fn open_session(self: &Arc<Self>) -> Held {
        self.note().sessions.opened += 1;
        Held { ledger: Arc::clone(self), lost: Arc::default() }
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
            error: None,
        };
        UnderWay { ledger: Arc::clone(self), call: Some(call) }
    }
}

/// A session as its client holds it, and the stand-alone stream beside it.
#[derive(Debug, Clone)]
pub struct Held {
    ledger: Arc<Ledger>,
    lost: Arc<AtomicBool>,
}

impl Held {
    /// Notes the loss, whoever meets it first.
    pub fn lose(&self) {
        if !self.lost.swap(true, Relaxed) {
            self.ledger.note().sessions.lost += 1;
        }
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
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
        // A session that was refused is not open, whoever refused it.
        let answers = |saw: &Saw| saw.is_answer() && &*call.kind != INITIALIZE;
        match result.err() {
            Some(saw) if answers(&saw) => call.error = Some(saw),
            saw => call.lost = saw,
        }
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
    use crate::cli::load::outcome::RpcError;

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

    #[tokio::test]
    async fn an_error_of_the_server_is_an_answer_but_not_to_initialize() {
        let ledger = Arc::new(Ledger::new(Instant::now()));
        let error = |code| Saw::Error(RpcError { code, message: String::new() });
        let end = |kind: &str, saw| {
            ledger.begin(Era::Legacy, kind.into(), String::new()).end(None, Err(saw));
        };
        end("tools/call a", error(-32602));
        assert_eq!(ledger.note().lost, 0);
        // It may be about anything.
        assert!(!ledger.note().has_answered(Era::Legacy));
        end("tools/call a", Saw::ToolError(String::new()));
        assert_eq!(ledger.note().lost, 0);
        assert!(ledger.note().has_answered(Era::Legacy));
        end("tools/call a", error(-32010));
        end(INITIALIZE, error(-32602));
        assert_eq!(ledger.note().lost, 2);
    }

    #[test]
    fn a_session_is_lost_once() {
        let ledger = Arc::new(Ledger::new(Instant::now()));
        let (one, _other) = (ledger.open_session(), ledger.open_session());
        let beside = one.clone();
        one.lose();
        beside.lose();
        assert!(beside.is_lost());
        let sessions = ledger.note().sessions.clone();
        assert_eq!((sessions.lost, sessions.held()), (1, 1));
    }
}
