//! The command line: which command, with which arguments, and which exit code.
//!
//! Never does a command's work.

pub mod check;
mod client;
pub mod demo;
mod drain;
mod inject;
mod kubeconfig;
mod load;
mod manifest;
mod pen;
mod podspec;
mod rehearse;
mod run;
mod status;
mod webhook;

use std::{ffi::OsString, fmt::Display, io::Write, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, Command, error::ErrorKind, value_parser};

use crate::config::table::TABLE;

/// What became of a command; the one map from outcome to exit code.
#[derive(Debug)]
pub enum Outcome {
    Done,
    /// The command worked and what it looked for is not so: a demo or a rehearsal that lost a call.
    Negative,
    /// The supervised server's own code.
    Server(i32),
    Failed(String),
    /// Bad settings or arguments.
    Usage(String),
}

impl Outcome {
    fn code(&self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Negative | Outcome::Failed(_) => 1,
            Outcome::Usage(_) => 64,
            Outcome::Server(code) => u8::try_from(*code).unwrap_or(1),
        }
    }
}

/// Runs the command that the arguments name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let outcome = match command().try_get_matches_from(arguments) {
        Ok(matches) => dispatch(&matches),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                say(std::io::stdout(), &error);
                Outcome::Done
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                say(std::io::stderr(), &error);
                return ExitCode::from(64);
            }
            _ => Outcome::Usage(error.to_string().trim_start_matches("error: ").trim().to_owned()),
        },
    };
    if let Outcome::Failed(text) | Outcome::Usage(text) = &outcome {
        say(std::io::stderr(), &format_args!("ebbtide: {text}\n"));
    }
    ExitCode::from(outcome.code())
}

/// Where nobody reads any more, as behind `| head -1`, nobody misses it.
fn say(mut to: impl Write, text: &dyn Display) {
    let _ = write!(to, "{text}").and_then(|()| to.flush());
}

fn dispatch(matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some(("run", matches)) => run::main(matches),
        Some(("drain", matches)) => drain::main(matches),
        Some(("status", matches)) => status::main(matches),
        Some(("check", matches)) => check::main(matches),
        Some(("inject", matches)) => inject::main(matches),
        Some(("rehearse", matches)) => rehearse::main(matches),
        Some(("webhook", matches)) => webhook::main(matches),
        Some(("demo", matches)) => {
            let options = demo::Options { json: matches.get_flag("json") };
            block_on(async {
                match demo::run(options).await {
                    Ok(true) => Outcome::Done,
                    Ok(false) => Outcome::Negative,
                    Err(error) => Outcome::Failed(format!("the demo failed: {error:#}")),
                }
            })
        }
        Some(("demo-server", matches)) => {
            let port = matches.get_one::<u16>("port").copied().unwrap_or(0);
            block_on(async {
                match demo::server(port).await {
                    Ok(()) => Outcome::Done,
                    Err(error) => Outcome::Failed(format!("the demo's server failed: {error:#}")),
                }
            })
        }
        _ => Outcome::Usage("no such command; see ebbtide --help".into()),
    }
}

fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => Outcome::Failed(format!("the runtime cannot start: {error}")),
    }
}

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    let json =
        |help: &'static str| Arg::new("json").long("json").action(ArgAction::SetTrue).help(help);
    Command::new("ebbtide")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "A sidecar reverse proxy that lets any MCP server pod be rolled, scaled in, evicted \
             or restarted without one client noticing",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(run_command())
        .subcommand(
            Command::new("drain")
                .about("Begin the drain of the sidecar in this pod")
                .arg(admin_argument())
                .arg(
                    Arg::new("wait")
                        .long("wait")
                        .action(ArgAction::SetTrue)
                        .help("Return only when drained"),
                ),
        )
        .subcommand(
            Command::new("status")
                .about("What is in flight, the phase, the pool, the time left")
                .arg(admin_argument())
                .arg(json("Print the JSON of GET /status"))
                .arg(
                    Arg::new("ready")
                        .long("ready")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("json")
                        .help(
                            "Only tell whether new traffic may come, as GET /readyz does: exit 0 \
                             if so, else 1, and what is missing",
                        ),
                ),
        )
        .subcommand(inject::command())
        .subcommand(check::command())
        .subcommand(rehearse::command())
        .subcommand(webhook::command())
        .subcommand(
            Command::new("demo")
                .about("A rolling update under load on this machine, without and with ebbtide")
                .arg(json("Print the result as JSON in place of the picture")),
        )
        .subcommand(
            Command::new("demo-server")
                .hide(true)
                .arg(Arg::new("port").long("port").required(true).value_parser(value_parser!(u16))),
        )
}

fn run_command() -> Command {
    let settings = TABLE.iter().map(|setting| {
        let help = match setting.default {
            Some(default) => format!("{} [default: {default}]", setting.help),
            None => setting.help.to_owned(),
        };
        Arg::new(setting.name)
            .long(setting.name.replace('_', "-"))
            .value_name(setting.shape)
            .help(help)
            // What a value has to look like `config` says, for all three sources alike.
            .allow_hyphen_values(true)
    });
    Command::new("run")
        .about("Run the sidecar; with a COMMAND, start and supervise the server, too")
        .after_help(
            "Every setting can also be given in the environment (EBBTIDE_MAX_CONNECTIONS) or in \
             the file (max_connections: 50); a flag wins over the environment, the environment \
             over the file.",
        )
        .args(settings)
        .arg(Arg::new("config").long("config").value_name("FILE").help("YAML file with settings"))
        .arg(
            Arg::new("print_config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print the settings that hold, as YAML, and end"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("The server to start, after `--`")
                .num_args(1..)
                .last(true)
                .value_parser(value_parser!(OsString)),
        )
}

fn admin_argument() -> Arg {
    Arg::new("admin").long("admin").value_name("ADDRESS").help(
        "The sidecar's admin port [default: 127.0.0.1 and the port of EBBTIDE_ADMIN, or 7071]",
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }
}
