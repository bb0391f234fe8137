//! What is in flight: one [`Ticket`] per exchange, which lives in the response body. Dropping it
//! is the only way to finish.
//!
//! Never decides who is refused or ended; it carries the driver's word to whom it concerns.

mod entry;
mod note;
mod peek;
mod ticket;
mod totals;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use slab::Slab;
use tokio::sync::Notify;

pub use self::{
    entry::{Ending, Entry, Exchange, Release},
    note::Note,
    ticket::Ticket,
    totals::Totals,
};
use crate::{
    mcp::{Class, message::IdKey},
    sessions::{Session, Sessions},
    telemetry::{
        Metrics,
        metrics::{Moves, Outcome},
    },
};

/// How often it is looked whether clients take their answers.
pub const UNTAKEN_LOOK: Duration = Duration::from_secs(5);

struct Shared {
    metrics: Arc<Metrics>,
    sessions: Sessions,
    entries: Mutex<Slab<Arc<Entry>>>,
    sequence: AtomicU64,
    finite: AtomicUsize,
    streams: AtomicUsize,
    totals: [AtomicU64; Outcome::ALL.len()],
    /// Exchanges that began before this number were in flight when the drain began; 0 before.
    audited: AtomicU64,
    /// What became of those, by outcome.
    audit: [AtomicU64; Outcome::ALL.len()],
    /// Told whenever an exchange ends, or turns out to be of another class.
    changed: Notify,
}

/// The registry. Clones share it.
#[derive(Clone)]
pub struct Inflight(Arc<Shared>);

