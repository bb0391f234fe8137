//! The pods behind the Services that select ours, as their endpoints tell: where a session's own
//! pod is, and which one inherits it. Pure.
//!
//! Never holds an address that no endpoint of these Services named: a token can choose among them,
//! and nothing else.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::heir::{heir, ranked};

/// A pod, our own among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Of its data port.
    pub address: SocketAddr,
    /// Its readiness holds, whether it ends or not.
    pub serving: bool,
    pub terminating: bool,
}

impl Peer {
    /// Whether it may have sessions: one that is not ready for a moment has its own all the same.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.serving || !self.terminating
    }

    /// Whether it may be given sessions.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.serving && !self.terminating
    }
}

/// All of them, by UID.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peers(BTreeMap<Box<str>, Peer>);

impl Peers {
    /// The pod of this UID, if it is one of them.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Peer> {
        self.0.get(uid)
    }

    /// The UID of the pod that inherits a session: one that is ready, and not among those that are
    /// `out`, since they give it away or cannot be reached.
    #[must_use]
    pub fn heir(&self, token: &str, out: impl Fn(&str) -> bool) -> Option<&str> {
        let ready = self.0.iter().filter(|(_, peer)| peer.is_ready());
        heir(token, ready.map(|(uid, _)| &**uid).filter(|uid| !out(uid)))
    }

    /// Those that may have a session which is not where it was opened, the likeliest first.
    #[must_use]
    pub fn holders(&self, token: &str, out: impl Fn(&str) -> bool) -> Vec<&str> {
        let alive = self.0.iter().filter(|(_, peer)| peer.may_serve());
        ranked(token, alive.map(|(uid, _)| &**uid).filter(|uid| !out(uid)))
    }

    /// What one more endpoint tells. Several Services, ports and address families tell of the same
    /// pod, each a little earlier or later: it serves while one says so, and ends once one says so.
    pub fn add(&mut self, uid: &str, told: Peer) {
        let Some(known) = self.0.get_mut(uid) else {
            self.0.insert(uid.into(), told);
            return;
        };
        known.serving |= told.serving;
        known.terminating |= told.terminating;
        // IPv4 first, since that is what listens by default; and the same whatever came first.
        let rank = |address: SocketAddr| (address.is_ipv6(), address);
        if rank(told.address) < rank(known.address) {
            known.address = told.address;
        }
    }

    /// Whether it is one of them that connects from there.
    #[must_use]
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.0.values().any(|peer| peer.address.ip() == address)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, serving: bool, terminating: bool) -> Peer {
        Peer { address: address.parse().unwrap(), serving, terminating }
    }

    #[test]
    fn endpoints_of_one_pod_are_one_peer_in_any_order() {
        let told = [
            peer("[fd00::1]:7070", true, false),
            peer("10.0.0.2:7070", false, true),
            peer("10.0.0.1:7070", false, false),
        ];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut peers = Peers::default();
            for at in order {
                peers.add("a", told[at]);
            }
            assert_eq!(peers.len(), 1);
            assert_eq!(peers.get("a"), Some(&peer("10.0.0.1:7070", true, true)), "{order:?}");
        }
    }

    #[test]
    fn only_who_is_ready_inherits() {
        let mut peers = Peers::default();
        peers.add("terminating", peer("10.0.0.1:1", true, true));
        peers.add("starting", peer("10.0.0.2:1", false, false));
        peers.add("gone", peer("10.0.0.3:1", false, true));
        let heirs = |peers: &Peers, out: &str| {
            let tokens = (0..50).map(|number| format!("e1.{number}"));
            let mut heirs: Vec<_> = tokens
                .map(|token| peers.heir(&token, |uid| uid == out).map(str::to_owned))
                .collect();
            heirs.sort_unstable();
            heirs.dedup();
            heirs
        };
        assert_eq!(heirs(&peers, ""), [None]);
        peers.add("one", peer("10.0.0.4:1", true, false));
        peers.add("other", peer("10.0.0.5:1", true, false));
        assert_eq!(heirs(&peers, ""), [Some("one".to_owned()), Some("other".to_owned())]);
        assert_eq!(heirs(&peers, "one"), [Some("other".to_owned())]);
        // One that ends may still have it, and one that is not ready.
        let mut holders = peers.holders("e1.x", |uid| uid == "one");
        holders.sort_unstable();
        assert_eq!(holders, ["other", "starting", "terminating"]);
        assert!(peers.get("nobody").is_none() && !peers.is_empty());
    }
}
