//! Exchanges on one connection: against a scripted upstream, and against hyper's own server as a
//! second opinion on every framing.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    sync::atomic::AtomicUsize,
    task::{Context, Poll},
};

use futures_util::{future::join, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    time::timeout,
};

use crate::telemetry::Metrics;

use super::{http1::Invalid, *};

type Sent = UnsyncBoxBody<Bytes, io::Error>;

fn sized(bytes: &'static str) -> Sent {
    Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body whose length nobody knows.
fn frames(frames: Vec<Frame<Bytes>>) -> Sent {
    StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed_unsync()
}

fn data(parts: &[&'static str]) -> Vec<Frame<Bytes>> {
    parts.iter().map(|part| Frame::data(Bytes::from(*part))).collect()
}

fn trailers() -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(header::EXPIRES, "0".parse().unwrap())]))
}

type Giver = mpsc::UnboundedSender<io::Result<Frame<Bytes>>>;

/// A body that is given frame by frame.
fn given() -> (Giver, Sent) {
    let (giver, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (giver, StreamBody::new(Box::pin(frames)).boxed_unsync())
}

fn post(body: Sent) -> Box<Request<Sent>> {
    Box::new(Request::post("/mcp").body(body).unwrap())
}

fn connection(room: usize) -> (Connection<Sent>, DuplexStream) {
    let (ours, theirs) = duplex(room);
    (Connection::new(Box::new(ours), Arc::new(Tally::new(&Metrics::new().pool))), theirs)
}

/// Sends the request to an upstream that answers with the text, whatever it reads.
async fn asked(
    connection: &mut Connection<Sent>,
    upstream: &mut DuplexStream,
    answer: &str,
) -> Result<Response<()>, SendError<Sent>> {
    upstream.write_all(answer.as_bytes()).await.unwrap();
    connection.send(post(sized(""))).await
}

/// The rest of the answer's body, with its trailers.
async fn rest(
    connection: &mut Connection<Sent>,
) -> Result<(Vec<u8>, Option<HeaderMap>), ExchangeError> {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|context| connection.poll_body(context)).await {
        match frame?.into_data() {
            Ok(part) => data.extend_from_slice(&part),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}

/// In paused time: what waits for ever is seen at once.
fn paused<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { timeout(Duration::from_hours(1), future).await.expect("no hang") })
}

/// Reads what has to come next.
async fn expect(upstream: &mut DuplexStream, text: &str) {
    let mut seen = vec![0; text.len()];
    upstream.read_exact(&mut seen).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), text);
}

/// It holds the read buffer that it came in: its client's next one would need another.
#[test]
fn what_is_kept_of_a_request_is_what_went_out() {
    let text = CHUNKED.replace("transfer", "x-a: b\r\ntransfer") + "5\r\nhello\r\n0\r\n\r\n";
    for room in [1, 7, 1000] {
        paused(async {
            let (mut connection, mut upstream) = connection(room);
            let buffer = Bytes::from(b"b".to_vec());
            let mut request = post(frames(data(&["hello"])));
            let value = HeaderValue::from_maybe_shared(buffer.clone()).unwrap();
            request.headers_mut().insert("x-a", value);
            let answer = async {
                expect(&mut upstream, &text).await;
                tokio::task::yield_now().await;
                assert!(buffer.is_unique());
                upstream.write_all(ANSWER.as_bytes()).await.unwrap();
            };
            let exchange = async {
                connection.send_and(request, true).await.unwrap();
                let again = connection.take_sent().unwrap();
                assert_eq!((again.method(), again.uri().path()), (&Method::POST, "/mcp"));
                assert_eq!(again.headers()["x-a"], "b");
                assert!(connection.take_sent().is_none());
                rest(&mut connection).await.unwrap();
            };
            join(exchange, answer).await;
        });
    }
}

const CHUNKED: &str = "POST /mcp HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

