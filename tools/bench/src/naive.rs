//! The proxy that anybody would write first, as the measure of what a proxy on hyper costs: hyper's
//! server, hyper-util's pooling client, one task per connection.
//!
//! Never gets a feature: it knows nothing of drains, calls, limits or headers.

use std::net::SocketAddr;

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

#[allow(clippy::disallowed_methods, reason = "naive on purpose")]
pub async fn run(listen: SocketAddr, upstream: SocketAddr) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        tokio::spawn(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                let client = client.clone();
                async move {
                    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                    let uri = format!("http://{upstream}{path}").parse();
                    *request.uri_mut() = uri.expect("a path that came in goes out");
                    client.request(request).await
                }
            });
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}
