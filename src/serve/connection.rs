//! One client connection from its first byte to its last: which HTTP it speaks, its limits, and
//! its graceful close.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::tasks::Executor;

use super::{
    Handler, Limits, Stage,
    accept::BoxedIo,
    context::{Context, Tracked},
    framing::{Framing, Refusal},
    guarded::{Guarded, Watched},
    idle_closes,
};

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a handshake may still take when the port closes.
const OPENING: Duration = Duration::from_secs(2);

/// What is kept of an HTTP/2 stream whose client does not read, before its server is held back.
const SEND_BUFFER: usize = 32 * 1024;

/// The fields that hyper takes where it is not told a number.
const HYPER_MAX_HEADERS: usize = 100;

/// Serves the connection to its end; the name of the cause where it was closed for one.
pub async fn run<H: Handler>(
    mut io: BoxedIo,
    context: Context,
    limits: Limits,
    stages: watch::Receiver<Stage>,
    handler: H,
) -> Option<&'static str> {
    let context = Arc::new(context);
    let head_by = Instant::now() + limits.header_timeout;
    let mut closes = stages.clone();
    // Who is in the middle of a handshake has not yet had the chance to ask.
    tokio::select! {
        biased;
        opened = timeout_at(head_by, poll_fn(|task| io.poll_open(task))) => {
            if opened.is_err() {
                return Some(Refusal::HeadTimeout.name());
            }
        }
        () = async { idle_closes(&mut closes).await; sleep(OPENING).await } => return None,
    }
    let begin = tokio::select! {
        biased;
        begin = timeout_at(head_by, first_bytes(&mut io)) => begin,
        // Nothing was asked on it yet, so closing it loses nothing.
        () = idle_closes(&mut closes) => return None,
    };
    match begin {
        Ok(Some((prefix, true))) => {
            let io = Guarded::new(io, prefix, None);
            // Boxed: an HTTP/1.1 connection does not pay for what it never becomes.
            Box::pin(http2(io, limits, stages, handler, context)).await;
            None
        }
        Ok(Some((prefix, false))) => {
            let watched = Watched::new(Framing::new(limits.max_header_bytes, limits.max_headers));
            let io = Guarded::new(io, prefix, Some(Arc::clone(&watched)));
            http1(io, limits, stages, handler, context, watched, head_by).await
        }
        Ok(None) => None,
        Err(_) => {
            refuse(io, Refusal::HeadTimeout).await;
            Some(Refusal::HeadTimeout.name())
        }
    }
}

/// Reads until the bytes tell HTTP/2 from HTTP/1; `None` when the client left before.
async fn first_bytes(io: &mut BoxedIo) -> Option<(Vec<u8>, bool)> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if io.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let common = bytes.len().min(PREFACE.len());
        if bytes[..common] != PREFACE[..common] {
            return Some((bytes, false));
        }
        if common == PREFACE.len() {
            return Some((bytes, true));
        }
    }
}

