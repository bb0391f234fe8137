//! `discovery.k8s.io/v1` `EndpointSlice`, as far as it matters here: what is read of it, and how
//! the API says that what is not there is to be read.
//!
//! Never decides anything.

use std::borrow::Cow;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;

/// The label that names the Service of a slice.
const SERVICE: &str = "kubernetes.io/service-name";

#[derive(Debug, Clone, Deserialize)]
pub struct Slice {
    pub metadata: ObjectMeta,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

impl Slice {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The name of its Service.
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(SERVICE).map(String::as_str)
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().flatten()
    }

    /// Names and numbers of its ports. A Service's only port may have no name.
    pub fn ports(&self) -> impl Iterator<Item = (&str, u16)> {
        let ports = self.ports.iter().flatten();
        let number = |port: &Port| u16::try_from(port.port?).ok();
        ports
            .filter_map(move |port| Some((port.name.as_deref().unwrap_or_default(), number(port)?)))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// All of one pod; the API says to take the first.
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
    target_ref: Option<Target>,
}

impl Endpoint {
    pub fn address(&self) -> Option<&str> {
        self.addresses.as_ref()?.first().map(String::as_str)
    }

    /// The pod's UID.
    pub fn uid(&self) -> Option<&str> {
        self.target_ref.as_ref()?.uid.as_deref()
    }

    /// With `publishNotReadyAddresses` this is true whatever the pod says.
    pub fn is_ready(&self) -> bool {
        self.conditions().ready.unwrap_or(true)
    }

    /// What the pod's readiness says, also while it ends.
    pub fn is_serving(&self) -> bool {
        self.conditions().serving.unwrap_or_else(|| self.is_ready())
    }

    pub fn is_terminating(&self) -> bool {
        self.conditions().terminating.unwrap_or(false)
    }

    fn conditions(&self) -> Conditions {
        self.conditions.unwrap_or_default()
    }
}

/// A condition that is not there is unknown; the API says how to read that: `ready` as true,
/// `serving` as `ready`, `terminating` as false.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
struct Target {
    uid: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<i32>,
}

impl Resource for Slice {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "EndpointSlice".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "discovery.k8s.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "endpointslices".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
