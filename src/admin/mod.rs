//! The admin port: probes, preStop hooks, status and metrics.
//!
//! Any pod of the cluster can reach it: what comes from the network may look and may wait, and
//! starts nothing that was not corroborated. Never counted as traffic.

mod hooks;
mod kubelet;
mod status;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

pub use self::kubelet::Kubelet;
use crate::{
    drain::{DrainHandle, DrainWatch, Phase, handle::Event, hooks::Hook, policy},
    inflight::Inflight,
    pool,
    serve::{
        Context, Handler,
        plain::{self, Answer, json, text, wrong_method},
    },
    telemetry::Metrics,
};

/// What the admin port shows and may ask for.
pub struct Admin {
    pub drain: DrainHandle,
    pub watch: DrainWatch,
    pub inflight: Inflight,
    pub pool: Box<dyn Fn() -> pool::Counts + Send + Sync>,
    pub metrics: Arc<Metrics>,
    pub upstream: String,
    pub kubelet: Kubelet,
    /// Longest that a hook waits for a container that merely restarts.
    pub restart_wait: Duration,
    pub drain_token_file: Option<PathBuf>,
}

impl Handler for Arc<Admin> {
    type Body = Full<Bytes>;

    fn handle(
        self,
        request: Request<Incoming>,
        context: Arc<Context>,
    ) -> impl Future<Output = Answer> + Send + 'static {
        answer(self, request, context)
    }
}

async fn answer(admin: Arc<Admin>, request: Request<Incoming>, context: Arc<Context>) -> Answer {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let remote = context.remote.ip().to_canonical();
    if matches!(request.uri().path(), "/livez" | "/readyz") {
        admin.kubelet.probed(remote, request.headers());
    }
    match (request.uri().path(), get) {
        ("/livez", true) => text(StatusCode::OK, "alive\n"),
        ("/readyz", true) => admin.readiness(),
        ("/prestop", true) => hooks::wait(&admin, Hook::Server, remote).await,
        ("/prestop/self", true) => hooks::wait(&admin, Hook::Sidecar, remote).await,
        ("/status", true) => json(&admin.status()),
        ("/metrics", true) => admin.metrics_text(),
        ("/drain", false) if request.method() == Method::POST => {
            admin.begin(&request, &context).await
        }
        ("/drain", _) => wrong_method("POST"),
        ("/livez" | "/readyz" | "/prestop" | "/prestop/self" | "/status" | "/metrics", _) => {
            wrong_method("GET, HEAD")
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "nothing here; there are GET /livez, /readyz, /prestop, /prestop/self, /status, \
             /metrics and POST /drain\n",
        ),
    }
}

impl Admin {
    fn readiness(&self) -> Answer {
        let snapshot = self.watch.snapshot();
        if policy::is_ready(snapshot.phase, snapshot.deleted) {
            return text(StatusCode::OK, "ready\n");
        }
        let missing = match snapshot.phase {
            Phase::Starting => format!("waiting for: upstream ({})\n", self.upstream),
            phase => format!("not ready: {}\n", phase.name()),
        };
        text(StatusCode::SERVICE_UNAVAILABLE, missing)
    }

    fn metrics_text(&self) -> Answer {
        let snapshot = self.watch.snapshot();
        let now = tokio::time::Instant::now().into_std();
        let left = snapshot
            .timeline
            .map_or(-1.0, |timeline| timeline.cut_at.saturating_duration_since(now).as_secs_f64());
        self.metrics.seconds_to_deadline.set(left);
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.sessions.set(number(self.inflight.sessions()));
        self.metrics.calls_pending.set(number(self.inflight.pending()));
        plain::metrics(self.metrics.text())
    }

    /// Begins a drain for whoever may ask; `?wait` answers once it is over.
    async fn begin(&self, request: &Request<Incoming>, context: &Context) -> Answer {
        let local = is_from_within(context.remote.ip().to_canonical(), request.headers());
        if !local && !self.has_token(request.headers()) {
            tracing::warn!(remote = %context.remote, "POST /drain refused");
            return text(
                StatusCode::FORBIDDEN,
                "a drain is asked for from within the pod (loopback), or with the token of \
                 drain_token_file as `Authorization: Bearer`\n",
            );
        }
        self.drain.tell(Event::Requested).await;
        let wait = request.uri().query().is_some_and(|query| {
            query.split('&').any(|part| matches!(part, "wait" | "wait=true" | "wait=1"))
        });
        let phase = if wait { Phase::Drained } else { Phase::Withdrawing };
        self.watch.clone().reached(phase).await;
        let mut response = json(&self.status());
        *response.status_mut() = if wait { StatusCode::OK } else { StatusCode::ACCEPTED };
        response
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(path) = &self.drain_token_file else {
            return false;
        };
        // Read each time: a mounted secret is replaced while we run.
        let token = match std::fs::read_to_string(path) {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "drain_token_file cannot be read");
                return false;
            }
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer "));
        !token.trim().is_empty()
            && given.is_some_and(|given| same(given.trim().as_bytes(), token.trim().as_bytes()))
    }
}

/// Whether somebody in this pod asks for himself. A mesh brings what comes from other pods over
/// loopback, too: from another address of it (Istio: 127.0.0.6), or with the fields of a proxy. And
/// a page in a browser of this machine always says its origin.
fn is_from_within(remote: IpAddr, headers: &HeaderMap) -> bool {
    let is_ours = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let others = ["origin", "forwarded", "via", "x-forwarded-for", "x-forwarded-proto"];
    is_ours.contains(&remote) && !others.iter().any(|name| headers.contains_key(*name))
}

/// Compares without telling by its time where the first difference is.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len()
        && given.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_a_mesh_or_a_browser_brings_over_loopback_is_not_from_within() {
        let bare = HeaderMap::new();
        for (remote, within) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("127.0.0.6", false),
            ("::6", false),
            ("10.244.0.7", false),
        ] {
            assert_eq!(is_from_within(remote.parse().unwrap(), &bare), within, "{remote}");
        }
        for name in ["origin", "x-forwarded-for", "x-forwarded-proto", "via", "forwarded"] {
            let brought = HeaderMap::from_iter([(
                header::HeaderName::from_static(name),
                HeaderValue::from_static("x"),
            )]);
            assert!(!is_from_within(IpAddr::V4(Ipv4Addr::LOCALHOST), &brought), "{name}");
        }
    }
}
