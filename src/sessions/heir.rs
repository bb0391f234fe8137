//! Which pod opens a session anew when its own cannot: rendezvous hashing, so that all sidecars
//! choose the same without a word between them. (Whether one before it has opened it, it asks.)
//! Pure.
//!
//! Never hashes by what differs between processes, releases or machines. Where two sidecars see
//! different pods for a moment, they disagree only about sessions whose heir one of them does not
//! see.

use std::cmp::Reverse;

use sha2::{Digest, Sha256};

/// The UID among `ready` that inherits the session which its clients call `token`; the order of
/// `ready` does not matter. Each pod scores the first eight bytes, the highest first, of
/// SHA-256(SHA-256(token), UID), and the highest score wins.
#[must_use]
pub fn heir<'a>(token: &str, ready: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let session = Sha256::digest(token);
    // Scores that are alike are not to be expected; the greater UID would win.
    ready.into_iter().max_by_key(|pod| (score(&session, pod), *pod))
}

/// The UIDs of `pods` in the order in which they would inherit the session: who is the heir now, who
/// was it before that one came, and so on.
#[must_use]
pub fn ranked<'a>(token: &str, pods: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let session = Sha256::digest(token);
    let mut pods: Vec<_> = pods.into_iter().collect();
    pods.sort_by_cached_key(|pod| Reverse((score(&session, pod), *pod)));
    pods
}

fn score(session: &[u8], pod: &str) -> [u8; 8] {
    let digest = Sha256::new_with_prefix(session).chain_update(pod).finalize();
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    fn pods(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("pod-{number}")).collect()
    }

    fn chosen<'a>(token: &str, pods: &'a [String]) -> Option<&'a str> {
        heir(token, pods.iter().map(String::as_str))
    }

    /// Computed by another program: a sidecar of another release has to choose the same.
    #[test]
    fn the_choice_is_fixed() {
        let pods = pods(5);
        for (token, expected) in [
            ("a", "pod-3"),
            ("b", "pod-4"),
            ("c", "pod-3"),
            ("e1.x", "pod-1"),
            ("e1.y", "pod-0"),
            ("e1.z", "pod-3"),
        ] {
            assert_eq!(chosen(token, &pods), Some(expected), "{token}");
        }
        assert_eq!(chosen("a", &[]), None);
    }

    #[test]
    fn sessions_are_spread_over_the_pods() {
        let pods = pods(10);
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for number in 0..10_000 {
            *counts.entry(chosen(&format!("e1.{number}"), &pods).unwrap()).or_default() += 1;
        }
        assert_eq!(counts.len(), pods.len());
        // Each has 1000 but for chance, of which five deviations are 150.
        assert!(counts.values().all(|count| count.abs_diff(1000) < 150), "{counts:?}");
    }

    proptest! {
        /// Also any two views that differ by more: whoever sees the heir of the greater view
        /// agrees with it.
        #[test]
        fn views_agree_but_for_the_heir_that_one_does_not_see(
            token in "e1\\.[0-9a-zA-Z_-]{1,40}",
            pods in prop::collection::btree_set("[0-9a-f-]{1,36}", 1..20),
            unseen in any::<prop::sample::Index>(),
        ) {
            let all: Vec<&str> = pods.iter().map(String::as_str).collect();
            let unseen = all[unseen.index(all.len())];
            let chosen = heir(&token, all.iter().copied());
            prop_assert!(chosen.is_some_and(|chosen| pods.contains(chosen)));
            let view: BTreeSet<&str> = all.iter().copied().filter(|pod| *pod != unseen).collect();
            let other = heir(&token, view.iter().copied());
            prop_assert_eq!(other.is_none(), view.is_empty());
            if chosen != Some(unseen) {
                prop_assert_eq!(other, chosen);
            }
            prop_assert_eq!(ranked(&token, all.iter().copied()).first().copied(), chosen);
            // Nor does it matter in which order they were told, or how often.
            let told = all.iter().rev().chain(&all).copied();
            prop_assert_eq!(heir(&token, told), chosen);
        }
    }
}
