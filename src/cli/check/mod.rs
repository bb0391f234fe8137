//! `ebbtide check`: what in a manifest would lose calls when its pods end, why, and what to write
//! instead.
//!
//! Never changes anything, and never guesses what it was not shown.

mod output;
pub mod rules;
pub mod world;

use clap::{Arg, ArgMatches, Command, value_parser};

use self::{
    output::Finding,
    rules::RULES,
    world::{Limits, World},
};
use super::{Outcome, inject, manifest};
use crate::config::value;

pub fn command() -> Command {
    Command::new("check")
        .about("Find in a manifest what would lose calls when its pods end")
        .after_help(
            "Looks at pods that have ebbtide, a port named mcp or http, the annotation \
             config.ebbtide.dev/port, or the label `ebbtide.dev/inject: enabled`, and at the \
             Services, PodDisruptionBudgets and HorizontalPodAutoscalers beside them. Exit code 0 \
             without findings, 1 with. The rules stand in docs/checks.md.",
        )
        .arg(inject::file_argument())
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(["text", "json", "sarif"])
                .default_value("text")
                .help("How the findings are printed"),
        )
        .arg(
            Arg::new("database_limit")
                .long("database-limit")
                .value_name("NUMBER")
                .value_parser(value_parser!(u64))
                .help("Connections that the database behind the servers takes"),
        )
        .arg(
            Arg::new("slowest_call")
                .long("slowest-call")
                .value_name("DURATION")
                .default_value("30s")
                .value_parser(value::duration)
                .help("How long the slowest call may take"),
        )
}

pub fn main(matches: &ArgMatches) -> Outcome {
    let limits = Limits {
        slowest_call: matches.get_one("slowest_call").copied().unwrap_or_default(),
        database: matches.get_one("database_limit").copied(),
    };
    let (name, text) = match inject::read(matches) {
        Ok(read) => read,
        Err(text) => return Outcome::Failed(text),
    };
    let (findings, notes) = match findings(&text, limits) {
        Ok(found) => found,
        Err(error) => return Outcome::Failed(format!("{name}: {error}")),
    };
    for note in notes {
        eprintln!("{note}");
    }
    let format = matches.get_one::<String>("format").map(String::as_str);
    match format {
        Some("json") => print!("{}", output::json(&findings)),
        Some("sarif") => print!("{}", output::sarif(&name, &findings)),
        _ => print!("{}", output::text(&name, &findings)),
    }
    match findings.len() {
        0 => Outcome::Done,
        count => {
            eprintln!("{count} finding{}", if count == 1 { "" } else { "s" });
            Outcome::Negative
        }
    }
}

/// What the rules find, in the order of the text, and what could not be looked at.
fn findings(text: &str, limits: Limits) -> Result<(Vec<Finding>, Vec<String>), String> {
    let documents = manifest::read(text).map_err(|error| error.to_string())?;
    let objects = manifest::objects(&documents);
    let world = World::of(&objects, limits);
    let mut found: Vec<Finding> = Vec::new();
    for rule in RULES {
        for broken in (rule.find)(&world) {
            let object = &objects[broken.object];
            let document = &documents[object.document];
            let node = document.root.nearest(&format!("{}{}", object.pointer, broken.path));
            found.push(Finding {
                rule,
                document: document.number,
                line: document.line + node.line - 1,
                object: object.title(),
                container: broken.container,
                path: broken.path,
                says: broken.says,
            });
        }
    }
    found.sort_by_key(|found| (found.document, found.line));
    let mut notes: Vec<String> = world
        .left_out
        .iter()
        .map(|index| {
            let place = inject::place(&documents, &objects[*index]);
            format!("{place}: left out: nothing says that it serves clients")
        })
        .collect();
    if world.workloads.is_empty() {
        notes.push("no pod that serves MCP clients was found: nothing was checked".into());
    }
    Ok((found, notes))
}

#[cfg(test)]
mod tests;
