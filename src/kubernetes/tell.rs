//! What is left behind: Events on the pod, and the container's termination message.
//!
//! Never keeps the drain waiting: what cannot be told in time is in the log all the same.

use std::{fs, path::Path, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Identity;
use crate::drain::report::Report;

/// Longest note of an Event (events.k8s.io/v1).
const NOTE: usize = 1024;
/// Longest termination message that the kubelet keeps of one container.
const MESSAGE: usize = 4096;
/// Where the kubelet reads it, unless the container says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Longest that an Event may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes Events about this pod.
pub struct Teller {
    recorder: Recorder,
    pod: ObjectReference,
}

impl Teller {
    pub(super) fn new(client: Client, identity: &Identity) -> Self {
        let reporter =
            Reporter { controller: "ebbtide".into(), instance: Some(identity.name.clone()) };
        let pod = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(identity.name.clone()),
            namespace: Some(identity.namespace.clone()),
            uid: Some(identity.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        Self { recorder: Recorder::new(client, reporter), pod }
    }

    pub async fn started(&self, note: String) {
        self.publish(EventType::Normal, "DrainStarted", note).await;
    }

    /// `Drained`, or `DrainCut` with the names of the calls that were cut.
    pub async fn ended(&self, report: &Report) {
        let (kind, reason) = match report.cut {
            0 => (EventType::Normal, "Drained"),
            _ => (EventType::Warning, "DrainCut"),
        };
        self.publish(kind, reason, report.sentence(NOTE)).await;
    }

    async fn publish(&self, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(note),
            action: "Drain".into(),
            secondary: None,
        };
        match timeout(PATIENCE, self.recorder.publish(&event, &self.pod)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(
                reason, %error,
                "the Event could not be written; bind the Role of deploy/rbac.yaml to the pod's \
                 service account"
            ),
            Err(_) => warn!(reason, "the Event could not be written: no answer in time"),
        }
    }
}

/// Leaves the report where the kubelet finds it once this container has ended.
pub fn leave_termination_message(report: &Report) {
    // The kubelet makes the file; where there is none, nobody would read it.
    let path = Path::new(TERMINATION_LOG);
    if path.exists()
        && let Err(error) = fs::write(path, report.sentence(MESSAGE))
    {
        debug!(%error, "the termination message could not be written");
    }
}
