//! `ebbtide inject`: manifests in, the same manifests with the sidecar out.

use std::{io::Write, process::Stdio};

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::harness::command;

/// What became of a text: exit code, output, what was told.
pub fn fed(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn injected(input: &str) -> (String, String) {
    let (code, out, told) = fed(&["inject"], input.as_bytes());
    assert_eq!(code, 0, "{told}");
    (out, told)
}

/// As another reader of YAML sees it.
fn values(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

const PLAIN: &str = r#"# The server, and what leads to it.
apiVersion: v1
kind: ConfigMap
metadata: {name: settings} # stays
data:
  mode: 0644
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: mcp-server
spec:
  replicas: 2
  selector:
    matchLabels:
      app: mcp-server
  template:
    metadata:
      labels:
        app: mcp-server
    spec:
      # the one that matters
      containers:
      - name: server   # ours
        image: registry.example/mcp-server:1
        command: ["/mcp-server", "--flag=yes"]
        ports:
        - name: http
          containerPort: 3000
        readinessProbe:
          httpGet: {path: /healthz, port: http}
        volumeMounts:
        - {name: settings, mountPath: /etc/settings}
      volumes:
      - name: settings
        configMap: {name: settings, defaultMode: 0644}
---
apiVersion: v1
kind: Service
metadata:
  name: mcp-server
spec:
  selector: {app: mcp-server}
  ports:
  - port: 80
    targetPort: 3000
---
apiVersion: example.com/v1
kind: Unknown
spec: {template: {spec: {containers: [{name: x}]}}}
"#;

#[test]
fn what_is_not_touched_stays_to_the_byte_and_all_comes_back() {
    let (out, told) = injected(PLAIN);
    let (before, after): (Vec<_>, Vec<_>) =
        (PLAIN.split("---\n").collect(), out.split("---\n").collect());
    assert_eq!((before[0], before[3]), (after[0], after[3]));
    assert!(
        told.contains(
            "document 3, line 38: Service/mcp-server: targetPort of port 80: 3000 is now `http`"
        ),
        "{told}"
    );
    assert!(told.contains("Unknown/"), "{told}");
    // What had a name keeps it; only a new one is unknown to the pods from before.
    assert!(!told.contains("apply the workload first"), "{told}");
    let nameless = PLAIN.replace("name: http", "protocol: TCP");
    assert_ne!(nameless, PLAIN);
    let (code, _, told) = fed(&["inject", "--port", "3000"], nameless.as_bytes());
    assert!(code == 0 && told.contains("apply the workload first"), "{told}");
    for kept in
        ["# the one that matters", "name: server   # ours", "defaultMode: 0644", "port: 3000}"]
    {
        assert!(after[1].contains(kept), "{out}");
    }
    let objects = values(&out);
    let pod = &objects[1]["spec"]["template"]["spec"];
    assert_eq!(
        pod["initContainers"][0]["ports"][0],
        json!({"name": "http", "containerPort": 7070})
    );
    assert_eq!(pod["containers"][0]["readinessProbe"]["httpGet"]["port"], 3000);
    assert_eq!(objects[2]["spec"]["ports"][0]["targetPort"], "http");
    assert_eq!(objects[1]["spec"]["selector"], values(PLAIN)[1]["spec"]["selector"]);

    assert_eq!(injected(&out).0, out);
    let (code, back, told) = fed(&["inject", "--uninject"], out.as_bytes());
    assert_eq!((code, told.as_str()), (0, ""));
    assert_eq!(values(&back), values(PLAIN));
    assert!(back.contains("# the one that matters") && back.contains("defaultMode: 0644"));
}

#[test]
fn a_dry_run_shows_a_diff_and_nothing_else() {
    let (code, diff, _) = fed(&["inject", "--dry-run"], PLAIN.as_bytes());
    assert_eq!(code, 0);
    assert!(diff.starts_with("--- standard input\n+++ "), "{diff}");
    for lines in [
        "\n-        - name: http\n-          containerPort: 3000\n+        - containerPort: 3000\n",
        "\n+        - name: ebbtide\n+          image: ghcr.io/ebbtide/ebbtide:",
        "\n-    targetPort: 3000\n+    targetPort: http\n",
    ] {
        assert!(diff.contains(lines), "{diff}");
    }
    let injected = injected(PLAIN).0;
    assert_eq!(fed(&["inject", "--dry-run"], injected.as_bytes()).1, "");
}

/// Every kind that makes pods, in documents, in a List, as JSON.
#[test]
fn the_sidecar_gets_the_resources_that_are_asked_for() {
    let resources = |arguments: &[&str]| {
        let (code, out, told) = fed(arguments, PLAIN.as_bytes());
        assert_eq!(code, 0, "{told}");
        values(&out)[1]["spec"]["template"]["spec"]["initContainers"][0]["resources"].clone()
    };
    let requests = json!({"cpu": "10m", "memory": "16Mi"});
    assert_eq!(
        resources(&["inject"]),
        json!({"requests": requests, "limits": {"memory": "128Mi"}})
    );
    let limits = ["inject", "--limits", "cpu=200m,ephemeral-storage=1Gi"];
    assert_eq!(
        resources(&limits),
        json!({"requests": requests, "limits": {"cpu": "200m", "ephemeral-storage": "1Gi"}})
    );
    assert_eq!(resources(&["inject", "--limits", ""]), json!({ "requests": requests }));
    for (limits, named) in [("cpu=much", "cpu=100m,memory=128Mi"), ("cpu=5m", "cpu, 5m")] {
        let (code, out, told) = fed(&["inject", "--limits", limits], PLAIN.as_bytes());
        assert_eq!((code, &*out), (64, ""), "{told}");
        assert!(told.contains("--limits") && told.contains(named), "{told}");
    }
}

#[test]
fn all_kinds_and_lists() {
    let pod = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
        {"name": "server", "image": "i", "ports": [{"name": "mcp", "containerPort": 3000}]},
    ]}});
    let mut items = Vec::new();
    for (version, kind, at) in [
        ("v1", "Pod", ""),
        ("apps/v1", "Deployment", "/spec/template"),
        ("apps/v1", "StatefulSet", "/spec/template"),
        ("apps/v1", "DaemonSet", "/spec/template"),
        ("apps/v1", "ReplicaSet", "/spec/template"),
        ("batch/v1", "Job", "/spec/template"),
        ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template"),
    ] {
        let mut object = pod.clone();
        for step in at.split('/').skip(1).collect::<Vec<_>>().into_iter().rev() {
            object = json!({ step: object });
        }
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        object["metadata"]["name"] = "a".into();
        let (out, _) = injected(&object.to_string());
        let out: Value = serde_json::from_str(&out).unwrap();
        let spec = out.pointer(&format!("{at}/spec")).unwrap();
        assert_eq!(spec["initContainers"][0]["name"], "ebbtide", "{kind}");
        assert_eq!(spec["terminationGracePeriodSeconds"], 60, "{kind}");
        items.push(object);
    }
    let inner = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [inner]});
    let list = serde_json::to_string_pretty(&list).unwrap();
    let (out, _) = injected(&list);
    assert_eq!(out.matches("\"ebbtide-admin\"").count(), 7);
    assert!(serde_json::from_str::<Value>(&out).is_ok());
    let back = fed(&["inject", "--uninject"], out.as_bytes()).1;
    assert_eq!(back, list);
}

