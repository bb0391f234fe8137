//! A sidecar without its process, and both ends of every pipe to it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ebbtide::{
    admin::{Admin, Kubelet},
    app::{leave, restart},
    config::value::{Refusal, Roaming},
    drain::{
        DrainHandle, DrainWatch, Driver, Phase,
        driver::Rules,
        handle::{Connections, Event},
        hooks::Restart,
        report::Report,
        timeline::Timings,
    },
    inflight::Inflight,
    pool::{self, Pool},
    proxy::{Proxy, RequestBody, peers::PeerPools},
    serve::{self, Accept, BoxedIo, Port, Stage},
    sessions::{
        Sessions,
        keys::Keys,
        peers::{Peer, Peers},
    },
    tasks::Group,
    telemetry::Metrics,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{Mutex, Notify, mpsc, watch},
    time::{Instant, timeout},
};

/// Of the clock that jumps: what has not come by then does not come.
const HANG: Duration = Duration::from_hours(1);

/// What a pipe holds.
pub const PIPE: usize = 16 * 1024;

pub fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// What a test may want different.
pub struct Settings {
    pub rules: Rules,
    pub pool: pool::Limits,
    pub header_timeout: Duration,
    pub refuse_with: Refusal,
    /// Longest that a lone hook waits.
    pub restart_wait: Duration,
    pub roaming: Roaming,
    /// What `session_key_file` holds.
    pub keys: &'static str,
    /// Our UID, and the pods that there are.
    pub pod: (&'static str, Pods),
}

impl Default for Settings {
    fn default() -> Self {
        let timings = Timings {
            withdraw_timeout: seconds(15.0),
            settle: Duration::ZERO,
            quiet: Duration::ZERO,
            drain_timeout: None,
            stop_reserve: seconds(2.0),
            grace: None,
        };
        let rules = Rules { timings, has_endpoints: false, response_timeout: Duration::ZERO };
        let pool = pool::Limits {
            max_connections: 100,
            max_streams: 1000,
            acquire_timeout: seconds(5.0),
            idle_timeout: seconds(4.0),
            tries_again: true,
        };
        Self {
            rules,
            pool,
            header_timeout: seconds(10.0),
            refuse_with: Refusal::JsonRpc,
            restart_wait: seconds(30.0),
            roaming: Roaming::Reopen,
            keys: "unsealed",
            pod: ("", Pods::default()),
        }
    }
}

impl Settings {
    fn sessions(&self) -> Sessions {
        let sessions = Sessions::new(self.roaming, self.pod.0);
        sessions.set_keys(Keys::parse(self.keys).unwrap());
        sessions
    }
}

/// A scripted server.
pub trait Serve: Clone + Send + 'static {
    fn answer(&self, request: &str, wire: &mut Wire) -> impl Future<Output = ()> + Send;
}

/// Who comes, and from where.
pub type Visitor = (DuplexStream, SocketAddr);
type Door = mpsc::UnboundedSender<Visitor>;

/// The pods behind a Service, and the ways to them. Clones are the same.
#[derive(Clone)]
pub struct Pods {
    doors: Arc<std::sync::Mutex<HashMap<SocketAddr, Door>>>,
    peers: watch::Sender<Option<Arc<Peers>>>,
}

impl Default for Pods {
    fn default() -> Self {
        Self { doors: Arc::default(), peers: watch::channel(Some(Arc::default())).0 }
    }
}

impl Pods {
    /// The address of a pod is its own.
    pub fn address(uid: &str) -> SocketAddr {
        ([10, 0, 0, uid.as_bytes()[0]], 7070).into()
    }

    /// What the endpoints tell from now on: UID, whether it serves, whether it ends.
    pub fn tell(&self, pods: &[(&str, bool, bool)]) {
        let mut peers = Peers::default();
        for (uid, serving, terminating) in pods {
            let (serving, terminating) = (*serving, *terminating);
            peers.add(uid, Peer { address: Self::address(uid), serving, terminating });
        }
        self.peers.send_replace(Some(Arc::new(peers)));
    }

    /// What stands at the address of a pod from now on.
    pub fn put(&self, uid: &str, door: Door) {
        self.doors.lock().unwrap().insert(Self::address(uid), door);
    }

    /// A connection to a pod, from the address of another one.
    pub fn visit(&self, uid: &str, from: &str) -> Wire {
        let (ours, theirs) = duplex(PIPE);
        let visitor = (theirs, Self::address(from));
        self.doors.lock().unwrap()[&Self::address(uid)].send(visitor).unwrap();
        Wire::new(ours)
    }

    /// Nothing does any more; what did.
    pub fn remove(&self, uid: &str) -> Option<Door> {
        self.doors.lock().unwrap().remove(&Self::address(uid))
    }

