//! The accept loop, one task per connection, and the graceful close; used by both ports.
//!
//! Never knows what is served, nor why a port closes.

mod accept;
mod connection;
mod context;
mod framing;
mod guarded;
pub mod plain;

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{
    io::AsyncWriteExt,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, error, warn};

pub use self::{
    accept::{Accept, BoxedIo, Io, Tcp},
    context::Context,
};
use crate::{drain::handle::Connections, tasks::Group, telemetry::Metrics};

/// How far a port is from closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Open,
    /// Clients are told to go elsewhere; everything is still served.
    Announce,
    /// Connections that are open close once they are idle; new ones are answered, once.
    CloseOpen,
    /// Connections close once they are idle; all are gone at the instant, which may be set anew.
    Close(Instant),
}

/// The limits of a port; each is a setting of the same name.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_inbound: usize,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub header_timeout: Duration,
    /// Connections open at once from one address.
    pub max_per_address: usize,
    /// Whether a connection may bring a second request.
    pub keep_alive: bool,
}

/// One of the two ports.
pub struct Port<H> {
    pub name: &'static str,
    pub limits: Limits,
    pub stages: watch::Receiver<Stage>,
    pub metrics: Arc<Metrics>,
    /// Where its connections are counted, in the metrics too; nowhere for probes and hooks.
    pub connections: Option<Arc<Connections>>,
    pub handler: H,
}

impl<H: Handler> Port<H> {
    #[must_use]
    pub fn new(
        name: &'static str,
        limits: Limits,
        stages: watch::Receiver<Stage>,
        metrics: &Arc<Metrics>,
        connections: Option<Arc<Connections>>,
        handler: H,
    ) -> Self {
        Self { name, limits, stages, metrics: Arc::clone(metrics), connections, handler }
    }
}

/// Answers requests; one clone serves each connection.
pub trait Handler: Clone + Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    fn handle(
        self,
        request: Request<Incoming>,
        context: Arc<Context>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
}

/// Serves until the stage is `Close` and every connection has ended, or its instant has come.
pub async fn run<H: Handler>(acceptor: impl Accept, port: Port<H>) {
    let mut stages = port.stages.clone();
    let mut group = Group::default();
    let open = Arc::new(Open::default());
    loop {
        tokio::select! {
            biased;
            _ = closing(&mut stages) => break,
            accepted = acceptor.accept() => match accepted {
                Ok((io, remote)) => admit(&port, &mut group, &open, io, remote),
                Err(error) => {
                    // Most often too many open files: the next try may do, a spin would not.
                    warn!(port = port.name, %error, "accepting a connection failed; raise the limit on open files if this goes on");
                    sleep(Duration::from_millis(50)).await;
                }
            },
            Some(ended) = group.ended() => report(port.name, &ended),
        }
    }
    // Who is in the backlog got through to us, and would see a reset: he is answered, too.
    tokio::task::yield_now().await;
    while let Some(Ok((io, remote))) = acceptor.accept().now_or_never() {
        admit(&port, &mut group, &open, io, remote);
    }
    drop(acceptor);
    let rest = async {
        while let Some(ended) = group.ended().await {
            report(port.name, &ended);
        }
    };
    tokio::select! {
        () = rest => {}
        () = closed(&mut stages) => {
            debug!(port = port.name, open = open.all(), "connections left at the end are closed");
        }
    }
}

/// How long a connection that came after the end may take to say what it wants.
const LATE: Duration = Duration::from_millis(50);

/// Waits until a connection is to close once it is idle: with those that are open, if it is one of
/// them, else with the port. What has reached its socket until then can be read before that.
async fn idle_closes(stages: &mut watch::Receiver<Stage>) {
    let late = *stages.borrow() >= Stage::CloseOpen;
    if late {
        closing(stages).await;
        sleep(LATE).await;
    } else {
        drop(stages.wait_for(|stage| *stage >= Stage::CloseOpen).await);
        // The runtime looks at the sockets before this goes on.
        tokio::task::yield_now().await;
    }
}

