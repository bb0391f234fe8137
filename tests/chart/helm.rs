//! Renders the chart, and runs the other tools.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize as _;
use serde_json::{Value, json};

pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/ebbtide");
/// The release and its namespace in all of these tests.
pub const RELEASE: &str = "tide";
pub const NAMESPACE: &str = "tide-system";

/// What the program printed, or all that it said where it failed.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed on the PATH: {error}"));
    // One that fails before it has read says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout);
    if output.status.success() { Ok(printed) } else { Err(printed + &text(&output.stderr)) }
}

/// The YAML that the chart at that path becomes, for a version of Kubernetes and the APIs that it
/// serves; or why the values are refused.
pub fn template(
    chart: &Path,
    version: &str,
    served: &[&str],
    values: &Value,
) -> Result<String, String> {
    let chart = chart.to_str().unwrap();
    let mut arguments = vec!["template", RELEASE, chart, "--namespace", NAMESPACE];
    arguments.extend(["--kube-version", version, "--values", "-"]);
    for api in served {
        arguments.extend(["--api-versions", api]);
    }
    run("helm", &arguments, &values.to_string())
}

/// The objects that the values give.
pub fn rendered(values: &Value) -> Vec<Value> {
    let text = template(Path::new(CHART), "1.36.0", &[], values);
    objects(&text.unwrap_or_else(|error| panic!("{values}: {error}")))
}

/// Why the values are refused.
pub fn refused(values: &Value) -> String {
    template(Path::new(CHART), "1.36.0", &[], values).expect_err(&values.to_string())
}

pub fn objects(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|object| !object.is_null())
        .collect()
}

/// All objects of the kind.
pub fn of_kind(values: &Value, kind: &str) -> Vec<Value> {
    let objects = rendered(values).into_iter();
    objects.filter(|object| object["kind"] == kind).collect()
}

/// The only one of the kind.
pub fn only(values: &Value, kind: &str) -> Value {
    let mut found = of_kind(values, kind);
    assert_eq!(found.len(), 1, "{kind}: {found:#?}");
    found.remove(0)
}

pub fn mode(mode: &str) -> Value {
    json!({"injection": {"mode": mode}})
}

/// The values of a mode, and others beside.
pub fn mode_with(mode_name: &str, more: &Value) -> Value {
    let mut values = mode(mode_name);
    values.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    values
}

/// Everything that can be switched on, in that mode.
pub fn all_of(mode_name: &str) -> Value {
    mode_with(
        mode_name,
        &json!({
            "commonLabels": {"team": "mcp"},
            "commonAnnotations": {"note": "x"},
            "rbac": {"namespaces": ["a", "b"]},
            "monitoring": {
                "podMonitor": {"enabled": true},
                "rules": {"enabled": true},
                "dashboard": {"enabled": true},
            },
            "networkPolicy": {
                "enabled": true,
                "namespaces": ["a", "b"],
                "from": [{"namespaceSelector": {"matchLabels": {"x": "y"}}}],
            },
            "webhook": {
                "podLabels": {"a": "b"},
                "podAnnotations": {"a": "b"},
                "imagePullSecrets": [{"name": "s"}],
                "nodeSelector": {"a": "b"},
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "priorityClassName": "p",
                "serviceAccount": {"annotations": {"a": "b"}},
            },
        }),
    )
}