impl Inflight {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, sessions: Sessions) -> Self {
        Self(Arc::new(Shared {
            metrics,
            sessions,
            entries: Mutex::default(),
            sequence: AtomicU64::new(1),
            finite: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            totals: Default::default(),
            audited: AtomicU64::new(0),
            audit: Default::default(),
            changed: Notify::new(),
        }))
    }

    /// Registers an exchange. `untold`: only its body can tell what it is. `target` names one that
    /// is no JSON-RPC message ("GET /health").
    pub fn begin(
        &self,
        (class, untold): (Class, bool),
        session: Option<Arc<Session>>,
        target: Option<Box<str>>,
    ) -> Ticket {
        if let (Some(session), false) = (&session, class.is_stream()) {
            session.begin();
        }
        let sequence = self.0.sequence.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry::new(sequence, (class, untold), session, target));
        let key = lock(&self.0.entries).insert(Arc::clone(&entry));
        self.0.gauge(class).fetch_add(1, Ordering::Relaxed);
        self.0.metrics.begun(class);
        let shared = Arc::clone(&self.0);
        Ticket { shared, entry, key, outcome: Outcome::Abandoned, owes: false }
    }

    /// All exchanges, and the calls that are pending: never fewer than there are, whatever becomes
    /// of one while it is asked.
    #[must_use]
    pub fn all(&self) -> usize {
        // A call is pending before its exchange ends, and until another has begun.
        let before = self.pending();
        self.exchanging() + before.max(self.pending())
    }

    /// All exchanges. (The two counts below are no sum: one may move between them.)
    #[must_use]
    pub fn exchanging(&self) -> usize {
        lock(&self.0.entries).len()
    }

    /// Exchanges that have a natural end.
    #[must_use]
    pub fn finite(&self) -> usize {
        self.0.finite.load(Ordering::Relaxed)
    }

    /// Exchanges that have none.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.0.streams.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals(std::array::from_fn(|at| self.0.totals[at].load(Ordering::Relaxed)))
    }

    /// How many exchanges have begun, ever.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.0.sequence.load(Ordering::Relaxed)
    }

    /// From now on what becomes of each exchange in flight is logged by name, and counted.
    pub fn begin_audit(&self) {
        self.0.audited.store(self.begun(), Ordering::Relaxed);
    }

    /// What became so far of the exchanges that were in flight when the audit began.
    #[must_use]
    pub fn audit(&self) -> Totals {
        Totals(std::array::from_fn(|at| self.0.audit[at].load(Ordering::Relaxed)))
    }

    /// Resolves when what is in flight has changed. For one waiter: the driver.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Calls that await an answer, though their exchange is over.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.sessions.pending()
    }

    /// Those of them whose client is there to hear the answer, or was a few seconds ago.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.hear_pending();
        self.0.sessions.awaited()
    }

    /// Gives up what was awaited for too long with nobody there to hear it.
    pub fn expire_pending(&self) {
        self.hear_pending();
        self.0.sessions.expire();
    }

    /// Notes who is there to hear what is pending.
    fn hear_pending(&self) {
        if self.pending() > 0 {
            self.entries(|entry| entry.class().is_stream())
                .iter()
                .for_each(|entry| entry.hears_pending());
        }
    }

    /// Everything in flight, the oldest first, and after that what is pending.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        let mut entries = self.entries(|_| true);
        entries.sort_by_key(|entry| entry.sequence);
        entries.iter().map(|entry| entry.describe()).chain(self.pending_calls()).collect()
    }

    fn pending_calls(&self) -> impl Iterator<Item = Exchange> + use<> {
        let calls = self.0.sessions.pending_calls();
        calls.into_iter().map(|(call, session)| Exchange::pending(call, session))
    }

    /// Legacy sessions that are known.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.sessions.len()
    }

    /// What became of sessions that could not stay where they were.
    #[must_use]
    pub fn moves(&self) -> Moves {
        self.0.metrics.moves()
    }

    /// Tells up to `most` streams to end that were not told yet, and whose session awaits nothing:
    /// the server may still have to say something on them.
    pub fn end_streams(&self, most: usize) {
        let over = |entry: &Entry| {
            entry.class().is_stream()
                && entry.ending().is_none()
                && !entry.session().is_some_and(|session| session.is_busy(0))
        };
        for entry in self.entries(over).iter().take(most) {
            entry.end(Ending::Stream);
        }
    }

    /// Tells the streams of a session to end, except the exchange of this ticket: another pod has it
    /// now.
    pub fn end_streams_of(&self, session: &Arc<Session>, own: &Ticket) {
        let its = |entry: &Entry| {
            entry.class().is_stream()
                && entry.sequence != own.sequence()
                && entry.session().is_some_and(|known| Arc::ptr_eq(known, session))
        };
        for entry in self.entries(its) {
            entry.end(Ending::Stream);
        }
    }

    /// Tells everything in flight to end; the finite exchanges among them, described, and the calls
    /// that are pending.
    pub fn end_all(&self, ending: Ending) -> Vec<Exchange> {
        let entries = self.entries(|_| true);
        for entry in &entries {
            entry.end(ending);
        }
        let finite = entries.iter().filter(|entry| !entry.class().is_stream());
        finite.map(|entry| entry.describe()).chain(self.pending_calls()).collect()
    }

    /// Tells those to end that have waited for the head of their answer for longer than `limit`.
    pub fn expire(&self, limit: Duration) {
        let waits = |entry: &Entry| {
            entry.answered.load(Ordering::Relaxed) == 0 && entry.began.elapsed() >= limit
        };
        for entry in self.entries(waits) {
            entry.end(Ending::TimedOut);
        }
    }

    /// Ends those whose clients have stopped taking the answer: a place at the server is not theirs
    /// to keep, and no drain waits for them. To be asked each [`UNTAKEN_LOOK`].
    pub fn release_untaken(&self) {
        self.release(Entry::is_left);
    }

    /// The same at the cut: who has not read for some time will not read of it.
    pub fn release_at_cut(&self) {
        self.release(Entry::is_untaken);
    }

    fn release(&self, is_left: impl Fn(&Entry) -> bool) {
        for entry in self.entries(is_left) {
            if let Some(release) = entry.release.get() {
                tracing::info!(class = entry.class().name(), "a client does not take its answer");
                release();
            }
        }
    }

    fn entries(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        self.0.entries(wanted)
    }
}

impl Shared {
    fn entries(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let entries = lock(&self.entries);
        entries
            .iter()
            .filter(|(_, entry)| wanted(entry))
            .map(|(_, entry)| Arc::clone(entry))
            .collect()
    }

