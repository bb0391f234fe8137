//! `ebbtide inject`: manifests in, the same manifests with the sidecar out.
//!
//! Never writes a part: all is known to be right before the first byte goes out.

mod plan;

use std::io::{Read, Write};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::NonEmptyStringValueParser};

use self::plan::{Plan, Task};
use super::{
    Outcome,
    manifest::diff,
    podspec::{
        self, Mode, Options,
        resources::{self, Quantities, Resources},
    },
};

pub fn command() -> Command {
    Command::new("inject")
        .about("Add the sidecar to the pods of a manifest, and print it")
        .after_help(
            "Reads Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, Lists of \
             them, and the Services beside them; everything else passes through as it is. Any \
             setting of `run` can be given in an annotation of the pod \
             (config.ebbtide.dev/max_connections: \"50\"), as can the server's port \
             (config.ebbtide.dev/port), where none is named mcp or http, and the init container \
             after which the sidecar stands (config.ebbtide.dev/after), a Secret whose keys it \
             sees as files in /etc/ebbtide/secret (config.ebbtide.dev/secret), and what it asks \
             of its node and may take of it where that is not what every pod gets \
             (config.ebbtide.dev/requests and limits: \"cpu=100m\"). Where a pod or a \
             Namespace is labelled `ebbtide.dev/inject: enabled`, only such pods are changed; \
             `disabled` on a pod always wins.",
        )
        .arg(file_argument())
        .arg(
            Arg::new("uninject")
                .long("uninject")
                .action(ArgAction::SetTrue)
                .help("Take the sidecar out again"),
        )
        .arg(
            Arg::new("dry_run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Print what would change, as a unified diff"),
        )
        .args(sidecar_arguments())
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .help("The server's port, by name or number, where none is named mcp or http"),
        )
}

pub fn file_argument() -> Arg {
    Arg::new("file")
        .long("file")
        .short('f')
        .value_name("FILE")
        .default_value("-")
        .help("The manifest; - is the standard input")
}

pub fn main(matches: &ArgMatches) -> Outcome {
    let options = match sidecar_options(matches) {
        Ok(options) => Options { port: matches.get_one("port").cloned(), ..options },
        Err(text) => return Outcome::Usage(text),
    };
    let (name, text) = match read(matches) {
        Ok(read) => read,
        Err(text) => return Outcome::Failed(text),
    };
    let task = if matches.get_flag("uninject") { Task::Uninject } else { Task::Inject(&options) };
    let plan = match Plan::make(&text, task) {
        Ok(plan) => plan,
        Err(error) => return Outcome::Failed(format!("{name}: {error}; nothing was written")),
    };
    for note in &plan.notes {
        tell(note);
    }
    let output = if matches.get_flag("dry_run") {
        diff::unified(&name, &text, &plan.edits)
    } else {
        plan.text
    };
    match print(&output) {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(error),
    }
}

/// What the sidecar is like that every pod gets.
pub fn sidecar_arguments() -> [Arg; 4] {
    let quantities = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("QUANTITIES")
            .default_value(default)
            .value_parser(|text: &str| match text {
                "" => Ok(Quantities::new()),
                text => resources::quantities(text),
            })
            .help(help)
    };
    [
        Arg::new("mode")
            .long("mode")
            .value_name("MODE")
            .value_parser(["native", "classic"])
            .default_value("native")
            .help("A native sidecar, or a container beside the server (before Kubernetes 1.29)"),
        Arg::new("image")
            .long("image")
            .value_name("IMAGE")
            .default_value(podspec::image())
            .value_parser(NonEmptyStringValueParser::new())
            .help("The image of the sidecar"),
        quantities("requests", resources::REQUESTS, "What the sidecar asks of its node"),
        quantities("limits", resources::LIMITS, "What the sidecar may take of its node at most"),
    ]
}

/// What they say; an error names the flag.
pub fn sidecar_options(matches: &ArgMatches) -> Result<Options, String> {
    let half = |name: &str| matches.get_one::<Quantities>(name).cloned().unwrap_or_default();
    let resources = Resources::new(half("requests"), half("limits"))
        .map_err(|error| format!("--requests and --limits: {error}"))?;
    let of = |name: &str| matches.get_one::<String>(name).cloned();
    Ok(Options {
        mode: if of("mode").as_deref() == Some("classic") { Mode::Classic } else { Mode::Native },
        image: of("image").unwrap_or_default(),
        port: None,
        resources,
        forgives: false,
    })
}

/// Says it beside the output; where nobody listens, that is no reason to fail.
pub fn tell(note: &str) {
    let _ = writeln!(std::io::stderr(), "{note}");
}

/// Writes the output.
pub fn print(output: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(output.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("the output cannot be written: {error}"))
}

/// The manifest and what to call it.
pub fn read(matches: &ArgMatches) -> Result<(String, String), String> {
    let file = matches.get_one::<String>("file").map_or("-", String::as_str);
    let mut bytes = Vec::new();
    let (name, read) = if file == "-" {
        ("standard input", std::io::stdin().lock().read_to_end(&mut bytes).map(|_| ()))
    } else {
        (file, std::fs::read(file).map(|read| bytes = read))
    };
    read.map_err(|error| format!("{name} cannot be read: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = String::from_utf8_lossy(good).split('\n').count();
        format!("{name}, line {line}: not UTF-8")
    })?;
    Ok((name.to_owned(), text))
}
