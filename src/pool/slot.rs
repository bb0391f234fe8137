//! The right to use the upstream: one slot for one exchange, or all of them at once. Dropping it
//! gives it back.
//!
//! Never hands out a connection that the upstream has touched since its last exchange.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout_at},
};

use super::{AcquireError, Budget, Closed, Connection, Outgoing, Shared};

/// The right to run one exchange on the upstream. Dropping it lets the next waiter go.
///
/// Not Clone: it is counted.
pub struct Slot<B: Outgoing> {
    pub(super) pool: Arc<Shared<B>>,
    pub(super) budget: Budget,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// When waiting for the upstream ends; unset until there was a reason to wait.
    pub(super) deadline: Option<Instant>,
}

/// Keeps calls from the upstream until dropped.
///
/// Not Clone: it is every slot there is.
#[must_use = "dropping it lets the calls go"]
pub struct Held<B: Outgoing> {
    pub(super) pool: Arc<Shared<B>>,
    pub(super) permits: Option<OwnedSemaphorePermit>,
}

impl<B: Outgoing> Drop for Held<B> {
    fn drop(&mut self) {
        self.pool.held.store(false, Ordering::Relaxed);
        drop(self.permits.take());
    }
}

impl<B: Outgoing> Slot<B> {
    /// A connection that is ready for a request: the idle one used last, else a fresh one. Waits
    /// for an upstream that is away for what is left of `acquire_timeout`.
    ///
    /// # Errors
    /// [`AcquireError::Unreachable`].
    pub async fn connection(&mut self) -> Result<Connection<B>, AcquireError> {
        if self.pool.tally.doubt.is_raised() {
            // Boxed, as every rare way is.
            Box::pin(self.pool.tally.doubt.settled()).await;
        }
        // A stream takes an idle one, too, and does not give it back: opening one takes time in
        // which the session's next call would overtake it, and what the server says to that on the
        // stream would be lost. So the calls' bound also bounds what lies idle.
        if self.budget != Budget::Messages
            && let Some(connection) = self.reuse()
        {
            return Ok(connection);
        }
        Box::pin(self.fresh()).await
    }

    /// A connection that nobody used before.
    ///
    /// # Errors
    /// [`AcquireError::Unreachable`].
    pub async fn fresh(&mut self) -> Result<Connection<B>, AcquireError> {
        self.pool.tally.doubt.settled().await;
        let began = Instant::now();
        let deadline = *self.deadline.get_or_insert(began + self.pool.limits.acquire_timeout);
        let mut pause = Duration::from_millis(10);
        loop {
            let cause = match timeout_at(deadline, self.pool.connect()).await {
                Ok(Ok(io)) => return Ok(Connection::new(io, Arc::clone(&self.pool.tally))),
                Ok(Err(cause)) => cause,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            if !self.pool.limits.tries_again || Instant::now() + pause >= deadline {
                self.pool.tally.unreachable();
                return Err(AcquireError::Unreachable { cause, waited: began.elapsed() });
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    fn reuse(&mut self) -> Option<Connection<B>> {
        loop {
            let (mut connection, since) = self.pool.idle().connections.pop()?;
            let reason = if since.elapsed() >= self.pool.limits.idle_timeout {
                Closed::IdleTimeout
            } else if connection.is_ready() {
                self.pool.tally.reused();
                connection.mark_reused();
                return Some(connection);
            } else {
                Closed::Upstream
            };
            self.pool.tally.taken();
            connection.close(reason);
        }
    }

    /// Ends the use. A connection that is ready for the next request is kept.
    pub fn release(self, connection: Connection<B>) {
        let reason = if self.budget == Budget::Streams {
            Closed::Stream
        } else if self.budget == Budget::Messages || !connection.is_idle() {
            Closed::NotReusable
        } else {
            let mut idle = self.pool.idle();
            if !idle.draining && !self.pool.limits.idle_timeout.is_zero() {
                self.pool.tally.kept();
                idle.connections.push((connection, Instant::now()));
                return;
            }
            Closed::Drained
        };
        connection.close(reason);
    }

    /// Counts a use that turned out to be a stream against the streams' bound from now on.
    ///
    /// # Errors
    /// [`AcquireError::Exhausted`] at once when there is no room.
    pub fn becomes_stream(&mut self) -> Result<(), AcquireError> {
        if self.budget == Budget::Streams {
            return Ok(());
        }
        let Ok(permit) = Arc::clone(&self.pool.streams).try_acquire_owned() else {
            self.pool.tally.timed_out();
            return Err(AcquireError::Exhausted {
                budget: Budget::Streams,
                limit: self.pool.limits.max_streams,
                waited: Duration::ZERO,
            });
        };
        self.pool.tally.moved(self.budget, Budget::Streams);
        self.permit = Some(permit);
        self.budget = Budget::Streams;
        Ok(())
    }
}

impl<B: Outgoing> Drop for Slot<B> {
    fn drop(&mut self) {
        self.pool.tally.released(self.budget);
        drop(self.permit.take());
        if self.pool.tally.in_use.load(Ordering::Relaxed) == 0 {
            self.pool.returned.notify_waiters();
        }
    }
}
