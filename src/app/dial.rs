//! TCP connections out: to the server, and to other pods.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use crate::{
    config::value::Upstream,
    pool::{BoxedIo, Connecting, Connector},
};

/// Connects to another pod.
pub fn pod(address: SocketAddr) -> Connecting {
    Box::pin(async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream) as BoxedIo)
    })
}

/// Connects to the server.
pub fn server(upstream: &Upstream) -> Connector {
    let (host, port): (Arc<str>, u16) = (upstream.host().into(), upstream.port());
    Box::new(move || {
        let host = Arc::clone(&host);
        Box::pin(async move {
            let stream = TcpStream::connect((&*host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedIo)
        })
    })
}
