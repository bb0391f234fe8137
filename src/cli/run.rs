//! `ebbtide run`: raw settings from three places, then the sidecar.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::ArgMatches;

use super::Outcome;
use crate::{
    app,
    config::{self, Invalid, Raw, Settings, Source, table::TABLE},
    telemetry::log,
};

const UNUSED: &str = "this variable is no setting of ebbtide and is not used";

pub fn main(matches: &ArgMatches) -> Outcome {
    let command: Vec<OsString> =
        matches.get_many("command").into_iter().flatten().cloned().collect();
    if command.is_empty() && std::env::args_os().next_back().is_some_and(|last| last == "--") {
        return Outcome::Usage(
            "there is no COMMAND after `--`; without one, leave `--` out".into(),
        );
    }
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (environment, unknown) = config::environment(variables);
    let read = file(matches).and_then(|file| {
        let raw = config::merge(flags(matches), environment, file);
        let settings = Settings::parse(&raw, !command.is_empty())?;
        readable(&settings)?;
        Ok((raw, settings))
    });
    let (raw, settings) = match read {
        Ok(read) => read,
        Err(invalid) => return Outcome::Usage(invalid.to_string()),
    };
    if matches.get_flag("print_config") {
        for name in unknown {
            super::say(std::io::stderr(), &format!("ebbtide: {name}: {UNUSED}\n"));
        }
        super::say(std::io::stdout(), &settings.print(&raw));
        return Outcome::Done;
    }
    log::start(settings.log_level, settings.log_format);
    for name in unknown {
        tracing::warn!(name, "{UNUSED}");
    }
    let in_kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    // One thread: a sidecar has a fraction of a core, and a second one only adds wake-ups.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(app::run(settings, command, in_kubernetes));
            // A name lookup may still hang in a thread; nobody waits for it.
            runtime.shutdown_background();
            result
        }
        Err(error) => return Outcome::Failed(format!("the runtime cannot start: {error}")),
    };
    match result {
        Ok(0) => Outcome::Done,
        Ok(code) => Outcome::Server(code),
        Err(failed) => Outcome::Failed(failed.to_string()),
    }
}

/// What cannot be read is found now, and not when a drain is asked for or a session is opened.
fn readable(settings: &Settings) -> Result<(), Invalid> {
    let invalid = |setting: &str, path: &Path, expected: String| Invalid {
        setting: setting.into(),
        value: Some(path.display().to_string()),
        source: None,
        expected,
    };
    if let Some(path) = &settings.drain_token_file {
        let expected = match std::fs::read_to_string(path) {
            Ok(token) if token.trim().is_empty() => Some("a file with a token in it".into()),
            Ok(_) => None,
            Err(error) => Some(format!("a file that can be read ({error})")),
        };
        if let Some(expected) = expected {
            return Err(invalid("drain_token_file", path, expected));
        }
    }
    if let Some(path) = &settings.session_key_file {
        app::keys::check(path).map_err(|problem| {
            let expected = "a file with one or two lines, each of them a key as `openssl rand \
                            -base64 32` makes it or the word `unsealed`";
            invalid("session_key_file", path, format!("{expected}; {problem}"))
        })?;
    }
    Ok(())
}

fn flags(matches: &ArgMatches) -> Raw {
    let value = |name: &str| matches.get_one::<String>(name).cloned();
    TABLE
        .iter()
        .filter_map(|known| Some((known.name.to_owned(), (value(known.name)?, Source::Flag))))
        .collect()
}

fn file(matches: &ArgMatches) -> Result<Raw, Invalid> {
    let variable = std::env::var_os(config::variable("config")).map(PathBuf::from);
    let flag = matches.get_one::<String>("config").map(PathBuf::from);
    let Some(path) = flag.or(variable) else {
        return Ok(Raw::new());
    };
    let text = std::fs::read_to_string(&path).map_err(|error| Invalid {
        setting: "config".into(),
        value: Some(path.display().to_string()),
        source: None,
        expected: format!("a file that can be read ({error})"),
    })?;
    config::file::parse(&text, &path)
}