    fn pools(&self, ours: &str, limits: pool::Limits, metrics: &Arc<Metrics>) -> PeerPools {
        let from = if ours.is_empty() { CLIENT } else { Self::address(ours) };
        let doors = Arc::clone(&self.doors);
        let dial = move |address| -> pool::Connecting {
            let (ours, theirs) = duplex(PIPE);
            let sent = doors.lock().unwrap().get(&address).map(|door| door.send((theirs, from)));
            Box::pin(async move {
                match sent {
                    Some(Ok(())) => Ok(Box::new(ours) as pool::BoxedIo),
                    _ => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            })
        };
        PeerPools::new(Box::new(dial), limits, self.peers.subscribe(), metrics)
    }
}

/// Both ports, the proxy, the pool and the driver; everything ends with it.
pub struct World {
    pub drain: DrainHandle,
    pub watch: DrainWatch,
    pub sessions: Sessions,
    data: Door,
    admin: Door,
    servers: mpsc::UnboundedReceiver<DuplexStream>,
    /// Whether the server takes connections.
    pub up: Arc<AtomicBool>,
    /// The number of the socket at which the server listens, where the system tells; 0 where not.
    pub listener: Arc<AtomicU64>,
    /// Told when its connections are to break.
    killed: Arc<Notify>,
    connections: Arc<Connections>,
    inflight: Inflight,
    /// Told of a second signal.
    pub again: Arc<Notify>,
    pub has_child: bool,
    /// Of the data port and the admin port. Held: a port whose stage has no sender closes.
    stages: [watch::Sender<Stage>; 2],
    tasks: Group,
}

impl World {
    /// Starts it and waits until it serves.
    pub async fn start(settings: Settings) -> Self {
        let metrics = Arc::new(Metrics::new());
        let sessions = settings.sessions();
        let (pod, pods) = settings.pod;
        let inflight = Inflight::new(Arc::clone(&metrics), sessions.clone());
        let connections = Arc::new(Connections::default());
        let (driver, drain, watch) = Driver::new(
            settings.rules,
            inflight.clone(),
            Arc::clone(&connections),
            Arc::clone(&metrics),
        );
        let (connected, servers) = mpsc::unbounded_channel();
        let up = Arc::new(AtomicBool::new(true));
        let connector = server_behind(Arc::clone(&up), connected);
        let pool: Pool<RequestBody> = Pool::new(connector, settings.pool, &metrics.pool);
        let tended = pool.clone();
        let counts = pool.clone();
        let listener = Arc::new(AtomicU64::new(0));
        let restarts = restart::follow(
            pool.clone(),
            inflight.clone(),
            watch.clone(),
            drain.clone(),
            Some(listening(&listener)),
        );
        let drain_watch = watch.clone();
        let proxy = Arc::new(Proxy {
            pool,
            inflight: inflight.clone(),
            drain: drain_watch,
            sessions: sessions.clone(),
            peers: Arc::new(pods.pools(pod, settings.pool, &metrics)),
            metrics: Arc::clone(&metrics),
            refuse_with: settings.refuse_with,
            body_timeout: settings.header_timeout,
        });
        let (passing, open, left) =
            (Arc::clone(&proxy), Arc::clone(&connections), inflight.clone());
        let passes_on = move || passing.passes_on();
        let admin = Admin {
            drain: drain.clone(),
            watch: watch.clone(),
            inflight,
            pool: Box::new(move || counts.counts()),
            metrics: Arc::clone(&metrics),
            upstream: "in memory".into(),
            kubelet: Kubelet::default(),
            restart_wait: settings.restart_wait,
            drain_token_file: None,
        };
        let (stage, stages) = watch::channel(Stage::Open);
        let (admin_stage, admin_stages) = watch::channel(Stage::Open);
        let limits = limits(settings.header_timeout);
        let data_port = Port::new("data", limits, stages, &metrics, Some(connections), proxy);
        let admin_port = Port::new("admin", limits, admin_stages, &metrics, None, Arc::new(admin));
        let (data, data_clients) = mpsc::unbounded_channel();
        if !pod.is_empty() {
            pods.put(pod, data.clone());
        }
        let (admin, admin_clients) = mpsc::unbounded_channel();
        let mut tasks = Group::default();
        tasks.spawn("driver", driver.run());
        tasks.spawn("pool", tended.tend());
        tasks.spawn("server restart", restarts);
        tasks.spawn("announcer", leave::announce_drain(watch.clone(), stage.clone(), passes_on));
        tasks.spawn("data port", serve::run(Pipes(Mutex::new(data_clients)), data_port));
        tasks.spawn("admin port", serve::run(Pipes(Mutex::new(admin_clients)), admin_port));
        let stages = [stage, admin_stage];
        let world = Self {
            drain,
            watch,
            sessions,
            data,
            admin,
            servers,
            up,
            listener,
            killed: Arc::default(),
            connections: open,
            inflight: left,
            again: Arc::default(),
            has_child: false,
            stages,
            tasks,
        };
        world.drain.tell(Event::UpstreamAnswered).await;
        world.reached(Phase::Serving).await;
        world
    }

