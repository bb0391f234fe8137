//! The server behind every contender: answers of a fixed size, an event stream without an end, and
//! calls that wait until they are let go.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch};

use crate::load;

/// What the measurements see and steer.
pub struct Upstream {
    pub port: u16,
    /// Slow calls that have arrived, since the start.
    pub arrived: Arc<AtomicUsize>,
    /// Sessions that it has opened.
    pub opened: Arc<AtomicUsize>,
    /// Slow calls up to this number are answered.
    pub answered: watch::Sender<usize>,
}

/// Bytes of the small and the large answer.
pub const SMALL: usize = 304;
pub const LARGE: usize = 4096;

const OPENED: &[u8] = br#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"bench","version":"1.0.0"}}}"#;

type Answer = Response<Either<Full<Bytes>, Endless>>;

/// One event, and then nothing for ever.
struct Endless(Option<Bytes>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // Nobody wakes it again: it ends with its connection.
        self.0.take().map_or(Poll::Pending, |event| Poll::Ready(Some(Ok(Frame::data(event)))))
    }
}

impl Upstream {
    /// Starts it on a port of the system's choice; it runs as long as the runtime.
    #[allow(clippy::disallowed_methods, reason = "it ends with the process, like its connections")]
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (sender, answered) = watch::channel(0);
        let arrived = Arc::new(AtomicUsize::new(0));
        let opened = Arc::new(AtomicUsize::new(0));
        let (count, sessions) = (Arc::clone(&arrived), Arc::clone(&opened));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream.set_nodelay(true));
                let (count, answered) = (Arc::clone(&count), answered.clone());
                let sessions = Arc::clone(&sessions);
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&count), Arc::clone(&sessions), answered.clone())
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Ok(Self { port, arrived, opened, answered: sender })
    }
}

async fn answer(
    request: Request<Incoming>,
    arrived: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    mut answered: watch::Receiver<usize>,
) -> Result<Answer, hyper::Error> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/events" {
        let body = Endless(Some(Bytes::from_static(b"data: {}\n\n")));
        let response = Response::builder()
            .header("content-type", "text/event-stream")
            .body(Either::Right(body));
        return Ok(response.expect("a valid head"));
    }
    body.collect().await?;
    if head.uri.path() == load::SESSIONS {
        let number = opened.fetch_add(1, Relaxed) + 1;
        let response = Response::builder()
            .header("content-type", "application/json")
            .header("mcp-session-id", format!("{number:08x}-5d0c-4a51-9d5c-9a2f8d1a7c11"))
            .body(Either::Left(Full::new(Bytes::from_static(OPENED))));
        return Ok(response.expect("a valid head"));
    }
    let size = if head.uri.path() == "/large" { LARGE } else { SMALL };
    if head.uri.path() == "/slow" {
        let number = arrived.fetch_add(1, Relaxed) + 1;
        drop(answered.wait_for(|answered| *answered >= number).await);
    }
    let response = Response::builder()
        .header("content-type", "application/json")
        .body(Either::Left(Full::new(json(size))));
    Ok(response.expect("a valid head"))
}

/// A JSON-RPC result of that many bytes.
fn json(size: usize) -> Bytes {
    let (before, after) =
        (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":""#, r#""}]}}"#);
    Bytes::from(format!("{before}{}{after}", "x".repeat(size - before.len() - after.len())))
}
