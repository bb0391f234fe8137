//! What goes wrong with the API server, said once per kind and resource, and when it is over.
//!
//! Never says the same twice before that: an API server that is away for an hour is two lines.

use kube::runtime::watcher;
use tracing::{info, warn};

/// A kind of trouble, as far as the operator does something else about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Forbidden,
    Unauthorized,
    Silent,
    Stranger,
    Other,
}

impl Kind {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Kind::of_code(status.code),
            _ => Kind::Other,
        }
    }

    fn of_code(code: u16) -> Self {
        match code {
            403 => Kind::Forbidden,
            401 => Kind::Unauthorized,
            _ => Kind::Other,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Kind::Forbidden => "bind the Role of deploy/rbac.yaml to the pod's service account",
            Kind::Unauthorized => {
                "the service account's token is not accepted (any more); that is normal at the end \
                 of a pod's life"
            }
            Kind::Silent => "does a NetworkPolicy keep this pod from the API server?",
            Kind::Stranger => "was this pod deleted by force, or is POD_UID not its UID?",
            Kind::Other => "is the API server up, and can this pod reach it?",
        }
    }
}

/// The trouble with one resource.
pub struct Trouble {
    what: &'static str,
    told: Vec<Kind>,
}

impl Trouble {
    pub fn with(what: &'static str) -> Self {
        Self { what, told: Vec::new() }
    }

    pub fn watching(&mut self, error: &watcher::Error) {
        let kind = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Kind::of(error),
            watcher::Error::WatchError(status) => Kind::of_code(status.code),
            watcher::Error::NoResourceVersion => Kind::Other,
        };
        self.tell(kind, error);
    }

    pub fn reading(&mut self, error: &kube::Error) {
        self.tell(Kind::of(error), error);
    }

    pub fn silent(&mut self) {
        self.tell(Kind::Silent, &"the API server does not answer");
    }

    /// What was read is not about us.
    pub fn stranger(&mut self) {
        self.tell(Kind::Stranger, &"what was read has another UID than this pod");
    }

    /// It works (again).
    pub fn over(&mut self) {
        if !std::mem::take(&mut self.told).is_empty() {
            info!(resource = self.what, "the API server tells again");
        }
    }

    fn tell(&mut self, kind: Kind, error: &dyn std::fmt::Display) {
        if !self.told.contains(&kind) {
            self.told.push(kind);
            let advice = kind.advice();
            warn!(
                resource = self.what,
                error = shortened(&error.to_string()),
                "not known from the API server; {advice}; the drain goes on by timers, and it is \
                 tried again"
            );
        }
    }
}

