//! The certificate and its key: read from their files, and read again when these change.
//!
//! Never gives up a pair that works for one that does not.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tokio_rustls::rustls::{
    Error, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tracing::{info, warn};

use super::{
    stand_in,
    validity::{self, Validity},
};
use crate::telemetry::webhook::Certificate;

/// How often the files are looked at: a mounted Secret follows within a minute or so anyway.
const EVERY: Duration = Duration::from_secs(2);

/// Where the pair lies.
#[derive(Debug, Clone)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What connections are begun with.
#[derive(Debug)]
pub struct Served {
    pub config: Arc<ServerConfig>,
    /// Why there was no certificate yet; that of `stand_in` is served until then.
    pub missing: Option<String>,
    /// A client said that it does not trust it, and the log says so.
    pub distrusted: AtomicBool,
}

impl Served {
    fn new(config: ServerConfig, missing: Option<String>) -> Arc<Self> {
        Arc::new(Self { config: Arc::new(config), missing, distrusted: AtomicBool::new(false) })
    }
}

/// The files, and what they last held.
pub struct Certificates {
    files: Files,
    held: Option<Result<Pair, String>>,
    served: watch::Sender<Arc<Served>>,
    told: Certificate,
}

/// The texts of both files.
#[derive(PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificates {
    /// Looks once; what is missing then is waited for by `follow`.
    pub fn open(
        files: Files,
        told: Certificate,
    ) -> Result<(Self, watch::Receiver<Arc<Served>>), String> {
        let (certificate, key) = stand_in::make()?;
        let stand_in = config(vec![certificate], key)
            .map_err(|error| format!("a certificate of its own making: {error}"))?;
        let (served, receiver) = watch::channel(Served::new(stand_in, Some("not read yet".into())));
        let mut certificates = Self { files, held: None, served, told };
        certificates.look();
        Ok((certificates, receiver))
    }

    /// Looks again and again, for ever.
    pub async fn follow(mut self) {
        loop {
            sleep(EVERY).await;
            self.look();
        }
    }

    /// The two files are not swapped in one instant: what does not fit now may fit the next time.
    fn look(&mut self) {
        let read = self.files.read();
        if self.held.as_ref() == Some(&read) {
            return;
        }
        let made = match &read {
            Ok(pair) => self.files.config(pair),
            Err(problem) => Err(problem.clone()),
        };
        self.held = Some(read);
        self.told.fits.set(made.is_ok().into());
        let path = self.files.certificate.display();
        match made {
            Ok((config, validity)) => {
                let validity = validity.unwrap_or(Validity { not_before: 0, not_after: 0 });
                self.told.not_before.set(validity.not_before);
                self.told.not_after.set(validity.not_after);
                info!(certificate = %path, "certificate loaded");
                self.served.send_replace(Served::new(config, None));
            }
            Err(problem) => {
                let waits = self.served.borrow().missing.is_some();
                if waits {
                    warn!(
                        problem,
                        "waiting for the certificate; look at the Secret that is mounted there, \
                         and at what issues it"
                    );
                    let config = ServerConfig::clone(&self.served.borrow().config);
                    self.served.send_replace(Served::new(config, Some(problem)));
                } else {
                    warn!(
                        problem,
                        "the new certificate cannot be served, and the old one goes on; look at \
                         the Secret that is mounted there, and at what issues it"
                    );
                }
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<Pair, String> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
        };
        Ok(Pair { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// With the time that clients take it for: until the first of its chain ends.
    fn config(&self, pair: &Pair) -> Result<(ServerConfig, Option<Validity>), String> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pair.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{certificate} is no whole PEM: {error}"))?;
        if chain.is_empty() {
            return Err(format!("{certificate} has no certificate in PEM"));
        }
        let private = PrivateKeyDer::from_pem_slice(&pair.key)
            .map_err(|error| format!("{key} has no private key in PEM: {error}"))?;
        let validity = chain
            .iter()
            .filter_map(|certificate| validity::of(certificate))
            .min_by_key(|validity| validity.not_after);
        let config = config(chain, private).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                format!("the key of {key} is not that of the certificate of {certificate}")
            }
            error => format!("{certificate} with {key}: {error}"),
        })?;
        Ok((config, validity))
    }
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
