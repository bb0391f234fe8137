//! Our own Pod: whether it is deleted, and when the kubelet kills. Watched where that is allowed,
//! else read now and then, and often while somebody waits.
//!
//! Never reads more than the metadata.

use std::{
    pin::pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_stream::stream;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Identity,
    trouble::{Trouble, is_forbidden},
};
use crate::drain::knowledge::{self, Deletion, Fact, kill_at};

/// Longest that an answer of the API server is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same while somebody waits for it.
const HASTE: Duration = Duration::from_secs(2);
/// How long a watch has to last until it is believed to work: what may be listed and not watched
/// would else be over and begin again with each try.
const STEADY: Duration = Duration::from_secs(10);
/// How often the Pod is read where it may not be watched: at ease, and while somebody waits.
const AT_EASE: Duration = Duration::from_mins(1);
const OFTEN: Duration = Duration::from_secs(1);
/// A watch that is open tells of a deletion within this time.
const WATCH_LAG: Duration = Duration::from_secs(1);

type Metadata = PartialObjectMeta<Pod>;

/// Pauses between tries: doubled up to half a minute, each with jitter, so that the pods of a
/// cluster do not come back to a restarted API server in step.
#[derive(Default)]
pub struct Backoff(u32);

impl Backoff {
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    pub fn next(&mut self) -> Duration {
        let longest = Duration::from_millis(500 << self.0.min(6));
        self.0 += 1;
        // The clock's last digits are as random as this needs.
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        longest.mul_f64(0.5 + f64::from(nanoseconds.subsec_nanos() % 1000) / 2000.0)
    }
}

/// How long a watch may say nothing until that means something: that its list does not come, or,
/// once that is `complete`, that it is `steady`. From then on it notices by itself that it is dead.
pub fn patience(complete: bool, steady: bool) -> Duration {
    match (complete, steady) {
        (false, _) => PATIENCE,
        (true, false) => STEADY,
        (true, true) => Duration::MAX,
    }
}

/// What is known of the Pod, each time that it changes or was confirmed while somebody waits.
pub fn facts(
    client: Client,
    identity: Identity,
    mut urgent: watch::Receiver<bool>,
) -> impl Stream<Item = Fact> + Send {
    let api: Api<Metadata> = Api::namespaced(client, &identity.namespace);
    stream! {
        let mut reader = Reader::new(identity);
        let mut trouble = Trouble::with("pods (our own)");
        let mut backoff = Backoff::default();
        let mut may_watch = true;
        loop {
            if may_watch {
                let fields = format!("metadata.name={}", reader.identity.name);
                let config = watcher::Config::default().fields(&fields);
                let mut events = pin!(watcher(api.clone(), config));
                let (mut complete, mut steady) = (false, false);
                let lost = loop {
                    if steady {
                        trouble.over();
                        backoff.reset();
                    }
                    let event = tokio::select! {
                        event = timeout(patience(complete, steady), events.next()) => event,
                        // Both hooks and no deletion are a node that shuts down: only reading
                        // now tells it from a watch that is late.
                        () = turned(&mut urgent) => {
                            if let Some(fact) = reader.read(&api, &urgent, &mut trouble).await {
                                yield fact;
                            }
                            continue;
                        }
                    };
                    match event {
                        Ok(Some(Ok(event))) => {
                            let live = matches!(event, Event::Apply(_));
                            steady |= complete;
                            complete |= matches!(event, Event::InitDone);
                            if let Event::Apply(pod) | Event::InitApply(pod) = event
                                && let Some(fact) = reader.take(&pod, live)
                            {
                                yield fact;
                            }
                        }
                        Ok(Some(Err(error))) => break Some(error),
                        Ok(None) => break None,
                        Err(_) if complete => steady = true,
                        Err(_) => {
                            trouble.silent();
                            break None;
                        }
                    }
                };
                if let Some(error) = lost {
                    may_watch = !is_forbidden(&error);
                    if may_watch {
                        trouble.watching(&error);
                    }
                }
            }
            let fact = reader.read(&api, &urgent, &mut trouble).await;
            let readable = fact.is_some();
            if readable && !may_watch {
                trouble.over();
            }
            yield fact.unwrap_or(Fact::Pod(None));
            let pause = if !may_watch && *urgent.borrow() {
                OFTEN
            } else if may_watch || !readable {
                backoff.next()
            } else {
                AT_EASE
            };
            // The right to watch may come later.
            may_watch |= pause == AT_EASE;
            tokio::select! {
                () = sleep(pause) => {}
                () = turned(&mut urgent) => {}
            }
        }
    }
}

