//! The byte stream between a client and hyper: gives back what was read to tell HTTP/1 from
//! HTTP/2, and shows every byte that comes to [`Framing`].
//!
//! Never hands hyper bytes of a head that was refused; keeps what was read of them, since they may
//! turn out to be no head: a client may send more before it hears that HTTP has ended.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    accept::BoxedIo,
    framing::{Framing, Refusal},
};

/// What the connection's task sees of the stream that hyper owns.
pub struct Watched {
    framing: Mutex<(Framing, Option<Refusal>)>,
    is_closing: AtomicBool,
    is_stuck: AtomicBool,
}

/// What a chunked answer ends with (RFC 9112, section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Watched {
    #[must_use]
    pub fn new(framing: Framing) -> Arc<Self> {
        Arc::new(Self {
            framing: Mutex::new((framing, None)),
            is_closing: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
        })
    }

    /// Why nothing is read any more, if so.
    pub fn refusal(&self) -> Option<Refusal> {
        self.framing.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    pub fn in_head(&self) -> bool {
        self.framing.lock().unwrap_or_else(PoisonError::into_inner).0.in_head()
    }

    /// The connection closes behind the answer that is under way, whose head may not have said so:
    /// the client has to see both at once, before it sends another request.
    pub fn closes(&self) {
        self.is_closing.store(true, Relaxed);
    }

    /// Whether the client has not taken all that was written.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck.load(Relaxed)
    }

    /// HTTP has ended on the connection: nothing was a head, and nothing will be.
    pub fn leaves_http(&self) {
        let mut guard = self.framing.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0.ends();
        guard.1 = None;
    }

    /// Where in the bytes a head begins that is refused.
    fn feed(&self, bytes: &[u8]) -> Result<(), usize> {
        let mut guard = self.framing.lock().unwrap_or_else(PoisonError::into_inner);
        let (framing, refusal) = &mut *guard;
        framing.feed(bytes).map_err(|(begin, why)| {
            *refusal = Some(why);
            begin
        })
    }
}

pub struct Guarded {
    io: BoxedIo,
    prefix: Vec<u8>,
    watched: Option<Arc<Watched>>,
}

impl Guarded {
    /// `prefix` is read again before the rest.
    #[must_use]
    pub fn new(io: BoxedIo, prefix: Vec<u8>, watched: Option<Arc<Watched>>) -> Self {
        Self { io, prefix, watched }
    }

    /// An event may end with the same bytes: it is held back for a fraction of a second.
    fn before_write(&self, bytes: &[u8]) {
        let is_closing = |watched: &Arc<Watched>| watched.is_closing.load(Relaxed);
        if self.watched.as_ref().is_some_and(is_closing) && bytes.ends_with(LAST_CHUNK) {
            self.io.hold();
        }
    }

    fn after_write(&self, written: &Poll<io::Result<usize>>) {
        if let Some(watched) = &self.watched {
            watched.is_stuck.store(written.is_pending(), Relaxed);
        }
    }

    #[must_use]
    pub fn into_inner(self) -> BoxedIo {
        self.io
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watched.as_ref().is_some_and(|watched| watched.refusal().is_some()) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.prefix.is_empty() {
            match Pin::new(&mut this.io).poll_read(context, buffer) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        } else {
            let part = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix[..part]);
            this.prefix.drain(..part);
            if this.prefix.is_empty() {
                this.prefix = Vec::new();
            }
        }
        if let Some(watched) = &this.watched
            && let Err(begin) = watched.feed(&buffer.filled()[before..])
        {
            let refused = before + begin;
            this.prefix.splice(..0, buffer.filled()[refused..].iter().copied());
            buffer.set_filled(refused);
            // The connection's task looks after every poll, and this is in one.
            return if begin == 0 { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.before_write(bytes);
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.after_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.before_write(parts.last().map_or(&[], |part| part));
        let written = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        self.after_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::{super::accept::Io, *};

    struct Held(DuplexStream, Arc<AtomicBool>);

    impl Io for Held {
        fn hold(&self) {
            self.1.store(true, Relaxed);
        }
    }

    impl AsyncRead for Held {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Held {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(context, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn only_the_last_chunk_before_a_close_is_held_back() {
        for (closes, bytes, expected) in [
            (true, "0\r\n\r\n", true),
            (true, "6\r\ndata: \r\n0\r\n\r\n", true),
            (true, "6\r\ndata: \r\n", false),
            (false, "0\r\n\r\n", false),
        ] {
            let (ours, _theirs) = duplex(1024);
            let held = Arc::new(AtomicBool::new(false));
            let watched = Watched::new(Framing::new(1024, 10));
            if closes {
                watched.closes();
            }
            let io = Box::new(Held(ours, Arc::clone(&held)));
            let mut guarded = Guarded::new(io, Vec::new(), Some(watched));
            guarded.write_all(bytes.as_bytes()).await.unwrap();
            assert_eq!(held.load(Relaxed), expected, "{closes} {bytes:?}");
        }
    }
}