#[test]
fn only_the_labelled_where_any_is() {
    let with_label = PLAIN.replace(
        "        app: mcp-server\n    spec",
        "        app: mcp-server\n        ebbtide.dev/inject: enabled\n    spec",
    );
    let other = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: redis}\nspec: {containers: [{name: redis, image: redis}]}\n";
    let (code, out, told) = fed(&["inject"], format!("{PLAIN}{other}").as_bytes());
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(told.contains("document 5, line 52: Pod/redis") && told.contains("disabled"), "{told}");
    let (out, told) = injected(&format!("{with_label}{other}"));
    assert!(out.ends_with(other) && out.contains("ebbtide-admin"), "{told}");
    assert!(told.contains("Pod/redis: left as it is"), "{told}");
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: mcp, labels: {ebbtide.dev/inject: enabled}}\n";
    let (out, _) = injected(&format!("{PLAIN}{namespace}"));
    assert!(!out.contains("ebbtide-admin"));
}

fn pod(more: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  {more}\n  containers:\n  - \
         name: server\n    image: i\n    ports: [{ports}]\n"
    )
}

/// The sidecar has no port for them.
#[test]
fn udp_ports_of_services_stay() {
    let pod = pod("hostIPC: false", "{name: http, containerPort: 3000}")
        .replace("name: a", "name: a, labels: {app: a}");
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selector: {app: a}\n  ports:\n  - {name: q, port: 80, protocol: UDP, targetPort: 3000}\n  - {name: h, port: 80, targetPort: 3000}\n";
    let (out, _) = injected(&format!("{pod}{service}"));
    let ports = &values(&out)[1]["spec"]["ports"];
    assert_eq!((&ports[0]["targetPort"], &ports[1]["targetPort"]), (&json!(3000), &json!("http")));
    let (_, back, _) = fed(&["inject", "--uninject"], out.as_bytes());
    assert_eq!(values(&back)[1], values(service)[0]);
}

