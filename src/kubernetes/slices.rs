//! The `EndpointSlices` of the namespace: which of them name our pod, and whether they offer it.
//!
//! Reads of each slice only what decides, and keeps only those that name us: a namespace with
//! thousands of endpoints costs what one slice costs. All slices are watched, since which Services
//! select this pod may change at any time, and no label or field of a slice tells it.

use std::{collections::HashMap, pin::pin, sync::Arc};

use async_stream::stream;
use futures_util::{Stream, StreamExt};
use kube::{
    Api, Client,
    runtime::watcher::{self, Event, watcher},
};
use tokio::time::{Instant, sleep, timeout};

use super::{Identity, Watched, peers::Services, slice::Slice, trouble::Trouble};
use crate::{
    drain::knowledge::{Endpoints, Fact},
    kubernetes::pod::{Backoff, patience},
};

/// Slices per page of a list: about 100 endpoints are in each.
const PAGE: u32 = 10;

/// What the slices say of our pod, each time that it changes; `None` when it is not known.
pub fn facts(
    client: Client,
    identity: Identity,
    peers: Option<Watched>,
) -> impl Stream<Item = Fact> + Send {
    let api: Api<Slice> = Api::namespaced(client, &identity.namespace);
    stream! {
        if identity.uid.is_empty() {
            tracing::warn!(
                "POD_UID is not set, so no endpoint can be told to be this pod's; add it to the \
                 sidecar's env by fieldRef metadata.uid"
            );
            return;
        }
        let mut trouble = Trouble::with("endpointslices");
        let mut backoff = Backoff::default();
        let mut services = peers.as_ref().map(|peers| Services::new(&identity.uid, peers.port));
        loop {
            let mut seen = Seen::new(&identity.uid);
            let mut told = None;
            let mut steady = false;
            let config = watcher::Config::default().page_size(PAGE);
            let mut events = pin!(watcher(api.clone(), config.clone()));
            loop {
                match timeout(patience(seen.complete, steady), events.next()).await {
                    Ok(Some(Ok(event))) => {
                        steady |= seen.complete;
                        let lists_again = services.as_mut().is_some_and(|s| s.take(&event, Instant::now().into_std()));
                        seen.take(event);
                        if let (Some(services), Some(peers), true, false) =
                            (&services, &peers, seen.complete, lists_again)
                        {
                            tell(services, peers);
                        }
                        if lists_again {
                            events.set(watcher(api.clone(), config.clone()));
                        }
                    }
                    Ok(Some(Err(error))) => {
                        trouble.watching(&error);
                        break;
                    }
                    Ok(None) => break,
                    Err(_) if seen.complete => steady = true,
                    Err(_) => {
                        trouble.silent();
                        break;
                    }
                }
                if steady {
                    trouble.over();
                    backoff.reset();
                }
                let now = seen.endpoints();
                if now != told && now.is_some() {
                    told = now;
                    yield Fact::Endpoints(now);
                }
            }
            if let Some(peers) = &peers {
                // Nobody waits for what may never come.
                peers.seen.send_if_modified(|seen| {
                    let is_news = seen.is_none();
                    seen.get_or_insert_default();
                    is_news
                });
            }
            yield Fact::Endpoints(None);
            sleep(backoff.next()).await;
        }
    }
}

/// Tells of the pods behind our Services, where that is news.
fn tell(services: &Services, watched: &Watched) {
    let peers = services.peers();
    watched.seen.send_if_modified(|seen| {
        let is_news = seen.as_deref() != Some(&peers);
        if is_news {
            *seen = Some(Arc::new(peers));
        }
        is_news
    });
}

/// The endpoints of ours that were seen, by slice.
struct Seen<'a> {
    uid: &'a str,
    slices: HashMap<String, Endpoints>,
    complete: bool,
}

impl<'a> Seen<'a> {
    fn new(uid: &'a str) -> Self {
        Self { uid, slices: HashMap::new(), complete: false }
    }

    fn take(&mut self, event: Event<Slice>) {
        match event {
            Event::Init => {
                self.complete = false;
                self.slices.clear();
            }
            Event::InitApply(slice) | Event::Apply(slice) => self.put(slice),
            Event::Delete(slice) => {
                self.slices.remove(slice.metadata.name.as_deref().unwrap_or_default());
            }
            Event::InitDone => self.complete = true,
        }
    }

