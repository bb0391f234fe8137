//! Who we are: the pod, its namespace and its UID, from the downward API.
//!
//! Never asks the API server.

use std::path::Path;

/// Where the kubelet mounts what belongs to the service account.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// This pod. Endpoints are matched by `uid`: a `StatefulSet`'s pods reuse their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub namespace: String,
    /// Empty where the downward API does not tell; the Pod itself then may.
    pub uid: String,
}

impl Identity {
    /// Reads `POD_NAME`, `POD_NAMESPACE` and `POD_UID`. Name and namespace have a second source:
    /// the host name, and the service account's folder.
    ///
    /// # Errors
    /// What to add to the pod spec.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let given = |name: &str| given(&variable, name);
        let name = given("POD_NAME").or_else(|| given("HOSTNAME"));
        let namespace = own_namespace(&variable);
        let missing = |name: &str, path: &str| {
            format!("{name} is not set; add it to the sidecar's env by fieldRef {path}")
        };
        Ok(Self {
            name: name.ok_or_else(|| missing("POD_NAME", "metadata.name"))?,
            namespace: namespace.ok_or_else(|| missing("POD_NAMESPACE", "metadata.namespace"))?,
            uid: given("POD_UID").unwrap_or_default(),
        })
    }
}

/// The pod's UID, for who needs to know no more; empty where the downward API does not tell.
#[must_use]
pub fn own_uid() -> String {
    std::env::var("POD_UID").unwrap_or_default()
}

/// The pod's namespace, for who needs to know no more.
pub fn own_namespace(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    given(variable, "POD_NAMESPACE").or_else(|| read(Path::new(NAMESPACE)))
}

fn given(variable: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).filter(|value| !value.is_empty())
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_downward_api_tells_and_an_error_says_what_to_add() {
        let read = |pairs: &[(&str, &str)]| {
            Identity::from_environment(|name| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned())
            })
        };
        let all =
            [("POD_NAME", "a-1"), ("POD_NAMESPACE", "n"), ("POD_UID", "u"), ("HOSTNAME", "h")];
        let identity = read(&all).unwrap();
        assert_eq!((&*identity.name, &*identity.namespace, &*identity.uid), ("a-1", "n", "u"));
        assert_eq!(read(&all[1..]).unwrap().name, "h");
        let no_uid = read(&[("POD_NAME", "a"), ("POD_NAMESPACE", "n"), ("POD_UID", "")]).unwrap();
        assert_eq!(no_uid.uid, "");
        let error = read(&[("POD_NAMESPACE", "n")]).unwrap_err();
        assert!(error.contains("POD_NAME") && error.contains("metadata.name"), "{error}");
    }
}