/// Bad input is an error that says where, or passes; nothing is half-written.
#[test]
fn bad_input() {
    let second = |text: &str| format!("{}---\n{text}", PLAIN.split("---\n").nth(1).unwrap());
    for (input, parts) in [
        (
            second("a: [1\nb: 2\n"),
            &["document 2, line ", "standard input", "nothing was written"][..],
        ),
        (
            second("apiVersion: v1\nkind: Pod\nspec: {containers: 5}\n"),
            &["document 2", "Pod/", "no pod"],
        ),
        (
            second("apiVersion: v1\nkind: Pod\nspec:\n  cont"),
            &["document 2, line 31", "containers"],
        ),
        (second("a: *nothing\n"), &["document 2", "anchor"]),
        (second("name: {{ .Values.name }}\n"), &["document 2", "helm template"]),
        (second("kind: Deployment\napiVersion: apps/v1\n"), &["spec.template"]),
        ("[".repeat(1_000_000), &["document 1, line 1"]),
        (
            pod("terminationGracePeriodSeconds: 120.0", "{name: http, containerPort: 3000}"),
            &["terminationGracePeriodSeconds", "whole number of seconds"],
        ),
        (
            pod("nodeSelector: {kubernetes.io/os: windows}", "{name: http, containerPort: 3000}"),
            &["Windows"],
        ),
        // Who says so means the opposite.
        (
            pod("hostIPC: false", "{name: http, containerPort: 3000}")
                .replace("{name: a}", "{name: a, labels: {ebbtide.dev/inject: 'false'}}"),
            &["ebbtide.dev/inject", "\"false\"", "`disabled`"],
        ),
        // Services that ask for the name would meet the other port.
        (
            pod(
                "hostIPC: false",
                "{name: web, containerPort: 3000}, {name: mcp, containerPort: 4}",
            )
            .replace("name: web, ", "")
            .replace("{name: a}", "{name: a, annotations: {config.ebbtide.dev/port: '3000'}}"),
            &["is called `mcp`", "another name"],
        ),
    ] {
        let (code, out, told) = fed(&["inject"], input.as_bytes());
        assert_eq!((code, out.as_str()), (1, ""), "{told}");
        for part in parts {
            assert!(told.contains(part), "{told} lacks {part}");
        }
    }
    let (code, out, told) = fed(&["inject"], b"a: 1\nb: \xff\n");
    assert!(code == 1 && out.is_empty() && told.contains("line 2: not UTF-8"), "{told}");
    let (code, _, told) = fed(&["inject", "-f", "/not/there"], b"");
    assert!(code == 1 && told.contains("/not/there"), "{told}");
    assert_eq!(fed(&["inject", "--mode", "sideways"], b"").0, 64);
    assert_eq!(fed(&["inject", "--image="], PLAIN.as_bytes()).0, 64);
    let large = format!(
        "apiVersion: v1\nkind: ConfigMap\ndata:\n  x: |\n{}",
        "    0123456789abcdef\n".repeat(500_000)
    );
    for passes in [
        "",
        "\n",
        "just words\n",
        "a: !mine &x {b: *y}\n".replace("*y", "1").as_str(),
        &large,
        "\u{feff}a: 1\r\n",
    ] {
        let (code, out, told) = fed(&["inject"], passes.as_bytes());
        assert!(code == 0 && out == passes, "{told}");
    }
}

