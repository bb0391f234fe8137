//! The settings of `ebbtide run`: flags over environment (`EBBTIDE_…`) over a YAML file.
//!
//! Raw text becomes a [`Settings`] that cannot be wrong, once; nobody else looks at raw input.
//! Never waits and never logs: what is wrong is an [`Invalid`] that names setting, value and
//! expectation.

pub mod file;
pub mod table;
pub mod value;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use self::{
    table::TABLE,
    value::{Format, Level, Refusal, Roaming, Upstream},
};

/// Where a raw value came from, for the error that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Flag,
    Environment,
    File(PathBuf),
    /// Of a pod that is to be injected, by its whole name.
    Annotation(String),
}

/// A setting that cannot be used. Exit 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub setting: String,
    pub value: Option<String>,
    pub source: Option<Source>,
    pub expected: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "setting `{}`", self.setting)?;
        match &self.source {
            Some(Source::Flag) => write!(out, " (flag {})", flag(&self.setting))?,
            Some(Source::Environment) => write!(out, " (variable {})", variable(&self.setting))?,
            Some(Source::File(path)) => write!(out, " (file {})", path.display())?,
            Some(Source::Annotation(name)) => write!(out, " (annotation {name})")?,
            None => {}
        }
        match &self.value {
            Some(value) => write!(out, ": `{value}` does not fit: ")?,
            None => write!(out, ": ")?,
        }
        write!(out, "expected {}", self.expected)
    }
}

impl std::error::Error for Invalid {}

/// `max_connections` → `--max-connections`.
#[must_use]
pub fn flag(setting: &str) -> String {
    format!("--{}", setting.replace('_', "-"))
}

/// `max_connections` → `EBBTIDE_MAX_CONNECTIONS`.
#[must_use]
pub fn variable(setting: &str) -> String {
    format!("EBBTIDE_{}", setting.to_ascii_uppercase())
}

/// Raw values by the name of their setting.
pub type Raw = BTreeMap<String, (String, Source)>;

/// Joins the three sources, the first over the second over the third.
#[must_use]
pub fn merge(flags: Raw, environment: Raw, file: Raw) -> Raw {
    let mut raw = file;
    raw.extend(environment);
    raw.extend(flags);
    raw
}

/// The values of the environment that are settings, and the names that look like one but are
/// none. The latter are told, not refused: Kubernetes itself sets `EBBTIDE_SERVICE_HOST` and the
/// like where a Service is called `ebbtide`.
#[must_use]
pub fn environment(variables: impl Iterator<Item = (String, String)>) -> (Raw, Vec<String>) {
    let mut raw = Raw::new();
    let mut unknown = Vec::new();
    for (name, value) in variables.filter(|(name, _)| name.starts_with("EBBTIDE_")) {
        let setting = name["EBBTIDE_".len()..].to_ascii_lowercase();
        if TABLE.iter().any(|known| known.name == setting) {
            raw.insert(setting, (value, Source::Environment));
        } else if setting != "config" {
            unknown.push(name);
        }
    }
    (raw, unknown)
}

/// What `ebbtide run` works by. Every value is valid; the documentation of each stands in
/// [`table::TABLE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub upstream: Upstream,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub drain_timeout: Option<Duration>,
    pub withdraw_timeout: Duration,
    pub settle: Option<Duration>,
    pub quiet: Duration,
    pub stop_reserve: Duration,
    pub grace: Option<Duration>,
    pub refuse_with: Refusal,
    pub sessions: Roaming,
    pub session_key_file: Option<PathBuf>,
    pub max_connections: usize,
    pub max_streams: usize,
    pub acquire_timeout: Duration,
    pub idle_timeout: Duration,
    pub response_timeout: Duration,
    pub max_inbound: usize,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub header_timeout: Duration,
    pub drain_token_file: Option<PathBuf>,
    pub log_level: Level,
    pub log_format: Format,
}

