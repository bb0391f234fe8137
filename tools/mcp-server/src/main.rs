//! A real MCP server of both eras at `/mcp`, as one static binary for the pods of the cluster
//! tests. `GET /healthz` is its liveness probe. What a test does to it stands beside that:
//! `/break-health`, `/crash`, `/hoard`, which takes more memory than its container may have, and
//! `/kill/NAME`, SIGKILL for a process of the same pod.
//!
//! Never drains: on SIGTERM it dies at once, with every call in it, as real servers do.

mod neighbours;
mod tools;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Arg, Command, value_parser};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use tools::Tools;

type Mcp = StreamableHttpService<Tools, LocalSessionManager>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = arguments();
    // As PID 1 a process without a handler would ignore SIGTERM altogether.
    let mut stop = signal(SignalKind::terminate())?;
    let healthy = Arc::new(AtomicBool::new(true));
    // Clients reach a pod by addresses that nobody can list beforehand.
    let config = StreamableHttpServerConfig::default().disable_allowed_hosts();
    let mcp = Mcp::new(|| Ok(Tools), Arc::default(), config);

    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on {}", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.recv() => std::process::exit(0),
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, mcp.clone(), Arc::clone(&healthy)));
            },
            Some(_) = connections.join_next() => (),
        }
    }
}

fn arguments() -> SocketAddr {
    let matches = Command::new("mcp-server")
        .about("An MCP server for tests; dies at once on SIGTERM")
        .arg(
            Arg::new("host")
                .long("host")
                .default_value("0.0.0.0")
                .value_parser(value_parser!(IpAddr)),
        )
        .arg(Arg::new("port").long("port").default_value("3000").value_parser(value_parser!(u16)))
        .get_matches();
    let host = matches.get_one::<IpAddr>("host").copied();
    let port = matches.get_one::<u16>("port").copied();
    SocketAddr::new(host.unwrap_or([0, 0, 0, 0].into()), port.unwrap_or_default())
}

async fn connection(stream: TcpStream, mcp: Mcp, healthy: Arc<AtomicBool>) {
    let service = service_fn(|request| answer(request, &mcp, &healthy));
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = ended {
        eprintln!("a connection ended: {error}");
    }
}

async fn answer(
    request: Request<Incoming>,
    mcp: &Mcp,
    healthy: &AtomicBool,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    Ok(match request.uri().path() {
        "/mcp" => mcp.handle(request).await,
        "/healthz" if healthy.load(Ordering::Relaxed) => text(StatusCode::OK, "healthy\n"),
        "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "broken by /break-health\n"),
        "/break-health" => {
            healthy.store(false, Ordering::Relaxed);
            text(StatusCode::OK, "the liveness probe fails from now on\n")
        }
        "/crash" => std::process::exit(1),
        "/hoard" => {
            // Written to, since what is only asked for takes no memory.
            let taken: Vec<_> = (0..256).map(|_| vec![1_u8; 1 << 20]).collect();
            drop(std::hint::black_box(taken));
            text(StatusCode::OK, "256 MiB were to be had\n")
        }
        path => match path.strip_prefix("/kill/").map(neighbours::kill) {
            Some(killed) if killed > 0 => text(StatusCode::OK, "killed\n"),
            Some(_) => text(
                StatusCode::NOT_FOUND,
                "no such process; the pod has to share its process namespace\n",
            ),
            None => text(StatusCode::NOT_FOUND, "nothing here; there are /mcp and /healthz\n"),
        },
    })
}

fn text(status: StatusCode, text: &'static str) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = status;
    response
}