#[test]
fn anchors_in_a_pod_stay_true() {
    let input = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - &server\n    name: server # ours\n    image: !!str i\n    ports: &ports\n    - {name: mcp, containerPort: 3000}\n  - name: other\n    image: i\n    env: [{name: A, value: 'yes'}]\n";
    let (out, _) = injected(input);
    assert!(out.contains("  - &server\n    name: server # ours"), "{out}");
    let shared = input
        .replace("    image: i\n    env", "    env")
        .replace("name: other", "<<: *server\n    name: other\n    ports: []");
    let (out, told) = injected(&shared);
    assert!(told.contains("written anew"), "{told}");
    assert_eq!(
        values(&fed(&["inject", "--uninject"], out.as_bytes()).1)[0]["spec"]["containers"][1]["env"]
            [0]["value"],
        "yes"
    );
}

/// A Service that also selects pods which stay as they are: by the name of the port, where all
/// have it; else it is left alone, and what to do is said.
#[test]
fn a_service_shared_with_pods_that_stay_as_they_are() {
    let pod = |name: &str, label: &str, port: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: a, ebbtide.dev/inject: {label}}}}}\nspec: {{containers: [{{name: server, image: i, ports: [{port}]}}]}}\n---\n"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: a}, ports: [{port: 80, targetPort: 3000}]}\n";
    let ours = pod("ours", "enabled", "{name: mcp, containerPort: 3000}");
    for (other, moves) in [
        ("{name: mcp, containerPort: 3000}", true),
        ("{containerPort: 3000}", false),
        ("{name: web, containerPort: 3000}", false),
        ("{name: mcp, containerPort: 4000}", false),
    ] {
        for order in [0, 1] {
            let mut pods = [ours.clone(), pod("other", "disabled", other)];
            pods.rotate_left(order);
            let (out, told) = injected(&format!("{}{service}", pods.concat()));
            let to = values(&out).pop().unwrap()["spec"]["ports"][0]["targetPort"].clone();
            assert_eq!(to == "mcp", moves, "{other}: {told}");
            let said = told.contains("Service/s: targetPort of port 80 stays 3000");
            assert!(said != moves && (moves || told.contains("find Pod/other")), "{told}");
            assert_eq!(injected(&out).0, out);
            let (_, found, _) = fed(&["check"], out.as_bytes());
            assert_eq!(found.contains("it selects Pod/other, too"), !moves, "{found}");
        }
    }
}

#[test]
fn what_is_written_beside_a_port_stays() {
    for ports in [
        "    - name: http # the clients'\n      containerPort: 3000\n",
        "    - containerPort: 3000\n      name: http # the clients'\n    # below\n",
    ] {
        let input = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: server\n    image: i\n    args:\n    - |+\n      keep\n\n    &p ports:\n{ports}"
        );
        let (out, told) = injected(&input);
        assert!(!told.contains("written anew"), "{told}");
        for kept in ["# the clients'", "|+\n      keep\n\n", "&p ports:"] {
            assert!(out.contains(kept), "{out}");
        }
        assert_eq!(
            values(&out)[0]["spec"]["containers"][0]["ports"][0],
            json!({"containerPort": 3000})
        );
        assert_eq!(injected(&out).0, out);
        let back = fed(&["inject", "--uninject"], out.as_bytes()).1;
        assert_eq!(values(&back), values(&input));
    }
}

#[test]
fn what_could_not_be_found_again_is_refused() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: a}}\nspec:\n  containers:\n  - {name: server, ports: [{name: mcp, containerPort: 3000}]}\n";
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: a}, ports: [{targetPort: 3000}]}\n";
    for (input, place, part) in [
        (pod.replace("name: server, ", ""), "document 1, line 1: ", "`containers[0]` has no name"),
        (
            format!("{pod}  - name: server\n"),
            "document 1, line 1: ",
            "two containers are called `server`",
        ),
        (format!("{pod}{service}"), "document 2, line 8: ", "no number `port`"),
        (format!("{pod}\u{feff}---\na: 1\n"), "document 1, line 7: ", "U+FEFF"),
    ] {
        let (code, out, told) = fed(&["inject"], input.as_bytes());
        assert_eq!((code, out.as_str()), (1, ""), "{told}");
        assert!(told.contains(place) && told.contains(part), "{told}");
    }
}
