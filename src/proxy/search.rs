//! The search for the pod that has a request's session: who was asked or tried, what they said, and
//! who is next.
//!
//! Never sends the request (`across` does), and never goes on for long: each pod is tried once, or
//! once more where another one has named it.

use super::{Exchange, Proxy, answer::Failure};
use crate::{
    config::value::Roaming,
    drain::Phase,
    mcp::Class,
    sessions::{
        Session,
        peers::Peer,
        place::{Asked, Place, Sender, Standing, place},
        token::Token,
    },
};

/// Most peers that one request is sent to in vain, unless each has named the next.
pub const MAX_TRIED: usize = 3;

/// Where a request goes next.
pub enum Next {
    Here,
    /// It would be opened anew; the others are asked first.
    Ask,
    Anew,
    There {
        uid: Box<str>,
        peer: Peer,
        sender: Sender,
    },
    NotHere(Option<Box<str>>),
    /// Nobody can serve it now, and its session is not over.
    TryAgain(Failure),
    Over,
}

/// The search for one request's session.
pub struct Search<'a> {
    proxy: &'a Proxy,
    class: Class,
    token: &'a Token,
    text: &'a str,
    sender: Sender,
    /// The pod that others have named.
    named: Option<Box<str>>,
    /// In vain.
    tried: Vec<Box<str>>,
    /// Those of them that have said that they do not have it.
    refused: Vec<Box<str>>,
    asked: bool,
    /// Whether one that could not be reached may be tried once more.
    tries_again: bool,
}

impl<'a> Search<'a> {
    /// `text`: the token as the client spells it.
    pub fn new(
        proxy: &'a Proxy,
        class: Class,
        token: &'a Token,
        text: &'a str,
        sender: Sender,
    ) -> Self {
        let named = proxy.peers.place(text);
        let (tried, refused) = (Vec::new(), Vec::new());
        Self {
            proxy,
            class,
            token,
            text,
            sender,
            named,
            tried,
            refused,
            asked: false,
            tries_again: true,
        }
    }

    pub fn next(&mut self, exchange: &Exchange) -> Next {
        // Another request may have opened it here while this one waited.
        if exchange.ticket.session().is_none()
            && let Some(session) = self.proxy.sessions.known(self.text)
        {
            exchange.ticket.belongs_to(&session);
        }
        let standing = standing(self.proxy, exchange);
        loop {
            let next = self.placed(standing);
            // Others have waited for it just now.
            match next {
                Next::There { uid, .. }
                    if self.proxy.peers.is_missed(&uid) && self.named.as_ref() != Some(&uid) =>
                {
                    self.tried.push(uid);
                }
                next => return next,
            }
        }
    }

    fn placed(&mut self, standing: Standing) -> Next {
        let ends = self.proxy.drain.phase() >= Phase::Draining;
        let is_lead = self.named.is_some() && self.tried.len() < 2 * MAX_TRIED;
        let is_long = self.tried.len() >= MAX_TRIED && !is_lead;
        let is_new = standing == Standing::Stranger;
        let try_again = || Failure::draining(self.proxy.drain.phase(), false);
        match self.place(standing, ends) {
            // Who was to have it cannot be reached: it stays as long as it can.
            Next::There { .. }
                if standing == Standing::Leaves && !self.tried.is_empty() && !is_lead =>
            {
                Next::Here
            }
            Next::There { .. } if is_long && ends => Next::TryAgain(try_again()),
            Next::There { .. } if is_long && self.asked => Next::Anew,
            Next::There { .. } if is_long => self.ask(),
            Next::Anew if is_new && !self.asked => self.ask(),
            // Its pod is there, or another one can open it: this is not its end.
            Next::Over if self.tried.len() > self.refused.len() => {
                Next::TryAgain(Failure::lost("the pod of this session cannot be reached now"))
            }
            Next::Over if ends && reopens(self.proxy) && self.token.params().is_some() => {
                Next::TryAgain(try_again())
            }
            next => next,
        }
    }