impl Settings {
    /// Turns raw text into settings. `has_command`: whether a server is to be started, which
    /// gives `upstream` a default.
    ///
    /// # Errors
    /// The first setting that does not fit, in the order of the table.
    pub fn parse(raw: &Raw, has_command: bool) -> Result<Self, Invalid> {
        if let Some((name, (value, source))) =
            raw.iter().find(|(name, _)| !TABLE.iter().any(|known| known.name == **name))
        {
            return Err(unknown(name, value, source));
        }
        let read = Reader { raw };
        let upstream = match (raw.get("upstream"), has_command) {
            (None, false) => {
                return Err(Invalid {
                    setting: "upstream".into(),
                    value: None,
                    source: None,
                    expected: "the server's URL, as in `--upstream http://127.0.0.1:3000`; it may \
                               only be left out where a COMMAND follows `--`"
                        .into(),
                });
            }
            (None, true) => Upstream::on_loopback(3000),
            (Some(_), _) => read.get("upstream", value::upstream)?,
        };
        let listen = read.get("listen", value::address)?;
        let admin = read.get("admin", value::address)?;
        let own = [("listen", listen.port()), ("admin", admin.port())];
        if let Some((name, port)) = own.iter().find(|(_, port)| upstream.is_here(*port)) {
            return Err(
                read.unfit("upstream", format!("another port than that of `{name}` ({port})"))
            );
        }
        if listen.port() == admin.port() && admin.port() != 0 {
            return Err(
                read.unfit("admin", format!("another port than that of `listen` ({listen})"))
            );
        }
        Ok(Self {
            upstream,
            listen,
            admin,
            drain_timeout: read.optional("drain_timeout", value::duration)?,
            withdraw_timeout: read.get("withdraw_timeout", value::duration)?,
            settle: read.optional("settle", value::duration)?,
            quiet: read.get("quiet", value::duration)?,
            stop_reserve: read.get("stop_reserve", value::duration)?,
            grace: read.optional("grace", value::duration)?,
            refuse_with: read.get("refuse_with", value::refusal)?,
            sessions: read.get("sessions", value::roaming)?,
            session_key_file: read.optional("session_key_file", value::path)?,
            max_connections: read.get("max_connections", value::count)?,
            max_streams: read.get("max_streams", value::count)?,
            acquire_timeout: read.get("acquire_timeout", value::duration)?,
            idle_timeout: read.get("idle_timeout", value::duration)?,
            response_timeout: read.get("response_timeout", value::duration)?,
            max_inbound: read.get("max_inbound", value::count)?,
            max_header_bytes: read.get("max_header_bytes", value::header_bytes)?,
            max_headers: read.get("max_headers", value::count)?,
            header_timeout: read.get("header_timeout", value::positive_duration)?,
            drain_token_file: read.optional("drain_token_file", value::path)?,
            log_level: read.get("log_level", value::level)?,
            log_format: read.get("log_format", value::format)?,
        })
    }

    /// The effective settings as the YAML file that would give them.
    #[must_use]
    pub fn print(&self, raw: &Raw) -> String {
        let values = TABLE.iter().filter_map(|known| {
            let given = raw.get(known.name).map(|(value, _)| value.clone());
            let value = match known.name {
                "upstream" => Some(self.upstream.to_string()),
                _ => given.or(known.default.map(str::to_owned)),
            };
            value.map(|value| (known.name, value))
        });
        file::write(values)
    }
}

/// A name that is no setting.
#[must_use]
pub fn unknown(name: &str, value: &str, source: &Source) -> Invalid {
    let names: Vec<&str> = TABLE.iter().map(|known| known.name).collect();
    Invalid {
        setting: name.into(),
        value: Some(value.into()),
        source: Some(source.clone()),
        expected: format!("one of the known settings: {}", names.join(", ")),
    }
}

struct Reader<'a> {
    raw: &'a Raw,
}

