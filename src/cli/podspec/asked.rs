//! What a pod's annotations ask of the sidecar. Pure.

use std::time::Duration;

use serde_json::Value;

use super::{
    DEFAULT_GRACE, SETTING,
    resources::{Quantities, Resources, quantities},
    sidecar::SECRET_PATH,
};
use crate::config::{
    self, Raw, Source,
    table::{Setting, TABLE},
    value,
};

/// The grace that is enough for most servers: a call of half a minute, and what the endpoints
/// need to follow.
const GRACE: Duration = Duration::from_mins(1);

/// What the pod's annotations ask for.
pub struct Asked {
    raw: Raw,
    /// The server's port, by number or name.
    pub port: Option<String>,
    /// The init container after which the sidecar is to stand.
    pub after: Option<String>,
    /// The Secret whose files the sidecar sees.
    pub secret: Option<String>,
    requests: Option<String>,
    limits: Option<String>,
}

impl Asked {
    pub fn read(pod: &Value) -> Result<Self, String> {
        let mut asked = Self {
            raw: Raw::new(),
            port: None,
            after: None,
            secret: None,
            requests: None,
            limits: None,
        };
        for (annotation, text) in pod["metadata"]["annotations"].as_object().into_iter().flatten() {
            let Some(name) = annotation.strip_prefix(SETTING) else {
                continue;
            };
            let Some(text) = text.as_str() else {
                return Err(format!(
                    "annotation {annotation}: {text} is not text; expected quotes around it, as \
                     in \"{text}\""
                ));
            };
            let source = Source::Annotation(annotation.clone());
            match name {
                "port" => asked.port = Some(text.to_owned()),
                "after" => asked.after = Some(text.to_owned()),
                "secret" => asked.secret = Some(text.to_owned()),
                "requests" => asked.requests = Some(text.to_owned()),
                "limits" => asked.limits = Some(text.to_owned()),
                _ if TABLE.iter().any(|setting| setting.name == name) => {
                    asked.raw.insert(name.to_owned(), (text.to_owned(), source));
                }
                _ => {
                    return Err(format!(
                        "annotation {annotation}: no setting is called `{name}`. Settings are \
                         what `ebbtide run --help` lists, as in {SETTING}max_connections, and \
                         `port`, `after`, `secret`, `requests` and `limits`"
                    ));
                }
            }
        }
        asked.finds_its_files()?;
        Ok(asked)
    }

    /// A sidecar whose settings name a file that it cannot see never starts, and its pod with it.
    fn finds_its_files(&self) -> Result<(), String> {
        if let Some(secret) = self.secret.as_deref().filter(|secret| !is_name(secret)) {
            return Err(format!(
                "annotation {SETTING}secret: `{secret}` does not fit: expected the name of a \
                 Secret in the namespace of the pod"
            ));
        }
        for Setting { name, .. } in TABLE.iter().filter(|setting| setting.shape == "FILE") {
            let Some((file, _)) = self.raw.get(*name) else { continue };
            let key = file.strip_prefix(SECRET_PATH).and_then(|rest| rest.strip_prefix('/'));
            if self.secret.is_none() || key.is_none_or(|key| key.is_empty() || key.contains('/')) {
                return Err(format!(
                    "annotation {SETTING}{name}: `{file}` does not fit: expected \
                     {SECRET_PATH}/KEY, where KEY is one of the Secret that the annotation \
                     {SETTING}secret names; the sidecar sees no other files"
                ));
            }
        }
        Ok(())
    }

    /// The sidecar's resources: those that every pod gets, and over them the pod's own.
    pub fn resources(&self, default: &Resources) -> Result<Resources, String> {
        let of = |name: &str, text: &Option<String>| match text {
            None => Ok(Quantities::new()),
            Some(text) => quantities(text).map_err(|expected| {
                format!("annotation {SETTING}{name}: `{text}` does not fit: {expected}")
            }),
        };
        let (requests, limits) = (of("requests", &self.requests)?, of("limits", &self.limits)?);
        default
            .with(requests, limits)
            .map_err(|error| format!("annotations {SETTING}requests and limits: {error}"))
    }

    /// The settings that the sidecar gets, and the grace that the pod gets, in seconds.
    pub fn settings(&self, spec: &Value, port: u16) -> Result<(Raw, u64), String> {
        let mut raw = self.raw.clone();
        let wish = match raw.get("grace") {
            None => GRACE,
            Some((text, source)) => value::duration(text).map_err(|expected| {
                let (setting, value) = ("grace".into(), Some(text.clone()));
                let source = Some(source.clone());
                config::Invalid { setting, value, source, expected }.to_string()
            })?,
        };
        let has = spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(DEFAULT_GRACE);
        let grace = has.max(wish.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
        let source = Source::Annotation(format!("{SETTING}grace"));
        raw.insert("grace".into(), (format!("{grace}s"), source));
        let source = Source::Annotation(format!("{SETTING}upstream"));
        let upstream = (format!("http://127.0.0.1:{port}"), source);
        raw.entry("upstream".into()).or_insert(upstream);
        Ok((raw, grace))
    }
}

/// Whether it can be the name of an object (RFC 1123, as the API server reads it).
fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        label.bytes().all(is_inner)
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
