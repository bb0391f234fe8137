//! Rolls a workload out as `kubectl rollout restart` does, and waits until it is done.
//!
//! Never changes anything but that one annotation of the pod template.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Error,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::{
    arguments::{Kind, Rollout},
    workload::{Progress, objection, progress, selector},
};
use crate::cli::kubeconfig;

const INTERVAL: Duration = Duration::from_millis(500);
/// So many looks in a row may fail: an API server that is rolled itself comes back.
const PATIENCE: u32 = 60;

/// What is rolled out, found and looked at.
pub struct Workload {
    workloads: Api<DynamicObject>,
    pods: Api<PartialObjectMeta<Pod>>,
    kind: Kind,
    name: String,
    /// Its name for people.
    what: String,
    selector: String,
}

impl Workload {
    /// # Errors
    /// There is no cluster, no such workload, no right to it, or nothing to roll.
    pub async fn find(rollout: &Rollout) -> Result<Self> {
        let client = kubeconfig::client().await.map_err(|error| {
            anyhow!(
                "--rollout needs a cluster, and neither KUBECONFIG nor a service account leads to \
                 one: {error:#}"
            )
        })?;
        let namespace = match &rollout.namespace {
            Some(namespace) => namespace.clone(),
            None => client.default_namespace().to_owned(),
        };
        let (resource, kind) = match rollout.kind {
            Kind::Deployment => (ApiResource::erase::<Deployment>(&()), "deployment"),
            Kind::StatefulSet => (ApiResource::erase::<StatefulSet>(&()), "statefulset"),
            Kind::DaemonSet => (ApiResource::erase::<DaemonSet>(&()), "daemonset"),
        };
        let mut workload = Self {
            workloads: Api::namespaced_with(client.clone(), &namespace, &resource),
            pods: Api::namespaced(client, &namespace),
            kind: rollout.kind,
            name: rollout.name.clone(),
            what: format!("{kind}/{} in namespace {namespace}", rollout.name),
            selector: String::new(),
        };
        let found = workload.get().await.map_err(|error| workload.explain("get", &error))?;
        if let Some(why) = objection(rollout.kind, &found) {
            bail!("a rollout of {} would show nothing: {why}", workload.what);
        }
        workload.selector = selector(&found);
        // The rights are asked for before the load begins.
        workload
            .terminating()
            .await
            .map_err(|error| workload.explain("list the pods of", &error))?;
        Ok(workload)
    }

    /// Begins a rollout, and returns when no old pod is left.
    pub async fn roll(&self, state: &watch::Sender<String>) -> Result<()> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let annotations = json!({ "kubectl.kubernetes.io/restartedAt": now });
        let template = json!({ "metadata": { "annotations": annotations } });
        let patch = Patch::Strategic(json!({ "spec": { "template": template } }));
        let patched = self.workloads.patch(&self.name, &PatchParams::default(), &patch).await;
        patched.map_err(|error| self.explain("patch", &error))?;
        let mut failures = 0;
        loop {
            match self.look().await {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::Rolling(what)) => {
                    failures = 0;
                    state.send_replace(format!("rolling: {what}"));
                }
                Ok(Progress::Stuck(why)) => {
                    bail!("the rollout of {} is stuck: {why}", self.what)
                }
                Err(error) => {
                    failures += 1;
                    if failures == PATIENCE {
                        return Err(self.explain("get", &error));
                    }
                }
            }
            sleep(INTERVAL).await;
        }
    }

    async fn look(&self) -> Result<Progress, Error> {
        let progress = progress(self.kind, &self.get().await?);
        if progress != Progress::Done {
            return Ok(progress);
        }
        // The status does not count pods that terminate, and with them the drain is under way.
        Ok(match self.terminating().await? {
            0 => Progress::Done,
            pods => Progress::Rolling(format!("{pods} old pods still terminate")),
        })
    }

    async fn get(&self) -> Result<Value, Error> {
        let found = self.workloads.get(&self.name).await?;
        serde_json::to_value(&found).map_err(Error::SerdeError)
    }

    async fn terminating(&self) -> Result<usize, Error> {
        let pods = self.pods.list(&ListParams::default().labels(&self.selector)).await?;
        Ok(pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count())
    }

    /// What the operator can do about it.
    fn explain(&self, verb: &str, error: &Error) -> anyhow::Error {
        let what = &self.what;
        match error {
            Error::Api(status) if status.code == 403 => anyhow!(
                "may not {verb} {what}: {}; --rollout needs get and patch on the workload, and \
                 list on pods",
                status.message
            ),
            Error::Api(status) if status.code == 404 => anyhow!("there is no {what}"),
            _ => anyhow!(
                "could not {verb} {what}: {}; is the cluster of the current context reachable?",
                crate::cli::load::target::chain(error)
            ),
        }
    }
}