    fn put(&mut self, slice: Slice) {
        let mut ours = Endpoints::default();
        for endpoint in slice.endpoints() {
            if endpoint.uid() != Some(self.uid) {
                continue;
            }
            let terminating = endpoint.is_terminating();
            ours.named += 1;
            ours.offering += usize::from(endpoint.is_ready() && !terminating);
            ours.terminating |= terminating;
        }
        let name = slice.metadata.name.unwrap_or_default();
        if ours.named > 0 {
            self.slices.insert(name, ours);
        } else {
            self.slices.remove(&name);
        }
    }

    /// The sum over all slices; `None` until each was seen once.
    fn endpoints(&self) -> Option<Endpoints> {
        self.complete.then(|| {
            self.slices.values().fold(Endpoints::default(), |sum, slice| Endpoints {
                named: sum.named + slice.named,
                offering: sum.offering + slice.offering,
                terminating: sum.terminating || slice.terminating,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, endpoints: &Value) -> Slice {
        serde_json::from_value(json!({ "metadata": { "name": name }, "endpoints": endpoints }))
            .unwrap()
    }

    fn endpoint(uid: &str, conditions: &Value) -> Value {
        json!({
            "addresses": ["10.0.0.1"], "conditions": conditions,
            "targetRef": { "kind": "Pod", "name": "p", "uid": uid }
        })
    }

    #[test]
    fn only_our_endpoints_count_over_all_slices() {
        let mut seen = Seen::new("ours");
        seen.take(Event::Init);
        let offered = json!({ "ready": true, "serving": true, "terminating": false });
        seen.take(Event::InitApply(slice(
            "a",
            &json!([endpoint("ours", &offered), endpoint("other", &offered)]),
        )));
        seen.take(Event::InitApply(slice("b", &json!([endpoint("ours", &json!({}))]))));
        seen.take(Event::InitApply(slice("none", &Value::Null)));
        let nobody = json!([{ "addresses": ["10.0.0.2"] }, { "targetRef": { "kind": "Node" } }]);
        seen.take(Event::InitApply(slice("no-uid", &nobody)));
        assert_eq!(seen.endpoints(), None, "not before all were seen");
        seen.take(Event::InitDone);
        let expected =
            |named, offering, terminating| Some(Endpoints { named, offering, terminating });
        assert_eq!(seen.endpoints(), expected(2, 2, false));
        // publishNotReadyAddresses: ready stays true, terminating tells.
        let ending = json!({ "ready": true, "serving": true, "terminating": true });
        seen.take(Event::Apply(slice("a", &json!([endpoint("ours", &ending)]))));
        assert_eq!(seen.endpoints(), expected(2, 1, true));
        let unready = json!({ "ready": false, "serving": false });
        seen.take(Event::Apply(slice("b", &json!([endpoint("ours", &unready)]))));
        assert_eq!(seen.endpoints(), expected(2, 0, true));
        seen.take(Event::Delete(slice("a", &json!([]))));
        seen.take(Event::Apply(slice("b", &json!([endpoint("other", &offered)]))));
        assert_eq!(seen.endpoints(), expected(0, 0, false));
        seen.take(Event::Init);
        assert_eq!(seen.endpoints(), None);
    }

    #[test]
    fn conditions_that_are_not_known_mean_ready_and_not_terminating() {
        let mut without = endpoint("ours", &Value::Null);
        without.as_object_mut().unwrap().remove("conditions");
        for nil in [
            without,
            endpoint("ours", &Value::Null),
            endpoint("ours", &json!({})),
            endpoint("ours", &json!({ "ready": null, "serving": null, "terminating": null })),
        ] {
            let mut seen = Seen::new("ours");
            seen.take(Event::InitApply(slice("a", &json!([nil]))));
            seen.take(Event::InitDone);
            let expected = Endpoints { named: 1, offering: 1, terminating: false };
            assert_eq!(seen.endpoints(), Some(expected), "{nil}");
        }
    }
}
