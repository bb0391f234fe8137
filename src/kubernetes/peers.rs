//! The pods behind the Services that offer our data port, from the `EndpointSlices`. Pure.
//!
//! Keeps the slices of these Services alone: of any other, its name and its Service's. Never takes
//! a Service for ours that selects our pod for another port, such as one for metrics, which may
//! select every pod there is.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use kube::runtime::watcher::Event;

use super::slice::Slice;
use crate::sessions::peers::{Peer, Peers};

/// What the slices of the namespace have told so far.
pub struct Services {
    /// Our pod's UID.
    uid: String,
    /// The number of our data port.
    port: u16,
    /// The Services that offer it; where none does any more, the last that have: a pod that is deleted
    /// by force leaves its endpoints at once, and what still comes to it has to go somewhere.
    ours: HashMap<String, Ours>,
    /// Their slices, by name.
    kept: HashMap<String, Kept>,
    /// The Services of the other slices, by the slice's name.
    passed: HashMap<String, String>,
    /// Whether all slices were listed once.
    listed: bool,
}

/// Services that let go of a pod at the same time do so within this.
const TOGETHER: Duration = Duration::from_secs(10);

/// A Service of ours.
struct Ours {
    /// What it calls our data port: the first name in order, where several lead to it.
    port: String,
    /// When it ceased to offer us.
    left_at: Option<Instant>,
}

/// A slice of a Service of ours.
struct Kept {
    service: String,
    ports: Vec<(String, u16)>,
    /// What it calls our data port, where it offers it.
    offers_us: Option<String>,
    pods: Vec<(String, IpAddr, State)>,
}

#[derive(Clone, Copy)]
struct State {
    serving: bool,
    terminating: bool,
}

impl Services {
    #[must_use]
    pub fn new(uid: &str, port: u16) -> Self {
        Self {
            uid: uid.to_owned(),
            port,
            ours: HashMap::new(),
            kept: HashMap::new(),
            passed: HashMap::new(),
            listed: false,
        }
    }

    /// Takes the watch's next word; whether all slices have to be listed again, since a Service
    /// turned out to be ours after slices of it were passed over.
    #[must_use]
    pub fn take(&mut self, event: &Event<Slice>, now: Instant) -> bool {
        match event {
            Event::Init => {
                self.listed = false;
                self.begin();
            }
            Event::InitApply(slice) | Event::Apply(slice) => self.put(slice),
            Event::Delete(slice) => self.delete(slice.name()),
            Event::InitDone => self.listed = true,
        }
        // Settled only once all were seen: until then any Service may turn out to be ours.
        self.listed && self.settle(now)
    }

    /// All slices are listed anew. Which Services are ours stays known, so that this time none of
    /// their slices is passed over.
    pub fn begin(&mut self) {
        self.kept.clear();
        self.passed.clear();
    }

    /// A slice is listed, or has changed.
    pub fn put(&mut self, slice: &Slice) {
        let Some(service) = slice.service() else {
            // Whoever made it by hand may have made it of anything.
            return self.delete(slice.name());
        };
        let names_us = slice.endpoints().any(|endpoint| endpoint.uid() == Some(&*self.uid));
        let names = slice.ports().filter(|(_, number)| names_us && *number == self.port);
        let offers_us = names.map(|(name, _)| name.to_owned()).min();
        if let Some(port) = offers_us.clone() {
            let ours = Ours { port, left_at: None };
            self.ours.entry(service.to_owned()).or_insert(ours);
        }
        if self.ours.contains_key(service) {
            self.passed.remove(slice.name());
            self.kept.insert(slice.name().to_owned(), Kept::of(slice, service, offers_us));
        } else {
            self.passed.insert(slice.name().to_owned(), service.to_owned());
        }
    }

    pub fn delete(&mut self, slice: &str) {
        self.kept.remove(slice);
        self.passed.remove(slice);
    }

