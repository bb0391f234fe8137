//! Bounded connections to the upstream: who may use one, first come first served; which one; and
//! what became of each.
//!
//! Never reads a request, never answers a client, and never opens a connection beyond the bound.

mod connection;
mod counts;
mod doubt;
mod error;
mod http1;
mod incarnation;
mod sending;
mod slot;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};

pub use self::{
    connection::{Connection, Counted, SendError, Upgraded},
    counts::{Closed, Counts},
    error::{AcquireError, ExchangeError},
    slot::{Held, Slot},
};
use self::{counts::Tally, doubt::ENDING, incarnation::Incarnation};
use crate::telemetry::metrics::PoolMetrics;

/// How often idle connections are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Longest that a probe may take.
const PROBE: Duration = Duration::from_secs(1);

/// What a connector gives: any byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}
pub type BoxedIo = Box<dyn Io>;

/// The body of a request to the upstream.
pub trait Outgoing:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static
{
}
impl<T> Outgoing for T where
    T: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static
{
}

pub type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxedIo>> + Send>>;
/// Opens one connection to the upstream.
pub type Connector = Box<dyn Fn() -> Connecting + Send + Sync>;

/// The bounds of the pool; each is a setting of the same name.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_connections: usize,
    pub max_streams: usize,
    pub acquire_timeout: Duration,
    pub idle_timeout: Duration,
    /// Whether an upstream that refuses is tried again until `acquire_timeout`: it may restart.
    pub tries_again: bool,
}

/// Which bound a use counts against. Streams have one of their own, else ten open GETs would
/// starve every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    Calls,
    Streams,
    /// What calls in flight may be waiting for: it never waits behind them.
    Messages,
}

struct Shared<B: Outgoing> {
    connector: Connector,
    incarnation: Incarnation,
    limits: Limits,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    /// Whether somebody holds the calls, or is about to.
    held: AtomicBool,
    idle: Mutex<Idle<B>>,
    tally: Arc<Tally>,
    /// Told when a slot is given back while the pool drains.
    returned: Notify,
}

struct Idle<B: Outgoing> {
    /// The most recently used last.
    connections: Vec<(Connection<B>, Instant)>,
    draining: bool,
}

/// The pool. Clones share it.
pub struct Pool<B: Outgoing>(Arc<Shared<B>>);

impl<B: Outgoing> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Outgoing> Pool<B> {
    #[must_use]
    pub fn new(connector: Connector, limits: Limits, metrics: &PoolMetrics) -> Self {
        Self(Arc::new(Shared {
            connector,
            incarnation: Incarnation::default(),
            limits,
            calls: Arc::new(Semaphore::new(limits.max_connections)),
            streams: Arc::new(Semaphore::new(limits.max_streams)),
            messages: Arc::new(Semaphore::new(limits.max_connections)),
            held: AtomicBool::new(false),
            idle: Mutex::new(Idle { connections: Vec::new(), draining: false }),
            tally: Arc::new(Tally::new(metrics)),
            returned: Notify::new(),
        }))
    }

    /// A slot, if nobody has to wait for one.
    #[must_use]
    pub fn try_acquire(&self, budget: Budget) -> Option<Slot<B>> {
        // The semaphore is fair: while somebody waits there is nothing to try for.
        let permit = Arc::clone(self.0.line(budget).0).try_acquire_owned().ok()?;
        self.0.tally.acquire_took(Duration::ZERO);
        Some(self.slot(budget, permit, None))
    }

    /// Waits in line, at most `acquire_timeout`.
    ///
    /// # Errors
    /// [`AcquireError::Exhausted`] or [`AcquireError::Restarting`] when the line did not move in
    /// time.
    pub async fn acquire(&self, budget: Budget) -> Result<Slot<B>, AcquireError> {
        if let Some(slot) = self.try_acquire(budget) {
            return Ok(slot);
        }
        let (semaphore, limit) = self.0.line(budget);
        let tally = &self.0.tally;
        let waiting = tally.waiting();
        let began = Instant::now();
        let deadline = began + self.0.limits.acquire_timeout;
        let permit = timeout_at(deadline, Arc::clone(semaphore).acquire_owned()).await;
        drop(waiting);
        let waited = began.elapsed();
        tally.acquire_took(waited);
        if let Ok(Ok(permit)) = permit {
            return Ok(self.slot(budget, permit, Some(deadline)));
        }
        if budget == Budget::Calls && self.0.held.load(Ordering::Relaxed) {
            tally.unreachable();
            return Err(AcquireError::Restarting { waited });
        }
        tally.timed_out();
        Err(AcquireError::Exhausted { budget, limit, waited })
    }

