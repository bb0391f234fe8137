//! The answer's body as hyper's server sees it: known whole, or passed on as it comes. The ticket of
//! its exchange lives in the latter.
//!
//! Never decides how an answer ends, and never keeps a place at the server for a client that has
//! stopped taking it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{last_words::outcome, streamed::Streamed};
use crate::{inflight::Ticket, pool::ExchangeError};

pub type AnswerFrame = Result<Frame<Bytes>, Broken>;

/// Why an answer is not whole: the client sees its connection break, and nothing that looks like
/// an end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the server broke off: {0}")]
    Upstream(#[source] ExchangeError),
    #[error("cut short at the deadline")]
    CutShort,
    #[error("its client did not take it")]
    NotTaken,
}

/// An answer's body.
pub enum ProxyBody {
    /// Known whole: its exchange is over.
    Own(Option<Bytes>),
    Streamed(Arc<Passing>),
    /// Under the head that ends HTTP on a connection.
    Nothing,
}

/// An answer on its way, as far as it has not ended.
pub struct Passing(Mutex<State>);

enum State {
    Passes(Box<Streamed>, Ticket),
    Ended,
    /// Its client did not take it.
    Released,
}

impl ProxyBody {
    /// What is handed over as a whole needs no server any more: its exchange ends here.
    pub fn own(bytes: Bytes, ticket: Ticket) -> Self {
        drop(ticket);
        Self::Own(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub fn streamed(streamed: Box<Streamed>, mut ticket: Ticket) -> Self {
        let passing = Arc::new(Passing(Mutex::new(State::Ended)));
        let weak = Arc::downgrade(&passing);
        ticket.is_released_by(Box::new(move || {
            if let Some(passing) = weak.upgrade() {
                passing.release();
            }
        }));
        *passing.state() = State::Passes(streamed, ticket);
        Self::Streamed(passing)
    }
}

impl Passing {
    /// Its client does not take it: it is over, as if the client had left.
    fn release(&self) {
        let mut state = self.state();
        if let State::Passes(_, ticket) = &mut *state {
            if let Some(ending) = ticket.ending() {
                ticket.will_be(outcome(ending, ticket.class()));
            }
            *state = State::Released;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<AnswerFrame>> {
        let mut state = self.state();
        let polled = match &mut *state {
            State::Passes(streamed, ticket) => {
                let polled = streamed.poll(ticket, context);
                // Whether the client is to take something, or the server to send it.
                ticket.offers(polled.is_ready());
                if !streamed.ended {
                    return polled;
                }
                polled
            }
            State::Ended => Poll::Ready(None),
            State::Released => Poll::Ready(Some(Err(Broken::NotTaken))),
        };
        *state = State::Ended;
        polled
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<AnswerFrame>> {
        match self.get_mut() {
            ProxyBody::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ProxyBody::Streamed(passing) => passing.poll(context),
            ProxyBody::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ProxyBody::Own(bytes) => bytes.is_none(),
            ProxyBody::Streamed(passing) => matches!(*passing.state(), State::Ended),
            ProxyBody::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ProxyBody::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            ProxyBody::Streamed(passing) => match &*passing.state() {
                State::Passes(streamed, _) => streamed.size_hint(),
                State::Ended => SizeHint::with_exact(0),
                State::Released => SizeHint::new(),
            },
            ProxyBody::Nothing => SizeHint::with_exact(0),
        }
    }
}