    fn ask(&mut self) -> Next {
        self.asked = true;
        Next::Ask
    }

    fn place(&self, standing: Standing, ends: bool) -> Next {
        let peers = self.proxy.peers.known();
        let asked = Asked {
            token: self.token,
            text: self.text,
            sender: self.sender,
            standing,
            named: self.named.as_deref(),
            tried: &self.tried,
            follows: follows(self.class),
            ends,
        };
        match place(&peers, self.proxy.sessions.pod(), &asked, reopens(self.proxy)) {
            Place::Here => Next::Here,
            Place::Anew => Next::Anew,
            Place::There(uid, sender) => match peers.get(uid) {
                Some(peer) => Next::There { uid: uid.into(), peer: *peer, sender },
                None => Next::Over,
            },
            Place::NotHere(named) => Next::NotHere(named.map(Into::into)),
            Place::Over => Next::Over,
        }
    }

    /// Asks the others; who has it.
    pub async fn asks(&self) -> Option<Box<str>> {
        // Who gives it away has the request at hand in flight.
        let is_call = self.class == Class::Call || self.sender == Sender::Gives;
        let ours = self.proxy.sessions.pod();
        self.proxy.peers.holder(self.text, ours, &self.refused, is_call).await
    }

    /// The pod could not be reached.
    pub fn misses(&mut self, uid: Box<str>) {
        self.proxy.peers.misses(&uid);
        self.named = None;
        self.tried.push(uid);
    }

    /// The pod does not have it, and may have named another one.
    pub fn is_refused(&mut self, uid: Box<str>, named: Option<Box<str>>) {
        self.named = None;
        self.tried.push(uid.clone());
        self.refused.push(uid);
        if let Some(named) = named.filter(|named| !self.refused.contains(named)) {
            self.is_led_to(named);
        }
        let peers = self.proxy.peers.known();
        let has_refused = |uid: &str| self.refused.iter().any(|known| &**known == uid);
        // What cannot be sent again finds its way the next time.
        if self.named.is_none()
            && !follows(self.class)
            && let Some(uid) = peers.heir(self.text, has_refused)
        {
            self.proxy.peers.has_place(self.text, uid);
        }
    }

    /// A peer has named the pod: it is tried next, also where it could not be reached just now, but
    /// only once more.
    pub fn is_led_to(&mut self, uid: Box<str>) {
        if self.proxy.peers.known().get(&uid).is_none() {
            return;
        }
        if self.tried.contains(&uid) {
            if !std::mem::take(&mut self.tries_again) {
                return;
            }
            self.tried.retain(|tried| *tried != uid);
        }
        self.proxy.peers.has_place(self.text, &uid);
        self.named = Some(uid);
    }
}

/// Whether a call in flight may be waiting for it.
pub fn follows(class: Class) -> bool {
    matches!(class, Class::Message | Class::Resume)
}

fn reopens(proxy: &Proxy) -> bool {
    proxy.sessions.roaming() == Roaming::Reopen
}

fn standing(proxy: &Proxy, exchange: &Exchange) -> Standing {
    let Some(session) = exchange.ticket.session() else { return Standing::Stranger };
    let class = exchange.ticket.class();
    held(proxy, session, usize::from(!class.is_stream()), class == Class::Call)
}

/// What a session that is known here is to this pod, beside `own` exchanges.
pub fn held(proxy: &Proxy, session: &Session, own: usize, is_call: bool) -> Standing {
    let ends = proxy.drain.phase() >= Phase::Draining;
    if !ends || !session.is_movable() {
        return if session.is_lost() { Standing::Lost } else { Standing::Lives };
    }
    // What belongs to a call in flight stays with it. A client that always has one begins its next
    // elsewhere, and all do that once what is in flight here is cut.
    let is_late = || {
        let now = proxy.drain.snapshot();
        session.is_given() || now.last_call || now.phase >= Phase::Cutting
    };
    let leaves = !session.is_busy(own) || (is_call && is_late());
    if leaves { Standing::Leaves } else { Standing::Lives }
}
