//! `ebbtide run`: wires everything, and is the only file that knows all. What each part does
//! stands in its own file; beside it, what connects two parts that do not know each other.

mod account;
mod cluster;
mod dial;
pub mod keys;
pub mod leave;
mod limits;
mod listeners;
pub mod restart;

use std::{ffi::OsString, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use self::{leave::Leaving, listeners::listeners};
use crate::{
    admin::{Admin, Kubelet},
    child::{Child, Ended},
    config::{
        Settings,
        value::{Roaming, Upstream},
    },
    drain::{
        DrainHandle, DrainWatch, Driver,
        handle::{Connections, Event},
        timeline::DEFAULT_DRAIN_TIMEOUT,
    },
    inflight::Inflight,
    kubernetes::{self, Cluster, Watched},
    pool::{Counts, Pool},
    proxy::{Proxy, RequestBody, peers::PeerPools},
    serve::{self, Port, Stage, Tcp},
    signals::Signals,
    tasks::{self, Group},
    telemetry::Metrics,
};

/// How long connections get to close once everything is answered.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// How long what the cluster is told of a drain may hold up the end.
const TELL_TIME: Duration = Duration::from_secs(2);

/// Why ebbtide cannot run, in the operator's words.
#[derive(Debug)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// The ports, bound. Bound before anything else is done: a clash has to be loud and early.
pub struct Bound {
    data: TcpListener,
    admin: TcpListener,
}

impl Bound {
    /// # Errors
    /// A port is taken; the error says which, and who could be told another.
    pub async fn new(settings: &Settings) -> Result<Self, Failed> {
        Ok(Self {
            data: bind(settings.listen, "listen").await?,
            admin: bind(settings.admin, "admin").await?,
        })
    }
}

impl Bound {
    /// Tells where to connect: with port 0 the system has chosen.
    fn announce(&self, settings: &Settings) {
        let address = |listener: &TcpListener, asked: SocketAddr| {
            listener.local_addr().unwrap_or(asked).to_string()
        };
        info!(
            data = address(&self.data, settings.listen),
            admin = address(&self.admin, settings.admin),
            upstream = settings.upstream.to_string(),
            "listening"
        );
    }
}

async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, Failed> {
    TcpListener::bind(address).await.map_err(|error| {
        let flag = crate::config::flag(setting);
        Failed(match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {} is taken ({address}): another container of this pod listens there; give \
                 that one another port, or ebbtide with {flag}",
                address.port()
            ),
            _ => format!("cannot listen on {address} ({flag}): {error}"),
        })
    })
}

/// Runs until drained (exit code 0) or until the supervised server ended (its code).
///
/// # Errors
/// A part could not start, or died.
pub async fn run(
    settings: Settings,
    command: Vec<OsString>,
    in_kubernetes: bool,
) -> Result<i32, Failed> {
    let bound = Bound::new(&settings).await?;
    let signals = Signals::catch().map_err(|error| Failed(format!("catching signals: {error}")))?;
    let pod = if in_kubernetes { kubernetes::own_uid() } else { String::new() };
    let (sessions, key_file) = keys::sessions(&settings, &pod).map_err(Failed)?;
    let mut child = match command.as_slice() {
        [] => None,
        command => Some(Child::start(command).map_err(|error| Failed(error.to_string()))?),
    };
    let metrics = Arc::new(Metrics::new());
    let inflight = Inflight::new(Arc::clone(&metrics), sessions.clone());
    let connections = Arc::new(Connections::default());
    let (driver, drain, watch) = Driver::new(
        limits::rules(&settings, in_kubernetes),
        inflight.clone(),
        Arc::clone(&connections),
        Arc::clone(&metrics),
    );
    let pool =
        Pool::new(dial::server(&settings.upstream), limits::pool_limits(&settings), &metrics.pool);
    let (seen, peers) = watch::channel(None);
    let pools =
        PeerPools::new(Box::new(dial::pod), limits::pool_limits(&settings), peers, &metrics);
    let pools = Arc::new(pools);
    let proxy = Arc::new(Proxy {
        pool: pool.clone(),
        inflight: inflight.clone(),
        drain: watch.clone(),
        sessions,
        peers: Arc::clone(&pools),
        metrics: Arc::clone(&metrics),
        refuse_with: settings.refuse_with,
        body_timeout: settings.header_timeout,
    });
    let (counts, passing) = (pool.clone(), Arc::clone(&proxy));
    let (counts, asks) = (Box::new(move || counts.counts()), drain.clone());
    let admin = Arc::new(admin(&settings, asks, watch.clone(), inflight.clone(), counts, &metrics));
    bound.announce(&settings);

    let (data_stage, data_stages) = watch::channel(Stage::Open);
    let (admin_stage, admin_stages) = watch::channel(Stage::Open);
    let clients = Some(Arc::clone(&connections));
    let data_port =
        Port::new("data", limits::port_limits(&settings), data_stages, &metrics, clients, proxy);
    let admin_port =
        Port::new("admin", limits::admin_limits(&settings), admin_stages, &metrics, None, admin);

    let mut group = Group::default();
    group.spawn(DRIVER, driver.run());
    let leaving = Leaving::new(connections, watch.clone(), inflight.clone(), child.is_some());
    group.spawn("signals", signals.run(drain.clone(), Arc::clone(&leaving.again)));
    group.spawn(PROBE, probe(pool.clone(), settings.upstream.clone(), drain.clone()));
    group.spawn("pool", pool.clone().tend());
    // The kubelet starts this container again; our own child's end is ours.
    let at = settings.upstream.port();
    let listeners = (in_kubernetes && child.is_none()).then_some(move || listeners(at));
    let restarts =
        restart::follow(pool.clone(), inflight.clone(), watch.clone(), drain.clone(), listeners);
    group.spawn("server restart", restarts);
    if let Some(file) = key_file {
        group.spawn("session keys", file.follow());
    }
    let cluster = in_kubernetes.then(cluster::join).flatten();
    let teller = cluster.as_ref().map(Cluster::teller);
    let (tells, mut told) = oneshot::channel();
    if cluster.is_none() {
        seen.send_replace(Some(Arc::default()));
    }
    if let Some(cluster) = cluster {
        let peers = (settings.sessions != Roaming::Off)
            .then(|| Watched { port: settings.listen.port(), seen });
        group.spawn("kubernetes", cluster::learn(cluster, peers, watch.clone(), drain.clone()));
        group.spawn("peer reaper", pools.reap());
    }
    let passes_on = move || passing.passes_on();
    let account = account::write(watch.clone(), pool, inflight, teller, in_kubernetes, tells);
    group.spawn(REPORT, account);
    group.spawn(ANNOUNCER, leave::announce_drain(watch, data_stage.clone(), passes_on.clone()));
    group.spawn(DATA, serve::run(Tcp::new(bound.data), data_port));
    group.spawn(ADMIN, serve::run(Tcp::new(bound.admin), admin_port));

    let ended = until_drained(&mut group, child.as_mut(), &drain).await?;
    leaving.leave(&mut group, &data_stage, passes_on, ended.is_some()).await;
    until_ended(&mut group, DATA).await?;
    let code = match (ended, child) {
        (Some(ended), _) => ended.code(),
        (None, Some(child)) => child.stop(settings.stop_reserve).await.code(),
        (None, None) => 0,
    };
    // It is never sent to: its end is the news.
    drop(timeout(TELL_TIME, &mut told).await);
    // Last, since hooks and probes are answered to the end.
    admin_stage.send_replace(Stage::Close(Instant::now() + CLOSE_TIME));
    until_ended(&mut group, ADMIN).await?;
    info!(code, "ebbtide ends");
    Ok(code)
}

