//! HTTP/2 without TLS (prior knowledge) on the same port: many streams share one connection, so
//! its end has to wait for all of them.
//!
//! The harness blocks, so a worker of the runtime drives the connections.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use ebbtide::tasks::Group;
use h2::{Reason, RecvStream, client::SendRequest};
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use crate::{
    drain::gated,
    harness::{Ebbtide, HANG, server},
};

/// A client connection that is driven until it is dropped.
struct Client {
    send: SendRequest<Bytes>,
    _driver: Group,
}

type Answer = h2::client::ResponseFuture;

impl Client {
    async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = Dribble { stream, left: PREFACE_AND_SETTINGS };
        // Room for many streams, so that one which is not read holds up itself only.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(1024 * 1024);
        let (send, connection) = builder.handshake(io).await.unwrap();
        let mut driver = Group::default();
        driver.spawn("h2 connection", async move { drop(connection.await) });
        Self { send, _driver: driver }
    }

    fn post(&mut self, body: String, more: &[(&str, &str)]) -> Answer {
        let mut request = Request::post("http://a/mcp")
            .header("content-type", "application/json")
            .header("content-length", body.len());
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let (answer, mut stream) =
            self.send.send_request(request.body(()).unwrap(), false).unwrap();
        stream.send_data(body.into(), true).unwrap();
        answer
    }

    fn call(&mut self, id: &str, more: &[(&str, &str)]) -> Answer {
        self.post(format!(r#"{{"jsonrpc":"2.0","method":"tools/call","id":{id}}}"#), more)
    }

    fn get(&mut self) -> Answer {
        let request = Request::get("http://a/mcp").header("accept", "text/event-stream");
        self.send.send_request(request.body(()).unwrap(), true).unwrap().0
    }

    /// Waits until the server has said that it takes no new streams.
    async fn until_go_away(&mut self) {
        let wait = async {
            // Between GOAWAY and the look at it, requests may still be sent.
            while let Ok(()) = std::future::poll_fn(|context| self.send.poll_ready(context)).await {
                tokio::task::yield_now().await;
            }
            std::future::poll_fn(|context| self.send.poll_ready(context)).await.unwrap_err()
        };
        let error = timeout(HANG, wait).await.expect("GOAWAY comes");
        assert!(error.is_go_away() && error.is_remote(), "{error}");
        assert_eq!(error.reason(), Some(Reason::NO_ERROR));
    }
}

async fn head(answer: Answer) -> Response<RecvStream> {
    timeout(HANG, answer).await.expect("an answer comes").unwrap()
}

/// The rest of a body; a stream that was reset instead of ended fails.
async fn rest(mut body: RecvStream) -> String {
    let mut text = Vec::new();
    while let Some(part) = timeout(HANG, body.data()).await.expect("the body goes on") {
        let part = part.expect("the stream ends properly");
        body.flow_control().release_capacity(part.len()).unwrap();
        text.extend_from_slice(&part);
    }
    String::from_utf8(text).unwrap()
}

async fn whole(answer: Answer) -> (u16, String) {
    let response = head(answer).await;
    (response.status().as_u16(), rest(response.into_body()).await)
}

/// Waits until the stream has sent its first event.
async fn begun(answer: Answer) -> RecvStream {
    let mut body = head(answer).await.into_body();
    let part = timeout(HANG, body.data()).await.expect("an event comes").unwrap().unwrap();
    assert_eq!(part, "data: first\n\n");
    body.flow_control().release_capacity(part.len()).unwrap();
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_calls_on_one_connection_survive_sigterm() {
    let (port, gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &[]);
    let mut client = Client::connect(ebbtide.data).await;
    let held: Vec<_> = (0..64).map(|id| client.call(&id.to_string(), &[("x", "hold")])).collect();
    let stream = begun(client.get()).await;
    let listen = r#"{"method":"subscriptions/listen","id":"l"}"#.to_owned();
    let listen = client.post(listen, &[("mcp-method", "subscriptions/listen"), ("x", "sse")]);
    let listen = begun(listen).await;
    ebbtide.until(|status| status["in_flight"]["finite"] == 64);
    assert_eq!(whole(client.call("64", &[])).await, (200, "{}".into()));

    ebbtide.signal("-TERM");
    ebbtide.until_phase("Draining");
    client.until_go_away().await;
    let end = rest(stream).await;
    assert!(end.starts_with("retry: ") && end.ends_with("\n\n"), "{end:?}");
    let end = rest(listen).await;
    assert!(end.contains(r#""id":"l","result":{"resultType":"complete""#), "{end:?}");
    gate.open();
    for call in held {
        assert_eq!(whole(call).await, (200, "{}".into()));
    }
    assert_eq!(ebbtide.ended().code(), Some(0));
    let report = ebbtide.seen.iter().find(|line| line.contains("drain report")).unwrap();
    assert!(report.contains("\"completed\":64") && report.contains("\"cut\":0"), "{report}");
    assert!(report.contains("\"streams_ended\":2"), "{report}");
}

/// A session's next connection may meet another pod: its connection stays, and its calls are
/// served to the cut, which ends them with their own errors and no reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sessions_connection_stays_until_the_cut() {
    let (port, _gate) = gated();
    let mut ebbtide = Ebbtide::start(port, &["--drain-timeout", "1h"]);
    let session = ("mcp-session-id", "s");
    let mut client = Client::connect(ebbtide.data).await;
    let held = client.call("1", &[session, ("x", "hold")]);
    let open = begun(client.call("\"2\"", &[session, ("x", "sse")])).await;
    ebbtide.until(|status| status["in_flight"]["finite"] == 2);
    ebbtide.signal("-TERM");
    ebbtide.until_phase("Draining");
    assert_eq!(whole(client.call("3", &[session])).await, (200, "{}".into()));
    let refused = client.post(r#"{"method":"initialize","id":4}"#.into(), &[]);
    assert_eq!(whole(refused).await.0, 503);
    ebbtide.signal("-TERM");
    let (status, error) = whole(held).await;
    assert_eq!(status, 200);
    assert!(error.contains(r#""id":1,"error":{"code":-32010"#), "{error}");
    let error = rest(open).await;
    assert!(error.starts_with("event: message\ndata: {"), "{error}");
    assert!(error.contains(r#""id":"2","error":{"code":-32010"#), "{error}");
    client.until_go_away().await;
    assert_eq!(ebbtide.ended().code(), Some(0));
}

/// A body that its reader does not read holds up itself only.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_is_not_read_does_not_hold_up_the_others() {
    let large = "x".repeat(4_000_000);
    let expected = large.clone();
    let upstream = server(move |stream, request| {
        let body = if request.contains("large") { &large } else { "{}" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = io::Write::write_all(stream, format!("{head}{body}").as_bytes());
    });
    let ebbtide = Ebbtide::start(upstream, &[]);
    let mut client = Client::connect(ebbtide.data).await;
    let unread = head(client.call("1", &[("x", "large")])).await;
    for id in 2..20 {
        assert_eq!(whole(client.call(&id.to_string(), &[])).await, (200, "{}".into()));
    }
    assert_eq!(rest(unread.into_body()).await, expected);
}

/// The client's preface, and the SETTINGS frame behind it.
const PREFACE_AND_SETTINGS: usize = 24 + 9;

/// Sends its first bytes one by one.
struct Dribble {
    stream: TcpStream,
    left: usize,
}

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let part = if self.left > 0 { &bytes[..bytes.len().min(1)] } else { bytes };
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, part))?;
        self.left = self.left.saturating_sub(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
