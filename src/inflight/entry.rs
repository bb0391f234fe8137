//! What is known of one exchange, and the word that tells it to end.
//!
//! Never lets a session's id out: what is shown is its hash.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::Waker,
};

use serde::Serialize;
use tokio::time::Instant;

use super::{lock, peek::Peek};
use crate::{
    mcp::{
        Class,
        message::{Envelope, IdKey, Message},
    },
    sessions::{Call, Session},
};

/// Why an exchange is to end before its natural end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// A stream ends because the pod drains.
    Stream = 1,
    /// The deadline.
    Cut = 2,
    /// The server died.
    UpstreamLost = 3,
    /// The server did not answer in time.
    TimedOut = 4,
}

impl Ending {
    fn from_number(number: u8) -> Option<Self> {
        [Ending::Stream, Ending::Cut, Ending::UpstreamLost, Ending::TimedOut]
            .into_iter()
            .find(|ending| *ending as u8 == number)
    }
}

/// Ends an exchange whose client does not take its answer.
pub type Release = Box<dyn Fn() + Send + Sync>;

/// How often an answer's client may be found not to have taken what is there for it, at most; and
/// once the answer has been told to end, and at the moment of the cut, which is no look more. It is
/// looked each [`super::UNTAKEN_LOOK`].
const UNTAKEN: u8 = 12;
const UNTAKEN_AT_END: u8 = 1;
const UNTAKEN_AT_CUT: u8 = 2;
/// Nothing is there to be taken.
const NOTHING: u8 = u8::MAX;

/// What is known of one exchange, shared by its ticket and the registry.
pub struct Entry {
    /// Grows with every exchange, so that "all that began before" can be told.
    pub(super) sequence: u64,
    pub(super) class: AtomicU8,
    /// Only the body can tell what it is, and has not yet.
    pub(super) untold: AtomicBool,
    pub(super) began: Instant,
    /// Whether the head of the answer was passed on; the time-out for answers looks at it.
    pub(super) answered: AtomicU8,
    /// Set later where only the answer tells (HTTP+SSE).
    pub(super) session: OnceLock<Arc<Session>>,
    /// Sent to an HTTP+SSE endpoint before its id was seen: once it is, the call is pending.
    pub(super) pends: AtomicBool,
    /// Its requests that the client has told the server to stop: no answer may ever come.
    pub(super) cancelled: Mutex<Vec<IdKey>>,
    pub(super) target: Option<Box<str>>,
    pub(super) peek: Mutex<Peek>,
    pub(super) ending: AtomicU8,
    pub(super) waker: Mutex<Option<Waker>>,
    /// How often it was looked since there is something of the answer that its client has not
    /// taken.
    untaken: AtomicU8,
    pub(super) release: OnceLock<Release>,
}

/// One exchange as `status`, the report and the log show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exchange {
    pub class: &'static str,
    /// The JSON-RPC method, or the HTTP method and path where it is none.
    pub method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The JSON-RPC id, as JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The first 12 hexadecimal digits of the session id's SHA-256: ids are secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub age_seconds: f64,
}

impl Entry {
    pub(super) fn new(
        sequence: u64,
        (class, untold): (Class, bool),
        session: Option<Arc<Session>>,
        target: Option<Box<str>>,
    ) -> Self {
        Self {
            sequence,
            class: AtomicU8::new(class as u8),
            untold: AtomicBool::new(untold),
            began: Instant::now(),
            answered: AtomicU8::new(0),
            session: session.map_or_else(OnceLock::new, OnceLock::from),
            pends: AtomicBool::new(false),
            cancelled: Mutex::default(),
            target,
            peek: Mutex::default(),
            ending: AtomicU8::new(0),
            waker: Mutex::new(None),
            untaken: AtomicU8::new(NOTHING),
            release: OnceLock::new(),
        }
    }

    /// There is something for the client to take, or there is not.
    pub(super) fn offers(&self, something: bool) {
        self.untaken.store(if something { 0 } else { NOTHING }, Ordering::Relaxed);
    }

