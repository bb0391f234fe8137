//! The objects of a namespace as they are in the cluster.
//!
//! Never writes to the cluster.

use std::fmt::Debug;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::{CronJob, Job},
    core::v1::{Namespace, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Error, Resource,
    api::{ApiResource, DynamicObject, ListParams},
};

use crate::cli::{kubeconfig, manifest::Object};

/// Of each kind at once; more come in further pages.
const PAGE: u32 = 500;

/// What makes pods in a namespace, the pods themselves, and what stands beside them; and what to
/// tell where the namespace's own labels cannot be read.
pub async fn objects(namespace: &str) -> Result<(Vec<Object>, Option<String>)> {
    let client = kubeconfig::client().await.map_err(|error| {
        anyhow!(
            "--namespace needs a cluster, and neither KUBECONFIG nor a service account leads to \
             one: {error:#}"
        )
    })?;
    let mut objects = Vec::new();
    for resource in [
        erased::<Deployment>(),
        erased::<StatefulSet>(),
        erased::<DaemonSet>(),
        erased::<ReplicaSet>(),
        erased::<CronJob>(),
        erased::<Job>(),
        erased::<Pod>(),
        erased::<Service>(),
        erased::<PodDisruptionBudget>(),
        erased::<HorizontalPodAutoscaler>(),
    ] {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let found = all(&api).await.map_err(|error| explain(error, &resource, namespace))?;
        for object in found {
            objects.push(named(object, &resource, objects.len())?);
        }
    }
    let resource = erased::<Namespace>();
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let unknown = match api.get(namespace).await {
        Ok(found) => {
            objects.push(named(found, &resource, objects.len())?);
            None
        }
        Err(Error::Api(status)) if status.code == 404 => {
            return Err(anyhow!("there is no namespace {namespace}"));
        }
        Err(error) => Some(format!(
            "the labels of namespace {namespace} cannot be read, so whether they ask for injection \
             is not known: {error}"
        )),
    };
    Ok((objects, unknown))
}

/// The lists of the API do not say of each item what it is.
fn named(object: DynamicObject, resource: &ApiResource, number: usize) -> Result<Object> {
    let mut value = serde_json::to_value(object).context("an object of the cluster")?;
    value["apiVersion"] = resource.api_version.clone().into();
    value["kind"] = resource.kind.clone().into();
    Ok(Object { document: number, pointer: String::new(), value })
}

fn erased<K: Resource<DynamicType = ()> + Debug>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

async fn all(api: &Api<DynamicObject>) -> Result<Vec<DynamicObject>, Error> {
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => return Ok(found),
        }
    }
}

fn explain(error: Error, resource: &ApiResource, namespace: &str) -> anyhow::Error {
    let plural = &resource.plural;
    match error {
        Error::Api(status) if status.code == 403 => anyhow!(
            "no right to list {plural} in namespace {namespace}: check needs it for all that makes \
             pods, and for services, poddisruptionbudgets and horizontalpodautoscalers ({})",
            status.message
        ),
        error => anyhow!("{plural} in namespace {namespace} cannot be listed: {error}"),
    }
}