/// An API server that answers nonsense does not fill the log with it.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether reading alone may be allowed where watching is not.
pub fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)
            if Kind::of(error) == Kind::Forbidden
    )
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        convert::Infallible,
        future::pending,
        io,
        pin::pin,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use bytes::Bytes;
    use futures_util::{Stream, StreamExt as _, stream};
    use http::{Request, Response};
    use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
    use kube::Client;
    use serde_json::{Value, json};
    use tokio::{sync::watch, time::timeout};
    use tracing_subscriber::{fmt, layer::SubscriberExt as _, registry};

    use super::super::{Identity, pod, slices};
    use crate::{config::value::Level, drain::knowledge::Fact, telemetry::log};

    type Body = UnsyncBoxBody<Bytes, Infallible>;

    /// Longer than every pause between two tries, by far.
    const HOUR: Duration = Duration::from_hours(1);

    /// How the API server answers.
    #[derive(Clone, Copy)]
    enum Mode {
        Sound,
        Refuses(u16),
        /// Lists and reads, and refuses to watch.
        RefusesWatches(u16),
        Silent,
    }

    /// An API server, what it was asked, and what was logged meanwhile.
    struct Bed {
        mode: Arc<Mutex<Mode>>,
        asked: Arc<Mutex<HashMap<&'static str, usize>>>,
        said: Said,
        _log: tracing::subscriber::DefaultGuard,
    }

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Bed {
        fn new(mode: Mode) -> Self {
            let said = Said::default();
            let writer = said.clone();
            let layer = fmt::layer().json().flatten_event(true).with_writer(move || writer.clone());
            let subscriber = registry().with(layer).with(log::filter(Level::Info));
            let log = tracing::subscriber::set_default(subscriber);
            Self { mode: Arc::new(Mutex::new(mode)), asked: Arc::default(), said, _log: log }
        }

        fn facts(&self, uid: &str) -> impl Stream<Item = Fact> + use<> {
            let (mode, asked) = (Arc::clone(&self.mode), Arc::clone(&self.asked));
            let answer = move |request: Request<_>| {
                let path = request.uri().to_string();
                let resource =
                    if path.contains("/pods") { "pods (our own)" } else { "endpointslices" };
                *asked.lock().unwrap().entry(resource).or_default() += 1;
                let mode = *mode.lock().unwrap();
                async move { answer(mode, &path).await }
            };
            let client = Client::new(tower::service_fn(answer), "n");
            let identity = Identity { name: "p".into(), namespace: "n".into(), uid: uid.into() };
            // Nobody hurries here.
            let (_, urgent) = watch::channel(false);
            let pod = pod::facts(client.clone(), identity.clone(), urgent);
            stream::select(slices::facts(client, identity, None), pod)
        }

        /// What was said since the last time: resource, and what sort of line it is.
        fn said(&self) -> Vec<(String, String)> {
            let bytes = std::mem::take(&mut *self.said.0.lock().unwrap());
            let lines = String::from_utf8(bytes).unwrap();
            let mut said: Vec<_> = lines.lines().map(sort).collect();
            said.sort();
            said
        }
    }

    fn sort(line: &str) -> (String, String) {
        let line: Value = serde_json::from_str(line).unwrap();
        let message = line["message"].as_str().unwrap();
        let known = [
            "bind the Role",
            "token is not accepted",
            "is the API server up",
            "NetworkPolicy",
            "tells again",
            "POD_UID",
        ];
        let sort = known.into_iter().find(|part| message.contains(part)).unwrap_or(message);
        (line["resource"].as_str().unwrap_or_default().to_owned(), sort.to_owned())
    }

    async fn answer(mode: Mode, path: &str) -> Result<Response<Body>, Infallible> {
        let watches = path.contains("watch=true");
        match mode {
            Mode::Refuses(code) => return Ok(refusal(code)),
            Mode::RefusesWatches(code) if watches => return Ok(refusal(code)),
            Mode::Silent => pending().await,
            Mode::Sound | Mode::RefusesWatches(_) => {}
        }
        let pod = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1" } });
        let list = |kind: &str, items: &[&Value]| {
            json!({ "apiVersion": "v1", "kind": format!("{kind}List"),
            "metadata": { "resourceVersion": "7" }, "items": items })
        };
        Ok(if watches {
            // Opened, and nothing happens.
            Response::new(UnsyncBoxBody::new(StreamBody::new(stream::pending())))
        } else if path.contains("endpointslices") {
            whole(200, &list("EndpointSlice", &[]))
        } else if path.contains('?') {
            whole(200, &list("PartialObjectMetadata", &[&pod]))
        } else {
            whole(200, &pod)
        })
    }

    fn refusal(code: u16) -> Response<Body> {
        whole(
            code,
            &json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure",
            "code": code, "message": "no", "reason": "No" }),
        )
    }

    fn whole(code: u16, body: &Value) -> Response<Body> {
        let body = UnsyncBoxBody::new(Full::from(body.to_string()).map_err(|never| match never {}));
        Response::builder().status(code).body(body).unwrap()
    }

    /// Goes on for an hour: what happens, happens in it.
    async fn an_hour(facts: &mut (impl Stream<Item = Fact> + Unpin)) {
        let on = async { while facts.next().await.is_some() {} };
        assert!(timeout(HOUR, on).await.is_err(), "it goes on for ever");
    }

    fn both(sort: &str) -> Vec<(String, String)> {
        ["endpointslices", "pods (our own)"].map(|resource| (resource.into(), sort.into())).into()
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_said_once_with_what_to_do_and_the_end_of_all_once() {
        let bed = Bed::new(Mode::Refuses(403));
        let mut facts = pin!(bed.facts("u"));
        for (mode, said) in [
            (Mode::Refuses(403), both("bind the Role")),
            // The token has expired.
            (Mode::Refuses(401), both("token is not accepted")),
            (Mode::Refuses(500), both("is the API server up")),
            (Mode::Silent, both("NetworkPolicy")),
            (Mode::Refuses(503), vec![]),
            (Mode::Refuses(401), vec![]),
            (Mode::Sound, both("tells again")),
            (Mode::Sound, vec![]),
            (Mode::Refuses(401), both("token is not accepted")),
        ] {
            *bed.mode.lock().unwrap() = mode;
            an_hour(&mut facts).await;
            assert_eq!(bed.said(), said);
            let asked = std::mem::take(&mut *bed.asked.lock().unwrap());
            let often = asked.len() == 2 && asked.values().all(|times| *times >= 20);
            assert!(often || matches!(mode, Mode::Sound), "{asked:?}");
        }
    }

    /// As with a Role that forgot the verb `watch`.
    #[tokio::test(start_paused = true)]
    async fn what_may_be_listed_and_not_watched_is_no_trouble_over_and_over() {
        for (code, sort) in [(403, "bind the Role"), (500, "is the API server up")] {
            let bed = Bed::new(Mode::RefusesWatches(code));
            let mut facts = pin!(bed.facts("u"));
            an_hour(&mut facts).await;
            // A Pod that may not be watched is read: nothing is amiss then.
            let is_amiss = |said: &(String, String)| code != 403 || said.0 == "endpointslices";
            let mut expected = both(sort);
            expected.retain(is_amiss);
            assert_eq!(bed.said(), expected);
            let asked = std::mem::take(&mut *bed.asked.lock().unwrap());
            assert!(asked.values().all(|times| (20..800).contains(times)), "{asked:?}");
            *bed.mode.lock().unwrap() = Mode::Sound;
            an_hour(&mut facts).await;
            let mut expected = both("tells again");
            expected.retain(is_amiss);
            assert_eq!(bed.said(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_its_uid_a_pod_follows_itself_and_says_what_to_add() {
        let bed = Bed::new(Mode::Sound);
        let mut facts = pin!(bed.facts(""));
        assert!(matches!(facts.next().await, Some(Fact::Pod(Some(_)))));
        an_hour(&mut facts).await;
        assert_eq!(bed.said(), [(String::new(), "POD_UID".into())]);
        assert_eq!(bed.asked.lock().unwrap().get("endpointslices"), None);
    }
}
