//! The arguments of `ebbtide rehearse`: text → options that cannot be wrong.

use std::{sync::Arc, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser};
use serde_json::{Value, json};

use crate::{
    cli::load::{Plan, target::Target, work::Work},
    config::value,
};

pub struct Options {
    pub plan: Plan,
    /// The URL as it was given.
    pub url: String,
    /// Until Ctrl-C, or until the rollouts are done, where there is none.
    pub duration: Option<Duration>,
    pub rollout: Option<Rollout>,
    pub json: bool,
}

/// What is to be rolled out, how often.
#[derive(Debug, PartialEq, Eq)]
pub struct Rollout {
    pub kind: Kind,
    pub name: String,
    /// That of the kubeconfig's context where none was given.
    pub namespace: Option<String>,
    pub times: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

pub fn command() -> Command {
    Command::new("rehearse")
        .about("Play many MCP clients against a URL while it is rolled out; exit 0 if nothing was lost")
        .after_help(
            "Runs until Ctrl-C, or for --duration, or with --rollout until that is done. A second \
             Ctrl-C does not wait for the calls under way.\n\nA legacy client has one session for the \
             whole run, and its stand-alone stream; once the server does not know it any more, \
             every later call of it is lost, as real clients lose it. An error of the server's own \
             is an answer.\n\nExample: ebbtide rehearse \
             http://mcp.example/mcp --tool 'report={\"days\":30}' --rollout deployment/mcp",
        )
        .arg(Arg::new("url").value_name("URL").required(true).help("The MCP endpoint, path and all"))
        .arg(
            option("clients", "COUNT", "How many clients call at once")
                .default_value("20")
                .value_parser(value::count),
        )
        .arg(
            option("era", "ERA", "Clients of 2026-07-28 (modern), of 2025-11-25 (legacy), or both")
                .default_value("both")
                .value_parser(PossibleValuesParser::new(["both", "modern", "legacy"])),
        )
        .arg(
            option(
                "tool",
                "NAME[=JSON]",
                "Call this tool with these arguments; may be given again, and the clients call \
                 each in turn [default: tools/list, and ping where there is one]",
            )
            .action(ArgAction::Append)
            .value_parser(tool),
        )
        .arg(
            option("duration", "DURATION", "How long at most")
                .value_parser(value::positive_duration),
        )
        .arg(
            option("pause", "DURATION", "Between an answer and the client's next call")
                .default_value("100ms")
                .value_parser(value::duration),
        )
        .arg(
            option("timeout", "DURATION", "How long a client waits for an answer")
                .default_value("60s")
                .value_parser(value::positive_duration),
        )
        .arg(
            option(
                "rollout",
                "KIND/NAME",
                "Restart this deployment, statefulset or daemonset meanwhile, as kubectl does",
            )
            .value_parser(workload),
        )
        .arg(
            option("rollouts", "COUNT", "How often, one after the other")
                .default_value("1")
                .requires("rollout")
                .value_parser(value::count),
        )
        .arg(
            option("namespace", "NAME", "Where it is [default: the kubeconfig's]")
                .short('n')
                .requires("rollout"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print everything as one JSON document"),
        )
}

fn option(name: &'static str, shape: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(shape).help(help)
}

impl Options {
    /// # Errors
    /// A text for the operator that names what does not fit.
    pub fn parse(matches: &ArgMatches) -> Result<Self, String> {
        // Each has a default, or is required.
        let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
        let count = |name: &str| matches.get_one::<usize>(name).copied().unwrap_or_default();
        let duration = |name: &str| matches.get_one::<Duration>(name).copied();
        let url = text("url");
        let clients = count("clients");
        let (modern, legacy) = match text("era").as_str() {
            "modern" => (clients, 0),
            "legacy" => (0, clients),
            _ if clients < 2 => {
                return Err("--clients 1 cannot be of both eras: name one with --era".into());
            }
            _ => (clients - clients / 2, clients / 2),
        };
        let tools: Vec<Work> = matches.get_many("tool").into_iter().flatten().cloned().collect();
        let works = if tools.is_empty() { vec![Work::List, Work::Ping] } else { tools };
        let rollout = matches.get_one::<(Kind, String)>("rollout").cloned();
        Ok(Self {
            plan: Plan {
                target: Arc::new(Target::parse(&url)?),
                modern,
                legacy,
                works,
                pause: duration("pause").unwrap_or_default(),
                timeout: duration("timeout").unwrap_or_default(),
            },
            url,
            duration: duration("duration"),
            rollout: rollout.map(|(kind, name)| Rollout {
                kind,
                name,
                namespace: matches.get_one::<String>("namespace").cloned(),
                times: count("rollouts"),
            }),
            json: matches.get_flag("json"),
        })
    }
}

fn tool(text: &str) -> Result<Work, String> {
    let (name, arguments) = match text.split_once('=') {
        None => (text, json!({})),
        Some((name, arguments)) => {
            let value: Value = serde_json::from_str(arguments)
                .map_err(|error| format!("the arguments of `{name}` are no JSON: {error}"))?;
            if !value.is_object() {
                return Err(format!("the arguments of `{name}` are no JSON object"));
            }
            (name, value)
        }
    };
    // The name goes into a header.
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected the name of a tool, as in echo or echo={\"text\":\"hi\"}".into());
    }
    Ok(Work::Tool { name: name.to_owned(), arguments })
}

fn workload(text: &str) -> Result<(Kind, String), String> {
    let expected = || "expected deployment/NAME, statefulset/NAME or daemonset/NAME".to_owned();
    let (kind, name) = text.split_once('/').ok_or_else(expected)?;
    // With kubectl's short names.
    let kind = match kind {
        "deployment" | "deploy" => Kind::Deployment,
        "statefulset" | "sts" => Kind::StatefulSet,
        "daemonset" | "ds" => Kind::DaemonSet,
        _ => return Err(expected()),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(expected());
    }
    Ok((kind, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let all = ["rehearse", "http://mcp/mcp"].iter().chain(arguments);
        let matches = command().try_get_matches_from(all).map_err(|error| error.to_string())?;
        Options::parse(&matches)
    }

    #[test]
    fn defaults() {
        let options = parse(&[]).unwrap();
        assert_eq!((options.plan.modern, options.plan.legacy), (10, 10));
        assert_eq!(options.plan.works, [Work::List, Work::Ping]);
        assert_eq!(options.plan.timeout, Duration::from_mins(1));
        assert!(options.duration.is_none() && options.rollout.is_none() && !options.json);
    }

    #[test]
    fn what_is_asked_for() {
        let options = parse(&[
            "--clients",
            "3",
            "--era",
            "both",
            "--tool",
            "slow={\"seconds\":20}",
            "--tool",
            "echo",
            "--duration",
            "2m",
            "--rollout",
            "sts/mcp",
            "--rollouts",
            "2",
            "-n",
            "prod",
        ])
        .unwrap();
        assert_eq!((options.plan.modern, options.plan.legacy), (2, 1));
        let tool = |name: &str, arguments| Work::Tool { name: name.into(), arguments };
        let expected = [tool("slow", json!({ "seconds": 20 })), tool("echo", json!({}))];
        assert_eq!(options.plan.works, expected);
        assert_eq!(options.duration, Some(Duration::from_mins(2)));
        let rollout = Rollout {
            kind: Kind::StatefulSet,
            name: "mcp".into(),
            namespace: Some("prod".into()),
            times: 2,
        };
        assert_eq!(options.rollout, Some(rollout));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (arguments, named) in [
            (&["--clients", "0"][..], "--clients"),
            (&["--clients", "1"], "--era"),
            (&["--era", "old"], "--era"),
            (&["--tool", ""], "--tool"),
            (&["--tool", "a b"], "--tool"),
            (&["--tool", "a={"], "arguments of `a`"),
            (&["--tool", "a=[]"], "no JSON object"),
            (&["--duration", "0"], "--duration"),
            (&["--timeout", "5"], "--timeout"),
            (&["--rollout", "mcp"], "deployment/NAME"),
            (&["--rollout", "pod/mcp"], "deployment/NAME"),
            (&["--rollout", "deployment/"], "deployment/NAME"),
            (&["--rollouts", "2"], "--rollout"),
            (&["-n", "prod"], "--rollout"),
        ] {
            let error = parse(arguments).err().unwrap_or_else(|| panic!("{arguments:?} passed"));
            assert!(error.contains(named), "{arguments:?}: {error}");
        }
    }
}