async fn http1<H: Handler>(
    io: Guarded,
    limits: Limits,
    mut stages: watch::Receiver<Stage>,
    handler: H,
    context: Arc<Context>,
    watched: Arc<Watched>,
    head_by: Instant,
) -> Option<&'static str> {
    let service = service(handler, &context);
    let mut builder = http1::Builder::new();
    // Framing refuses first, with a reason; these only have to be no narrower. A number of headers
    // that is set costs hyper two allocations per request.
    builder.max_buf_size((limits.max_header_bytes + 4096).max(64 * 1024));
    builder.keep_alive(limits.keep_alive);
    if limits.max_headers > HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    let mut connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut head_timer = pin!(sleep_until(head_by));
    let mut in_head = true;
    let changes = stages.clone();
    let mut close = pin!(idle_closes(&mut stages));
    let mut awaits_close = false;
    let mut is_closing = false;
    let refusal = poll_fn(|task| {
        if Pin::new(&mut connection).poll(task).is_ready() {
            return Poll::Ready(None);
        }
        // Once it waits, it is polled again only when there is news: a task keeps its waker. Behind
        // the connection's own poll: a request that is there already is served.
        if !is_closing && (!awaits_close || changes.has_changed().unwrap_or(true)) {
            awaits_close = true;
            // An answer whose head was sent before could not say that the client is to go
            // elsewhere, and would bring one more call here.
            let is_told = || *changes.borrow() >= Stage::Announce && !context.has_session();
            if close.as_mut().poll(task).is_ready() || (context.is_busy() && is_told()) {
                is_closing = true;
                watched.closes();
                Pin::new(&mut connection).graceful_shutdown();
                if Pin::new(&mut connection).poll(task).is_ready() {
                    return Poll::Ready(None);
                }
            }
        }
        // What is answered before, the client gets whole.
        let is_answered = !context.is_busy() && !watched.is_stuck();
        if let Some(refusal) = watched.refusal().filter(|_| is_answered) {
            return Poll::Ready(Some(refusal));
        }
        // Armed only while a head is under way; a head that comes whole never gets here. Behind an
        // exchange nobody reads on, so that its client cannot end it.
        let now_in_head = watched.in_head() && is_answered;
        if now_in_head && !in_head {
            head_timer.as_mut().reset(Instant::now() + limits.header_timeout);
        }
        in_head = now_in_head;
        if in_head && head_timer.as_mut().poll(task).is_ready() {
            return Poll::Ready(Some(Refusal::HeadTimeout));
        }
        Poll::Pending
    })
    .await;
    if let Some(refusal) = refusal {
        if let Some(parts) = connection.into_parts() {
            refuse(parts.io.into_inner().into_inner(), refusal).await;
        }
        Some(refusal.name())
    } else {
        if let Some(tunnel) = context.take_tunnel() {
            watched.leaves_http();
            tunnel.await;
        }
        None
    }
}

#[allow(clippy::type_complexity, reason = "an alias could not hide the opaque future")]
fn service<H: Handler>(
    handler: H,
    context: &Arc<Context>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Tracked<H::Body>>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Tracked<H::Body>>, Infallible>> + Send + 'static,
> {
    let context = Arc::clone(context);
    service_fn(move |request: Request<Incoming>| {
        let busy = context.busy();
        let answer = handler.clone().handle(request, Arc::clone(&context));
        async move { Ok(answer.await.map(|body| Tracked::new(body, busy))) }
    })
}

async fn http2<H: Handler>(
    io: Guarded,
    limits: Limits,
    stages: watch::Receiver<Stage>,
    handler: H,
    context: Arc<Context>,
) {
    let service = service(handler, &context);
    let mut builder = http2::Builder::new(Executor::default());
    builder
        .timer(TokioTimer::new())
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_mins(1));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut announced = false;
    let mut changes = stages.clone();
    loop {
        let stage = *changes.borrow_and_update();
        let go_away = match stage {
            Stage::Open => false,
            // A session's next connection may meet another pod, which does not know it.
            Stage::Announce => !context.has_session(),
            Stage::CloseOpen | Stage::Close(_) => true,
        };
        if go_away && !announced {
            announced = true;
            connection.as_mut().graceful_shutdown();
        }
        tokio::select! {
            _ = connection.as_mut() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Writes a whole answer, so that the client sees it although unread bytes are left: closes the
/// writing side first and reads on for a moment, since a close with unread bytes is a reset.
pub(super) async fn last_words(io: &mut BoxedIo, answer: &[u8]) {
    let talk = async {
        io.write_all(answer).await?;
        io.shutdown().await?;
        let mut rest = vec![0; 4096];
        // Bounded twice: a client that sends for ever is not listened to for ever.
        for _ in 0..256 {
            if io.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    drop(timeout(Duration::from_secs(1), talk).await);
}

async fn refuse(mut io: BoxedIo, refusal: Refusal) {
    let text = refusal.text();
    let answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\nebbtide: {text}\n",
        refusal.status(),
        text.len() + "ebbtide: \n".len(),
    );
    last_words(&mut io, answer.as_bytes()).await;
}
