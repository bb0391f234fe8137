//! Rules about what a server keeps in memory for a session. Pure.

use serde_json::Value;

use super::Found;
use crate::{
    cli::{
        check::world::{Workload, World},
        podspec::SETTING,
    },
    config::value::{self, Roaming},
};

/// By this annotation, on the workload or its pods, somebody says that a session is more to the
/// server than a name.
const STATEFUL: &str = "ebbtide.dev/stateful";

pub fn stateful_reopens(world: &World<'_>) -> Vec<Found> {
    let stateful = world.workloads.iter().filter(|workload| sessions(workload) == Roaming::Reopen);
    stateful.filter_map(found).collect()
}

fn found(workload: &Workload<'_>) -> Option<Found> {
    let says = format!(
        "the annotation {STATEFUL} says that the server keeps state for a session, and with \
         `sessions: reopen` that is lost, and nobody told, when the session's pod ends or its \
         server crashes"
    );
    let path = format!("/metadata/annotations/{}", STATEFUL.replace('/', "~1"));
    if is_stateful(workload.pod) {
        Some(Found::in_pod(workload, &path, says))
    } else {
        let of_the_workload = is_stateful(&workload.object.value);
        of_the_workload.then(|| Found::in_object(workload.index, &path, says))
    }
}

fn is_stateful(object: &Value) -> bool {
    object["metadata"]["annotations"][STATEFUL] == "true"
}

/// What the sidecar is told, or will be when it is injected.
fn sessions(workload: &Workload<'_>) -> Roaming {
    let told = if let Some(sidecar) = &workload.sidecar {
        sidecar.container.setting("sessions")
    } else {
        let annotation = format!("{SETTING}sessions");
        workload.pod["metadata"]["annotations"][&*annotation].as_str().map(str::to_owned)
    };
    // One that does not fit keeps the sidecar from starting, which is no matter of sessions.
    told.and_then(|told| value::roaming(&told).ok()).unwrap_or(Roaming::Reopen)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::cli::check::{in_text, world::Limits};

    const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: mcp, annotations: {A}}
spec:
  template:
    metadata: {labels: {app: mcp}, annotations: {B}}
    spec:
      containers:
        - {name: server, image: mcp, ports: [{name: mcp, containerPort: 3000}]}
";

    #[test]
    fn the_annotation_may_stand_on_either_and_without_a_sidecar() {
        let stateful = r#"ebbtide.dev/stateful: "true""#;
        let pinned = r#"ebbtide.dev/stateful: "true", config.ebbtide.dev/sessions: pin"#;
        let off = r#"ebbtide.dev/stateful: "true", config.ebbtide.dev/sessions: "off""#;
        let reopen = r#"ebbtide.dev/stateful: "true", config.ebbtide.dev/sessions: reopen"#;
        let not = r#"ebbtide.dev/stateful: "false""#;
        let (of_workload, of_pod) = (
            "/metadata/annotations/ebbtide.dev~1stateful",
            "/spec/template/metadata/annotations/ebbtide.dev~1stateful",
        );
        for (workload, pod, path) in [
            (stateful, "", Some(of_workload)),
            ("", stateful, Some(of_pod)),
            (stateful, stateful, Some(of_pod)),
            ("", reopen, Some(of_pod)),
            ("", pinned, None),
            ("", off, None),
            (not, not, None),
            ("", "", None),
        ] {
            let text = DEPLOYMENT
                .replace("{A}", &format!("{{{workload}}}"))
                .replace("{B}", &format!("{{{pod}}}"));
            let limits = Limits { slowest_call: Duration::from_secs(1), database: None };
            let (found, _) = in_text(&text, limits).unwrap();
            let found = found.iter().filter(|found| found.rule.name == "stateful-reopens");
            let paths: Vec<_> = found.map(|found| found.path.as_str()).collect();
            assert_eq!(paths, path.into_iter().collect::<Vec<_>>(), "{workload} {pod}");
        }
    }
}
