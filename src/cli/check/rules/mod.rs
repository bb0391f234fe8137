//! The rules of `check`, once: the command, its SARIF and docs/checks.md all come from this table.
//! Pure.

mod hooks;
mod probes;
mod rollout;
mod state;
mod traffic;

use super::world::{Container, Workload, World};

pub struct Rule {
    pub name: &'static str,
    /// How it loses calls.
    pub why: &'static str,
    /// What to write in its place.
    pub instead: &'static str,
    pub find: fn(&World<'_>) -> Vec<Found>,
}

/// Where a rule is broken, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub object: usize,
    pub container: Option<String>,
    /// Within the object, as a JSON pointer.
    pub path: String,
    pub says: String,
}

impl Found {
    fn in_pod(workload: &Workload<'_>, path: &str, says: String) -> Self {
        Self { object: workload.index, container: None, path: workload.path(path), says }
    }

    fn in_container(
        workload: &Workload<'_>,
        container: Container<'_>,
        path: &str,
        says: String,
    ) -> Self {
        Self {
            object: workload.index,
            container: Some(container.name()),
            path: workload.path(&format!("{}{path}", container.path())),
            says,
        }
    }

    fn in_object(object: usize, path: &str, says: String) -> Self {
        Self { object, container: None, path: path.to_owned(), says }
    }
}

