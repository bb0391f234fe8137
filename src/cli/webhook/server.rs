//! What is answered on the webhook's port: reviews, probes, metrics.
//!
//! Any pod of the cluster can reach it: what is taken in is bounded in size, time and sum.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{certificates::Served, review::Rules};
use crate::{
    serve::{
        Context, Handler,
        plain::{self, Answer, json, text, wrong_method},
    },
    telemetry::webhook::{Reviews, Verdict},
};

/// The API server takes no object that is longer.
const LONGEST_BODY: usize = 3 * 1024 * 1024;
/// Of all bodies that are being read, so that nobody can fill the memory.
const ALL_BODIES: usize = 24 * 1024 * 1024;
/// An API server sends a body at once. Who stalls in his holds the room of others, which wait 5 s.
const BODY_TIME: Duration = Duration::from_secs(3);

pub struct Webhook {
    pub rules: Rules,
    pub served: watch::Receiver<Arc<Served>>,
    pub reviews: Reviews,
    /// When it came.
    pub last_review: watch::Sender<Instant>,
    ending: AtomicBool,
    room: Semaphore,
}

impl Webhook {
    pub fn new(rules: Rules, served: watch::Receiver<Arc<Served>>, reviews: Reviews) -> Self {
        let (ending, room) = (AtomicBool::new(false), Semaphore::new(ALL_BODIES));
        let last_review = watch::Sender::new(Instant::now());
        Self { rules, served, reviews, last_review, ending, room }
    }

    /// From now on who asks is told to go elsewhere, and is answered all the same.
    pub fn end(&self) {
        self.ending.store(true, Relaxed);
    }

    fn readiness(&self) -> Answer {
        let missing = self.served.borrow().missing.clone();
        match missing {
            _ if self.ending.load(Relaxed) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "not ready: it ends\n")
            }
            Some(missing) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waiting for: certificate ({missing})\n"),
            ),
            None => text(StatusCode::OK, "ready\n"),
        }
    }

    async fn mutate(&self, request: Request<Incoming>, context: &Context) -> Answer {
        self.last_review.send_replace(Instant::now());
        let answer = match self.body(request).await {
            Ok(body) => self.rules.answer(&body),
            Err(problem) => Err(problem),
        };
        match answer {
            Ok(answer) => {
                self.reviews.count(answer.verdict);
                info!(
                    namespace = answer.namespace,
                    pod = answer.pod,
                    owner = answer.owner,
                    result = answer.verdict.name(),
                    dry_run = answer.dry_run,
                    said = answer.said.join("; "),
                    "review"
                );
                json(&answer.review)
            }
            Err(problem) => {
                self.reviews.count(Verdict::Refused);
                warn!(remote = %context.remote, problem, "what was sent is no review");
                text(StatusCode::BAD_REQUEST, format!("ebbtide: {problem}\n"))
            }
        }
    }

    /// The whole body.
    async fn body(&self, request: Request<Incoming>) -> Result<Vec<u8>, String> {
        is_json(request.headers())?;
        let mut body = request.into_body();
        let gather = async {
            let mut whole = Vec::new();
            let mut held = None;
            let mut is_too_long = false;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| format!("the body broke off: {error}"))?;
                let Ok(data) = frame.into_data() else { continue };
                if is_too_long || whole.len() + data.len() > LONGEST_BODY {
                    // Read on, since who is still sending does not hear an answer.
                    (whole, held, is_too_long) = (Vec::new(), None, true);
                    continue;
                }
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let more = self.room.acquire_many(length).await;
                let more = more.map_err(|error| error.to_string())?;
                match &mut held {
                    None => held = Some(more),
                    Some(held) => held.merge(more),
                }
                whole.extend_from_slice(&data);
            }
            if is_too_long {
                return Err(format!("the body is longer than {LONGEST_BODY} bytes"));
            }
            Ok(whole)
        };
        let late = |_| format!("the body did not come within {} s", BODY_TIME.as_secs());
        timeout(BODY_TIME, gather).await.map_err(late)?
    }
}

impl Handler for Arc<Webhook> {
    type Body = Full<Bytes>;

    fn handle(
        self,
        request: Request<Incoming>,
        context: Arc<Context>,
    ) -> impl Future<Output = Answer> + Send + 'static {
        answer(self, request, context)
    }
}

async fn answer(
    webhook: Arc<Webhook>,
    request: Request<Incoming>,
    context: Arc<Context>,
) -> Answer {
    let version = request.version();
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut answer = match (request.uri().path(), get) {
        ("/mutate", _) if request.method() == Method::POST => {
            webhook.mutate(request, &context).await
        }
        ("/livez", true) => text(StatusCode::OK, "alive\n"),
        ("/readyz", true) => webhook.readiness(),
        ("/metrics", true) => plain::metrics(webhook.reviews.text()),
        ("/mutate", _) => wrong_method("POST"),
        ("/livez" | "/readyz" | "/metrics", _) => wrong_method("GET, HEAD"),
        _ => text(
            StatusCode::NOT_FOUND,
            "nothing here; there are POST /mutate and GET /livez, /readyz and /metrics\n",
        ),
    };
    // An idle connection that closes races with the client's next request; one that was told to
    // close does not. HTTP/2 is told in its own way.
    if webhook.ending.load(Relaxed) && version < Version::HTTP_2 {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

fn is_json(headers: &HeaderMap) -> Result<(), String> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(format!("the content type is `{media}`; expected application/json"))
}
