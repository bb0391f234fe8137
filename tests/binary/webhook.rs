//! `ebbtide webhook` over real TLS, with certificates as a mounted Secret shows them.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{
    harness::{self, Ebbtide, HANG},
    inject::fed,
};

const NAME: &str = "ebbtide-webhook.ebbtide-system.svc";

/// Who issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
struct Issued {
    der: CertificateDer<'static>,
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self) -> Issued {
        self.issue_until(2090)
    }

    fn issue_until(&self, year: i32) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let issued = params.signed_by(&key, &self.0).unwrap();
        Issued { der: issued.der().clone(), certificate: issued.pem(), key: key.serialize_pem() }
    }

    /// What the API server does with the caBundle.
    fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(builder().with_root_certificates(roots).with_no_client_auth())
    }
}

fn builder()
-> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
}

/// Trusts any certificate, as the kubelet does.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = ring::default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signed, &known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = ring::default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signed, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn kubelet() -> Arc<ClientConfig> {
    let anyone = Arc::new(Anyone);
    let builder = builder().dangerous().with_custom_certificate_verifier(anyone);
    Arc::new(builder.with_no_client_auth())
}

/// A folder as the kubelet mounts a Secret: what changes is one link.
struct Secret {
    folder: PathBuf,
    version: usize,
}

impl Secret {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ebbtide-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), folder.join(file)).unwrap();
        }
        Self { folder, version: 0 }
    }

    fn put(&mut self, certificate: &str, key: &str) {
        self.version += 1;
        let name = format!("..{}", self.version);
        fs::create_dir(self.folder.join(&name)).unwrap();
        fs::write(self.folder.join(&name).join("tls.crt"), certificate).unwrap();
        fs::write(self.folder.join(&name).join("tls.key"), key).unwrap();
        symlink(name, self.folder.join("..new")).unwrap();
        fs::rename(self.folder.join("..new"), self.folder.join("..data")).unwrap();
    }

    fn issued(&mut self, issued: &Issued) {
        self.put(&issued.certificate, &issued.key);
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const IMAGE: &str = "registry.example/ebbtide:1";

/// The webhook of the chart, but for where it listens and what it reads.
fn start(secret: &Secret) -> (Ebbtide, u16) {
    let path = |file: &str| secret.folder.join(file).display().to_string();
    let (certificate, key) = (path("tls.crt"), path("tls.key"));
    let mut command = harness::command(&["webhook", "--listen", "127.0.0.1:0", "--image", IMAGE]);
    command.args(["--certificate", &certificate, "--key", &key, "--mode", "native"]);
    command.env("POD_NAMESPACE", "ebbtide-system");
    let mut webhook = Ebbtide::spawn(command);
    let port = harness::port(&webhook.logged("listening")["address"]);
    (webhook, port)
}

/// One connection, kept.
struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

struct Answered {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Client {
    fn connect(port: u16, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(NAME).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self { stream: StreamOwned::new(connection, harness::connect(port)) }
    }

    fn send(&mut self, method: &str, path: &str, media: &str, body: &[u8]) -> Answered {
        let head = head(method, path, media, body.len());
        self.stream.write_all(head.as_bytes()).unwrap();
        self.stream.write_all(body).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Answered {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        Answered { status, headers, body: String::from_utf8(body).unwrap() }
    }

    fn get(&mut self, path: &str) -> Answered {
        self.send("GET", path, "text/plain", b"")
    }

    fn mutate(&mut self, review: &Value) -> Value {
        let body = review.to_string();
        let answer = self.send("POST", "/mutate", "application/json", body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// The certificate that was shown.
    fn shown(&mut self) -> CertificateDer<'static> {
        assert_eq!(self.get("/livez").status, 200);
        self.stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

fn head(method: &str, path: &str, media: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: {media}\r\nContent-Length: \
         {length}\r\n\r\n"
    )
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < HANG, "it never came to that: {what}");
        thread::yield_now();
    }
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "mcp", "namespace": "default", "labels": {"app": "mcp"}},
        "spec": {"containers": [{
            "name": "server", "image": "registry.example/mcp:1",
            "ports": [{"name": "http", "containerPort": 3000}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        }]},
    })
}

fn review(uid: &str, namespace: &str, pod: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": uid, "operation": "CREATE", "namespace": namespace, "object": pod,
    }})
}