/// Waits until the port is to close; when all its connections have to be gone.
async fn closing(stages: &mut watch::Receiver<Stage>) -> Instant {
    let stage = stages.wait_for(|stage| matches!(stage, Stage::Close(_))).await;
    match stage.as_deref() {
        Ok(Stage::Close(at)) => *at,
        // Nobody is left who could say it.
        _ => Instant::now(),
    }
}

/// Waits until all connections have to be gone.
async fn closed(stages: &mut watch::Receiver<Stage>) {
    loop {
        let at = closing(stages).await;
        tokio::select! {
            () = sleep_until(at) => return,
            Ok(()) = stages.changed() => {}
        }
    }
}

fn report(port: &str, ended: &crate::tasks::Ended) {
    if let Some(panic) = &ended.panic {
        error!(
            port,
            panic, "a connection's task panicked: this is a bug of ebbtide; the others go on"
        );
    }
}

fn admit<H: Handler>(
    port: &Port<H>,
    group: &mut Group,
    open: &Arc<Open>,
    io: BoxedIo,
    remote: SocketAddr,
) {
    let event = |name| {
        if port.connections.is_some() {
            port.metrics.inbound_events.with_label_values(&[name]).inc();
        }
    };
    let from_there = open.from(remote.ip());
    if from_there >= port.limits.max_per_address || open.all() >= port.limits.max_inbound {
        event("refused");
        group.spawn("refusal", refuse(io, port.limits.max_inbound));
        return;
    }
    event("accepted");
    let connections = port.connections.as_ref();
    let seen = connections.map(|seen| seen.opened(Instant::now().into_std()));
    let gauge = connections.map(|_| port.metrics.inbound_connections.clone());
    let counted = open.one(remote.ip(), gauge);
    let limits = port.limits;
    let (stages, handler) = (port.stages.clone(), port.handler.clone());
    let metrics = connections.map(|_| Arc::clone(&port.metrics));
    group.spawn("connection", async move {
        let closed = connection::run(io, Context::new(remote, seen), limits, stages, handler).await;
        if let (Some(cause), Some(metrics)) = (closed, metrics) {
            metrics.inbound_events.with_label_values(&[cause]).inc();
        }
        drop(counted);
    });
}

async fn refuse(mut io: BoxedIo, limit: usize) {
    let text =
        format!("ebbtide: {limit} client connections are open, as many as max_inbound allows\n");
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: \
         {length}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{text}"
    );
    connection::last_words(&mut io, answer.as_bytes()).await;
    drop(timeout(Duration::from_secs(1), io.shutdown()).await);
}

/// The port's open connections: all of them, and by address.
#[derive(Default)]
struct Open(Mutex<(usize, HashMap<IpAddr, usize>)>);

/// Counts one connection as open until dropped.
struct OneOpen {
    open: Arc<Open>,
    address: IpAddr,
    gauge: Option<prometheus::IntGauge>,
}

impl Open {
    fn all(&self) -> usize {
        self.lock().0
    }

    fn from(&self, address: IpAddr) -> usize {
        self.lock().1.get(&address).copied().unwrap_or(0)
    }

    fn one(self: &Arc<Self>, address: IpAddr, gauge: Option<prometheus::IntGauge>) -> OneOpen {
        let mut open = self.lock();
        open.0 += 1;
        *open.1.entry(address).or_default() += 1;
        drop(open);
        if let Some(gauge) = &gauge {
            gauge.inc();
        }
        OneOpen { open: Arc::clone(self), address, gauge }
    }

    fn lock(&self) -> MutexGuard<'_, (usize, HashMap<IpAddr, usize>)> {
        // Held for a few lines, and nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OneOpen {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.0 -= 1;
        if let Some(left) = open.1.get_mut(&self.address) {
            *left -= 1;
            if *left == 0 {
                open.1.remove(&self.address);
            }
        }
        drop(open);
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
    }
}