    /// A new client connection to the data port.
    pub fn client(&self) -> Wire {
        connect(&self.data)
    }

    /// A new client connection to the admin port.
    pub fn admin(&self) -> Wire {
        connect(&self.admin)
    }

    /// A new client that has sent a request.
    pub async fn asked(&self, request: &str) -> Wire {
        let mut client = self.client();
        client.send(request).await;
        client
    }

    /// The server's end of the next connection that the pool opens.
    pub async fn server(&mut self) -> Wire {
        Wire::new(bounded(self.servers.recv(), "a connection to the server").await.unwrap())
    }

    /// Whether the pool has opened no connection on which a request comes.
    pub async fn no_server(&mut self) -> bool {
        self.settled().await;
        while let Ok(pipe) = self.servers.try_recv() {
            if Wire::new(pipe).more().await {
                return false;
            }
        }
        true
    }

    /// The server's end of the next connection on which a request comes, and the request; those
    /// that only ask whether it is there are passed over.
    pub async fn asked_server(&mut self) -> (Wire, String) {
        loop {
            let mut server = self.server().await;
            if server.more().await {
                let request = server.message().await;
                return (server, request);
            }
        }
    }

    /// A request that waits for the server's answer: the client's end and the server's. Dropping
    /// either is an end of its own.
    pub async fn held(&mut self, request: &str) -> (Wire, Wire) {
        let client = self.asked(request).await;
        (client, self.asked_server().await.0)
    }

    /// From now on a server answers what comes to it.
    pub fn serve(&mut self, server: impl Serve) {
        let mut servers = std::mem::replace(&mut self.servers, mpsc::unbounded_channel().1);
        let killed = Arc::clone(&self.killed);
        self.tasks.spawn("server", async move {
            let mut group = Group::default();
            loop {
                let pipe = tokio::select! {
                    pipe = servers.recv() => pipe,
                    () = killed.notified() => {
                        group = Group::default();
                        continue;
                    }
                    Some(ended) = group.ended() => {
                        assert_eq!(ended.panic, None);
                        continue;
                    }
                };
                let Some(pipe) = pipe else { return };
                let server = server.clone();
                group.spawn("server's connection", async move {
                    let mut wire = Wire::new(pipe);
                    while wire.more().await {
                        let request = wire.message().await;
                        server.answer(&request, &mut wire).await;
                    }
                });
            }
        });
    }

    /// The server that answers dies: its connections break, and nobody listens.
    pub async fn kill_server(&self) {
        self.up.store(false, Relaxed);
        self.killed.notify_one();
        self.settled().await;
    }

    /// Waits for the phase; when it was reached.
    pub async fn reached(&self, phase: Phase) -> Instant {
        let mut watch = self.watch.clone();
        bounded(watch.reached(phase), phase.name()).await;
        Instant::now()
    }

    /// The admin port's answer.
    pub async fn ask_admin(&self, path: &str) -> String {
        self.begin_hook(path).await.message().await
    }

    /// A request to the admin port that may wait.
    pub async fn begin_hook(&self, path: &str) -> Wire {
        let mut admin = self.admin();
        admin.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        admin
    }

