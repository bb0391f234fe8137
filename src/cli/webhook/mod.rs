//! `ebbtide webhook`: the admission webhook that gives pods their sidecar as they are made.
//!
//! Never keeps a pod from being made: what goes wrong is told, and the pod passes as it is.

mod certificates;
mod linger;
mod patch;
mod review;
mod server;
mod stand_in;
mod tls;
mod validity;
mod warnings;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::{Arg, ArgMatches, Command, value_parser};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tracing::{info, warn};

use self::{
    certificates::{Certificates, Files},
    review::Rules,
    server::Webhook,
    tls::Tls,
};
use super::{Outcome, inject, podspec::Options};
use crate::{
    config::value::{self, Format, Level},
    kubernetes,
    serve::{self, Limits, Port, Stage, Tcp},
    signals::Signals,
    tasks::Group,
    telemetry::{Metrics, log, webhook::Reviews},
};

/// What a review in flight may take at the end.
const FINISH: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits {
    max_inbound: 1024,
    max_header_bytes: 32 * 1024,
    max_headers: 100,
    // Of the handshake, too.
    header_timeout: Duration::from_secs(15),
    // API servers are few, and none of the other pods may keep them out.
    max_per_address: 256,
    keep_alive: true,
};
const PORT: &str = "webhook port";

pub fn command() -> Command {
    Command::new("webhook")
        .about("The mutating admission webhook that adds the sidecar to pods as they are made")
        .after_help(
            "Answers POST /mutate (AdmissionReview v1), GET /livez, /readyz and /metrics over \
             HTTPS. Certificate and key are read again when their files change. POD_NAMESPACE \
             tells its own namespace, whose pods it never changes; nor those of kube-system.",
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS")
                .default_value("0.0.0.0:7443")
                .help("Where the API server comes to"),
        )
        .arg(file("certificate", "/etc/ebbtide/tls/tls.crt", "The certificate, PEM"))
        .arg(file("key", "/etc/ebbtide/tls/tls.key", "Its private key, PEM"))
        .args(inject::sidecar_arguments())
}

fn file(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .default_value(default)
        .help(help)
}

pub fn main(matches: &ArgMatches) -> Outcome {
    let given = matches.get_one::<String>("listen").map_or("", String::as_str);
    let listen = match value::address(given) {
        Ok(listen) => listen,
        Err(expected) => {
            return Outcome::Usage(format!(
                "--listen: `{given}` does not fit: expected {expected}"
            ));
        }
    };
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let files = Files { certificate: path("certificate"), key: path("key") };
    let options = match inject::sidecar_options(matches) {
        Ok(options) => Options { forgives: true, ..options },
        Err(text) => return Outcome::Usage(text),
    };
    let own = kubernetes::own_namespace(|name| std::env::var(name).ok());
    log::start(Level::Info, Format::Json);
    if own.is_none() {
        warn!(
            "its own namespace is not known, so that its pods are changed like others; set \
             POD_NAMESPACE by fieldRef metadata.namespace"
        );
    }
    let rules = Rules { options, own };
    super::block_on(async {
        match run(listen, files, rules).await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        }
    })
}

async fn run(listen: SocketAddr, files: Files, rules: Rules) -> Result<(), String> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        format!("cannot listen on {listen}: {error}; --listen takes another address")
    })?;
    let mut signals = Signals::catch().map_err(|error| format!("catching signals: {error}"))?;
    let address = listener.local_addr().unwrap_or(listen);
    let (mode, image) = (rules.options.mode, rules.options.image.clone());
    info!(address = %address, ?mode, image, "listening");
    let reviews = Reviews::new();
    let (certificates, served) = Certificates::open(files, reviews.certificate.clone())?;
    let webhook = Arc::new(Webhook::new(rules, served.clone(), reviews));
    let (stage, stages) = watch::channel(Stage::Open);
    let port = Port {
        name: PORT,
        limits: LIMITS,
        stages,
        // Those of a sidecar: nothing of them is counted or shown here.
        metrics: Arc::new(Metrics::new()),
        connections: None,
        handler: Arc::clone(&webhook),
    };
    let mut group = Group::default();
    group.spawn("certificates", certificates.follow());
    group.spawn(PORT, serve::run(Tls { tcp: Tcp::new(listener), served }, port));

    tokio::select! {
        () = signals.next() => {}
        died = died(&mut group) => return Err(died),
    }
    webhook.end();
    stage.send_replace(Stage::Announce);
    let last_review = webhook.last_review.subscribe();
    let finish = tokio::select! {
        () = linger::linger(&last_review) => FINISH,
        // Somebody does not want to wait.
        () = signals.next() => Duration::from_secs(1),
        died = died(&mut group) => return Err(died),
    };
    info!("no new connection is taken, and the open ones end");
    stage.send_replace(Stage::Close(Instant::now() + finish));
    match group.ended().await {
        Some(ended) if ended.name == PORT && ended.panic.is_none() => {
            info!("the webhook ends");
            Ok(())
        }
        ended => Err(describe(ended)),
    }
}

/// Waits for a part to end that should not.
async fn died(group: &mut Group) -> String {
    describe(group.ended().await)
}

fn describe(ended: Option<crate::tasks::Ended>) -> String {
    let (name, how) = ended.map_or(("webhook", None), |ended| (ended.name, ended.panic));
    let how = how.map_or("ended early".into(), |text| format!("panicked: {text}"));
    format!("the part `{name}` {how}; this is a bug of ebbtide")
}
