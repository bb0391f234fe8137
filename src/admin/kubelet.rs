//! Who the kubelet is: whoever probes us. It probes and calls hooks from one address, which no
//! other pod has; so a hook from elsewhere is a stranger's, and may only wait.
//!
//! Never grants more than a hook: what an address proves is little.

use std::{net::IpAddr, sync::OnceLock};

use http::{HeaderMap, header};

/// What every probe of the kubelet says of itself.
const PROBE: &[u8] = b"kube-probe/";

/// The kubelet's address, once it has probed.
#[derive(Debug, Default)]
pub struct Kubelet(OnceLock<IpAddr>);

impl Kubelet {
    /// Notes who probes. The first one holds: the kubelet probes from the start, before anybody
    /// else can know that the pod exists.
    pub fn probed(&self, remote: IpAddr, headers: &HeaderMap) {
        let agent = headers.get(header::USER_AGENT).map(http::HeaderValue::as_bytes);
        // A mesh that answers probes for us asks over loopback, and tells nothing.
        if agent.is_some_and(|agent| agent.starts_with(PROBE)) && !remote.is_loopback() {
            self.0.get_or_init(|| {
                tracing::info!(address = %remote, "the kubelet probes; hooks count from there only");
                remote
            });
        }
    }

    /// Whether a hook from there may be the kubelet's; anybody's may where it never probed.
    #[must_use]
    pub fn may_be(&self, remote: IpAddr) -> bool {
        self.0.get().is_none_or(|kubelet| *kubelet == remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(text: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, http::HeaderValue::from_static(text));
        headers
    }

    #[test]
    fn whoever_probes_first_is_the_kubelet() {
        let (node, pod) = (IpAddr::from([10, 244, 0, 1]), IpAddr::from([10, 244, 0, 7]));
        let kubelet = Kubelet::default();
        kubelet.probed(pod, &agent("curl/8"));
        kubelet.probed(IpAddr::from([127, 0, 0, 6]), &agent("kube-probe/1.36"));
        assert!(kubelet.may_be(pod) && kubelet.may_be(node));
        kubelet.probed(node, &agent("kube-probe/1.36"));
        kubelet.probed(pod, &agent("kube-probe/1.36"));
        assert!(kubelet.may_be(node) && !kubelet.may_be(pod));
    }
}
