//! The load: a pod that plays many MCP clients of both eras against the Service, with `ebbtide
//! rehearse`, and says what became of every call. It runs in the cluster, since not every cluster
//! lets the machine of the tests reach its Services.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    kubectl::{Following, json as parse},
    manifest::EBBTIDE,
    namespace::Namespace,
};

/// A load that runs.
pub struct Rehearsal<'n> {
    namespace: &'n Namespace,
    log: Following,
}

impl Namespace {
    /// Starts a load of calls that take so many milliseconds.
    pub fn rehearse(&self, milliseconds: u32) -> Rehearsal<'_> {
        self.rehearse_with(&[&format!("--tool=slow={{\"milliseconds\":{milliseconds}}}")])
    }

    /// Starts a load, and waits until a call runs.
    pub fn rehearse_with(&self, flags: &[&str]) -> Rehearsal<'_> {
        let address = self.get(&["service", "mcp-server"])["spec"]["clusterIP"].clone();
        let url = format!("http://{}/mcp", address.as_str().unwrap());
        self.apply(&pod(&[&["rehearse", &url, "--json"], flags].concat()));
        self.wait("pod/rehearse", "condition=Ready");
        let arguments = ["--namespace", &self.name, "logs", "--follow", "rehearse"];
        let log = Following::start(&arguments);
        self.busy_pod();
        Rehearsal { namespace: self, log }
    }
}

impl Rehearsal<'_> {
    /// Ends it: what is in flight is still waited for.
    pub fn end(self) -> Report {
        self.namespace.kubectl(&["delete", "pod", "rehearse", "--wait=false"]);
        self.ended()
    }

    /// Waits until it ends by itself, as with `--rollout`.
    pub fn ended(self) -> Report {
        let lines = self.log.to_the_end();
        let report = lines.iter().find(|line| line.starts_with('{'));
        Report(parse(report.unwrap_or_else(|| panic!("no report: {lines:#?}"))))
    }
}

/// The account of every call, as `rehearse --json` prints it.
pub struct Report(Value);

impl Report {
    fn answered(&self) -> u64 {
        self.0["total"]["ok"].as_u64().unwrap()
    }

    /// Every call that was made, whatever became of it.
    pub fn calls(&self) -> u64 {
        self.0["total"]["calls"].as_u64().unwrap()
    }

    fn lost(&self) -> &[Value] {
        self.0["lost"].as_array().unwrap()
    }

    pub fn assert_nothing_lost(&self) {
        assert!(self.answered() > 0 && self.lost().is_empty(), "{self}");
    }

    /// The bed can show a loss: else its other tests prove nothing.
    pub fn assert_something_lost(&self) {
        assert!(!self.lost().is_empty(), "{self}");
    }

    /// Some calls could not be answered, and each of them was told so.
    pub fn assert_lost_properly(&self, code: i32) {
        let told = self.lost().iter().all(|call| call["code"] == code);
        assert!(told && !self.lost().is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{} answered, {} sessions lost",
            self.answered(),
            self.0["sessions"]["lost"]
        )?;
        self.lost().iter().try_for_each(|call| writeln!(out, "lost: {call}"))
    }
}

/// The load, and what it may do: with `--rollout` it patches the Deployment itself.
fn pod(arguments: &[&str]) -> Value {
    let named = |kind: &str, version: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "rehearse"}});
    let with = |mut object: Value, more: Value| {
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let rbac = "rbac.authorization.k8s.io";
    json!({"apiVersion": "v1", "kind": "List", "items": [
        named("ServiceAccount", "v1"),
        with(named("Role", &format!("{rbac}/v1")), json!({"rules": [
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        ]})),
        with(named("RoleBinding", &format!("{rbac}/v1")), json!({
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "rehearse"},
            "subjects": [{"kind": "ServiceAccount", "name": "rehearse"}],
        })),
        with(named("Pod", "v1"), json!({"spec": {
            "serviceAccountName": "rehearse",
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 60,
            // Also where pods have to be restricted.
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "rehearse", "image": EBBTIDE, "args": arguments,
                "securityContext": {"allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}}}],
        }})),
    ]})
}
