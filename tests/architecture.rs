//! The house rules: no import upwards, no I/O in the pure files, no setting without documentation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ebbtide::{cli::check::rules::RULES, config::table::TABLE};

/// Each line may use the lines below it, and its own; edges do not know each other.
const HOUSE: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["proxy", "kubernetes", "admin", "signals", "child"],
    &["serve"],
    &["drain"],
    &["inflight"],
    &["sessions"],
    &["pool"],
    &["telemetry"],
    &["mcp", "config", "tasks"],
];

/// Files that decide and never wait: no I/O, no clock, no runtime.
const PURE: &[&str] = &[
    "drain/phase.rs",
    "drain/timeline.rs",
    "drain/machine.rs",
    "drain/policy.rs",
    "drain/hooks.rs",
    "drain/knowledge.rs",
    "mcp/",
    "pool/http1/",
    "serve/framing.rs",
    "cli/check/output.rs",
    "cli/check/rules/",
    "cli/check/world.rs",
    "cli/demo/picture.rs",
    "cli/inject/plan.rs",
    "cli/load/outcome.rs",
    "cli/manifest/",
    "cli/pen.rs",
    "cli/podspec/",
    "cli/rehearse/histogram.rs",
    "cli/rehearse/report.rs",
    "cli/rehearse/workload.rs",
    "cli/webhook/patch.rs",
    "cli/webhook/review.rs",
    "cli/webhook/warnings.rs",
];

/// What a pure file may not name.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "Instant::now",
    "SystemTime",
    ".await",
];

fn level(module: &str) -> usize {
    let found = HOUSE.iter().position(|level| level.contains(&module));
    found.unwrap_or_else(|| panic!("`{module}` has no place in the house: tests/architecture.rs"))
}

/// Every source file by its path below src, without its tests.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        (name, code)
    };
    let sources: Vec<_> = found.into_iter().map(read).collect();
    assert!(sources.len() > 40, "the walk finds the sources");
    sources
}

/// The modules that `use crate::…` and paths like `crate::tasks::Group` name.
fn imports(code: &str) -> Vec<String> {
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut names = Vec::new();
    for part in code.split("crate::").skip(1) {
        let part = part.trim_start();
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 1;
            let mut name = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                match letter {
                    ',' | '}' if depth <= 1 => names.push(std::mem::take(&mut name)),
                    _ if depth >= 1 => name.push(letter),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            names.push(part.to_owned());
        }
    }
    let first = |name: String| {
        let end = |letter: char| !letter.is_alphanumeric() && letter != '_';
        name.trim().split(end).next().unwrap_or_default().to_owned()
    };
    names.into_iter().map(first).filter(|name| !name.is_empty()).collect()
}

#[test]
fn nothing_is_imported_from_above() {
    for (file, code) in sources() {
        let own = file.split(['/', '.']).next().unwrap();
        if own == "lib" {
            continue;
        }
        for import in imports(&code) {
            let fine = import == own || level(&import) > level(own);
            assert!(fine, "src/{file} uses crate::{import}, which stands above or beside it");
        }
    }
}

#[test]
fn imports_are_read() {
    let code = "use crate::{\n    drain::{Phase, handle::Event},\n    mcp::Class,\n};\nuse crate::tasks;\n// use crate::app;\nlet x = crate::config::flag(y);";
    assert_eq!(imports(code), ["drain", "mcp", "tasks", "config"]);
}

#[test]
fn pure_files_decide_and_never_wait() {
    let mut seen = 0;
    for (file, code) in sources() {
        if !PURE.iter().any(|pure| file.starts_with(pure)) {
            continue;
        }
        seen += 1;
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for impure in IMPURE {
                assert!(!line.contains(impure), "src/{file} is pure and names {impure}: {line}");
            }
        }
    }
    assert!(seen >= PURE.len(), "every pure file is there");
}

#[test]
fn every_file_says_what_it_is_for() {
    for (file, code) in sources() {
        assert!(code.starts_with("//! "), "src/{file} does not begin with what it is for");
    }
}

#[test]
fn serde_yaml_is_in_one_place() {
    for (file, code) in sources() {
        assert!(!code.contains("serde_yaml::") || file == "config/file.rs", "src/{file}");
    }
}

/// docs/settings.md is written from the table; `make docs` writes it anew.
#[test]
fn every_setting_is_documented() {
    let mut page = String::from(
        "# Settings of `ebbtide run`\n\nEach is a flag, a variable and a key of the YAML file; a flag wins over the environment, the environment over the file.\nDurations read `500ms`, `30s`, `2m`.\nThis page is written from the code by `make docs`.\n\n| setting | flag | variable | default | what it does |\n|---|---|---|---|---|\n",
    );
    for setting in TABLE {
        assert!(
            setting.help.len() > 20 && setting.help.ends_with('.'),
            "{} says too little",
            setting.name
        );
        let row = format!(
            "| `{}` | `{} {}` | `{}` | {} | {} |\n",
            setting.name,
            ebbtide::config::flag(setting.name),
            setting.shape,
            ebbtide::config::variable(setting.name),
            setting.default.map_or("–".into(), |default| format!("`{default}`")),
            setting.help
        );
        page.push_str(&row);
    }
    assert_page("docs/settings.md", &page);
}

/// docs/checks.md is written from the rules; `make docs` writes it anew.
#[test]
fn every_rule_is_documented() {
    let mut page = String::from(
        "# Rules of `ebbtide check`\n\nWhat in a manifest loses calls when its pods end, why, and what to write instead.\nEach rule has a good and a bad manifest in tests/fixtures/check.\nThis page is written from the code by `make docs`.\n",
    );
    for rule in RULES {
        let section = format!("\n## {}\n\n{}\n\nInstead: {}\n", rule.name, rule.why, rule.instead);
        page.push_str(&section);
    }
    assert_page("docs/checks.md", &page);
}

/// The page says what the code says; with `EBBTIDE_WRITE_DOCS` it does afterwards.
fn assert_page(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("EBBTIDE_WRITE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), page, "run `make docs`");
}
