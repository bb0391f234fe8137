//! The sidecar's container and its volumes. Pure.

use serde_json::{Map, Value, json};

use super::{CONTAINER, Mode, SECRET, TOKEN, resources::Resources};
use crate::config::{self, Raw, table::TABLE};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where the Secret's keys are files.
pub const SECRET_PATH: &str = "/etc/ebbtide/secret";

pub struct Sidecar<'a> {
    pub mode: Mode,
    pub image: &'a str,
    pub settings: &'a Raw,
    /// The port that clients come to: its name, perhaps its host port.
    pub data: (u16, Map<String, Value>),
    pub admin: u16,
    pub resources: &'a Resources,
    /// Whether the pod has a Secret for it.
    pub has_secret: bool,
    /// The pod's security context, which holds for every container.
    pub pod_security: &'a Value,
}

impl Sidecar<'_> {
    pub fn container(&self) -> Value {
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let get = |path: &str| json!({"path": path, "port": self.admin});
        let (number, fields) = &self.data;
        let mut data = json!({"containerPort": number});
        if let Some(port) = data.as_object_mut() {
            port.extend(fields.clone());
        }
        let mut env = vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"),
        ];
        // For `ebbtide status` and `drain` beside it, which know no arguments of its.
        if let Some((address, _)) = self.settings.get("admin") {
            env.push(json!({"name": config::variable("admin"), "value": address}));
        }
        let mut container = json!({
            "name": CONTAINER,
            "image": self.image,
            "args": self.args(),
            "env": env,
            "ports": [data, {"name": "ebbtide-admin", "containerPort": self.admin}],
            "livenessProbe": {"httpGet": get("/livez")},
            "readinessProbe": {"httpGet": get("/readyz"), "periodSeconds": 2},
            "lifecycle": {"preStop": {"httpGet": get("/prestop/self")}},
            "resources": self.resources.value(),
            "securityContext": self.security(),
            "volumeMounts": self.mounts(),
        });
        if self.mode == Mode::Native {
            container["restartPolicy"] = "Always".into();
            // The kubelet starts the server only after this one: it must not depend on the server.
            container["startupProbe"] =
                json!({"httpGet": get("/livez"), "periodSeconds": 1, "failureThreshold": 30});
        }
        container
    }

    fn mounts(&self) -> Vec<Value> {
        let paths = [(TOKEN, TOKEN_PATH), (SECRET, SECRET_PATH)];
        let count = if self.has_secret { 2 } else { 1 };
        let mount = |(name, path)| json!({"name": name, "mountPath": path, "readOnly": true});
        paths.into_iter().take(count).map(mount).collect()
    }

    fn args(&self) -> Vec<String> {
        let mut args = vec!["run".to_owned()];
        for setting in TABLE {
            if let Some((value, _)) = self.settings.get(setting.name) {
                args.extend([config::flag(setting.name), value.clone()]);
            }
        }
        args
    }

    /// What `restricted` asks for, without what the pod says already.
    fn security(&self) -> Value {
        let mut security = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        if self.pod_security["runAsNonRoot"] != true {
            security["runAsNonRoot"] = true.into();
        }
        // The image has a user of its own, unless the pod says root.
        if self.pod_security["runAsUser"] == 0 {
            security["runAsUser"] = 65532.into();
        }
        let seccomp = self.pod_security["seccompProfile"]["type"].as_str();
        if !matches!(seccomp, Some("RuntimeDefault" | "Localhost")) {
            security["seccompProfile"] = json!({"type": "RuntimeDefault"});
        }
        security
    }
}

/// What the container mounts.
pub fn volumes(secret: Option<&str>) -> Vec<Value> {
    let secret = secret.map(|name| json!({"name": SECRET, "secret": {"secretName": name}}));
    [token()].into_iter().chain(secret).collect()
}

/// A token of the pod's service account for our container alone: the same that the API server
/// would mount into all of them, and also where it was told not to.
fn token() -> Value {
    json!({
        "name": TOKEN,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                ]}},
            ],
        },
    })
}
