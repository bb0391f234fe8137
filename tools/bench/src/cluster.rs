//! Two sidecars as in two pods behind one Service, on a machine without a cluster: an API server
//! that knows no more than these pods, and to each sidecar the service account of its pod.
//!
//! Never needs an option of ebbtide's: the account lies where the kubelet would mount it, which
//! only the sidecar sees.

use std::{
    convert::Infallible,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as Bound},
    process::Stdio,
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::contender::Place;

/// Each pod's name, which is its UID too, and its address. The second sends from its own, as pods
/// do: whatever connects on this machine does so from 127.0.0.1.
const PODS: [(&str, [u8; 4]); 2] = [("pod-one", [127, 0, 0, 2]), ("pod-other", [127, 0, 0, 1])];
const SERVICE: &str = "mcp-server";

/// In a mount namespace of its own: the account's files, then the sidecar.
const ENTER: &str = r#"set -e
mount -t tmpfs none "$(readlink -f /var/run)"
account=/var/run/secrets/kubernetes.io/serviceaccount
mkdir -p "$account"
cp "$1/token" "$1/ca.crt" "$1/namespace" "$account"
shift
exec "$@""#;

/// A sidecar that runs; killed when dropped.
pub struct Sidecar {
    pub address: SocketAddr,
    group: Pid,
    _child: Child,
}

impl Sidecar {
    pub fn pid(&self) -> u32 {
        self.group.as_raw().unsigned_abs()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // An error says that nobody is left.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

/// Starts both, before the one server that there is; the API server runs as long as the runtime.
pub async fn start(place: &Place) -> anyhow::Result<[Sidecar; 2]> {
    let port = free_port()?;
    let account = place.scratch.join("account-files");
    fs::create_dir_all(&account)?;
    let api = serve(port, &account).await?;
    let sidecar = |(name, address): (&str, [u8; 4])| -> anyhow::Result<Sidecar> {
        let address = SocketAddr::from((address, port));
        let child = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", ENTER, "sh"])
            .arg(&account)
            .arg(&place.ebbtide)
            .args(["run", "--upstream", &format!("http://127.0.0.1:{}", place.upstream)])
            .args(["--listen", &address.to_string(), "--admin", "127.0.0.1:0"])
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", api.to_string())
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", "bench")
            .env("POD_UID", name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting unshare")?;
        let group = Pid::from_raw(child.id().context("it has just started")?.try_into()?);
        Ok(Sidecar { address, group, _child: child })
    };
    Ok([sidecar(PODS[0])?, sidecar(PODS[1])?])
}

/// A port that is free on the address of each pod.
fn free_port() -> anyhow::Result<u16> {
    let [(_, one), (_, other)] = PODS;
    let bound = Bound::bind(SocketAddr::from((one, 0)))?;
    let port = bound.local_addr()?.port();
    Bound::bind(SocketAddr::from((other, port)))
        .context("no port is free on two loopback addresses")?;
    Ok(port)
}

/// The API server, and the account's files that lead to it; its port.
#[allow(clippy::disallowed_methods, reason = "it ends with the process, like its connections")]
async fn serve(pods_port: u16, account: &std::path::Path) -> anyhow::Result<u16> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    params.subject_alt_names.push(rcgen::SanType::IpAddress(address));
    let certificate: CertificateDer<'static> = params.signed_by(&key, &authority)?.der().clone();
    fs::write(account.join("ca.crt"), authority.pem())?;
    fs::write(account.join("token"), "none")?;
    fs::write(account.join("namespace"), "bench")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((address, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| async move {
                    Ok::<_, Infallible>(answer(&request.uri().to_string(), pods_port))
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // Its end is the sidecar's.
                let _ = connection.await;
            });
        }
    });
    Ok(port)
}

/// A watch in which nothing happens.
struct Silence;

impl Body for Silence {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}

fn answer(uri: &str, pods_port: u16) -> Response<BoxBody<Bytes, Infallible>> {
    let body = if uri.contains("watch=true") {
        Silence.boxed()
    } else if let Some(value) = value(uri, pods_port) {
        Full::new(Bytes::from(value.to_string())).boxed()
    } else {
        // What is told, as Events, nobody reads.
        let mut response = Response::new(Empty::new().boxed());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(body);
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

/// What a GET of it brings: the slice of the Service, or a Pod, alone or as a list.
fn value(uri: &str, pods_port: u16) -> Option<Value> {
    let list = |kind: &str, item: Value| {
        json!({ "kind": format!("{kind}List"), "metadata": { "resourceVersion": "1" },
            "items": [item] })
    };
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    if path.ends_with("/endpointslices") {
        return Some(list("EndpointSlice", slice(pods_port)));
    }
    let (_, pod) = path.split_once("/pods")?;
    let (name, _) =
        PODS.into_iter().find(|(name, _)| pod.contains(name) || query.contains(name))?;
    let pod = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": { "name": name, "namespace": "bench", "uid": name, "resourceVersion": "1" } });
    Some(if path.ends_with("/pods") { list("PartialObjectMetadata", pod) } else { pod })
}

fn slice(pods_port: u16) -> Value {
    let endpoint = |(name, address): (&str, [u8; 4])| {
        json!({ "addresses": [Ipv4Addr::from(address).to_string()],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "targetRef": { "kind": "Pod", "name": name, "uid": name } })
    };
    json!({ "metadata": { "name": "slice", "resourceVersion": "1",
            "labels": { "kubernetes.io/service-name": SERVICE } },
        "addressType": "IPv4", "ports": [{ "name": "mcp", "port": pods_port }],
        "endpoints": PODS.map(endpoint) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_knows_two_pods_behind_one_service() {
        let slices = value("/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices?limit=9", 70);
        let slice = &slices.unwrap()["items"][0];
        assert_eq!(slice["ports"][0]["port"], 70);
        let named = |at: usize| {
            (
                slice["endpoints"][at]["targetRef"]["uid"].clone(),
                slice["endpoints"][at]["addresses"][0].clone(),
            )
        };
        assert_eq!(named(0), (json!("pod-one"), json!("127.0.0.2")));
        assert_eq!(named(1), (json!("pod-other"), json!("127.0.0.1")));
        let pods = "/api/v1/namespaces/bench/pods";
        let list = value(&format!("{pods}?fieldSelector=metadata.name%3Dpod-other"), 70).unwrap();
        assert_eq!(list["items"][0]["metadata"]["uid"], "pod-other");
        assert_eq!(value(&format!("{pods}/pod-one"), 70).unwrap()["metadata"]["uid"], "pod-one");
        assert_eq!(value("/api/v1/namespaces/bench/events", 70), None);
    }
}