/// Waits until somebody begins to wait.
async fn turned(urgent: &mut watch::Receiver<bool>) {
    loop {
        if urgent.changed().await.is_err() {
            // Nobody can any more: the process is ending.
            std::future::pending::<()>().await;
        }
        if *urgent.borrow_and_update() {
            return;
        }
    }
}

/// Turns what was read into facts.
struct Reader {
    identity: Identity,
    not_deleted: Option<Instant>,
    deletion: Option<Deletion>,
    known: bool,
}

impl Reader {
    fn new(identity: Identity) -> Self {
        Self { identity, not_deleted: None, deletion: None, known: false }
    }

    async fn read(
        &mut self,
        api: &Api<Metadata>,
        urgent: &watch::Receiver<bool>,
        trouble: &mut Trouble,
    ) -> Option<Fact> {
        let asked = Instant::now();
        let patience = if *urgent.borrow() { HASTE } else { PATIENCE };
        match timeout(patience, api.get(&self.identity.name)).await {
            Ok(Ok(pod)) if self.is_ours(&pod) => {
                self.note(&pod, asked);
                Some(self.fact(asked))
            }
            Ok(Ok(_)) => {
                trouble.stranger();
                self.known = false;
                None
            }
            Ok(Err(error)) => {
                trouble.reading(&error);
                self.known = false;
                None
            }
            Err(_) => {
                trouble.silent();
                self.known = false;
                None
            }
        }
    }

    /// The fact that the watch's news are, unless they are none.
    fn take(&mut self, pod: &Metadata, live: bool) -> Option<Fact> {
        if !self.is_ours(pod) {
            return None;
        }
        let now = Instant::now();
        if live && self.not_deleted.is_some() {
            self.not_deleted = now.checked_sub(WATCH_LAG).or(self.not_deleted);
        }
        let before = self.deletion;
        self.note(pod, now);
        let news = !self.known || self.deletion != before;
        news.then(|| self.fact(now))
    }

    /// Another pod of our name, a later one of a `StatefulSet`, tells nothing of us.
    fn is_ours(&self, pod: &Metadata) -> bool {
        self.identity.uid.is_empty() || pod.metadata.uid.as_ref() == Some(&self.identity.uid)
    }

    fn note(&mut self, pod: &Metadata, as_of: Instant) {
        let metadata = &pod.metadata;
        let Some(timestamp) = metadata.deletion_timestamp.as_ref() else {
            self.not_deleted = Some(as_of);
            return;
        };
        let timestamp = timestamp.0.as_second();
        // Another grace for the same deletion comes with another timestamp.
        if self.deletion.is_some_and(|known| known.timestamp == timestamp) {
            return;
        }
        let grace = metadata.deletion_grace_period_seconds.unwrap_or(0).max(0);
        let grace = Duration::from_secs(grace.unsigned_abs());
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        #[allow(clippy::cast_precision_loss, reason = "seconds since the epoch fit")]
        let left = timestamp as f64 - clock.as_secs_f64();
        let now = Instant::now().into_std();
        let not_yet = self.not_deleted.map(Instant::into_std);
        let kill_at = kill_at(now, not_yet, grace, left);
        self.deletion = Some(Deletion { timestamp, kill_at });
        // What comes next is a later request.
        self.not_deleted = Some(as_of);
    }

    fn fact(&mut self, as_of: Instant) -> Fact {
        self.known = true;
        Fact::Pod(Some(knowledge::Pod { as_of: as_of.into_std(), deletion: self.deletion }))
    }
}