    /// Names what ended during a drain: all that was in flight when it began, and of what came
    /// later whatever was not served.
    fn account(&self, entry: &Entry, outcome: Outcome) {
        let audited = self.audited.load(Ordering::Relaxed);
        if audited > 0 {
            self.metrics.ended_in_drain(outcome);
        }
        let was_in_flight = entry.sequence < audited;
        if was_in_flight {
            self.audit[outcome as usize].fetch_add(1, Ordering::Relaxed);
        }
        let served = matches!(outcome, Outcome::Completed | Outcome::Ended | Outcome::Abandoned);
        if audited == 0 || (served && !was_in_flight) {
            return;
        }
        let exchange = entry.describe();
        tracing::info!(
            outcome = outcome.name(),
            class = exchange.class,
            method = exchange.method,
            tool = exchange.tool,
            id = exchange.id,
            session = exchange.session,
            seconds = exchange.age_seconds,
            in_flight_at_trigger = was_in_flight,
            "exchange ended during the drain"
        );
    }

    /// The exchange turned out to be of another class.
    fn reclassify(&self, entry: &Entry, class: Class) {
        let before = entry.class();
        if before == class {
            return;
        }
        entry.class.store(class as u8, Ordering::Relaxed);
        if !class.is_stream() {
            entry.is_no_stream();
        }
        if let Some(session) = entry.session() {
            match (before.is_stream(), class.is_stream()) {
                (true, false) => session.begin(),
                (false, true) => session.finish(),
                _ => {}
            }
        }
        self.gauge(before).fetch_sub(1, Ordering::Relaxed);
        self.gauge(class).fetch_add(1, Ordering::Relaxed);
        self.metrics.reclassified(before, class);
        self.changed.notify_one();
    }

    /// The client told the server to stop working on the call with this id: nobody awaits its
    /// answer, and the server need not give one.
    fn cancels(&self, entry: &Entry, id: &str) {
        let Some(session) = entry.session() else {
            return;
        };
        session.settle(id);
        let id = IdKey::of(id);
        let is_its =
            |other: &Entry| other.session().is_some_and(|other| Arc::ptr_eq(other, session));
        for other in self.entries(is_its) {
            other.cancels(&id);
        }
        self.changed.notify_one();
    }

    fn gauge(&self, class: Class) -> &AtomicUsize {
        if class.is_stream() { &self.streams } else { &self.finite }
    }
}

