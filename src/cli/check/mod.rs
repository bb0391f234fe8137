//! `ebbtide check`: what in a manifest would lose calls when its pods end, why, and what to write
//! instead.
//!
//! Never changes anything, and never guesses what it was not shown.

mod live;
mod output;
pub mod rules;
mod running;
pub mod world;

use clap::{Arg, ArgMatches, Command, value_parser};

use self::{
    output::{Finding, Place},
    rules::RULES,
    world::{Limits, World},
};
use super::{
    Outcome, inject,
    manifest::{self, Object},
    podspec::{LABEL, SETTING},
};
use crate::config::value;

const NOTHING: &str = "nothing was checked: no pod that serves MCP clients was found; looked for in \
                       Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job and CronJob, and \
                       Lists of them";

pub fn command() -> Command {
    Command::new("check")
        .about("Find in a manifest what would lose calls when its pods end")
        .after_help(
            "Looks at pods that have ebbtide, a port named mcp or http, the annotation \
             config.ebbtide.dev/port, or the label `ebbtide.dev/inject: enabled`, and at the \
             Services, PodDisruptionBudgets and HorizontalPodAutoscalers beside them. Exit code 0 \
             without findings, 1 with. The rules stand in docs/checks.md. In the cluster a workload is \
             looked at as its newest pod runs: injection adds the sidecar to Pods, not to what \
             makes them. --namespace needs the right to list deployments, statefulsets, \
             daemonsets, replicasets, jobs, cronjobs, pods, services, poddisruptionbudgets and \
             horizontalpodautoscalers there, and to get the namespace itself, for its label.",
        )
        .arg(inject::file_argument())
        .arg(
            Arg::new("namespace")
                .long("namespace")
                .short('n')
                .value_name("NAMESPACE")
                .conflicts_with("file")
                .help("Check the objects of this namespace as they are in the cluster"),
        )
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
    let namespace = matches.get_one::<String>("namespace");
    let (name, found) = match namespace {
        Some(namespace) => match in_cluster(namespace, limits) {
            Ok(found) => (format!("namespace {namespace}"), Ok(found)),
            Err(error) => return Outcome::Failed(format!("{error:#}")),
        },
        None => match inject::read(matches) {
            Ok((name, text)) => (name, in_text(&text, limits)),
            Err(error) => return Outcome::Failed(error),
        },
    };
    let (findings, notes) = match found {
        Ok(found) => found,
        Err(error) => return Outcome::Failed(format!("{name}: {error}")),
    };
    for note in notes {
        inject::tell(&note);
    }
    let format = matches.get_one::<String>("format").map(String::as_str);
    let output = match format {
        Some("json") => output::json(&findings),
        Some("sarif") => output::sarif(&name, &findings),
        _ => output::text(&name, &findings),
    };
    if let Err(error) = inject::print(&output) {
        return Outcome::Failed(error);
    }
    match findings.len() {
        0 => Outcome::Done,
        count => {
            inject::tell(&format!("{count} finding{}", if count == 1 { "" } else { "s" }));
            Outcome::Negative
        }
    }
}

type Looked = (Vec<Finding>, Vec<String>);

fn in_cluster(namespace: &str, limits: Limits) -> anyhow::Result<Looked> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (objects, unknown) = runtime.block_on(live::objects(namespace))?;
    let (found, mut notes) = look(objects, limits, |_, _| None);
    // Who has nothing to mend need not know more.
    notes.extend(unknown.filter(|_| !found.is_empty()));
    Ok((found, notes))
}

fn in_text(text: &str, limits: Limits) -> Result<Looked, String> {
    let documents = manifest::read(text).map_err(|error| error.to_string())?;
    let objects = manifest::objects(&documents);
    Ok(look(objects, limits, |object, path| {
        let document = &documents[object.document];
        let node = document.root.nearest(&format!("{}{path}", object.pointer));
        Some(Place { document: document.number, line: document.line + node.line - 1 })
    }))
}

/// What the rules find, in the order of the text, and what could not be looked at.
fn look(
    objects: Vec<Object>,
    limits: Limits,
    place: impl Fn(&Object, &str) -> Option<Place>,
) -> Looked {
    let (objects, mut notes) = running::as_they_run(objects);
    let world = World::of(&objects, limits);
    let mut found: Vec<Finding> = Vec::new();
    for rule in RULES {
        for broken in (rule.find)(&world) {
            let object = &objects[broken.object];
            found.push(Finding {
                rule,
                place: place(object, &broken.path),
                object: object.title(),
                container: broken.container,
                path: broken.path,
                says: broken.says,
            });
        }
    }
    found.sort_by_key(|found| found.place.map(|place| place.line));
    notes.extend(world.left_out.iter().map(|index| {
        let object = &objects[*index];
        let place = place(object, "").map(|place| place.to_string()).unwrap_or_default();
        let title = object.title();
        format!(
            "{place}{title}: left out: nothing says that it serves MCP clients: no port is named mcp \
             or http, no annotation {SETTING}port names it, and no label `{LABEL}: enabled`"
        )
    }));
    if world.workloads.is_empty() {
        notes.push(NOTHING.into());
    }
    (found, notes)
}

#[cfg(test)]
mod tests;
