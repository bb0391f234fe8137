//! The load: MCP clients of both eras that call without pause, and what became of each call.
//!
//! Never repairs a lost call, and never forgives one: an answer is its own result, or it is lost.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::tasks::Group;

/// How long a client waits for an answer. Real ones wait for a minute.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Ok,
    /// An error, or a connection that broke.
    Failed,
    /// A stream that ended without the answer: real clients wait on, up to a minute.
    Hung,
}

#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Seconds since the run began.
    pub ended: f64,
    pub took: f64,
    pub end: End,
}

/// What became of every call of one run.
pub struct Tally {
    began: Instant,
    calls: Mutex<Vec<Call>>,
    sessions_lost: AtomicU64,
    under_way: AtomicUsize,
    stopped: AtomicBool,
}

impl Tally {
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            calls: Mutex::default(),
            sessions_lost: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn sessions_lost(&self) -> u64 {
        self.sessions_lost.load(Relaxed)
    }

    /// No further call begins.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Waits until no call is under way.
    pub async fn idle(&self) {
        while self.under_way.load(Relaxed) > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn ended(&self, began: Instant, end: End) {
        let call = Call {
            ended: self.began.elapsed().as_secs_f64(),
            took: began.elapsed().as_secs_f64(),
            end,
        };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

/// Six clients without a session, and four with one.
pub fn start(group: &mut Group, port: u16, tally: &Arc<Tally>) {
    for number in 0..10 {
        let client = Client {
            port,
            tally: Arc::clone(tally),
            connection: None,
            legacy: number >= 6,
            session: None,
            number,
            next: 0,
        };
        group.spawn("client", client.run());
    }
}

struct Client {
    port: u16,
    tally: Arc<Tally>,
    connection: Option<(SendRequest<Full<Bytes>>, Group)>,
    legacy: bool,
    session: Option<String>,
    number: u64,
    next: u64,
}

/// What came back: the status, the session's id, and the body.
type Reply = (u16, Option<String>, Bytes);

impl Client {
    async fn run(mut self) {
        while !self.tally.stopped.load(Relaxed) {
            self.tally.under_way.fetch_add(1, Relaxed);
            self.turn().await;
            self.tally.under_way.fetch_sub(1, Relaxed);
            sleep(Duration::from_millis(15 + self.number * 3)).await;
        }
    }

    async fn turn(&mut self) {
        if self.legacy && self.session.is_none() && !self.initialize().await {
            sleep(Duration::from_millis(100)).await;
            return;
        }
        self.next += 1;
        let slow = (self.next + self.number).is_multiple_of(4);
        let (tool, milliseconds) =
            if slow { ("report", 1500) } else { ("search", 120 + self.number * 20) };
        let id = format!("{}-{}", self.number, self.next);
        let arguments = json!({ "milliseconds": milliseconds });
        let params = json!({ "name": tool, "arguments": arguments });
        let began = Instant::now();
        let reply = self.post("tools/call", &id, &params).await;
        let end = match &reply {
            Some((404, ..)) if self.session.is_some() => {
                // The pod that knew it is gone. Nothing ran: the session is lost, not the call.
                self.session = None;
                self.connection = None;
                self.tally.sessions_lost.fetch_add(1, Relaxed);
                return;
            }
            Some((200, _, body)) => match answers(body, &id) {
                Some(true) => End::Ok,
                Some(false) => End::Failed,
                None => End::Hung,
            },
            Some(_) => End::Failed,
            None if began.elapsed() >= PATIENCE => End::Hung,
            // A stream that broke leaves most clients waiting for its answer.
            None if slow && began.elapsed() > Duration::from_millis(350) => End::Hung,
            None => End::Failed,
        };
        self.tally.ended(began, end);
        // A new connection now and then, as real clients have: it is balanced anew.
        if !self.legacy && self.next.is_multiple_of(5) {
            self.connection = None;
        }
    }

    async fn initialize(&mut self) -> bool {
        let info = json!({ "name": "demo", "version": "1" });
        let params =
            json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info });
        match self.post("initialize", "0", &params).await {
            Some((200, session, _)) => {
                self.session = session;
                self.session.is_some()
            }
            _ => false,
        }
    }

    async fn post(&mut self, method: &str, id: &str, params: &Value) -> Option<Reply> {
        let reply = timeout(PATIENCE, self.send(method, id, params)).await.ok().flatten();
        if reply.is_none() {
            self.connection = None;
        }
        reply
    }

    async fn send(&mut self, method: &str, id: &str, params: &Value) -> Option<Reply> {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut request = Request::post("/mcp")
            .header("host", "demo")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        if !self.legacy {
            request = request
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", method)
                .header("mcp-name", params["name"].as_str().unwrap_or_default());
        }
        let request = request.body(Full::from(body.to_string())).ok()?;
        // An idle connection that was closed meanwhile is replaced, as every HTTP client does.
        let open = match &mut self.connection {
            Some((sender, _)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !open {
            self.connection = Some(connect(self.port).await?);
        }
        let (sender, _) = self.connection.as_mut()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let close = response.headers().get("connection").is_some_and(|value| value == "close");
        let session = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok());
        let session = session.map(str::to_owned);
        let body = response.into_body().collect().await.ok()?.to_bytes();
        if close {
            self.connection = None;
        }
        Some((status, session, body))
    }
}

async fn connect(port: u16) -> Option<(SendRequest<Full<Bytes>>, Group)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    let mut group = Group::default();
    group.spawn("client connection", async move {
        // Its end reaches the client with its next request.
        let _ = connection.await;
    });
    Some((sender, group))
}

/// Whether the body, JSON or events, holds the result of that id; `None` without any answer to it.
fn answers(body: &[u8], id: &str) -> Option<bool> {
    let text = std::str::from_utf8(body).ok()?;
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let messages = events.chain(std::iter::once(text));
    let answer = messages
        .filter_map(|message| serde_json::from_str::<Value>(message).ok())
        .find(|message| message["id"] == id)?;
    Some(answer["result"].is_object())
}
