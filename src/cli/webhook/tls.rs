//! Connections over TLS. The handshake is part of a connection's first read, so that it waits in
//! the connection's own task and within the time that a request's head has.
//!
//! Never lets one client's handshake hold up another's.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};
use tokio_rustls::{
    Accept as Handshake, TlsAcceptor,
    rustls::{AlertDescription, Error},
    server::TlsStream,
};
use tracing::{debug, warn};

use super::certificates::Served;
use crate::serve::{Accept, BoxedIo, Io, Tcp};

/// Each connection begins with the certificate that holds at that moment, and keeps it.
pub struct Tls {
    pub tcp: Tcp,
    pub served: watch::Receiver<Arc<Served>>,
}

impl Accept for Tls {
    async fn accept(&self) -> io::Result<(BoxedIo, SocketAddr)> {
        let (io, remote) = self.tcp.accept().await?;
        let served = Arc::clone(&self.served.borrow());
        let handshake = TlsAcceptor::from(Arc::clone(&served.config)).accept(io);
        let state = State::Handshake(handshake);
        Ok((Box::new(Connection { state: Box::new(state), served, remote }), remote))
    }
}

struct Connection {
    state: Box<State>,
    served: Arc<Served>,
    remote: SocketAddr,
}

enum State {
    Handshake(Handshake<BoxedIo>),
    Open(TlsStream<BoxedIo>),
    Failed,
}

impl Connection {
    /// The open connection, once the handshake is done.
    fn poll_stream(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut TlsStream<BoxedIo>>>> {
        if let State::Handshake(handshake) = &mut *self.state {
            *self.state = match ready!(Pin::new(handshake).poll(task)) {
                Ok(stream) => State::Open(stream),
                Err(error) => {
                    self.report(&error);
                    State::Failed
                }
            };
        }
        Poll::Ready(match &mut *self.state {
            State::Open(stream) => Ok(Pin::new(stream)),
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        })
    }

    fn report(&self, error: &io::Error) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
        let distrusts = matches!(
            cause,
            Some(Error::AlertReceived(
                AlertDescription::UnknownCA
                    | AlertDescription::BadCertificate
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::CertificateExpired
                    // An authority of the same name with another key.
                    | AlertDescription::DecryptError
            ))
        );
        if distrusts && !self.served.distrusted.swap(true, Relaxed) {
            warn!(
                remote = %self.remote, %error,
                "a client does not trust the certificate; if it is the API server, pods start \
                 without their sidecar: compare the webhook configuration's caBundle with who \
                 issued the certificate, its names with the Service, and its dates"
            );
        } else {
            debug!(remote = %self.remote, %error, "TLS handshake failed");
        }
    }
}

impl Io for Connection {
    fn hold(&self) {
        if let State::Open(stream) = &*self.state {
            stream.get_ref().0.hold();
        }
    }

    fn poll_open(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.poll_stream(task).map(drop)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(task))?.poll_read(task, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream(task))?.poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(task))?.poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(task))?.poll_shutdown(task)
    }
}