fn admin(
    settings: &Settings,
    drain: DrainHandle,
    watch: DrainWatch,
    inflight: Inflight,
    pool: Box<dyn Fn() -> Counts + Send + Sync>,
    metrics: &Arc<Metrics>,
) -> Admin {
    Admin {
        drain,
        watch,
        inflight,
        pool,
        metrics: Arc::clone(metrics),
        upstream: settings.upstream.to_string(),
        kubelet: Kubelet::default(),
        restart_wait: settings.grace.or(settings.drain_timeout).unwrap_or(DEFAULT_DRAIN_TIMEOUT),
        drain_token_file: settings.drain_token_file.clone(),
    }
}

const DRIVER: &str = "drain driver";
const PROBE: &str = "upstream probe";
const REPORT: &str = "drain report";
const ANNOUNCER: &str = "announcer";
const DATA: &str = "data port";
const ADMIN: &str = "admin port";
/// Waits until the driver has ended; how the server ended, if it did so by itself.
async fn until_drained(
    group: &mut Group,
    mut child: Option<&mut Child>,
    drain: &DrainHandle,
) -> Result<Option<Ended>, Failed> {
    let mut server = None;
    loop {
        let child_ended = async {
            match &mut child {
                Some(child) if server.is_none() => child.ended().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = child_ended => {
                warn!(?ended, "the server ended by itself; its calls in flight get errors");
                server = Some(ended);
                drain.tell(Event::ServerEnded).await;
            }
            ended = group.ended() => match ended {
                Some(ended) if ended.panic.is_none() && ended.name == DRIVER => return Ok(server),
                ended => is_normal(ended)?,
            },
        }
    }
}

async fn until_ended(group: &mut Group, name: &str) -> Result<(), Failed> {
    loop {
        match group.ended().await {
            Some(ended) if ended.panic.is_none() && ended.name == name => return Ok(()),
            ended => is_normal(ended)?,
        }
    }
}

/// Some tasks end by themselves; any other end is a part that died.
fn is_normal(ended: Option<tasks::Ended>) -> Result<(), Failed> {
    match ended {
        Some(tasks::Ended { name: PROBE | REPORT | ANNOUNCER, panic: None }) => Ok(()),
        Some(tasks::Ended { name, panic }) => {
            let how = panic.map_or("ended early".into(), |text| format!("panicked: {text}"));
            Err(Failed(format!("the part `{name}` {how}; this is a bug of ebbtide")))
        }
        None => Err(Failed("every part has ended; this is a bug of ebbtide".into())),
    }
}

/// Asks for the upstream until it answers once.
async fn probe(pool: Pool<RequestBody>, upstream: Upstream, drain: DrainHandle) {
    let mut pause = Duration::from_millis(5);
    let mut told = Instant::now();
    while let Err(error) = pool.probe().await {
        if told.elapsed() >= Duration::from_secs(10) {
            warn!(%upstream, %error, "still waiting for the server to answer");
            told = Instant::now();
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
    drain.tell(Event::UpstreamAnswered).await;
}