/// Held for a few lines, never across an await; nothing panics while holding it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Uri};

    use super::*;
    use crate::sessions::Found;

    fn registry() -> Inflight {
        Inflight::new(Arc::new(Metrics::new()), Sessions::default())
    }

    fn session(inflight: &Inflight, id: &str) -> Option<Arc<Session>> {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("mcp-session-id"),
            HeaderValue::from_str(id).unwrap(),
        )]);
        match inflight.0.sessions.of(&headers, &Uri::from_static("/mcp")) {
            Found::Here(session) => Some(session),
            Found::Nothing | Found::Elsewhere(_) => None,
        }
    }

    #[test]
    fn dropping_the_ticket_ends_the_exchange() {
        let inflight = registry();
        let call = inflight.begin((Class::Call, false), session(&inflight, "secret"), None);
        let stream = inflight.begin((Class::Stream, false), None, Some("GET /mcp".into()));
        call.note().pass(br#"{"id":"a","method":"tools/call","params":{"name":"slow"}}"#);
        assert_eq!((inflight.finite(), inflight.streams()), (1, 1));
        let seen = inflight.exchanges();
        assert_eq!(seen[0].method, "tools/call");
        assert_eq!(seen[0].tool.as_deref(), Some("slow"));
        assert_eq!(seen[0].id.as_deref(), Some("\"a\""));
        assert!(!format!("{seen:?}").contains("secret"));
        assert_eq!(seen[1].method, "GET /mcp");
        let mut call = call;
        call.will_be(Outcome::Completed);
        drop((call, stream));
        assert_eq!((inflight.finite(), inflight.streams()), (0, 0));
        assert_eq!(inflight.totals().of(Outcome::Completed), 1);
        assert_eq!(inflight.totals().of(Outcome::Abandoned), 1);
    }

    #[tokio::test]
    async fn the_word_to_end_reaches_whoever_waits() {
        let inflight = registry();
        let ticket = inflight.begin((Class::Stream, false), None, None);
        let waiting = std::future::poll_fn(|context| ticket.poll_ending(context));
        let telling = async { inflight.end_streams(9) };
        let (ending, ()) = tokio::join!(waiting, telling);
        assert_eq!(ending, Ending::Stream);
        inflight.end_all(Ending::Cut);
        assert_eq!(ticket.entry.ending(), Some(Ending::Cut));
        inflight.end_all(Ending::UpstreamLost);
        assert_eq!(ticket.entry.ending(), Some(Ending::Cut));
    }

    #[test]
    fn a_stream_stays_while_its_session_has_a_call() {
        let inflight = registry();
        let stream = inflight.begin((Class::Stream, false), session(&inflight, "s"), None);
        let call = inflight.begin((Class::Call, false), session(&inflight, "s"), None);
        inflight.end_streams(9);
        assert_eq!(stream.entry.ending(), None);
        drop(call);
        inflight.end_streams(9);
        assert_eq!(stream.entry.ending(), Some(Ending::Stream));
    }

    #[test]
    fn the_audit_counts_what_was_in_flight_when_it_began() {
        let inflight = registry();
        let mut calls: Vec<_> =
            (0..3).map(|_| inflight.begin((Class::Call, false), None, None)).collect();
        calls[0].will_be(Outcome::Completed);
        drop(calls.remove(0));
        inflight.begin_audit();
        calls[0].will_be(Outcome::Cut);
        calls[1].will_be(Outcome::Completed);
        inflight.begin((Class::Call, false), None, None).will_be(Outcome::Refused);
        drop(calls);
        let audit = inflight.audit();
        assert_eq!((audit.of(Outcome::Cut), audit.of(Outcome::Completed)), (1, 1));
        assert_eq!(audit.of(Outcome::Refused), 0);
        assert_eq!(inflight.totals().of(Outcome::Refused), 1);
    }

    #[test]
    fn a_reclassified_exchange_counts_as_what_it_is() {
        let inflight = registry();
        let mut ticket = inflight.begin((Class::Plain, false), None, None);
        ticket.reclassify(Class::Stream);
        assert_eq!((inflight.finite(), inflight.streams()), (0, 1));
        drop(ticket);
        assert_eq!((inflight.finite(), inflight.streams()), (0, 0));
    }

    #[test]
    fn a_session_that_the_answer_opened_counts_the_exchange() {
        let inflight = registry();
        let opened = session(&inflight, "s").unwrap();
        let mut ticket = inflight.begin((Class::Call, true), None, None);
        ticket.belongs_to(&opened);
        assert!(opened.is_busy(0));
        ticket.note().pass(br#"{"id":1,"method":"subscriptions/listen"}"#);
        assert!(!opened.is_busy(0));
        ticket.reclassify(Class::Call);
        assert!(opened.is_busy(0));
        drop(ticket);
        assert!(!opened.is_busy(0));
    }

    /// The drain ends where nothing is in flight: an exchange that changes its class, or becomes a
    /// pending call, must never be nowhere.
    #[test]
    fn what_is_in_flight_is_never_out_of_sight() {
        let inflight = registry();
        let session = session(&inflight, "s").unwrap();
        for _ in 0..100 {
            session.settle("1");
            let class = (Class::Call, false);
            let mut ticket = inflight.begin(class, Some(Arc::clone(&session)), None);
            ticket.note().pass(br#"{"id":1,"method":"tools/call"}"#);
            ticket.delivers();
            std::thread::scope(|scope| {
                let changes = scope.spawn(|| {
                    for _ in 0..200 {
                        ticket.reclassify(Class::Stream);
                        ticket.reclassify(Class::Call);
                    }
                    drop(ticket);
                });
                while !changes.is_finished() {
                    assert!(inflight.all() > 0);
                }
            });
        }
        assert_eq!((inflight.finite(), inflight.streams(), inflight.all()), (0, 0, 1));
    }
}