    fn slot(
        &self,
        budget: Budget,
        permit: OwnedSemaphorePermit,
        deadline: Option<Instant>,
    ) -> Slot<B> {
        self.0.tally.acquired(budget);
        Slot { pool: Arc::clone(&self.0), budget, permit: Some(permit), deadline }
    }

    /// Stands in line for every slot of the calls at once: resolves when no call is in use any
    /// more, and lets none begin until the guard is dropped. Those that wait keep their places.
    pub async fn hold_calls(&self) -> Held<B> {
        let mut held = Held { pool: Arc::clone(&self.0), permits: None };
        held.pool.held.store(true, Ordering::Relaxed);
        let all = u32::try_from(self.0.limits.max_connections).unwrap_or(u32::MAX);
        held.permits = Arc::clone(&self.0.calls).acquire_many_owned(all).await.ok();
        held
    }

    /// Opens and drops one connection: whether the upstream answers.
    ///
    /// # Errors
    /// What the connector says, or that it took longer than a second: what hangs drops connections
    /// without a word, and is asked again sooner than the network would.
    pub async fn probe(&self) -> io::Result<()> {
        let connected = timeout(PROBE, self.0.connect()).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(drop)
    }

    /// Which of the processes that have listened at the upstream's address is there now, from 1 on.
    /// One that ended and came back while nobody looked keeps its number.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.0.incarnation.number()
    }

    /// Looks after the connections, for ever: drops idle ones that are of no use, and where the
    /// upstream has closed or broken one, asks whether it is still there. Nothing is sent to one that
    /// has broken a connection before its process has had the time to end: a call whose client hears
    /// of the loss of its last one would else follow it.
    pub async fn tend(self) {
        loop {
            let doubt = &self.0.tally.doubt;
            let broke = tokio::select! {
                () = doubt.raised() => true,
                () = sleep(LOOK) => false,
            };
            if broke {
                // A process that ends may close what it listens to a little later.
                sleep(ENDING).await;
            }
            let closed = self.reap();
            let was_doubtful = broke && doubt.settle();
            if closed || broke {
                // What it says is kept; that it cannot be reached, the next request says.
                let listens = self.probe().await.is_ok();
                if was_doubtful && listens {
                    doubt.trust();
                }
            }
        }
    }

    /// Drops the idle connections whose time is over, and those that the upstream has closed;
    /// whether there were any of these.
    pub fn reap(&self) -> bool {
        self.0.reap()
    }

    /// Closes idle connections at once and the others as they come back; resolves when none is
    /// in use, or at the deadline, with the final counts (`in_use` says what is left).
    pub async fn drain(&self, deadline: Instant) -> Counts {
        let idle = {
            let mut idle = self.0.idle();
            idle.draining = true;
            std::mem::take(&mut idle.connections)
        };
        for (connection, _) in idle {
            self.0.tally.taken();
            connection.close(Closed::Drained);
        }
        loop {
            let returned = self.0.returned.notified();
            if self.counts().in_use == 0 || timeout_at(deadline, returned).await.is_err() {
                return self.counts();
            }
        }
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.tally.counts()
    }
}

impl<B: Outgoing> Shared<B> {
    async fn connect(&self) -> io::Result<BoxedIo> {
        let connected = (self.connector)().await;
        let listens = self.incarnation.learn(&connected);
        // Another pod's end is told by its endpoints.
        if self.limits.tries_again {
            match listens {
                Some(true) if self.incarnation.number() > 1 => tracing::info!("the server is back"),
                Some(false) => tracing::warn!("the server does not listen any more"),
                Some(true) | None => {}
            }
        }
        connected
    }

    fn line(&self, budget: Budget) -> (&Arc<Semaphore>, usize) {
        match budget {
            Budget::Calls => (&self.calls, self.limits.max_connections),
            Budget::Streams => (&self.streams, self.limits.max_streams),
            Budget::Messages => (&self.messages, self.limits.max_connections),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle<B>> {
        // Nothing panics while holding it, and nothing awaits.
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn reap(&self) -> bool {
        let now = Instant::now();
        let useless = |(connection, since): &mut (Connection<B>, Instant)| {
            now.duration_since(*since) >= self.limits.idle_timeout || !connection.is_ready()
        };
        let dropped: Vec<_> = self.idle().connections.extract_if(.., useless).collect();
        let mut closed = false;
        for (connection, since) in dropped {
            self.tally.taken();
            let is_old = now.duration_since(since) >= self.limits.idle_timeout;
            closed |= !is_old;
            connection.close(if is_old { Closed::IdleTimeout } else { Closed::Upstream });
        }
        closed
    }
}

#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
mod tests;
