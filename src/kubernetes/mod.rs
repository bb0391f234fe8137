//! What the cluster tells: whether an endpoint offers this pod, and whether the pod is deleted;
//! and what we tell the cluster: Events, and the termination message.
//!
//! Enters the drain as one stream of facts. Never decides anything, and never fails: what cannot
//! be read lowers the level of knowledge, and is logged once with what to do about it.

pub mod client;
mod identity;
pub mod peers;
mod pod;
pub mod slice;
mod slices;
mod tell;
mod trouble;

use std::sync::Arc;

use futures_util::{Stream, stream::select};
use kube::{Client, Config, client::ClientBuilder};
use tokio::{sync::watch, time::Duration};
use tower::limit::RateLimitLayer;
use tracing::{info, warn};

pub use self::{
    identity::{Identity, own_namespace, own_uid},
    tell::{Teller, leave_termination_message},
};
use crate::{drain::knowledge::Fact, sessions::peers::Peers};

/// Who is told of the pods behind the Services that offer our data port.
pub struct Watched {
    /// The data port's number.
    pub port: u16,
    /// `None` until somebody can tell.
    pub seen: watch::Sender<Option<Arc<Peers>>>,
}

/// Longest that connecting to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most requests in a period: far more than two watches, a drain and its Events take.
const REQUESTS: u64 = 10;
const PERIOD: Duration = Duration::from_secs(2);

/// The API server, and who we are to it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    identity: Identity,
}

impl Cluster {
    /// Connects with the pod's service account. `None`, with a line in the log that says what to
    /// do, where there is none: the drain then goes by timers.
    #[must_use]
    pub fn join(identity: Identity) -> Option<Self> {
        let mut config = match Config::incluster() {
            Ok(config) => config,
            Err(error) => {
                warn!(
                    %error,
                    "no service account, so the API server cannot be asked and the drain goes by \
                     timers; mount a token (automountServiceAccountToken, or a projected volume) \
                     and bind the Role of deploy/rbac.yaml"
                );
                return None;
            }
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        info!(?identity, "this pod");
        Self::connect(&config, identity)
            .inspect_err(|error| {
                warn!(%error, "the API server cannot be asked; the drain goes by timers");
            })
            .ok()
    }

    /// With an API server of the caller's choice, as tests have one. Nothing is asked yet.
    ///
    /// # Errors
    /// The configuration is not one that a connection can be made with.
    pub fn connect(config: &Config, identity: Identity) -> Result<Self, String> {
        // A watch that ends is opened again at once, also by a server that closes each at once.
        let pace = RateLimitLayer::new(REQUESTS, PERIOD);
        let service = client::api_server(config)?;
        let namespace = config.default_namespace.clone();
        let client = ClientBuilder::new(service, namespace).with_layer(&pace).build();
        Ok(Self { client, identity })
    }

    /// All news, for ever. `urgent`: whether somebody waits for them, so that the Pod is read at
    /// once and often.
    /// `peers`: who is told of the other pods behind our Services.
    pub fn facts(
        self,
        urgent: watch::Receiver<bool>,
        peers: Option<Watched>,
    ) -> impl Stream<Item = Fact> + Send {
        let pod = pod::facts(self.client.clone(), self.identity.clone(), urgent);
        select(slices::facts(self.client, self.identity, peers), pod)
    }

    /// Who writes Events about this pod.
    #[must_use]
    pub fn teller(&self) -> Teller {
        Teller::new(self.client.clone(), &self.identity)
    }
}
