//! Pods as the kubelet runs and ends them: a server process and, in the protected run, a sidecar;
//! the endpoints follow late; preStop hooks of both containers at once, SIGTERM to the server,
//! then to the sidecar, SIGKILL when the grace is over.

use std::{
    net::TcpListener,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{
    balancer::Balancer,
    picture::{Bar, Pod},
};
use crate::{cli::client::ask, tasks::Group};

/// How far the endpoints lag behind the deletion of a pod.
const LAG: Duration = Duration::from_millis(900);
/// The pods' grace period.
const GRACE: Duration = Duration::from_secs(10);
/// Only a pod that does not work takes so long to start.
const START: Duration = Duration::from_secs(20);

pub struct Kubelet {
    protected: bool,
    balancer: Arc<Balancer>,
    began: Instant,
    running: Vec<RunningPod>,
    done: Vec<RunningPod>,
    lagging: Group,
}

struct RunningPod {
    shown: Arc<Mutex<Pod>>,
    server: Child,
    sidecar: Option<Child>,
    /// Where the balancer connects to.
    port: u16,
    admin: u16,
    _watch: Group,
}

impl Kubelet {
    pub fn new(protected: bool, balancer: Arc<Balancer>, began: Instant) -> Self {
        let lagging = Group::default();
        Self { protected, balancer, began, running: Vec::new(), done: Vec::new(), lagging }
    }

    /// Starts a pod and offers it once it is ready.
    pub async fn start_pod(&mut self, name: &str) -> Result<()> {
        let pod = self.launch(name).await?;
        self.balancer.add(pod.port);
        self.running.push(pod);
        Ok(())
    }

    /// Rolls one pod: a new one first, then the old one ends.
    pub async fn replace(&mut self, index: usize, name: &str) -> Result<()> {
        let new = self.launch(name).await?;
        self.balancer.add(new.port);
        let old = std::mem::replace(&mut self.running[index], new);
        let (balancer, port) = (Arc::clone(&self.balancer), old.port);
        self.lagging.spawn("endpoints", async move {
            sleep(LAG).await;
            balancer.remove(port);
        });
        let ended = self.end(old).await?;
        self.done.push(ended);
        // The endpoints of a pod that is gone are gone, too, before the next is rolled.
        while self.lagging.ended().await.is_some() {}
        Ok(())
    }

    /// Kills what still runs; every pod that there was.
    pub async fn finish(mut self) -> Vec<Pod> {
        for pod in &mut self.running {
            let _ = pod.server.kill().await;
            if let Some(sidecar) = &mut pod.sidecar {
                let _ = sidecar.kill().await;
            }
        }
        let mut pods = self.done;
        pods.append(&mut self.running);
        let seen =
            |pod: &RunningPod| pod.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut pods: Vec<Pod> = pods.iter().map(seen).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        pods
    }

    async fn launch(&self, name: &str) -> Result<RunningPod> {
        let [server_port, data, admin] = free_ports()?;
        let shown = Arc::new(Mutex::new(Pod { name: name.into(), bars: Vec::new() }));
        note(&shown, self.began, "Starting");
        let server = spawn(&["demo-server", "--port", &server_port.to_string()])?;
        let mut watch = Group::default();
        let (port, sidecar) = if self.protected {
            let sidecar = spawn(&[
                "run",
                "--upstream",
                &format!("http://127.0.0.1:{server_port}"),
                "--listen",
                &format!("127.0.0.1:{data}"),
                "--admin",
                &format!("127.0.0.1:{admin}"),
                "--settle",
                "1200ms",
                "--grace",
                "10s",
            ])?;
            (data, Some(sidecar))
        } else {
            (server_port, None)
        };
        until_ready(self.protected, port, admin)
            .await
            .with_context(|| format!("pod {name} did not become ready"))?;
        note(&shown, self.began, "Serving");
        if self.protected {
            watch.spawn("phase", follow(Arc::clone(&shown), self.began, admin));
        }
        Ok(RunningPod { shown, server, sidecar, port, admin, _watch: watch })
    }

    async fn end(&self, mut pod: RunningPod) -> Result<RunningPod> {
        let deadline = Instant::now() + GRACE;
        if pod.sidecar.is_some() {
            let address = ([127, 0, 0, 1], pod.admin).into();
            let get = http::Method::GET;
            let hooks = async {
                tokio::join!(
                    ask(address, get.clone(), "/prestop"),
                    ask(address, get.clone(), "/prestop/self")
                )
            };
            // The kubelet waits for hooks as long as the grace lasts, and whatever they answer.
            let _ = tokio::time::timeout_at(deadline, hooks).await;
        }
        stop(&mut pod.server, deadline).await?;
        if let Some(sidecar) = &mut pod.sidecar {
            stop(sidecar, deadline).await?;
        }
        note(&pod.shown, self.began, "");
        Ok(pod)
    }
}

async fn stop(child: &mut Child, deadline: Instant) -> Result<()> {
    if let Some(pid) = child.id() {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
    }
    if tokio::time::timeout_at(deadline, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

fn spawn(arguments: &[&str]) -> Result<Child> {
    let program = std::env::current_exe().context("where this program is")?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("starting a process of the demo")
}

/// Ports that were free a moment ago, all different.
fn free_ports() -> Result<[u16; 3]> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = [bind()?, bind()?, bind()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

async fn until_ready(protected: bool, port: u16, admin: u16) -> Result<()> {
    let ready = async {
        loop {
            let is_ready = if protected {
                ask(([127, 0, 0, 1], admin).into(), http::Method::GET, "/readyz").await.is_ok()
            } else {
                TcpStream::connect(("127.0.0.1", port)).await.is_ok()
            };
            if is_ready {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(START, ready).await.is_err() {
        bail!("it did not answer within {START:?}; is another program in the way?");
    }
    Ok(())
}

/// Notes each phase that the sidecar tells, until it is gone.
async fn follow(shown: Arc<Mutex<Pod>>, began: Instant, admin: u16) {
    while let Ok(body) = ask(([127, 0, 0, 1], admin).into(), http::Method::GET, "/status").await {
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        if let Some(phase) = status["phase"].as_str() {
            note(&shown, began, phase);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The pod is in that phase from now on; the empty phase is its end.
fn note(shown: &Mutex<Pod>, began: Instant, phase: &str) {
    let mut pod = shown.lock().unwrap_or_else(PoisonError::into_inner);
    let last = pod.bars.last().map(|bar| bar.phase.as_str());
    if last != Some(phase) && last != Some("") {
        pod.bars.push(Bar { from: began.elapsed().as_secs_f64(), phase: phase.into() });
    }
}
