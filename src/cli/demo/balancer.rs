//! A connection balancer as a Service is one: round robin over endpoints, per connection;
//! connections that exist stay. Never looks into the bytes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

use crate::tasks::Group;

pub struct Balancer {
    listener: TcpListener,
    address: SocketAddr,
    /// Ports, and whose turn it is.
    endpoints: Mutex<(Vec<u16>, usize)>,
}

impl Balancer {
    pub async fn bind() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, endpoints: Mutex::default() })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn add(&self, port: u16) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).0.push(port);
    }

    pub fn remove(&self, port: u16) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.0.retain(|known| *known != port);
    }

    fn next(&self) -> Option<u16> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let (ports, turn) = &mut *endpoints;
        *turn = turn.wrapping_add(1);
        ports.get(*turn % ports.len().max(1)).copied()
    }

    /// Serves until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut group = Group::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = group.ended() => continue,
            };
            let (Ok((client, _)), Some(port)) = (accepted, self.next()) else { continue };
            group.spawn("balanced connection", async move {
                // A pod that refuses is a connection that breaks, as behind a real Service.
                let _ = pass(client, port).await;
            });
        }
    }
}

async fn pass(mut client: TcpStream, port: u16) -> std::io::Result<()> {
    let mut pod = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    pod.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut pod).await.map(drop)
}