#[test]
fn requests_are_framed_as_announced() {
    let with_trailers = || data(&["a"]).into_iter().chain([trailers()]).collect();
    let cases: [(&dyn Fn() -> Sent, String); 5] = [
        (&|| sized(""), "POST /mcp HTTP/1.1\r\n\r\n".into()),
        (&|| sized("hello"), "POST /mcp HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello".into()),
        (&|| frames(Vec::new()), format!("{CHUNKED}0\r\n\r\n")),
        (
            &|| frames(data(&["hello", "", " world"])),
            format!("{CHUNKED}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
        ),
        (&|| frames(with_trailers()), format!("{CHUNKED}1\r\na\r\n0\r\nexpires: 0\r\n\r\n")),
    ];
    for (body, text) in &cases {
        for room in [1, 2, 3, 7, 1000] {
            paused(async {
                let (mut connection, mut upstream) = connection(room);
                for _ in 0..2 {
                    let exchange = async {
                        let response = connection.send(post(body())).await.unwrap();
                        assert_eq!(response.status(), StatusCode::OK);
                        assert!(!connection.is_idle());
                        assert_eq!(rest(&mut connection).await.unwrap().0, b"{}");
                    };
                    let answer = async {
                        expect(&mut upstream, text).await;
                        upstream.write_all(ANSWER.as_bytes()).await.unwrap();
                    };
                    join(exchange, answer).await;
                    assert!(connection.is_idle() && connection.is_ready());
                }
            });
        }
    }
}

/// What the upstream must not see more of than it was told.
#[test]
fn a_body_that_breaks_its_word_is_no_request() {
    for (parts, seen) in [(&["hel"][..], "hel"), (&["hello!"], ""), (&["hel", "lo!"], "hel")] {
        paused(async {
            let (mut connection, mut upstream) = connection(1000);
            let mut request = post(frames(data(parts)));
            request.headers_mut().insert(header::CONTENT_LENGTH, "5".parse().unwrap());
            let error = connection.send(request).await.unwrap_err();
            assert!(matches!(error.cause, ExchangeError::RequestBody(_)) && !connection.is_idle());
            drop(connection);
            let mut text = String::new();
            upstream.read_to_string(&mut text).await.unwrap();
            assert!(text.is_empty() || text.ends_with(&format!("\r\n\r\n{seen}")), "{text}");
        });
    }
    paused(async {
        let (mut connection, _upstream) = connection(1000);
        let (giver, body) = given();
        giver.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
        let error = connection.send(post(body)).await.unwrap_err();
        assert!(matches!(error.cause, ExchangeError::RequestBody(_)), "{error:?}");
    });
}

/// A stream that counts what would be system calls.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        self.1.fetch_add(usize::from(read.is_ready()), Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1000, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1000, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_small_exchange_is_one_write_and_one_read() {
    for body in [|| sized("hello"), || sized(""), || frames(data(&["hello"]))] {
        paused(async {
            let (ours, mut upstream) = duplex(1000);
            let calls = Arc::new(AtomicUsize::new(0));
            let io = Box::new(Counting(ours, Arc::clone(&calls)));
            let mut connection = Connection::new(io, Arc::new(Tally::new(&Metrics::new().pool)));
            let is_chunked = body().size_hint().exact().is_none();
            let (response, ()) = join(connection.send(post(body())), async {
                upstream.read_buf(&mut Vec::new()).await.unwrap();
                upstream.write_all(ANSWER.as_bytes()).await.unwrap();
            })
            .await;
            assert!(response.is_ok());
            rest(&mut connection).await.unwrap();
            assert!(connection.is_idle() && connection.is_ready());
            // The last chunk is known only once nothing follows.
            let writes = if is_chunked { 2 } else { 1 };
            assert_eq!(calls.load(Ordering::Relaxed), writes * 1000 + 1);
        });
    }
}

