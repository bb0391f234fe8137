//! A request to the admin port of the sidecar in this pod.

use std::net::SocketAddr;

use bytes::Bytes;
use clap::ArgMatches;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config;

/// Where the sidecar's admin port is, as seen from this pod.
///
/// # Errors
/// What was given is no address.
pub fn address(matches: &ArgMatches) -> Result<SocketAddr, String> {
    let variable = std::env::var(config::variable("admin")).ok();
    let given = matches.get_one::<String>("admin").cloned().or(variable);
    let text = given.unwrap_or_else(|| "127.0.0.1:7071".into());
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("setting `admin`: `{text}` does not fit: expected an address, as in 127.0.0.1:7071")
    })?;
    // Every address of ours is reached over loopback, and only there a drain may be asked for.
    Ok(match (address.ip().is_unspecified(), address.is_ipv4()) {
        (true, true) => ([127, 0, 0, 1], address.port()).into(),
        (true, false) => ([0, 0, 0, 0, 0, 0, 0, 1], address.port()).into(),
        _ => address,
    })
}

/// Asks the admin port; the answer's body, if it was a success.
///
/// # Errors
/// A text for the operator.
pub async fn ask(address: SocketAddr, method: Method, path: &str) -> Result<Bytes, String> {
    let unreachable = |error: &dyn std::fmt::Display| {
        format!(
            "no sidecar answers on {address}: {error}; is it running, and is that its admin port?"
        )
    };
    let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| unreachable(&error))?;
    let talk = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, body))
    };
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    let (status, body) = tokio::select! {
        biased;
        answer = &mut talk => answer,
        // The connection may end with the answer; what came is still there.
        _ = &mut connection => talk.await,
    }
    .map_err(|error| unreachable(&error))?;
    if status.is_success() {
        return Ok(body);
    }
    Err(format!("{address} answered {status}: {}", String::from_utf8_lossy(&body).trim()))
}
