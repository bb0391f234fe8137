//! templates/NOTES.txt, which helm renders only when it installs: here as part of another template.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::helm::{CHART, mode, mode_with, objects, template};

/// A copy of the chart that is deleted at the end.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn notes(name: &str, values: &Value) -> String {
    let chart = Copy(std::env::temp_dir().join(format!("ebbtide-{name}-{}", std::process::id())));
    copy(Path::new(CHART), &chart.0);
    let text = fs::read_to_string(Path::new(CHART).join("templates/NOTES.txt")).unwrap();
    let template_text = format!(
        "{{{{- define \"notes\" -}}}}\n{text}{{{{- end -}}}}\nkind: Notes\ntext: {{{{ include \"notes\" . | toJson }}}}\n"
    );
    fs::write(chart.0.join("templates/notes.yaml"), template_text).unwrap();
    let text = template(&chart.0, "1.36.0", &[], values).unwrap();
    let notes = objects(&text).into_iter().find(|object| object["kind"] == "Notes").unwrap();
    notes["text"].as_str().unwrap().to_owned()
}

#[test]
fn they_say_what_to_do_next() {
    for name in ["policy", "webhook"] {
        let text = notes("next", &mode(name));
        for part in [
            &format!("by {name} into"),
            "kubectl label namespace NAMESPACE ebbtide.dev/inject=enabled",
            "kubectl rollout restart deployment",
            "/ebbtide status",
            "--clusterrole tide-ebbtide-tide-system --group system:serviceaccounts:NAMESPACE",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert_eq!(text.contains("730 days"), name == "webhook", "{text}");
    }
    assert!(notes("none", &mode("none")).contains("ebbtide inject -f"));
}

#[test]
fn they_say_who_may_look() {
    let rbac = |values| notes("rights", &mode_with("policy", &json!({"rbac": values})));
    let some = rbac(json!({"namespaces": ["a", "b"]}));
    assert!(some.contains("The sidecars of a, b may watch"), "{some}");
    let named = json!(["a", {"name": "b"}, {"name": "c", "serviceAccounts": ["x", "y"]}]);
    let named = rbac(json!({ "namespaces": named }));
    assert!(named.contains("The sidecars of a, b, c (x, y) may watch"), "{named}");
    let all = rbac(json!({"bind": "cluster"}));
    assert!(all.contains("Every service account of the cluster"), "{all}");
    assert!(!rbac(json!({"create": false})).contains("rolebinding"));
}