#[test]
fn a_pod_gets_what_inject_gives_it() {
    let authority = Authority::new();
    let mut secret = Secret::new("mutate");
    secret.issued(&authority.issue());
    let (mut webhook, port) = start(&secret);
    // Who connects and says nothing holds up nobody.
    let silent: Vec<TcpStream> = (0..5).map(|_| harness::connect(port)).collect();
    let mut client = Client::connect(port, &authority.trusted());
    assert_eq!(client.get("/readyz").body, "ready\n");
    let answer = client.mutate(&review("u-1", "default", &pod()));
    assert_eq!(answer["response"]["uid"], "u-1");
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let patch = answer["response"]["patch"].as_str().unwrap();
    let patch: json_patch::Patch =
        serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
    let mut patched = pod();
    json_patch::patch(&mut patched, &patch).unwrap();
    let (code, out, told) = fed(&["inject", "--image", IMAGE], pod().to_string().as_bytes());
    assert_eq!(code, 0, "{told}");
    assert_eq!(patched, serde_json::from_str::<Value>(&out).unwrap());
    let line = webhook.logged("review");
    assert_eq!(
        (&line["namespace"], &line["pod"], &line["result"]),
        (&json!("default"), &json!("Pod/mcp"), &json!("injected"))
    );

    for (namespace, pod) in
        [("ebbtide-system", pod()), ("kube-system", pod()), ("default", patched)]
    {
        let response = &client.mutate(&review("u-2", namespace, &pod))["response"];
        assert_eq!(*response, json!({"uid": "u-2", "allowed": true}), "{namespace}");
    }
    let mut other = pod();
    other["spec"]["containers"][0]["ports"][0]["name"] = "web".into();
    let response = client.mutate(&review("u-3", "default", &other))["response"].clone();
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    assert!(response["warnings"][0].as_str().unwrap().contains("Pod/mcp comes without"));
    let mut keeps = pod();
    keeps["spec"]["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1}}});
    client.mutate(&review("u-4", "default", &keeps));
    let metrics = client.get("/metrics").body;
    for (result, count) in
        [("injected", 1), ("unprotected", 1), ("left", 3), ("failed", 1), ("refused", 0)]
    {
        let line = format!("ebbtide_webhook_reviews_total{{result=\"{result}\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
    drop(silent);
}

#[test]
fn nonsense_hears_what_it_is() {
    let authority = Authority::new();
    let mut secret = Secret::new("nonsense");
    secret.issued(&authority.issue());
    let (_webhook, port) = start(&secret);
    let trusted = authority.trusted();
    let json = "application/json";
    let whole = review("u", "default", &pod()).to_string();
    let long = " ".repeat(3 * 1024 * 1024 + 1);
    for (method, path, media, body, status, part) in [
        ("POST", "/mutate", json, &whole[..whole.len() / 2], 400, "no JSON"),
        ("POST", "/mutate", json, "", 400, "no JSON"),
        ("POST", "/mutate", json, "{}", 400, "request.uid"),
        ("POST", "/mutate", json, "[[[[", 400, "no JSON"),
        ("POST", "/mutate", "text/plain", &whole, 400, "`text/plain`"),
        ("POST", "/mutate", json, &long, 400, "longer than 3145728 bytes"),
        ("POST", "/mutate", json, &long[1..], 400, "no JSON"),
        ("POST", "/mutate", "Application/JSON; charset=utf-8", &whole, 200, "JSONPatch"),
        ("GET", "/mutate", json, "", 405, "POST"),
        ("POST", "/livez", json, "", 405, "GET"),
        ("GET", "/", json, "", 404, "/mutate"),
    ] {
        let answer = Client::connect(port, &trusted).send(method, path, media, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {path} {media}: {}", answer.body);
        assert!(answer.body.contains(part), "{} lacks {part}", answer.body);
    }
    // Plain HTTP is no way in, and harms nobody.
    let plain = harness::exchange(port, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!plain.contains("alive"), "{plain}");
    assert_eq!(Client::connect(port, &trusted).get("/livez").body, "alive\n");
}

#[test]
fn a_certificate_is_waited_for() {
    let authority = Authority::new();
    let mut secret = Secret::new("missing");
    let (mut webhook, port) = start(&secret);
    let waiting = "waiting for the certificate; look at the Secret that is mounted there, and at \
                   what issues it";
    webhook.logged(waiting);
    let mut probe = Client::connect(port, &kubelet());
    assert_eq!(probe.get("/livez").status, 200);
    let answer = probe.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("certificate") && answer.body.contains("tls.crt"),
        "{}",
        answer.body
    );
    // Half of it is not it.
    let issued = authority.issue();
    secret.put(&issued.certificate, "");
    let problem = webhook.logged(waiting)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("tls.key has no private key"), "{problem}");
    let answer = probe.get("/readyz");
    assert!(answer.status == 503 && answer.body.contains("tls.key"), "{}", answer.body);
    let mut validity = |not_before: u64, not_after: u64| {
        let metrics = probe.get("/metrics").body;
        for (name, at) in [("before", not_before), ("after", not_after)] {
            let name = format!("ebbtide_webhook_certificate_not_{name}_timestamp_seconds");
            assert!(metrics.contains(&format!("\n{name} {at}\n")), "{metrics}");
        }
    };
    validity(0, 0);
    secret.issued(&issued);
    webhook.logged("certificate loaded");
    validity(978_307_200, 3_786_912_000);
    let issued = authority.issue_until(2030);
    secret.issued(&issued);
    webhook.logged("certificate loaded");
    validity(978_307_200, 1_893_456_000);
    assert_eq!(probe.get("/readyz").status, 200);
    assert_eq!(Client::connect(port, &authority.trusted()).shown(), issued.der);
}

#[test]
fn a_certificate_is_rotated_under_load() {
    let authority = Authority::new();
    let trusted = authority.trusted();
    let mut secret = Secret::new("rotated");
    let first = authority.issue();
    secret.issued(&first);
    let (mut webhook, port) = start(&secret);
    webhook.logged("certificate loaded");
    let done = AtomicBool::new(false);
    let counts: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for count in &counts {
            let (trusted, first, done) = (&trusted, &first, &done);
            scope.spawn(move || {
                // One connection from the first to the last: any end of it panics.
                let mut client = Client::connect(port, trusted);
                assert_eq!(client.shown(), first.der);
                while !done.load(Relaxed) {
                    let answer = client.mutate(&review("u", "default", &pod()));
                    assert!(answer["response"]["patch"].is_string());
                    count.fetch_add(1, Relaxed);
                }
            });
        }
        // Also when a check fails: the clients would go on for ever.
        let _end = OnDrop(&done);
        let more = || {
            let before: Vec<usize> = counts.iter().map(|count| count.load(Relaxed)).collect();
            until("all clients go on", || {
                counts.iter().zip(&before).all(|(count, before)| count.load(Relaxed) > before + 3)
            });
        };
        more();
        let second = authority.issue();
        secret.issued(&second);
        webhook.logged("certificate loaded");
        assert_eq!(Client::connect(port, &trusted).shown(), second.der);
        more();

        // The certificate of one and the key of another; then half a certificate; then none.
        let third = authority.issue();
        let half = &third.certificate[..third.certificate.len() / 2];
        for (certificate, key, part) in [
            (&*third.certificate, &*second.key, "is not that of the certificate"),
            (half, &third.key, "no whole PEM"),
            ("", &third.key, "no certificate in PEM"),
        ] {
            secret.put(certificate, key);
            let line = webhook.logged(
                "the new certificate cannot be served, and the old one goes on; look at the \
                 Secret that is mounted there, and at what issues it",
            );
            assert!(line["problem"].as_str().unwrap().contains(part), "{line}");
            let mut client = Client::connect(port, &trusted);
            assert_eq!(client.shown(), second.der);
            assert_eq!(client.get("/readyz").status, 200);
            assert!(client.get("/metrics").body.contains("ebbtide_webhook_certificate_fits 0\n"));
        }
        secret.issued(&third);
        webhook.logged("certificate loaded");
        let mut client = Client::connect(port, &trusted);
        assert_eq!(client.shown(), third.der);
        assert!(client.get("/metrics").body.contains("ebbtide_webhook_certificate_fits 1\n"));
        more();
    });
    // Told twice, it does not wait.
    webhook.signal("-TERM");
    webhook.logged("signal");
    webhook.signal("-TERM");
    assert!(webhook.ended().success());
    let told = webhook.seen.iter().filter(|line| line.contains("cannot be served")).count();
    assert_eq!(told, 3, "each is told once: {:#?}", webhook.seen);
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn it_ends_without_losing_a_review() {
    let authority = Authority::new();
    let trusted = authority.trusted();
    let mut secret = Secret::new("ends");
    secret.issued(&authority.issue());
    let (mut webhook, port) = start(&secret);
    let body = review("u-1", "default", &pod()).to_string();
    let mut in_flight = Client::connect(port, &trusted);
    let head = head("POST", "/mutate", "application/json", body.len());
    let (begin, end) = body.split_at(body.len() / 2);
    in_flight.stream.write_all(format!("{head}{begin}").as_bytes()).unwrap();
    in_flight.stream.flush().unwrap();
    let mut idle = Client::connect(port, &trusted);
    assert_eq!(idle.get("/readyz").status, 200);
    webhook.signal("-TERM");
    webhook.logged("signal");
    // Nodes that have not followed yet still send here.
    until("readiness fails", || Client::connect(port, &trusted).get("/readyz").status == 503);
    for client in [&mut idle, &mut Client::connect(port, &trusted)] {
        let review = review("u-2", "default", &pod()).to_string();
        let answer = client.send("POST", "/mutate", "application/json", review.as_bytes());
        assert!(answer.status == 200 && answer.body.contains("JSONPatch"), "{}", answer.body);
        assert_eq!(answer.headers["connection"], "close");
    }
    in_flight.stream.write_all(end.as_bytes()).unwrap();
    let answer = in_flight.answer();
    assert!(answer.status == 200 && answer.body.contains("u-1"), "{}", answer.body);
    assert!(webhook.ended().success());
}

/// A handshake under way at the very end is one that the API server would see broken.
#[test]
fn it_ends_without_cutting_a_handshake() {
    let authority = Authority::new();
    let mut secret = Secret::new("handshake");
    secret.issued(&authority.issue());
    let (mut webhook, port) = start(&secret);
    webhook.logged("certificate loaded");
    let mut client = Client::connect(port, &authority.trusted());
    let mut hello = Vec::new();
    client.stream.conn.write_tls(&mut hello).unwrap();
    let (begin, rest) = hello.split_at(hello.len() / 2);
    client.stream.sock.write_all(begin).unwrap();
    // Behind it in line: that it is answered means that the other was taken.
    assert_eq!(Client::connect(port, &kubelet()).get("/livez").status, 200);
    webhook.signal("-TERM");
    webhook.logged("no new connection is taken, and the open ones end");
    client.stream.sock.write_all(rest).unwrap();
    let answer = client.mutate(&review("u-1", "default", &pod()));
    assert!(answer["response"]["patch"].is_string());
    assert!(webhook.ended().success());
}

#[test]
fn a_client_that_does_not_trust_it_is_told_of() {
    let authority = Authority::new();
    let mut secret = Secret::new("distrust");
    secret.issued(&authority.issue());
    let (mut webhook, port) = start(&secret);
    let mut client = Client::connect(port, &Authority::new().trusted());
    assert!(client.stream.write_all(b"x").is_err());
    let line = webhook.logged(
        "a client does not trust the certificate; if it is the API server, pods start without \
         their sidecar: compare the webhook configuration's caBundle with who issued the \
         certificate, its names with the Service, and its dates",
    );
    assert!(line["error"].as_str().unwrap().contains("fatal alert"), "{line}");
    assert_eq!(Client::connect(port, &authority.trusted()).get("/livez").status, 200);
}

/// The API server speaks HTTP/2 with its webhooks, many reviews on one connection.
#[tokio::test]
async fn reviews_come_over_http2() {
    let authority = Authority::new();
    let mut secret = Secret::new("http2");
    secret.issued(&authority.issue());
    let (mut webhook, port) = start(&secret);
    let mut config = ClientConfig::clone(&authority.trusted());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let reviews = futures_util::future::join_all((0..20).map(|number| {
        let mut sender = sender.clone();
        let body = review(&format!("u-{number}"), "default", &pod()).to_string();
        let request = http::Request::post(format!("https://{NAME}/mutate"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        async move {
            let response = sender.send_request(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let answer: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(answer["response"]["uid"], format!("u-{number}"));
            assert!(answer["response"]["patch"].is_string());
        }
    }));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = reviews => {}
        ended = &mut connection => panic!("{ended:?}"),
    }
    // SIGTERM ends the connection with GOAWAY, long before the port closes.
    webhook.signal("-TERM");
    tokio::time::timeout(HANG, connection).await.unwrap().unwrap();
    // Which its client would end itself, if it were not kept.
    drop(sender);
    webhook.logged("signal");
    // One might still come in while the port closes; not one after it.
    for _ in 0..2 {
        assert_eq!(Client::connect(port, &authority.trusted()).get("/readyz").status, 503);
    }
    webhook.signal("-TERM");
    assert!(webhook.ended().success());
}

#[test]
fn bad_arguments_say_what_was_expected() {
    for (arguments, part) in [
        (&["--listen", "7443"][..], "0.0.0.0:7070"),
        (&["--mode", "ambient"], "native"),
        (&["--port", "3000"], "--port"),
    ] {
        let output = harness::command(&["webhook"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(part), "{told}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = harness::command(&["webhook", "--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&address) && told.contains("--listen"), "{told}");
}