    /// All slices were told; whether some have to be told again: a Service turned out to be ours
    /// after a slice of it had been passed over. Lets go of what is not ours any more.
    #[must_use]
    pub fn settle(&mut self, now: Instant) -> bool {
        for (service, ours) in &mut self.ours {
            let slices = self.kept.values().filter(|slice| slice.service == *service);
            match slices.filter_map(|slice| slice.offers_us.as_ref()).min() {
                Some(port) => *ours = Ours { port: port.clone(), left_at: None },
                None => drop(ours.left_at.get_or_insert(now)),
            }
        }
        let offered_until = self.ours.values().map(|ours| ours.left_at.unwrap_or(now)).max();
        self.ours.retain(|_, ours| {
            let stays = |left_at| offered_until < Some(left_at + TOGETHER);
            ours.left_at.is_none_or(stays)
        });
        let others = self.kept.extract_if(|_, slice| !self.ours.contains_key(&slice.service));
        self.passed.extend(others.map(|(name, slice)| (name, slice.service)));
        self.passed.values().any(|service| self.ours.contains_key(service))
    }

    /// The pods, our own among them.
    #[must_use]
    pub fn peers(&self) -> Peers {
        let mut peers = Peers::default();
        for slice in self.kept.values() {
            let Some(port) = self.data_port(slice) else { continue };
            for (uid, ip, state) in &slice.pods {
                let State { serving, terminating } = *state;
                let address = SocketAddr::new(*ip, port);
                peers.add(uid, Peer { address, serving, terminating });
            }
        }
        peers
    }

    /// The port that, in this slice, has the name which our data port has in its Service. Pods of
    /// one Service may number it differently, and are in slices of their own then.
    fn data_port(&self, slice: &Kept) -> Option<u16> {
        let name = &self.ours.get(&slice.service)?.port;
        slice.ports.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }
}

