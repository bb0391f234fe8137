//! Each rule against its two manifests in tests/fixtures/check, and what is printed.

use std::path::PathBuf;

use super::*;

fn fixture(rule: &str, name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/check");
    std::fs::read_to_string(root.join(rule).join(name)).unwrap()
}

/// The limits of a manifest stand in its first line.
fn check(text: &str) -> Vec<Finding> {
    let database = text.lines().next().and_then(|line| line.strip_prefix("# --database-limit "));
    let database = database.map(|limit| limit.parse().unwrap());
    let limits = Limits { slowest_call: std::time::Duration::from_secs(30), database };
    let (found, notes) = findings(text, limits).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    found
}

#[test]
fn each_rule_finds_its_bad_manifest_and_nothing_in_the_good_one() {
    for rule in RULES {
        let good = check(&fixture(rule.name, "good.yaml"));
        let said: Vec<_> = good.iter().map(|found| (found.rule.name, &found.says)).collect();
        assert!(said.is_empty(), "{}: {said:?}", rule.name);
        let bad = check(&fixture(rule.name, "bad.yaml"));
        let said: Vec<_> = bad.iter().map(|found| (found.rule.name, &found.says)).collect();
        let only = bad.len() == 1 && bad[0].rule.name == rule.name;
        assert!(only, "{}: {said:?}", rule.name);
    }
    let folders = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/check");
    assert_eq!(std::fs::read_dir(folders).unwrap().count(), RULES.len());
}

#[test]
fn rules_say_enough() {
    for rule in RULES {
        for text in [rule.why, rule.instead] {
            assert!(text.len() > 30 && text.ends_with('.'), "{}: {text}", rule.name);
        }
        let kebab = |letter: char| letter.is_ascii_lowercase() || letter == '-';
        assert!(rule.name.chars().all(kebab), "{}", rule.name);
    }
}

#[test]
fn a_finding_says_where() {
    let bad = fixture("probe-grace", "bad.yaml");
    let found = &check(&bad)[0];
    assert_eq!(found.line, 1 + bad.lines().position(|line| line.contains("Seconds: 5")).unwrap());
    assert_eq!((found.document, found.container.as_deref()), (1, Some("server")));
    assert_eq!(
        found.path,
        "/spec/template/spec/containers/0/livenessProbe/terminationGracePeriodSeconds"
    );
    let bad = fixture("service-bypasses-sidecar", "bad.yaml");
    let found = &check(&bad)[0];
    assert_eq!((found.document, found.object.as_str()), (2, "Service/mcp-server"));
    assert_eq!(found.line, 1 + bad.lines().position(|line| line.contains("port: 80")).unwrap());
}

/// What `inject` writes and what deploy/ shows loses nothing that a budget would not save.
#[test]
fn what_we_write_ourselves_is_clean() {
    for text in [
        include_str!("../../../deploy/native-sidecar.yaml"),
        include_str!("../../../deploy/classic-sidecar.yaml"),
        include_str!("../../../deploy/wrapper.yaml"),
    ] {
        let found: Vec<_> = check(text).iter().map(|found| found.rule.name).collect();
        assert_eq!(found, ["no-disruption-budget"], "{text}");
    }
}
