//! The way to an API server: kube's configuration in, a service for kube's client out.
//!
//! Kube's own way also runs the programs that a kubeconfig names and reads what they print, which
//! is most of a megabyte in every sidecar. Here the configuration has to hold what they gave.

use std::{fs, path::PathBuf, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Config,
    client::{Body, ConfigExt},
    config::AuthInfo,
};
use secrecy::ExposeSecret;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tower::{BoxError, ServiceBuilder, util::BoxService};

/// Who we are to the API server.
enum Credentials {
    None,
    /// The same `Authorization` for every request.
    Header(HeaderValue),
    /// A token that somebody else renews: read anew for each request, of which there are few.
    TokenFile(PathBuf),
    /// A client certificate with its chain, and its key.
    Certificate(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

/// What kube's client sends its requests with.
pub type ApiServer = BoxService<Request<Body>, Response<Incoming>, BoxError>;

/// A service that sends requests to the API server of `config`. Nothing is asked yet.
///
/// # Errors
/// What of the configuration cannot be used.
pub fn api_server(config: &Config) -> Result<ApiServer, String> {
    if let Some(proxy) = &config.proxy_url {
        return Err(format!(
            "`proxy-url: {proxy}` is not supported; reach the API server directly"
        ));
    }
    let (tls, credentials) = tls(config, credentials(&config.auth_info)?)?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone())
            .map_err(|_| format!("`tls-server-name: {name}` is no name of a server"))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let mut connector = TimeoutConnector::new(builder.enable_http1().wrap_connector(http));
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector);
    let extra = config.extra_headers_layer().map_err(|error| error.to_string())?;
    let send = move |mut request: Request<Body>| {
        let authorization = authorization(&credentials);
        let client = client.clone();
        async move {
            if let Some(value) = authorization? {
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            Ok::<_, BoxError>(client.request(request).await?)
        }
    };
    let stack = ServiceBuilder::new().layer(config.base_uri_layer()).layer(extra).service_fn(send);
    Ok(BoxService::new(stack))
}

/// In the order of kubectl: a certificate and a token may both be there, a token counts.
fn credentials(auth: &AuthInfo) -> Result<Credentials, String> {
    if auth.auth_provider.is_some() {
        return Err(
            "`auth-provider` is not supported, nor is it by Kubernetes since 1.26: use an \
                    `exec` plugin"
                .into(),
        );
    }
    if let Some(path) = &auth.token_file {
        return Ok(Credentials::TokenFile(path.into()));
    }
    if let Some(token) = &auth.token {
        return header("Bearer", token.expose_secret()).map(Credentials::Header);
    }
    if let (Some(user), Some(password)) = (&auth.username, &auth.password) {
        let pair = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
        return header("Basic", &pair).map(Credentials::Header);
    }
    let key = auth.client_key_data.as_ref().map(ExposeSecret::expose_secret);
    let chain = part(
        "client-certificate",
        auth.client_certificate_data.as_deref(),
        auth.client_certificate.as_deref(),
    )?;
    let key = part("client-key", key, auth.client_key.as_deref())?;
    let (Some(chain), Some(key)) = (chain, key) else {
        return Ok(Credentials::None);
    };
    let chain: Result<_, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.map_err(|error| format!("`client-certificate` cannot be read: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| format!("`client-key` cannot be read: {error}"))?;
    Ok(Credentials::Certificate(chain, key))
}

/// What stands in the kubeconfig, or in the file that it names.
fn part(name: &str, data: Option<&str>, path: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    match (data, path) {
        (Some(data), _) => STANDARD
            .decode(data)
            .map(Some)
            .map_err(|error| format!("`{name}-data` is no base64: {error}")),
        (None, Some(path)) => fs::read(path)
            .map(Some)
            .map_err(|error| format!("`{name}`: {path} cannot be read: {error}")),
        (None, None) => Ok(None),
    }
}

fn authorization(credentials: &Credentials) -> Result<Option<HeaderValue>, String> {
    match credentials {
        Credentials::None | Credentials::Certificate(..) => Ok(None),
        Credentials::Header(value) => Ok(Some(value.clone())),
        Credentials::TokenFile(path) => {
            let token = fs::read_to_string(path).map_err(|error| {
                format!("the token in {} cannot be read: {error}", path.display())
            })?;
            header("Bearer", token.trim()).map(Some)
        }
    }
}

fn header(scheme: &str, secret: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {secret}"))
        .map_err(|_| "the token has letters that no HTTP header can have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(config: &Config, credentials: Credentials) -> Result<(ClientConfig, Credentials), String> {
    if config.accept_invalid_certs {
        return Err("`insecure-skip-tls-verify` is not supported: name the cluster's \
                    certificate-authority instead"
            .into());
    }
    let mut roots = RootCertStore::empty();
    match &config.root_cert {
        Some(certificates) => {
            for certificate in certificates {
                roots.add(CertificateDer::from(certificate.clone())).map_err(|error| {
                    format!("the cluster's certificate authority cannot be used: {error}")
                })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    Ok(match credentials {
        Credentials::Certificate(chain, key) => {
            let config = builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("the client certificate cannot be used: {error}"))?;
            (config, Credentials::None)
        }
        other => (builder.with_no_client_auth(), other),
    })
}
