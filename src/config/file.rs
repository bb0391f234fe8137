//! The YAML of `--config` and `--print-config`: the only file that names `serde_yaml`.
//!
//! Never knows what a setting means.

use std::path::Path;

use serde_yaml::{Mapping, Value};

use super::{Invalid, Raw, Source, table::TABLE};

/// Reads settings from YAML text; `path` is for the error.
///
/// # Errors
/// Text that is not a mapping of known settings to plain values.
pub fn parse(text: &str, path: &Path) -> Result<Raw, Invalid> {
    let broken = |expected: String| Invalid {
        setting: "config".into(),
        value: Some(path.display().to_string()),
        source: None,
        expected,
    };
    let value: Value = serde_yaml::from_str(text)
        .map_err(|error| broken(format!("a YAML mapping of settings; {error}")))?;
    let mapping = match value {
        Value::Null => Mapping::new(),
        Value::Mapping(mapping) => mapping,
        _ => {
            return Err(broken("a YAML mapping of settings, as in `settle: 5s`".into()));
        }
    };
    mapping.iter().map(|(key, value)| entry(key, value, path)).collect()
}

/// Any YAML document, for whoever else has to read one.
///
/// # Errors
/// What is wrong, and where in the text.
pub fn document<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

fn entry(key: &Value, value: &Value, path: &Path) -> Result<(String, (String, Source)), Invalid> {
    let source = Source::File(path.into());
    let name = scalar(key).unwrap_or_else(|| format!("{key:?}"));
    if !TABLE.iter().any(|known| known.name == name) {
        let value = scalar(value).unwrap_or_else(|| "…".into());
        return Err(super::unknown(&name, &value, &source));
    }
    match scalar(value) {
        Some(text) => Ok((name, (text, source))),
        None => Err(Invalid {
            setting: name,
            value: serde_yaml::to_string(value).ok().map(|text| text.trim().to_owned()),
            source: Some(source),
            expected: "one plain value".into(),
        }),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Writes settings as YAML, in the order given.
pub fn write<'a>(values: impl Iterator<Item = (&'a str, String)>) -> String {
    let mapping: Mapping = values
        .map(|(name, value)| {
            let value = value.parse::<u64>().map_or_else(|_| value.into(), Value::from);
            (Value::from(name), value)
        })
        .collect();
    serde_yaml::to_string(&mapping).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_files_are_named() {
        for (text, part) in [
            ("setle: 1s", "setle"),
            ("settle: [1s]", "settle"),
            ("- settle", "mapping"),
            ("settle: 1s\nsettle: 2s", "duplicate"),
            ("settle: {", "line"),
            ("settle:", "settle"),
        ] {
            let error = parse(text, "conf.yaml".as_ref()).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("conf.yaml"), "{text}: {error}");
        }
        assert_eq!(parse("", "f".as_ref()), Ok(Raw::new()));
        assert_eq!(parse("max_connections: 7", "f".as_ref()).unwrap()["max_connections"].0, "7");
    }
}
