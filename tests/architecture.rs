//! The house rules: no import upwards, no I/O in the pure files, no setting without documentation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ebbtide::{
    cli::check::rules::RULES,
    config::table::TABLE,
    drain::Phase,
    mcp::Class,
    pool::Closed,
    telemetry::{Metrics, metrics::Outcome, webhook::Reviews},
};

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
    "kubernetes/peers.rs",
    "kubernetes/slice.rs",
    "serve/framing.rs",
    "sessions/endpoint.rs",
    "sessions/heir.rs",
    "sessions/ids.rs",
    "sessions/keys.rs",
    "sessions/peers.rs",
    "sessions/place.rs",
    "sessions/token.rs",
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
    "cli/webhook/validity.rs",
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

/// docs/metrics.md is written from the registry; `make docs` writes it anew.
#[test]
fn every_metric_is_documented() {
    let mut page = String::from(
        "# Metrics\n\n`GET :7071/metrics` answers them in Prometheus' text format; those of `ebbtide webhook`, whose names say so, `GET :7443/metrics`.\nWhat they mean for whoever is on call stands in [operations.md](operations.md).\nThis page is written from the code by `make docs`.\n\n| metric | kind | labels | what it tells |\n|---|---|---|---|\n",
    );
    let (_, mut all) = Metrics::described();
    assert!(all.len() > 10, "{all:?}");
    let of_webhook = Reviews::described().1.into_iter();
    all.extend(of_webhook.filter(|metric| metric.name.contains("webhook")));
    for metric in all {
        assert!(
            metric.help.len() > 15 && metric.help.ends_with('.'),
            "{} says too little",
            metric.name
        );
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>();
        let labels = if labels.is_empty() { "–".into() } else { labels.join(", ") };
        let row = format!("| `{}` | {} | {labels} | {} |\n", metric.name, metric.kind, metric.help);
        page.push_str(&row);
    }
    page.push_str("\n## Values of labels\n\n| label | values |\n|---|---|\n");
    for (label, values) in [
        ("`class`", Class::ALL.map(Class::name).to_vec()),
        ("`result` of `ebbtide_requests_total`", Outcome::ALL.map(Outcome::name).to_vec()),
        ("`phase`", Phase::ALL.map(Phase::name).to_vec()),
        ("`reason` of closed connections", Closed::ALL.map(Closed::name).to_vec()),
    ] {
        let row = format!("| {label} | `{}` |\n", values.join("`, `"));
        page.push_str(&row);
    }
    assert_page("docs/metrics.md", &page);
}

/// Of every page in the tree: the file is there, and the heading.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    for folder in ["", "docs", "charts", "deploy"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        let is_page = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
        pages.extend(entries.map(|entry| entry.unwrap().path()).filter(is_page));
    }
    let mut seen = 0;
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads to no file", page.display());
            let found = heading.is_empty()
                || headings(&fs::read_to_string(&target).unwrap()).iter().any(|it| it == heading);
            assert!(found, "{}: {link} leads to no heading", page.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "the links are found: {seen}");
}

/// The targets of `[text](target)` that lie in this tree.
fn links(page: &str) -> Vec<&str> {
    let after = page.split("](").skip(1);
    let targets = after.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// The anchors that GitHub gives to a page's headings.
fn headings(page: &str) -> Vec<String> {
    let lines = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        text.chars().filter(|it| it.is_alphanumeric() || matches!(it, '-' | '_')).collect()
    };
    lines.map(anchor).collect()
}

#[test]
fn links_and_headings_are_read() {
    assert_eq!(links("a [b](c.md#d), [e](https://f) and [g](#h)"), ["c.md#d", "#h"]);
    assert_eq!(headings("# What `it` does: a_b\ntext\n## Two"), ["what-it-does-a_b", "two"]);
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