    /// Waits until everybody has taken in what he was told: a clock that jumps does so only when
    /// nobody has anything left to do.
    pub async fn settled(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Waits until a restart of the server got that far.
    pub async fn until_restart(&self, state: Restart) {
        let mut watch = self.watch.clone();
        bounded(watch.until(|now| now.restart == state), "the restart").await;
    }

    /// Leaves the data port as a pod does that has drained.
    pub async fn leave(mut self) {
        self.drain.tell(Event::Signal).await;
        self.until_ended("driver").await;
        let (connections, inflight) = (Arc::clone(&self.connections), self.inflight.clone());
        let (drained, again) = (self.watch.clone(), Arc::clone(&self.again));
        let leaving =
            leave::Leaving { connections, drained, inflight, again, has_child: self.has_child };
        leaving.leave(&mut self.tasks, &self.stages[0], || true, false).await;
        self.until_ended("data port").await;
    }

    async fn until_ended(&mut self, name: &str) {
        loop {
            let ended = bounded(self.tasks.ended(), name).await.unwrap();
            assert_eq!(ended.panic, None);
            match ended.name {
                found if found == name => break,
                // They have nothing left to tell.
                other => assert!(["announcer", "server"].contains(&other), "{other}"),
            }
        }
    }

    /// Waits for the end of the drain, and ends the driver.
    pub async fn report(mut self) -> Report {
        let snapshot = bounded(self.watch.reached(Phase::Drained), "the end of the drain").await;
        self.drain.tell(Event::Signal).await;
        self.until_ended("driver").await;
        Report::clone(&snapshot.report.unwrap())
    }
}

fn limits(header_timeout: Duration) -> serve::Limits {
    serve::Limits {
        max_inbound: 10_000,
        max_header_bytes: 32 * 1024,
        max_headers: 100,
        header_timeout,
        max_per_address: 10_000,
        keep_alive: true,
    }
}

/// The sockets that listen, as the system would tell them.
fn listening(listener: &Arc<AtomicU64>) -> impl Fn() -> Vec<u64> + Send + use<> {
    let listener = Arc::clone(listener);
    move || Vec::from_iter(Some(listener.load(Relaxed)).filter(|socket| *socket > 0))
}

/// Connects to the server, as long as it takes connections.
fn server_behind(
    up: Arc<AtomicBool>,
    connected: mpsc::UnboundedSender<DuplexStream>,
) -> pool::Connector {
    Box::new(move || {
        let (ours, theirs) = duplex(PIPE);
        let up = up.load(Relaxed);
        let connected = if up { connected.send(theirs) } else { Ok(()) };
        Box::pin(async move {
            if !up {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            connected.map_err(io::Error::other)?;
            Ok(Box::new(ours) as pool::BoxedIo)
        })
    })
}

/// Where all clients are that are no other pods.
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn connect(port: &Door) -> Wire {
    let (ours, theirs) = duplex(PIPE);
    port.send((theirs, CLIENT)).unwrap();
    Wire::new(ours)
}

/// Waits, and fails where it would wait for ever.
pub async fn bounded<T>(future: impl Future<Output = T>, what: &str) -> T {
    timeout(HANG, future).await.unwrap_or_else(|_| panic!("{what} never came"))
}

/// Clients that come through a channel.
struct Pipes(Mutex<mpsc::UnboundedReceiver<Visitor>>);

impl Accept for Pipes {
    async fn accept(&self) -> io::Result<(BoxedIo, SocketAddr)> {
        match self.0.lock().await.recv().await {
            Some((pipe, from)) => Ok((Box::new(pipe), from)),
            None => std::future::pending().await,
        }
    }
}

/// One end of a connection that speaks raw HTTP/1.1.
pub struct Wire {
    pub pipe: DuplexStream,
    /// Read, and not asked for yet.
    pub read: Vec<u8>,
}

impl Wire {
    fn new(pipe: DuplexStream) -> Self {
        Self { pipe, read: Vec::new() }
    }

    pub async fn send(&mut self, text: &str) {
        bounded(self.pipe.write_all(text.as_bytes()), "room for what is sent").await.unwrap();
    }

    /// Sends one chunk of a chunked body.
    pub async fn chunk(&mut self, text: &str) {
        self.send(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    /// What comes up to and with `end`.
    /// Sends events until nobody takes them any more, in the middle of one: more than the buffers
    /// between server and client hold.
    pub async fn fill_with_events(&mut self) {
        let event = format!("data: {}\n\n", "x".repeat(1000));
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while let Ok(written) = timeout(seconds(1.0), self.pipe.write_all(chunk.as_bytes())).await {
            written.unwrap();
        }
    }

    pub async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.read.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + end.len());
                return text(&std::mem::replace(&mut self.read, rest));
            }
            assert!(self.more().await, "{end:?} never came: {:?}", text(&self.read));
        }
    }

    /// What comes until the other end closes.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        text(&std::mem::take(&mut self.read))
    }

    /// One whole request, or one answer with a length.
    pub async fn message(&mut self) -> String {
        let mut message = self.until("\r\n\r\n").await;
        let head = message.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more().await, "the body of {message:?} is not whole");
        }
        let rest = self.read.split_off(length);
        message.push_str(&text(&std::mem::replace(&mut self.read, rest)));
        message
    }

    pub async fn more(&mut self) -> bool {
        let read = bounded(self.pipe.read_buf(&mut self.read), "more bytes, or their end").await;
        read.unwrap() > 0
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A JSON-RPC call as a whole HTTP request.
pub fn call(id: &str, more: &str) -> String {
    let body =
        format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"t"}},"id":{id}}}"#);
    post(&body, more)
}

pub fn post(body: &str, more: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{more}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub fn get(more: &str) -> String {
    format!("GET /mcp HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{more}\r\n")
}

pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// The server's answer to a call.
pub const ANSWER: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// The head of the server's stream of events.
pub const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