#[test]
fn an_early_answer_arrives_and_the_request_goes_on() {
    paused(async {
        let (mut connection, mut upstream) = connection(1000);
        let (giver, body) = given();
        giver.send(Ok(Frame::data("first".into()))).unwrap();
        upstream.write_all(&ANSWER.as_bytes()[..ANSWER.len() - 1]).await.unwrap();
        assert!(connection.send(post(body)).await.is_ok());
        giver.send(Ok(Frame::data("second".into()))).unwrap();
        let (answer, ()) = join(rest(&mut connection), async {
            expect(&mut upstream, &format!("{CHUNKED}5\r\nfirst\r\n6\r\nsecond\r\n")).await;
            upstream.write_all(b"}").await.unwrap();
        })
        .await;
        assert_eq!(answer.unwrap().0, b"{}");
        // The rest of the request never came.
        assert!(connection.is_over() && !connection.is_idle());
    });
}

/// A server may refuse a body and close without reading it.
#[test]
fn an_answer_arrives_although_the_request_is_not_taken() {
    paused(async {
        let (mut connection, mut upstream) = connection(64);
        let (response, ()) = join(connection.send(post(flood())), async {
            let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
            expect(&mut upstream, CHUNKED).await;
            upstream.write_all(refusal.as_bytes()).await.unwrap();
            drop(upstream);
        })
        .await;
        assert_eq!(response.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(connection.is_over() && !connection.is_idle());
    });
}

/// The same for ever.
fn flood() -> Sent {
    let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(b"0123456789"))));
    StreamBody::new(frames).boxed_unsync()
}

#[test]
fn interim_answers_are_passed_over_and_a_flood_of_them_is_an_error() {
    paused(async {
        let (mut connection, mut upstream) = connection(100_000);
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let answer = format!("HTTP/1.1 100 Continue\r\n\r\n{interim}{ANSWER}");
        let response = asked(&mut connection, &mut upstream, &answer).await.unwrap();
        assert!(response.status() == StatusCode::OK && !response.headers().contains_key("link"));
        rest(&mut connection).await.unwrap();
        let flood = interim.repeat(1000);
        let error = asked(&mut connection, &mut upstream, &flood).await.unwrap_err();
        assert!(matches!(error.cause, ExchangeError::NotHttp(Invalid::TooManyInterim)));
    });
}

#[test]
fn a_connection_is_kept_only_where_nothing_speaks_against_it() {
    for (answer, then, kept) in [
        (ANSWER, "", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "", false),
        ("HTTP/1.1 204 No Content\r\n\r\nx", "", false),
        (ANSWER, "x", false),
        (ANSWER, "close", false),
    ] {
        paused(async {
            let (mut connection, mut upstream) = connection(1000);
            asked(&mut connection, &mut upstream, answer).await.unwrap();
            rest(&mut connection).await.unwrap();
            match then {
                "close" => drop(upstream),
                stray => upstream.write_all(stray.as_bytes()).await.unwrap(),
            }
            assert_eq!(connection.is_idle() && connection.is_ready(), kept, "{answer:?} {then}");
        });
    }
}

#[test]
fn what_ends_early_is_incomplete_and_what_has_no_end_is_not() {
    for (answer, whole) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\n{}", true),
    ] {
        paused(async {
            let (mut connection, mut upstream) = connection(1000);
            asked(&mut connection, &mut upstream, answer).await.unwrap();
            assert_eq!(connection.is_framed(), !whole);
            drop(upstream);
            let body = rest(&mut connection).await;
            let incomplete = matches!(body, Err(ExchangeError::Incomplete));
            assert!(if whole { body.unwrap().0 == b"{}" } else { incomplete }, "{answer}");
            assert!(rest(&mut connection).await.is_ok() && !connection.is_idle());
        });
    }
}

