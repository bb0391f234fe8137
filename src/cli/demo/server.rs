//! A small MCP server with slow tools: sessions in memory, and a sudden death on SIGTERM, as the
//! reference servers die. Never drains anything.

use std::{
    collections::HashSet,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Sleep, sleep},
};

use crate::tasks::Group;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct Sessions {
    open: Mutex<HashSet<String>>,
    next: AtomicU64,
}

/// Serves until killed.
pub async fn run(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let sessions = Arc::new(Sessions::default());
    let mut group = Group::default();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            Some(_) = group.ended() => continue,
        };
        stream.set_nodelay(true)?;
        let sessions = Arc::clone(&sessions);
        group.spawn("connection", async move {
            let service = service_fn(move |request| {
                let sessions = Arc::clone(&sessions);
                async move { Ok::<_, Infallible>(answer(&sessions, request).await) }
            });
            // A client that breaks off is no concern of this server.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(sessions: &Sessions, request: Request<Incoming>) -> Answer {
    let session = request.headers().get("mcp-session-id").and_then(|id| id.to_str().ok());
    let session = session.map(str::to_owned);
    let verb = request.method().clone();
    let Ok(body) = request.into_body().collect().await else {
        return whole(StatusCode::BAD_REQUEST, &Value::Null);
    };
    let message: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let method = message["method"].as_str().unwrap_or_default();
    let id = &message["id"];
    if method == "initialize" {
        return sessions.open(id);
    }
    if session.as_ref().is_some_and(|id| !sessions.knows(id)) {
        let error = json!({ "code": -32001, "message": "Session not found" });
        return whole(
            StatusCode::NOT_FOUND,
            &json!({ "jsonrpc": "2.0", "id": id, "error": error }),
        );
    }
    match (verb, session) {
        (Method::GET, Some(_)) => return silence(),
        (Method::GET, None) => return whole(StatusCode::METHOD_NOT_ALLOWED, &Value::Null),
        (Method::DELETE, Some(session)) => {
            sessions.close(&session);
            return whole(StatusCode::OK, &Value::Null);
        }
        _ => {}
    }
    if id.is_null() {
        return whole(StatusCode::ACCEPTED, &Value::Null);
    }
    let milliseconds = message["params"]["arguments"]["milliseconds"].as_u64().unwrap_or(100);
    if message["params"]["name"] == "report" {
        return stream(id, milliseconds);
    }
    sleep(Duration::from_millis(milliseconds)).await;
    whole(StatusCode::OK, &result(id))
}

impl Sessions {
    fn knows(&self, id: &str) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    fn close(&self, id: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn open(&self, id: &Value) -> Answer {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let session = format!("{}-{number}", std::process::id());
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(session.clone());
        let info = json!({ "name": "demo", "version": "1" });
        let result = json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} }, "serverInfo": info });
        let mut answer =
            whole(StatusCode::OK, &json!({ "jsonrpc": "2.0", "id": id, "result": result }));
        if let Ok(session) = session.parse() {
            answer.headers_mut().insert("mcp-session-id", session);
        }
        answer
    }
}

fn result(id: &Value) -> Value {
    let content = json!([{ "type": "text", "text": format!("done {id}") }]);
    json!({ "jsonrpc": "2.0", "id": id, "result": { "content": content } })
}

fn whole(status: StatusCode, value: &Value) -> Answer {
    let text = if value.is_null() { String::new() } else { value.to_string() };
    let mut answer = Response::new(Full::from(text).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    answer
}

/// Progress in four steps, then the result, as a stream of events.
fn stream(id: &Value, milliseconds: u64) -> Answer {
    let progress = |step: u64| {
        let params = json!({ "progressToken": id, "progress": step, "total": 4 });
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
    };
    let mut events: Vec<Value> = (1..=4).map(progress).collect();
    events.push(result(id));
    let pause = Duration::from_millis(milliseconds / 5);
    of_events(
        Events { left: events.into_iter(), pause, wait: Box::pin(sleep(pause)) }.boxed_unsync(),
    )
}

/// The stand-alone stream: no event ever, and no end.
fn silence() -> Answer {
    of_events(Silence.boxed_unsync())
}

fn of_events(body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    answer
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("text/event-stream"));
    answer
}

/// A body of which nothing ever comes.
struct Silence;

impl Body for Silence {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

struct Events {
    left: std::vec::IntoIter<Value>,
    pause: Duration,
    wait: Pin<Box<Sleep>>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.wait.as_mut().poll(context));
        self.wait = Box::pin(sleep(self.pause));
        Poll::Ready(self.left.next().map(|event| {
            Ok(Frame::data(Bytes::from(format!("event: message\ndata: {event}\n\n"))))
        }))
    }
}