const fn rule(
    name: &'static str,
    find: fn(&World<'_>) -> Vec<Found>,
    why: &'static str,
    instead: &'static str,
) -> Rule {
    Rule { name, why, instead, find }
}

pub const RULES: &[Rule] = &[
    rule(
        "no-prestop",
        hooks::no_prestop,
        "SIGTERM reaches the server at the moment when its pod begins to end, while nodes and load \
         balancers still send it requests and its calls still run: they are cut or refused.",
        "A preStop hook that returns when all is drained: `ebbtide inject` writes `httpGet: {path: \
         /prestop, port: 7071}` for the server and `/prestop/self` for the sidecar; a hook of the \
         server's own ends with `ebbtide drain --wait`.",
    ),
    rule(
        "blind-sleep",
        hooks::blind_sleep,
        "A sleep waits for a fixed time: calls that take longer are cut after it, and a rollout \
         waits for it even when nothing runs.",
        "A hook that waits for the calls themselves, as `ebbtide inject` writes it.",
    ),
    rule(
        "prestop-needs-shell",
        hooks::needs_shell,
        "The image has neither a shell nor `sleep`: the hook fails at once, the kubelet goes on to \
         SIGTERM, and nobody sees it but the pod's events.",
        "`httpGet: {path: /prestop, port: 7071}`, which needs nothing of the image, or the `sleep` \
         action (Kubernetes 1.34).",
    ),
    rule(
        "grace-too-short",
        hooks::grace_too_short,
        "The kubelet kills everything when the grace is over, however far the drain is: calls that \
         still run are cut.",
        "`terminationGracePeriodSeconds` of at least the slowest call (--slowest-call), the settle \
         and 3 s for the server to stop.",
    ),
    rule(
        "grace-told-wrong",
        hooks::grace_told_wrong,
        "Where ebbtide may not read its Pod it goes by what it is told: with more than the pod has \
         it is killed in the middle of the drain.",
        "`--grace` with the same time as `terminationGracePeriodSeconds`.",
    ),
    rule(
        "classic-never-ends",
        hooks::classic_never_ends,
        "The sidecar keeps running when the server has finished: the Job never completes, until \
         somebody kills it with calls in flight.",
        "A native sidecar: the container among the initContainers, with `restartPolicy: Always`.",
    ),
    rule(
        "no-token",
        hooks::no_token,
        "Without a token ebbtide can see neither its endpoints nor its Pod: it drains by timers, \
         longer than needed or, behind a slow balancer, too short.",
        "A projected serviceAccountToken mounted into the sidecar alone, as `ebbtide inject` writes \
         it.",
    ),
    rule(
        "port-taken",
        hooks::port_taken,
        "Containers of a pod share their ports: the second to listen on one does not start, and the \
         pod never becomes ready.",
        "Another port for ebbtide, with --listen or --admin, and hooks, probes and ports that say \
         the same.",
    ),
    rule(
        "liveness-drains",
        probes::liveness_drains,
        "This path answers 503, or waits, while the pod drains: the kubelet takes that for dead and \
         restarts the container with its calls in flight.",
        "For the sidecar `livenessProbe: {httpGet: {path: /livez, port: 7071}}`, which is 200 \
         through the whole drain; for the server a probe of its own port.",
    ),
    rule(
        "probe-grace",
        probes::probe_grace,
        "A probe that fails once too often gives the container this time in place of the pod's: \
         calls that take longer are cut.",
        "No `terminationGracePeriodSeconds` in the probe, or one as long as the pod's.",
    ),
    rule(
        "probe-port-unknown",
        probes::port_unknown,
        "Probes and hooks find a port by name only among those of their own container: a probe of \
         another name fails for ever, and the pod never becomes ready or is restarted again and \
         again; a preStop hook fails at once, and SIGTERM comes without a wait.",
        "The port's number. `ebbtide inject` writes it where it moves the name to the sidecar.",
    ),
    rule(
        "startup-needs-server",
        probes::startup_needs_server,
        "The kubelet starts the server only after its native sidecar has started: one that waits \
         for the server never does, and the rollout hangs.",
        "`startupProbe: {httpGet: {path: /livez, port: 7071}}`.",
    ),
    rule(
        "service-bypasses-sidecar",
        traffic::bypass,
        "Clients that come this way reach the server itself: ebbtide does not see their calls and \
         does not wait for them.",
        "`targetPort` with the name of the sidecar's port, which the server's port no longer has; a \
         headless Service with the sidecar's number as its port.",
    ),
    rule(
        "service-port-unknown",
        traffic::port_unknown,
        "A Service leads to those of its pods that have a port of this name: to the others no \
         request comes, and where none has it, all are refused.",
        "The name of the port in all pods that the Service selects: `mcp` or `http` in all of them, \
         which the sidecar takes over; or a Service that selects less.",
    ),
    rule(
        "publish-not-ready",
        traffic::publish_not_ready,
        "Clients are sent to pods that are not ready yet, and to those that drain, until the very \
         end.",
        "No `publishNotReadyAddresses`, or a second Service that has it and serves no client.",
    ),
    rule(
        "stateful-reopens",
        state::stateful_reopens,
        "A session whose pod is gone, or whose server has crashed, is opened anew: its client goes \
         on as if nothing had happened, while what the server kept in memory for it (a login, a \
         directory, what earlier calls made) is no longer there, and nobody is told.",
        "The annotation `config.ebbtide.dev/sessions: pin` on the pod, or `--sessions pin`: such a \
         session is served by its own pod whoever is asked, and ends with it, which its client is \
         told. Or a server that keeps its state where all pods find it, and no annotation \
         `ebbtide.dev/stateful`.",
    ),
    rule(
        "max-unavailable-all",
        rollout::all_unavailable,
        "A rollout may take all pods away before a new one is ready: nobody is left to answer.",
        "`maxUnavailable: 0` and `maxSurge: 1`.",
    ),
    rule(
        "recreate",
        rollout::recreate,
        "The old pods are gone before the first new one starts: between them nobody answers, \
         however well they drained.",
        "`strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}`.",
    ),
    rule(
        "no-disruption-budget",
        rollout::no_budget,
        "When nodes are drained for an upgrade, all pods may be evicted at the same time.",
        "A PodDisruptionBudget with the same labels and `maxUnavailable: 1`.",
    ),
    rule(
        "scale-in-at-once",
        rollout::scale_in_at_once,
        "Each dip in the load ends pods, and the next peak makes new ones: sessions and streams are \
         moved for nothing.",
        "`behavior: {scaleDown: {stabilizationWindowSeconds: 300}}`, which is also what holds where \
         nothing is written.",
    ),
    rule(
        "database-limit",
        rollout::database_limit,
        "While a rollout runs, old and new pods have connections at the same time: the database \
         refuses what is over its limit, and the calls behind it fail.",
        "`--max-connections` of at most --database-limit divided by the most pods that there can be, \
         those of a surge included.",
    ),
];
