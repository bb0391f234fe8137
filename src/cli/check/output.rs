//! Findings as text, JSON or SARIF 2.1.0. Pure.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::rules::{RULES, Rule};

/// Where in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub document: usize,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "document {}, line {}: ", self.document, self.line)
    }
}

/// One finding with all that is said of it.
pub struct Finding {
    pub rule: &'static Rule,
    /// `None` for an object of the cluster.
    pub place: Option<Place>,
    /// As kubectl names it.
    pub object: String,
    pub container: Option<String>,
    pub path: String,
    pub says: String,
}

pub fn text(file: &str, findings: &[Finding]) -> String {
    let mut text = String::new();
    for found in findings {
        let container = found.container.as_ref();
        let container = container.map(|name| format!(", container {name}")).unwrap_or_default();
        let Rule { name, why, instead, .. } = found.rule;
        let line = found.place.map(|place| format!(":{}", place.line)).unwrap_or_default();
        let (object, says) = (&found.object, &found.says);
        let _ = writeln!(text, "{file}{line}: {object}{container}: {name}: {says}");
        let _ = writeln!(text, "  why      {why}\n  instead  {instead}\n");
    }
    text
}

pub fn json(findings: &[Finding]) -> String {
    let all: Vec<Value> = findings
        .iter()
        .map(|found| {
            json!({
                "rule": found.rule.name,
                "document": found.place.map(|place| place.document),
                "line": found.place.map(|place| place.line),
                "object": found.object,
                "container": found.container,
                "path": found.path,
                "found": found.says,
                "why": found.rule.why,
                "instead": found.rule.instead,
            })
        })
        .collect();
    pretty(&json!({ "findings": all }))
}

pub fn sarif(file: &str, findings: &[Finding]) -> String {
    let rules: Vec<Value> = RULES
        .iter()
        .map(|rule| {
            json!({
                "id": rule.name,
                "shortDescription": {"text": rule.why},
                "help": {"text": rule.instead},
                "defaultConfiguration": {"level": "warning"},
            })
        })
        .collect();
    let results: Vec<Value> = findings
        .iter()
        .map(|found| {
            let name = match &found.container {
                Some(container) => format!("{}/{container}", found.object),
                None => found.object.clone(),
            };
            let mut location = json!({
                "logicalLocations": [{
                    "fullyQualifiedName": format!("{name}{}", found.path),
                    "kind": "resource",
                }],
            });
            if let Some(place) = found.place {
                location["physicalLocation"] = json!({
                    "artifactLocation": {"uri": uri(file)},
                    "region": {"startLine": place.line},
                });
            }
            json!({
                "ruleId": found.rule.name,
                "ruleIndex": RULES.iter().position(|rule| rule.name == found.rule.name),
                "level": "warning",
                "message": {"text": format!(
                    "{}. {} Instead: {}", found.says, found.rule.why, found.rule.instead
                )},
                "locations": [location],
            })
        })
        .collect();
    pretty(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "ebbtide check",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "results": results,
        }],
    }))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn uri(file: &str) -> String {
    let mut uri = String::new();
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_./~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}
