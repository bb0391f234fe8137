//! Who is compared, how each is started as its manual says for such a job, and how it is stopped.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::load;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Ebbtide,
    Nginx,
    HaProxy,
    NaiveOneThread,
    Naive,
}

pub const ALL: [Contender; 5] = [
    Contender::Ebbtide,
    Contender::Nginx,
    Contender::HaProxy,
    Contender::NaiveOneThread,
    Contender::Naive,
];

/// Where things are, once for the whole run.
pub struct Place {
    pub ebbtide: PathBuf,
    /// A folder for what the contenders write.
    pub scratch: PathBuf,
    /// The upstream's port.
    pub upstream: u16,
    /// Event streams that will be open at most.
    pub streams: usize,
}

/// A contender that runs; killed when dropped.
pub struct Running {
    pub contender: Contender,
    pub port: u16,
    child: Child,
    /// The process and its children, also when the process itself has ended.
    group: Pid,
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error says that nobody is left.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Contender::Ebbtide => "ebbtide",
            Contender::Nginx => "nginx",
            Contender::HaProxy => "HAProxy",
            Contender::NaiveOneThread => "naive, one thread",
            Contender::Naive => "naive",
        }
    }

    /// The program that has to be installed.
    pub fn program(self, place: &Place) -> PathBuf {
        match self {
            Contender::Ebbtide => place.ebbtide.clone(),
            Contender::Nginx => find("nginx"),
            Contender::HaProxy => find("haproxy"),
            Contender::NaiveOneThread | Contender::Naive => {
                std::env::current_exe().unwrap_or_default()
            }
        }
    }

    /// The signals that ask it to stop: what the kubelet sends, and its own gentle one.
    pub fn stops(self) -> &'static [Signal] {
        match self {
            Contender::Nginx => &[Signal::SIGTERM, Signal::SIGQUIT],
            Contender::HaProxy => &[Signal::SIGTERM, Signal::SIGUSR1],
            _ => &[Signal::SIGTERM],
        }
    }

    /// The signal after which it ends by itself, so that an instrument can write its account.
    pub fn gentle(self) -> Signal {
        match self {
            Contender::Nginx => Signal::SIGQUIT,
            Contender::HaProxy => Signal::SIGUSR1,
            Contender::Ebbtide => Signal::SIGTERM,
            // Ends at once, which valgrind notices and writes down.
            Contender::NaiveOneThread | Contender::Naive => Signal::SIGTERM,
        }
    }

    /// The command and its port. `alone`: all in one process, for an instrument that follows one.
    pub fn command(self, place: &Place, alone: bool) -> anyhow::Result<(Vec<String>, u16)> {
        let port = free_port()?;
        let upstream = SocketAddr::from(([127, 0, 0, 1], place.upstream));
        let program = self.program(place).display().to_string();
        let words = |words: &[&str]| {
            let rest = words.iter().map(|&word| word.to_owned());
            std::iter::once(program.clone()).chain(rest).collect::<Vec<_>>()
        };
        let file = |name: &str, text: String| -> anyhow::Result<String> {
            let path = place.scratch.join(format!("{name}-{port}"));
            fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let command = match self {
            Contender::Ebbtide => {
                let (url, listen) = (format!("http://{upstream}"), format!("127.0.0.1:{port}"));
                let streams = place.streams.to_string();
                let clients = most_clients(place.streams).to_string();
                // Room for the streams, and no time for clients that would come again: here none
                // does.
                words(&[
                    "run",
                    "--upstream",
                    &url,
                    "--listen",
                    &listen,
                    "--admin",
                    "127.0.0.1:0",
                    "--withdraw-timeout",
                    "0s",
                    "--quiet",
                    "0s",
                    "--max-streams",
                    &streams,
                    "--max-inbound",
                    &clients,
                ])
            }
            Contender::Nginx => {
                words(&["-c", &file("nginx", nginx(place, upstream, port, alone))?])
            }
            Contender::HaProxy => {
                words(&["-db", "-f", &file("haproxy", haproxy(place.streams, upstream, port))?])
            }
            Contender::NaiveOneThread | Contender::Naive => {
                let threads = if self == Contender::Naive { "many" } else { "one" };
                words(&["naive", threads, &format!("127.0.0.1:{port}"), &upstream.to_string()])
            }
        };
        Ok((command, port))
    }

    /// Starts it, below an instrument if there is one, and waits until it answers.
    pub async fn start(self, place: &Place, instrument: &[String]) -> anyhow::Result<Running> {
        let (command, port) = self.command(place, !instrument.is_empty())?;
        let whole: Vec<&String> = instrument.iter().chain(&command).collect();
        let child = Command::new(whole[0])
            .args(&whole[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Where the bench itself runs in a pod, ebbtide would wait for endpoints to be left.
            .env_remove("KUBERNETES_SERVICE_HOST")
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", whole[0]))?;
        let group = Pid::from_raw(child.id().context("it has just started")?.try_into()?);
        let running = Running { contender: self, port, child, group };
        running.until_it_answers().await?;
        Ok(running)
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.group.as_raw().unsigned_abs()
    }

    async fn until_it_answers(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while let Err(error) = load::calls(self.port, 1, "/", 300).await {
            let name = self.contender.name();
            anyhow::ensure!(began.elapsed() < HANG, "{name} never answered: {error}");
            sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(self.group, signal)?)
    }

    /// Whether it ended within that time.
    pub async fn ends(&mut self, patience: Duration) -> bool {
        timeout(patience, self.child.wait()).await.is_ok()
    }

    /// Asks it to end, and waits.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(self.contender.gentle())?;
        anyhow::ensure!(self.ends(HANG).await, "{} does not stop", self.contender.name());
        Ok(())
    }
}

/// Only a contender that hangs takes so long.
const HANG: Duration = Duration::from_mins(1);

/// Where a program is, also where Debian puts those of the administrator.
pub fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| Path::new(program).to_owned())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Client connections that are open at most: the streams, and calls beside them.
fn most_clients(streams: usize) -> usize {
    streams + 2 * load::CONNECTIONS
}

fn nginx(place: &Place, upstream: SocketAddr, port: u16, alone: bool) -> String {
    let scratch = place.scratch.display();
    // It counts both sides.
    let connections = 2 * most_clients(place.streams);
    let master = if alone { "off" } else { "on" };
    format!(
        "daemon off; master_process {master}; worker_processes 1; worker_rlimit_nofile 65536;
pid {scratch}/nginx-{port}.pid; error_log /dev/null;
events {{ worker_connections {connections}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {scratch}; proxy_temp_path {scratch}; fastcgi_temp_path {scratch};
  uwsgi_temp_path {scratch}; scgi_temp_path {scratch};
  upstream server {{ server {upstream}; keepalive 100; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"
    )
}

fn haproxy(streams: usize, upstream: SocketAddr, port: u16) -> String {
    let most = most_clients(streams);
    format!(
        "global
  maxconn {most}
  nbthread 1
defaults
  mode http
  option http-no-delay
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server server {upstream}
"
    )
}