impl Kept {
    fn of(slice: &Slice, service: &str, offers_us: Option<String>) -> Self {
        let pods = slice.endpoints().filter_map(|endpoint| {
            // What has no UID is no pod, and what has no IP is a name.
            let (uid, ip) = (endpoint.uid()?, endpoint.address()?.parse().ok()?);
            let (serving, terminating) = (endpoint.is_serving(), endpoint.is_terminating());
            Some((uid.to_owned(), ip, State { serving, terminating }))
        });
        Self {
            service: service.to_owned(),
            ports: slice.ports().map(|(name, number)| (name.to_owned(), number)).collect(),
            offers_us,
            pods: pods.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, service: &str, ports: &[(&str, u16)], endpoints: &[Value]) -> Slice {
        let ports: Vec<_> =
            ports.iter().map(|(name, port)| json!({ "name": name, "port": port })).collect();
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn pod(uid: &str, address: &str) -> Value {
        in_state(uid, address, &json!({ "ready": true, "serving": true, "terminating": false }))
    }

    fn in_state(uid: &str, address: &str, conditions: &Value) -> Value {
        json!({
            "addresses": [address], "conditions": conditions,
            "targetRef": { "kind": "Pod", "uid": uid },
        })
    }

    fn services(slices: &[Slice]) -> Services {
        let mut services = Services::new("ours", 7070);
        told(&mut services, slices);
        services
    }

    /// As a watch tells them; whether they have to be told again.
    fn told(services: &mut Services, slices: &[Slice]) -> bool {
        told_at(Instant::now(), services, slices)
    }

    fn told_at(now: Instant, services: &mut Services, slices: &[Slice]) -> bool {
        services.begin();
        for slice in slices {
            services.put(slice);
        }
        services.settle(now)
    }

    fn seen(services: &Services, uid: &str) -> Option<(String, bool, bool)> {
        let peer = services.peers().get(uid).copied()?;
        Some((peer.address.to_string(), peer.serving, peer.terminating))
    }

    const HTTP: &[(&str, u16)] = &[("http", 7070)];

    #[test]
    fn peers_are_the_pods_of_the_services_that_offer_our_data_port() {
        let (ours, other) = (pod("ours", "10.0.0.1"), pod("other", "10.0.0.2"));
        for (what, slices, expected) in [
            ("alone", vec![slice("a", "s", HTTP, std::slice::from_ref(&ours))], None),
            (
                "beside us",
                vec![slice("a", "s", HTTP, &[ours.clone(), other.clone()])],
                Some("10.0.0.2:7070"),
            ),
            (
                "a Service that does not select us",
                vec![
                    slice("a", "s", HTTP, std::slice::from_ref(&ours)),
                    slice("b", "t", HTTP, std::slice::from_ref(&other)),
                ],
                None,
            ),
            (
                "a Service for another port of ours",
                vec![
                    slice("a", "s", HTTP, std::slice::from_ref(&ours)),
                    slice("b", "metrics", &[("m", 9090)], &[ours.clone(), other.clone()]),
                ],
                None,
            ),
            (
                "another number for the same name",
                vec![
                    slice("a", "s", &[("admin", 1), ("http", 7070)], std::slice::from_ref(&ours)),
                    slice(
                        "b",
                        "s",
                        &[("admin", 7070), ("http", 8000)],
                        std::slice::from_ref(&other),
                    ),
                ],
                Some("10.0.0.2:8000"),
            ),
            (
                "a port without our name",
                vec![
                    slice("a", "s", HTTP, std::slice::from_ref(&ours)),
                    slice("b", "s", &[("grpc", 7070)], std::slice::from_ref(&other)),
                ],
                None,
            ),
            (
                "IPv6",
                vec![slice("a", "s", &[("", 7070)], &[ours.clone(), pod("other", "fd00::2")])],
                Some("[fd00::2]:7070"),
            ),
            (
                "no address of a pod",
                vec![slice("a", "s", HTTP, &[ours.clone(), pod("other", "example.org")])],
                None,
            ),
        ] {
            let services = services(&slices);
            assert_eq!(seen(&services, "ours").unwrap().0, "10.0.0.1:7070", "{what}");
            let address = seen(&services, "other").map(|(address, ..)| address);
            assert_eq!(address.as_deref(), expected, "{what}");
        }
    }

    #[test]
    fn a_peer_is_in_the_state_that_its_endpoint_tells() {
        for (conditions, serving, terminating) in [
            (json!({}), true, false),
            (json!(null), true, false),
            (json!({ "ready": false }), false, false),
            (json!({ "ready": false, "serving": true, "terminating": true }), true, true),
            (json!({ "ready": false, "serving": false, "terminating": true }), false, true),
            // publishNotReadyAddresses: ready says nothing.
            (json!({ "ready": true, "serving": false, "terminating": false }), false, false),
        ] {
            let other = in_state("other", "10.0.0.2", &conditions);
            let services = services(&[slice("a", "s", HTTP, &[pod("ours", "10.0.0.1"), other])]);
            let expected = Some(("10.0.0.2:7070".to_owned(), serving, terminating));
            assert_eq!(seen(&services, "other"), expected, "{conditions}");
        }
    }

    #[test]
    fn what_names_no_pod_or_no_service_is_nothing() {
        let nobody = json!({ "addresses": ["10.0.0.3"] });
        let node = json!({ "addresses": ["10.0.0.4"], "targetRef": { "kind": "Node" } });
        let no_address = json!({ "targetRef": { "uid": "other" }, "addresses": null });
        let endpoints = [pod("ours", "10.0.0.1"), nobody, node, no_address];
        let mut services = services(&[slice("a", "s", HTTP, &endpoints)]);
        assert_eq!(services.peers().len(), 1);
        let by_hand: Slice =
            serde_json::from_value(json!({ "metadata": { "name": "a" }, "endpoints": [] }))
                .unwrap();
        services.put(&by_hand);
        assert!(!services.settle(Instant::now()) && services.peers().is_empty());
    }

    #[test]
    fn a_service_that_turns_out_to_be_ours_is_told_again() {
        let mine = slice("a", "s", HTTP, &[pod("ours", "10.0.0.1")]);
        let more = slice("b", "s", HTTP, &[pod("other", "10.0.0.2")]);
        let foreign = slice("c", "t", HTTP, &[pod("stranger", "10.0.0.3")]);
        let all = [foreign.clone(), more.clone(), mine.clone()];
        let mut services = Services::new("ours", 7070);
        assert!(told(&mut services, &all));
        assert!(!told(&mut services, &all), "once is enough");
        assert_eq!(services.peers().len(), 2);
        // Where the order is lucky, or the passed one is the one that changes, not even once.
        let mut services = Services::new("ours", 7070);
        assert!(!told(&mut services, &[mine.clone(), more.clone(), foreign.clone()]));
        let without = slice("a", "s", HTTP, &[pod("other", "10.0.0.2")]);
        assert!(!told(&mut services, &[without, foreign]));
        services.put(&mine);
        assert!(!services.settle(Instant::now()));
        assert_eq!(services.peers().len(), 1);
        services.delete("a");
        assert!(!services.settle(Instant::now()) && services.peers().is_empty());
    }

    #[test]
    fn what_is_not_ours_any_more_is_let_go_of() {
        let (ours, other) = (pod("ours", "10.0.0.1"), pod("other", "10.0.0.2"));
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let both = [slice("a", "s", HTTP, &[ours.clone(), other.clone()])];
        let mut services = Services::new("ours", 7070);
        assert!(!told_at(began, &mut services, &both));
        // Another Service has taken it over, some time ago.
        let left = [slice("a", "s", HTTP, &[other]), slice("c", "t", HTTP, &[ours])];
        for (seconds, peers) in [(60, 2), (69, 2), (70, 1)] {
            assert!(!told_at(after(seconds), &mut services, &left));
            assert_eq!((services.peers().len(), services.kept.len()), (peers, peers), "{seconds}");
        }
    }

    /// One after the other, as a pod does that is deleted by force.
    #[test]
    fn who_is_in_no_endpoints_any_more_keeps_those_that_it_was_in() {
        let (ours, other) = (pod("ours", "10.0.0.1"), pod("other", "10.0.0.2"));
        let alone = slice("c", "t", HTTP, std::slice::from_ref(&ours));
        let named = [("b", 7070), ("a", 7070)];
        let began = Instant::now();
        let both = [slice("a", "s", &named, &[ours, other.clone()]), alone.clone()];
        let mut services = Services::new("ours", 7070);
        assert!(!told_at(began, &mut services, &both));
        let left = slice("a", "s", &[("a", 7071)], std::slice::from_ref(&other));
        let foreign = slice("d", "u", HTTP, std::slice::from_ref(&other));
        for (seconds, slices, peers) in [
            (60, vec![left.clone(), alone, foreign.clone()], 2),
            (61, vec![left.clone(), foreign.clone()], 1),
            (3600, vec![left, foreign], 1),
        ] {
            let now = began + Duration::from_secs(seconds);
            assert!(!told_at(now, &mut services, &slices), "{seconds}");
            assert_eq!(services.peers().len(), peers, "{seconds}");
            assert_eq!(seen(&services, "other").unwrap().0, "10.0.0.2:7071", "{seconds}");
        }
    }

    #[test]
    fn thousands_of_endpoints_of_others_are_not_kept() {
        let mut services = Services::new("ours", 7070);
        services.begin();
        for number in 0..50 {
            let pods: Vec<_> =
                (0..100).map(|at| pod(&format!("{number}-{at}"), "10.1.0.1")).collect();
            services.put(&slice(&format!("o-{number}"), "others", HTTP, &pods));
        }
        // One for another port, which selects every pod there is.
        let all = [pod("ours", "10.0.0.1"), pod("other", "10.0.0.2")];
        let metrics = slice("m", "metrics", &[("metrics", 9090)], &all);
        let ours = slice("a", "s", HTTP, &[pod("ours", "10.0.0.1")]);
        for slice in [metrics, ours] {
            services.put(&slice);
        }
        assert!(!services.settle(Instant::now()));
        assert_eq!((services.kept.len(), services.passed.len()), (1, 51));
        assert_eq!(services.peers().len(), 1);
    }
}
