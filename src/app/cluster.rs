//! What the cluster tells, passed on to the drain.

use std::pin::pin;

use futures_util::StreamExt;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    drain::{DrainHandle, DrainWatch, Phase, handle::Event},
    kubernetes::{Cluster, Identity, Watched},
};

/// This pod's cluster, if it can be asked.
pub fn join() -> Option<Cluster> {
    match Identity::from_environment(|name| std::env::var(name).ok()) {
        Ok(identity) => Cluster::join(identity),
        Err(error) => {
            warn!(error, "who this pod is cannot be told; the drain goes by timers");
            None
        }
    }
}

/// Passes on what the cluster tells. Somebody waits for it from the trigger on.
pub async fn learn(
    cluster: Cluster,
    peers: Option<Watched>,
    mut watch: DrainWatch,
    drain: DrainHandle,
) {
    let (urgent, waits) = watch::channel(false);
    let mut facts = pin!(cluster.facts(waits, peers));
    let begun = async {
        watch.reached(Phase::Withdrawing).await;
        urgent.send_replace(true);
        std::future::pending::<()>().await;
    };
    let mut begun = pin!(begun);
    loop {
        let fact = tokio::select! {
            fact = facts.next() => fact,
            () = &mut begun => None,
        };
        match fact {
            Some(fact) => drain.tell(Event::Learned(fact)).await,
            None => return std::future::pending().await,
        }
    }
}
