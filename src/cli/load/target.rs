//! The URL that is called, and a fresh connection to it.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use http::{Uri, header::HeaderValue};
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::tasks::Group;

/// A connection to send one request at a time on, and the task that drives it.
pub type Connected = (SendRequest<Full<Bytes>>, Group);

/// What a URL names.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    /// The `Host` header.
    pub authority: HeaderValue,
    /// Path and query.
    pub path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// # Errors
    /// What is wrong with the URL, or with this machine's certificates.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` does not fit: expected a URL, as in http://mcp:80/mcp");
        let uri: Uri = text.parse().map_err(|error| format!("{}; {error}", expected()))?;
        let authority = uri.authority().ok_or_else(expected)?;
        let default = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(expected()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(expected());
        }
        // The authority's own port() is silent about one that is out of range.
        let after_host = authority.as_str().rsplit_once(authority.host());
        let port = match after_host.and_then(|(_, rest)| rest.strip_prefix(':')) {
            None => default,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(expected)?,
        };
        let tls = if default == 443 { Some(tls(&host)?) } else { None };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let authority =
            HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        Ok(Self { host, port, authority, path, tls })
    }

    /// `/mcp` on a port of this machine.
    pub fn on_loopback(port: u16) -> Self {
        Self {
            host: "127.0.0.1".into(),
            port,
            authority: HeaderValue::from_static("localhost"),
            path: "/mcp".into(),
            tls: None,
        }
    }

    /// # Errors
    /// Why there is no connection.
    pub async fn connect(&self) -> Result<Connected, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => shake_hands(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                shake_hands(stream.map_err(|error| format!("TLS: {error}"))?).await
            }
        }
    }
}

async fn shake_hands<S>(stream: S) -> Result<Connected, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    let mut group = Group::default();
    group.spawn("client connection", async move {
        // Its end reaches the client with its next request, or within the answer's body.
        let _ = connection.await;
    });
    Ok((sender, group))
}

/// Trusts what this machine trusts, or what `SSL_CERT_FILE` names.
fn tls(host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("no root certificates are installed here, so that no https URL can be \
             trusted; SSL_CERT_FILE may name a file with some"
            .into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("`{host}` is no name that a certificate could have"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// An error with everything that it stems from.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, host, port, path) in [
            ("http://mcp", "mcp", 80, "/"),
            ("http://mcp/mcp", "mcp", 80, "/mcp"),
            ("http://127.0.0.1:3001/mcp?a=b", "127.0.0.1", 3001, "/mcp?a=b"),
            ("http://[::1]:3001/", "::1", 3001, "/"),
        ] {
            let target = Target::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((&*target.host, target.port, &*target.path), (host, port, path), "{text}");
            assert!(target.tls.is_none());
        }
        for text in [
            "",
            "mcp",
            "mcp:80/mcp",
            "/mcp",
            "ftp://mcp",
            "http://",
            "http://mcp:0",
            "http://mcp:99999",
            "http://mcp:",
            "http://user@mcp",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
