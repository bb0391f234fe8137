//! Where a request of a session goes: to our own server, to the pod that has the session, or to the
//! one that opens it anew. Pure.
//!
//! Never sends on what a peer has sent, so that no request goes in a circle, whatever two pods
//! think of each other: the peer hears who may have it. Never leads where no endpoint of our own
//! Services does.

use super::{
    peers::{Peer, Peers},
    token::Token,
};

/// Who sends a request to this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Client,
    /// A peer, to the pod that the session was opened in.
    ToOwner,
    /// A peer, to the pod that is to open it anew, or has.
    ToHeir,
    /// A peer that has had it until now, to the same.
    Gives,
}

/// What the session is to this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is not here.
    Stranger,
    /// It was opened here, anew or not, and our server should know it.
    Lives,
    /// The same, but this pod ends, and nothing of it is pending.
    Leaves,
    /// It was opened here, and our server does not know it any more.
    Lost,
}

/// A request of a session.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub token: &'a Token,
    /// The token as the client spells it.
    pub text: &'a str,
    pub sender: Sender,
    pub standing: Standing,
    /// The pod that a peer has named when it was asked for the session.
    pub named: Option<&'a str>,
    /// Those that do not have it, or cannot be reached.
    pub tried: &'a [Box<str>],
    /// Whether a call in flight may be waiting for it: an answer, a cancellation, a client that is
    /// back.
    pub follows: bool,
    /// Whether this pod ends.
    pub ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// To our own server.
    Here,
    /// To our own server, once the session is opened there anew.
    Anew,
    /// To the peer of this UID, which is told as what.
    There(&'a str, Sender),
    /// The peer that sent it hears that it is not here, and who may have it.
    NotHere(Option<&'a str>),
    /// The session is over: 404.
    Over,
}

/// `ours`: our pod's UID. `reopens`: whether sessions are opened anew at all.
#[must_use]
pub fn place<'a>(peers: &'a Peers, ours: &str, asked: &Asked<'a>, reopens: bool) -> Place<'a> {
    let reopens = reopens && asked.token.params().is_some();
    let anew = if reopens { Place::Anew } else { Place::Over };
    let owner = asked.token.pod();
    let was_tried = |uid: &str| asked.tried.iter().any(|tried| &**tried == uid);
    // A pod that gives a session away, or ends, is not given it.
    let leaves = asked.standing == Standing::Leaves || asked.ends;
    // Found out only where it matters: most requests go to the owner.
    let heir = || {
        let is_out = |uid: &str| was_tried(uid) || (leaves && uid == ours);
        if reopens { peers.heir(asked.text, is_out) } else { None }
    };
    let reachable =
        |uid: &&str| *uid != ours && !was_tried(uid) && peers.get(uid).is_some_and(Peer::may_serve);
    let named = asked.named.filter(reachable);
    // Its calls in flight stay there to their end, whoever has the session by now.
    let ends = |uid: &str| peers.get(uid).is_some_and(|peer| peer.terminating);
    if asked.follows && asked.sender == Sender::Client && reachable(&owner) && ends(owner) {
        return Place::There(owner, Sender::ToOwner);
    }
    match (asked.standing, asked.sender) {
        (Standing::Lives, _) => Place::Here,
        (Standing::Lost, _) => anew,
        // Where nobody could take it, it stays to the end.
        (Standing::Leaves, Sender::Client) => {
            named.or_else(heir).map_or(Place::Here, |heir| Place::There(heir, Sender::Gives))
        }
        (Standing::Leaves, _) => {
            named.or_else(heir).map_or(Place::Here, |heir| Place::NotHere(Some(heir)))
        }
        (Standing::Stranger, Sender::ToOwner) => Place::NotHere(None),
        (Standing::Stranger, Sender::ToHeir | Sender::Gives) => match heir() {
            Some(heir) if asked.ends => Place::NotHere(Some(heir)),
            // The sender sees other pods than we do: two sessions are better than none.
            _ => anew,
        },
        (Standing::Stranger, Sender::Client) => {
            if let Some(named) = named {
                return Place::There(named, Sender::ToHeir);
            }
            if reachable(&owner) && asked.named != Some(ours) {
                return Place::There(owner, Sender::ToOwner);
            }
            match heir() {
                Some(heir) if heir == ours => Place::Anew,
                Some(heir) => Place::There(heir, Sender::ToHeir),
                // Nobody is ready, or nobody can tell: the client has come to us.
                None if !asked.ends => anew,
                None => Place::Over,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sessions::heir::heir;

    const SENDERS: [Sender; 4] = [Sender::Client, Sender::ToOwner, Sender::ToHeir, Sender::Gives];
    const STANDINGS: [Standing; 4] =
        [Standing::Stranger, Standing::Lives, Standing::Leaves, Standing::Lost];

    fn peers(all: &[(&str, bool, bool)]) -> Peers {
        let mut peers = Peers::default();
        for (uid, serving, terminating) in all {
            let (serving, terminating) = (*serving, *terminating);
            let address = ([10, 0, 0, 1], 7070).into();
            peers.add(uid, Peer { address, serving, terminating });
        }
        peers
    }

    fn token(pod: &str) -> Token {
        Token::new(pod, "abc", "2025-11-25", Some("{}")).unwrap()
    }

    /// A client asks the first pod, which has never heard of the session.
    fn asked<'a>(token: &'a Token, text: &'a str) -> Asked<'a> {
        let (sender, standing) = (Sender::Client, Standing::Stranger);
        let (named, tried, follows, ends) = (None, &[][..], false, false);
        Asked { token, text, sender, standing, named, tried, follows, ends }
    }

    /// Of three pods `owner` has the session, `heir` would inherit it, and then `ours`.
    #[test]
    fn the_table() {
        use Place::{Anew, Here, NotHere, Over, There};
        use Sender::{Client, Gives, ToHeir, ToOwner};
        use Standing::{Leaves, Lives, Lost, Stranger};
        let text = (0..99)
            .map(|number| format!("e1.{number}"))
            .find(|text| {
                let (all, two) = (["owner", "heir", "ours"], ["owner", "ours"]);
                heir(text, all) == Some("heir") && heir(text, two) == Some("ours")
            })
            .unwrap();
        let [owner, heir, ours] = ["owner", "heir", "ours"]
            .map(|uid| move |serving, terminating| (uid, serving, terminating));
        let all = [owner(true, false), heir(true, false), ours(true, false)];
        let ending = [owner(true, true), heir(true, false), ours(true, false)];
        let dead = [owner(false, true), heir(true, false), ours(true, false)];
        let unready = [owner(false, false), heir(true, false), ours(true, false)];
        let gone = [heir(true, false), ours(true, false)];
        let nobody = [heir(false, false), ours(false, true)];
        let (to_owner, to_heir) = (There("owner", ToOwner), There("heir", ToHeir));
        let given = There("heir", Gives);
        for (seen, standing, sender, refused, reopened, pinned) in [
            // What is here stays here.
            (&all[..], Lives, Client, false, Here, Here),
            (&gone, Lives, ToOwner, false, Here, Here),
            (&all, Lives, ToHeir, false, Here, Here),
            (&nobody, Lives, Client, false, Here, Here),
            // The server has restarted.
            (&all, Lost, Client, false, Anew, Over),
            (&all, Lost, ToOwner, false, Anew, Over),
            // It is handed over, if somebody takes it.
            (&all, Leaves, Client, false, given, Here),
            (&all, Leaves, ToOwner, false, NotHere(Some("heir")), Here),
            (&all, Leaves, ToHeir, false, NotHere(Some("heir")), Here),
            (&nobody, Leaves, Client, false, Here, Here),
            (&nobody, Leaves, ToOwner, false, Here, Here),
            (&nobody, Leaves, ToHeir, false, Here, Here),
            // It is elsewhere.
            (&all, Stranger, Client, false, to_owner, to_owner),
            (&ending, Stranger, Client, false, to_owner, to_owner),
            (&ending, Stranger, Client, true, to_heir, Over),
            (&all, Stranger, Client, true, to_heir, Over),
            (&dead, Stranger, Client, false, to_heir, Over),
            (&unready, Stranger, Client, false, to_owner, to_owner),
            (&gone, Stranger, Client, false, to_heir, Over),
            (&gone[1..], Stranger, Client, false, Anew, Over),
            (&nobody, Stranger, Client, false, Anew, Over),
            (&[], Stranger, Client, false, Anew, Over),
            // A peer thinks that it is here.
            (&all, Stranger, ToOwner, false, NotHere(None), NotHere(None)),
            (&all, Stranger, ToHeir, false, Anew, Over),
            (&all, Stranger, Gives, false, Anew, Over),
        ] {
            let (token, tried) = (token("owner"), [Box::from("owner")]);
            let tried = if refused { &tried[..] } else { &[] };
            let asked = Asked { sender, standing, tried, ..asked(&token, &text) };
            let peers = peers(seen);
            let of = |reopens| place(&peers, "ours", &asked, reopens);
            assert_eq!(of(true), reopened, "{seen:?} {asked:?}");
            assert_eq!(of(false), pinned, "pinned: {seen:?} {asked:?}");
            // Without params it is as if it was pinned.
            let bare = Token::new("owner", "abc", "", None).unwrap();
            let bare = Asked { token: &bare, ..asked };
            assert_eq!(place(&peers, "ours", &bare, true), pinned, "bare: {seen:?} {asked:?}");
        }
    }

    /// Though its endpoint does not tell yet that it ends.
    #[test]
    fn who_gives_a_session_away_or_ends_is_not_given_it() {
        let peers = peers(&[("owner", true, false), ("ours", true, false)]);
        let inherits = |uid: &str| {
            let mut texts = (0..99).map(|number| format!("e1.{number}"));
            texts.find(|text| peers.heir(text, |_| false) == Some(uid)).unwrap()
        };
        let (token, tried) = (token("owner"), [Box::from("owner")]);
        let text = inherits("owner");
        let refused = Asked { tried: &tried, ..asked(&token, &text) };
        assert_eq!(place(&peers, "ours", &refused, true), Place::Anew);
        let text = inherits("ours");
        let given = Asked { standing: Standing::Leaves, ..asked(&token, &text) };
        assert_eq!(place(&peers, "ours", &given, true), Place::There("owner", Sender::Gives));
        // Nor is one that ends, whoever sends it; where nobody else could take it, it does.
        for sender in [Sender::ToHeir, Sender::Gives] {
            let late = Asked { sender, ends: true, ..asked(&token, &text) };
            assert_eq!(place(&peers, "ours", &late, true), Place::NotHere(Some("owner")));
            let alone = Asked { tried: &tried, ..late };
            assert_eq!(place(&peers, "ours", &alone, true), Place::Anew);
        }
    }

    /// Though the session has been opened anew by then, here or elsewhere.
    #[test]
    fn what_a_call_waits_for_goes_to_the_pod_that_drains() {
        let token = token("owner");
        let ready = ("ours", true, false);
        for (owner, to) in [
            (("owner", true, true), Some("owner")),
            (("owner", false, true), None),
            (("gone", true, true), None),
        ] {
            let peers = peers(&[owner, ready, ("busy", true, false)]);
            for standing in [Standing::Stranger, Standing::Lives] {
                let first = asked(&token, "e1.x");
                let asked = Asked { standing, named: Some("busy"), follows: true, ..first };
                let to = to.map(|uid| Place::There(uid, Sender::ToOwner));
                let found = place(&peers, "ours", &asked, true);
                assert_eq!(Some(found).filter(|_| to.is_some()), to, "{asked:?}");
                // The owner has nothing of it in flight any more; or a peer has sent it.
                let tried = [Box::from("owner")];
                for late in
                    [Asked { tried: &tried, ..asked }, Asked { sender: Sender::ToHeir, ..asked }]
                {
                    let is_owner = |found| matches!(found, Place::There("owner", _));
                    assert!(!is_owner(place(&peers, "ours", &late, true)), "{late:?}");
                }
            }
        }
    }

    /// What a peer has said leads to the session, before its owner and its heir.
    #[test]
    fn who_is_named_is_asked_first() {
        let all = [("owner", true, false), ("busy", true, true), ("ours", true, false)];
        let (peers, token) = (peers(&all), token("owner"));
        let named = |uid| Asked { named: Some(uid), ..asked(&token, "e1.x") };
        let place = |asked: &Asked| match place(&peers, "ours", asked, true) {
            Place::There(uid, sender) => format!("{uid} {sender:?}"),
            other => format!("{other:?}"),
        };
        // One that ends may have a call in flight.
        assert_eq!(place(&named("busy")), "busy ToHeir");
        let leaves = Asked { standing: Standing::Leaves, ..named("busy") };
        assert_eq!(place(&leaves), "busy Gives");
        // One that is none of ours leads nowhere, nor does one that was asked.
        assert_eq!(place(&named("stranger")), "owner ToOwner");
        let tried = [Box::from("busy")];
        assert_eq!(place(&Asked { tried: &tried, ..named("busy") }), "owner ToOwner");
        // The owner has said that it is for us.
        let ours = place(&named("ours"));
        assert!(matches!(&*ours, "Anew" | "owner ToHeir"), "{ours}");
        // Whoever got it from a peer does not send it on.
        let sent = Asked { sender: Sender::ToHeir, ..named("busy") };
        assert_eq!(place(&sent), "Anew");
    }

    proptest! {
        /// Whatever a token says and whoever sends it: to pods of our Services alone, never on a
        /// second time, and never to ourselves.
        #[test]
        fn no_request_goes_in_a_circle_or_to_a_stranger(
            pods in prop::collection::vec(("[a-e]", any::<(bool, bool)>()), 0..6),
            owner in "[a-f]",
            ours in "[a-f]",
            text in "e1\\.[a-z]{1,8}",
            named in prop::option::of("[a-f]"),
            tried in prop::collection::vec("[a-f]", 0..3),
            (reopens, ends, follows) in any::<(bool, bool, bool)>(),
        ) {
            let all: Vec<_> =
                pods.iter().map(|(uid, (serving, ends))| (uid.as_str(), *serving, *ends)).collect();
            let (peers, token) = (peers(&all), token(&owner));
            let tried: Vec<Box<str>> = tried.into_iter().map(Into::into).collect();
            let standings = STANDINGS.into_iter();
            for (standing, sender) in standings.flat_map(|it| SENDERS.map(|sender| (it, sender))) {
                let (named, tried) = (named.as_deref(), &*tried);
                let first = asked(&token, &text);
                let asked = Asked { sender, standing, named, tried, follows, ends, ..first };
                let found = place(&peers, &ours, &asked, reopens);
                if let Place::There(to, _) = found {
                    prop_assert_eq!(sender, Sender::Client);
                    prop_assert!(to != ours, "{:?}", asked);
                    prop_assert!(!tried.iter().any(|tried| &**tried == to), "{:?}", asked);
                    prop_assert!(peers.get(to).is_some());
                }
                prop_assert!(reopens || found != Place::Anew);
                prop_assert!(sender != Sender::Client || !matches!(found, Place::NotHere(_)));
            }
        }
    }
}