    /// Looks once more whether the client takes the answer; whether that was once too often. Who
    /// keeps an endless stream open keeps nobody waiting, until that is to end.
    pub(super) fn is_left(&self) -> bool {
        let most = match (self.ending(), self.class().is_stream()) {
            (Some(_), _) => UNTAKEN_AT_END,
            (None, false) => UNTAKEN,
            (None, true) => return false,
        };
        let looked = self.untaken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |looks| {
            (looks < NOTHING - 1).then(|| looks + 1)
        });
        looked.is_ok_and(|looks| looks >= most)
    }

    /// Whether the client has not taken the answer for some time.
    pub(super) fn is_untaken(&self) -> bool {
        (UNTAKEN_AT_CUT..NOTHING).contains(&self.untaken.load(Ordering::Relaxed))
    }

    pub(super) fn class(&self) -> Class {
        Class::ALL[usize::from(self.class.load(Ordering::Relaxed))]
    }

    /// Nothing that the body tells from now on changes what it is.
    pub(super) fn is_told(&self) {
        let _held = lock(&self.peek);
        self.untold.store(false, Ordering::Relaxed);
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        Ending::from_number(self.ending.load(Ordering::Acquire))
    }

    /// Tells the exchange to end. The deadline outranks a stream's end; else the first word holds.
    pub fn end(&self, ending: Ending) {
        let replaces = |now: u8| now == 0 || (now == Ending::Stream as u8 && ending == Ending::Cut);
        let told = self.ending.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            replaces(now).then_some(ending as u8)
        });
        if told.is_ok()
            && let Some(waker) = lock(&self.waker).take()
        {
            waker.wake();
        }
    }

    /// What was told to end as a stream turned out to be none: it ends by itself.
    pub(super) fn is_no_stream(&self) {
        let (stream, none) = (Ending::Stream as u8, 0);
        let _ = self.ending.compare_exchange(stream, none, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(super) fn describe(&self) -> Exchange {
        let envelope = lock(&self.peek).envelope();
        let first = envelope.as_ref().and_then(Envelope::first);
        let (method, tool, id) = match first {
            Some(Message::Request { id, method, name }) => {
                (Some(method.clone()), name.clone(), id.clone())
            }
            Some(Message::Notification { method, .. }) => (Some(method.clone()), None, None),
            Some(Message::Response { id }) => (Some("response".into()), None, id.clone()),
            None => (self.target.as_deref().map(str::to_owned), None, None),
        };
        Exchange {
            class: self.class().name(),
            method: method.unwrap_or_else(|| "unknown".into()),
            tool,
            id,
            session: self.session.get().map(|session| session.hash()),
            age_seconds: seconds_since(self.began),
        }
    }

    /// Tells its session which of the pending calls its client is here to hear.
    pub(super) fn hears_pending(&self) {
        let Some(session) = self.session() else {
            return;
        };
        match self.class() {
            // A stream from before the call was left is not the one that resumes it.
            Class::Resume => session.hears(self.began),
            Class::Stream if session.is_endpoint() => session.hears(Instant::now()),
            _ => {}
        }
    }

    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.session.get()
    }

    /// The requests of the body that await an answer, as far as it was seen.
    pub(super) fn calls(&self) -> Vec<Call> {
        let envelope = lock(&self.peek).envelope();
        let messages = envelope.as_ref().map_or(&[][..], Envelope::messages);
        let cancelled = lock(&self.cancelled);
        messages
            .iter()
            .filter_map(|message| match message {
                Message::Request { id: Some(id), method, name } => {
                    Some(Call::new(id.clone(), method.clone(), name.clone()))
                }
                _ => None,
            })
            .filter(|call| !cancelled.contains(&call.key))
            .collect()
    }

    /// The client gives up its request with this id, if it is one of these.
    pub(super) fn cancels(&self, id: &IdKey) {
        if self.calls().iter().any(|call| call.key == *id) {
            lock(&self.cancelled).push(id.clone());
        }
    }
}

/// The class of a call that has no exchange any more.
const PENDING: &str = "pending";

impl Exchange {
    /// Whether it has no exchange any more, and awaits its answer.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.class == PENDING
    }

    /// A call that has no exchange any more, and awaits its answer.
    pub(super) fn pending(call: Call, session: String) -> Self {
        Self {
            class: PENDING,
            method: call.method,
            tool: call.name,
            id: Some(call.id),
            session: Some(session),
            age_seconds: seconds_since(call.since),
        }
    }
}

fn seconds_since(at: Instant) -> f64 {
    (at.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}
