//! Where a request of a session goes: to our own server, to the pod that has the session, or to the
//! one that opens it anew. Pure.
//!
//! Never sends on what a peer has sent, so that no request goes in a circle, whatever two pods
//! think of each other; and never leads where no endpoint of our own Services does.

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
    /// Whether the owner was asked, and does not have it any more.
    pub refused: bool,
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
    /// The peer that sent it hears that it is not here any more, and asks the heir.
    NotHere,
    /// The session is over: 404.
    Over,
}

/// `ours`: our pod's UID. `reopens`: whether sessions are opened anew at all.
#[must_use]
pub fn place<'a>(peers: &'a Peers, ours: &str, asked: &Asked<'a>, reopens: bool) -> Place<'a> {
    let reopens = reopens && asked.token.params().is_some();
    let anew = if reopens { Place::Anew } else { Place::Over };
    let owner = asked.token.pod();
    // A pod that gives a session away is not given it back.
    let giver = match asked.standing {
        Standing::Leaves => Some(ours),
        _ => Some(owner).filter(|_| asked.refused),
    };
    let heir = peers.heir(asked.text, giver).filter(|_| reopens);
    match (asked.standing, asked.sender) {
        (Standing::Lives, _) => Place::Here,
        (Standing::Lost, _) => anew,
        // Where nobody could take it, it stays to the end.
        (Standing::Leaves, Sender::Client) => {
            heir.map_or(Place::Here, |heir| Place::There(heir, Sender::ToHeir))
        }
        (Standing::Leaves, Sender::ToOwner) if heir.is_some() => Place::NotHere,
        (Standing::Leaves, Sender::ToOwner | Sender::ToHeir) => Place::Here,
        (Standing::Stranger, Sender::ToOwner) => Place::NotHere,
        // The sender sees other pods than we do: two sessions are better than none.
        (Standing::Stranger, Sender::ToHeir) => anew,
        (Standing::Stranger, Sender::Client) => {
            // One that is not ready for a moment has its sessions all the same.
            let may_serve = |peer: &Peer| peer.serving || !peer.terminating;
            let serves = owner != ours && peers.get(owner).is_some_and(may_serve);
            if serves && !asked.refused {
                return Place::There(owner, Sender::ToOwner);
            }
            match heir {
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

    const SENDERS: [Sender; 3] = [Sender::Client, Sender::ToOwner, Sender::ToHeir];
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

    /// Of three pods `owner` has the session, `heir` would inherit it, and then `ours`.
    #[test]
    fn the_table() {
        use Place::{Anew, Here, NotHere, Over, There};
        use Sender::{Client, ToHeir, ToOwner};
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
            (&all, Leaves, Client, false, to_heir, Here),
            (&all, Leaves, ToOwner, false, NotHere, Here),
            (&all, Leaves, ToHeir, false, Here, Here),
            (&nobody, Leaves, Client, false, Here, Here),
            (&nobody, Leaves, ToOwner, false, Here, Here),
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
            (&all, Stranger, ToOwner, false, NotHere, NotHere),
            (&all, Stranger, ToHeir, false, Anew, Over),
        ] {
            let token = token("owner");
            let asked =
                Asked { token: &token, text: &text, sender, standing, refused, ends: false };
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
    fn who_gives_a_session_away_is_not_given_it_back() {
        let peers = peers(&[("owner", true, false), ("ours", true, false)]);
        let inherits = |uid: &str| {
            let mut texts = (0..99).map(|number| format!("e1.{number}"));
            texts.find(|text| peers.heir(text, None) == Some(uid)).unwrap()
        };
        let token = token("owner");
        let (text, sender) = (inherits("owner"), Sender::Client);
        let asked = Asked {
            token: &token,
            text: &text,
            sender,
            standing: Standing::Stranger,
            refused: true,
            ends: false,
        };
        assert_eq!(place(&peers, "ours", &asked, true), Place::Anew);
        let text = inherits("ours");
        let asked = Asked { text: &text, standing: Standing::Leaves, refused: false, ..asked };
        let given = Place::There("owner", Sender::ToHeir);
        assert_eq!(place(&peers, "ours", &asked, true), given);
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
            (refused, reopens, ends) in any::<(bool, bool, bool)>(),
        ) {
            let all: Vec<_> =
                pods.iter().map(|(uid, (serving, ends))| (uid.as_str(), *serving, *ends)).collect();
            let (peers, token) = (peers(&all), token(&owner));
            let standings = STANDINGS.into_iter();
            for (standing, sender) in standings.flat_map(|it| SENDERS.map(|sender| (it, sender))) {
                let asked =
                    Asked { token: &token, text: &text, sender, standing, refused, ends };
                let found = place(&peers, &ours, &asked, reopens);
                if let Place::There(to, _) = found {
                    prop_assert_eq!(sender, Sender::Client);
                    prop_assert!(to != ours, "{:?}", asked);
                    prop_assert!(peers.get(to).is_some());
                }
                prop_assert!(reopens || found != Place::Anew);
                prop_assert!(sender != Sender::Client || found != Place::NotHere);
            }
        }
    }
}