impl Reader<'_> {
    /// What is wrong with a value that is well-formed.
    fn unfit(&self, name: &str, expected: String) -> Invalid {
        let given = self.raw.get(name);
        Invalid {
            setting: name.into(),
            value: given.map(|(value, _)| value.clone()),
            source: given.map(|(_, source)| source.clone()),
            expected,
        }
    }

    fn optional<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Invalid> {
        let given = self.raw.get(name).map(|(value, source)| (value.as_str(), Some(source)));
        let default = || {
            let known = TABLE.iter().find(|known| known.name == name)?;
            known.default.map(|value| (value, None))
        };
        let Some((value, source)) = given.or_else(default) else {
            return Ok(None);
        };
        parse(value).map(Some).map_err(|expected| Invalid {
            setting: name.into(),
            value: Some(value.into()),
            source: source.cloned(),
            expected,
        })
    }

    fn get<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Invalid> {
        self.optional(name, parse)?.ok_or_else(|| Invalid {
            setting: name.into(),
            value: None,
            source: None,
            expected: "a value".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(pairs: &[(&str, &str)], source: &Source) -> Raw {
        let pair = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), ((*value).to_owned(), source.clone()))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn flags_over_environment_over_file() {
        let upstream = ("upstream", "http://127.0.0.1:1");
        let merged = merge(
            raw(&[("quiet", "1s")], &Source::Flag),
            raw(&[("quiet", "2s"), ("settle", "2s")], &Source::Environment),
            raw(
                &[("quiet", "3s"), ("settle", "3s"), ("grace", "3s"), upstream],
                &Source::File("f".into()),
            ),
        );
        let settings = Settings::parse(&merged, false).unwrap();
        assert_eq!(settings.quiet, Duration::from_secs(1));
        assert_eq!(settings.settle, Some(Duration::from_secs(2)));
        assert_eq!(settings.grace, Some(Duration::from_secs(3)));
    }

    #[test]
    fn errors_name_setting_value_and_expectation() {
        for (name, value, expected) in [
            ("settle", "5x", "500ms"),
            ("upstream", "ftp://x", "http://"),
            ("upstream", "http://127.0.0.1:99999", "port"),
            ("max_connections", "0", "at least 1"),
            ("listen", "here", "0.0.0.0:7070"),
            ("log_level", "loud", "info"),
        ] {
            let mut given = raw(&[("upstream", "http://127.0.0.1:1")], &Source::Flag);
            given.extend(raw(&[(name, value)], &Source::Environment));
            let text = Settings::parse(&given, false).unwrap_err().to_string();
            for part in [name, value, expected, &variable(name)] {
                assert!(text.contains(part), "{text} lacks {part}");
            }
        }
    }

    #[test]
    fn ports_that_would_meet_are_refused() {
        let upstream = ("upstream", "http://localhost:7070");
        for (given, setting) in [
            (vec![upstream], "upstream"),
            (vec![("upstream", "http://127.0.0.1:7071")], "upstream"),
            (vec![("upstream", "http://127.0.0.1:1"), ("admin", "0.0.0.0:7070")], "admin"),
        ] {
            let error = Settings::parse(&raw(&given, &Source::Flag), false).unwrap_err();
            assert_eq!(error.setting, setting, "{error}");
        }
        let elsewhere = [("upstream", "http://server:7070"), ("listen", "127.0.0.1:0")];
        assert!(Settings::parse(&raw(&elsewhere, &Source::Flag), false).is_ok());
    }

    #[test]
    fn the_upstream_is_required_without_a_command() {
        let error = Settings::parse(&Raw::new(), false).unwrap_err();
        assert!(error.to_string().contains("--upstream"), "{error}");
        assert!(Settings::parse(&Raw::new(), true).is_ok());
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let given = raw(&[("upstream", "http://127.0.0.1:1"), ("settle", "1500ms")], &Source::Flag);
        let settings = Settings::parse(&given, false).unwrap();
        let printed = settings.print(&given);
        let back = file::parse(&printed, "f".as_ref()).unwrap();
        assert_eq!(Settings::parse(&back, false).unwrap(), settings, "{printed}");
    }

    #[test]
    fn unknown_variables_are_told_not_refused() {
        let variables = [("EBBTIDE_SETLE", "1s"), ("EBBTIDE_QUIET", "1s"), ("HOME", "/")];
        let variables = variables.map(|(n, v)| (n.to_owned(), v.to_owned()));
        let (raw, unknown) = environment(variables.into_iter());
        assert_eq!(raw.keys().collect::<Vec<_>>(), ["quiet"]);
        assert_eq!(unknown, ["EBBTIDE_SETLE"]);
    }
}
