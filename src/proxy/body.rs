//! The answer's body as hyper's server sees it: known whole, or passed on as it comes. The ticket of
//! its exchange lives in it.
//!
//! Never decides how an answer ends.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::streamed::Streamed;
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
}

/// An answer's body.
pub enum ProxyBody {
    /// Known whole. The ticket lives until the bytes are handed over.
    Own {
        bytes: Option<Bytes>,
        _ticket: Ticket,
    },
    Streamed {
        streamed: Box<Streamed>,
        ticket: Option<Ticket>,
    },
    /// Under the head that ends HTTP on a connection.
    Nothing,
}

impl ProxyBody {
    pub fn own(bytes: Bytes, ticket: Ticket) -> Self {
        Self::Own { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), _ticket: ticket }
    }

    pub fn streamed(streamed: Box<Streamed>, ticket: Ticket) -> Self {
        Self::Streamed { streamed, ticket: Some(ticket) }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<AnswerFrame>> {
        match self.get_mut() {
            ProxyBody::Own { bytes, .. } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            ProxyBody::Streamed { streamed, ticket } => {
                let Some(held) = ticket else {
                    return Poll::Ready(None);
                };
                let polled = streamed.poll(held, context);
                if streamed.ended {
                    *ticket = None;
                }
                polled
            }
            ProxyBody::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ProxyBody::Own { bytes, .. } => bytes.is_none(),
            ProxyBody::Streamed { streamed, .. } => streamed.ended,
            ProxyBody::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ProxyBody::Own { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            ProxyBody::Streamed { streamed, .. } => streamed.size_hint(),
            ProxyBody::Nothing => SizeHint::with_exact(0),
        }
    }
}