#[test]
fn a_request_of_which_nothing_was_written_is_given_back() {
    paused(async {
        let (_giver, waiting) = given();
        for (body, back) in
            [(sized(""), true), (waiting, true), (sized("a"), false), (frames(Vec::new()), false)]
        {
            let (mut connection, upstream) = connection(1000);
            drop(upstream);
            let error = connection.send(post(body)).await.unwrap_err();
            assert!(matches!(error.cause, ExchangeError::Io(_)), "{error:?}");
            assert_eq!((error.unsent.is_some(), error.begun.is_some()), (back, !back));
        }
        let (mut connection, mut upstream) = connection(1000);
        let (error, ()) = join(connection.send(post(sized(""))), async {
            upstream.read_u8().await.unwrap();
            drop(upstream);
        })
        .await;
        let error = error.unwrap_err();
        assert!(matches!(error.cause, ExchangeError::Incomplete) && error.unsent.is_none());
        assert!(error.begun.is_none());
    });
}

#[test]
fn an_upgraded_connection_gives_what_came_with_the_head() {
    paused(async {
        let (mut connection, mut upstream) = connection(1000);
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst";
        let response = asked(&mut connection, &mut upstream, head).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert!(!connection.is_idle());
        let mut upgraded = connection.into_upgraded();
        upstream.write_all(b"second").await.unwrap();
        let mut second = [0; 6];
        upgraded.io.read_exact(&mut second).await.unwrap();
        assert_eq!((&*upgraded.read, &second), (&b"first"[..], b"second"));
    });
}

#[test]
fn nothing_is_read_that_nobody_asked_for() {
    paused(async {
        let (mut connection, mut upstream) = connection(100);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
        asked(&mut connection, &mut upstream, head).await.unwrap();
        let taken = timeout(Duration::from_secs(1), upstream.write_all(&[0; 1000])).await;
        assert!(taken.is_err(), "more was taken than there is room for");
        let frame = poll_fn(|context| connection.poll_body(context)).await;
        assert_eq!(frame.unwrap().unwrap().data_ref().unwrap().len(), 100);
    });
}

/// Answers with the request's body and trailers: with a length, or in chunks as they come.
async fn echo(request: Request<Incoming>) -> Result<Response<Sent>, hyper::Error> {
    let chunked = request.headers().contains_key("x-chunked");
    let body = request.into_body().collect().await?;
    let trailers = body.trailers().cloned();
    let bytes = body.to_bytes();
    let body = if chunked {
        let parts = bytes.chunks(7).map(|part| Frame::data(Bytes::copy_from_slice(part)));
        frames(parts.chain(trailers.map(Frame::trailers)).collect())
    } else {
        Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
    };
    Ok(Response::builder().header(header::TRAILER, "expires").body(body).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// hyper's server understands what is sent, and its answers are understood, on one connection.
    #[test]
    fn hyper_agrees(
        room in 1usize..200,
        exchanges in prop::collection::vec(
            (prop::collection::vec("[a-z]{0,40}", 0..5), 0..3, any::<bool>(), any::<bool>()),
            1..5,
        ),
    ) {
        paused(async {
            let (mut connection, upstream) = connection(room);
            let server = http1::Builder::new().serve_connection(TokioIo::new(upstream), service_fn(echo));
            let client = async {
                for (parts, framing, chunked, head) in exchanges {
                    let whole = parts.concat();
                    let mut sent: Vec<_> =
                        parts.into_iter().map(|part| Frame::data(Bytes::from(part))).collect();
                    let trails = framing == 2 && chunked && !head;
                    sent.extend(trails.then(trailers));
                    let mut request = post(frames(sent));
                    let headers = request.headers_mut();
                    headers.insert(header::TE, "trailers".parse().unwrap());
                    if framing == 0 {
                        headers.insert(header::CONTENT_LENGTH, whole.len().into());
                    }
                    if chunked {
                        headers.insert("x-chunked", "1".parse().unwrap());
                    }
                    if head {
                        *request.method_mut() = Method::HEAD;
                    }
                    let response = connection.send(request).await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    let (body, seen) = rest(&mut connection).await.unwrap();
                    assert_eq!(String::from_utf8(body).unwrap(), if head { "" } else { &whole });
                    assert_eq!(seen.is_some(), trails);
                    assert!(connection.is_idle() && connection.is_ready());
                }
                drop(connection);
            };
            join(async { server.await.unwrap() }, client).await;
        });
    }
}
