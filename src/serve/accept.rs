//! Where connections come from: a TCP listener, or pipes in memory.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpListener, TcpStream},
};

/// A byte stream to a client.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Holds back what is written from now on until the stream is shut down, so that its end comes
    /// with it and not after it.
    fn hold(&self) {}

    /// Waits until it is open: where a handshake comes first, until that is done. Its failure shows
    /// in the first read.
    fn poll_open(&mut self, _task: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Io for TcpStream {
    fn hold(&self) {
        #[cfg(target_os = "linux")]
        drop(SockRef::from(self).set_tcp_cork(true));
    }
}

impl Io for DuplexStream {}

pub type BoxedIo = Box<dyn Io>;

/// The seam of `serve`: anything that gives connections.
pub trait Accept: Send + 'static {
    fn accept(&self) -> impl Future<Output = io::Result<(BoxedIo, SocketAddr)>> + Send;
}

/// Connections over TCP.
pub struct Tcp(TcpListener);

impl Tcp {
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Accept for Tcp {
    async fn accept(&self) -> io::Result<(BoxedIo, SocketAddr)> {
        let (stream, remote) = self.0.accept().await?;
        // Events leave at once, and a client whose node is gone does not stay for ever. A socket
        // that refuses either is one that is gone.
        drop(stream.set_nodelay(true));
        let keepalive = TcpKeepalive::new().with_time(Duration::from_mins(1));
        drop(SockRef::from(&stream).set_tcp_keepalive(&keepalive));
        Ok((Box::new(stream), remote))
    }
}
