//! A value as YAML text: blocks where lines can be added, one line where they cannot. Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::node;

/// What people look for first; the rest follows by the alphabet.
const FIRST: &[&str] =
    &["apiVersion", "kind", "metadata", "name", "image", "restartPolicy", "args"];

/// A value in one line, in YAML's flow style.
pub fn inline(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries: Vec<String> = sorted(entries)
                .map(|(key, value)| format!("{}: {}", word(key), inline(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => word(text),
        other => other.to_string(),
    }
}

/// What stands behind a key's colon: one line, or lines below it that begin at `indent`.
pub fn behind_key(value: &Value, indent: usize) -> String {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            format!("\n{}", entry_lines(entries, indent))
        }
        Value::Array(items) if !items.is_empty() => format!("\n{}", item_lines(items, indent)),
        _ => format!(" {}", inline(value)),
    }
}

/// The entries of a mapping, one below the other, without the last line's end.
pub fn entry_lines(entries: &Map<String, Value>, indent: usize) -> String {
    let lines: Vec<String> = sorted(entries)
        .map(|(key, value)| {
            format!("{}{}:{}", " ".repeat(indent), word(key), behind_key(value, indent + 2))
        })
        .collect();
    lines.join("\n")
}

/// The items of a sequence, one below the other, without the last line's end.
pub fn item_lines(items: &[Value], indent: usize) -> String {
    let item = |value: &Value| {
        let text = match value {
            Value::Object(entries) if !entries.is_empty() => entry_lines(entries, indent + 2),
            Value::Array(items) if !items.is_empty() => item_lines(items, indent + 2),
            _ => format!("  {}", inline(value)),
        };
        format!("{}- {}", " ".repeat(indent), text.trim_start())
    };
    items.iter().map(item).collect::<Vec<_>>().join("\n")
}

fn sorted(entries: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut entries: Vec<_> = entries.iter().collect();
    let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
    entries.sort_by_key(|(key, _)| (rank(key), (*key).clone()));
    entries.into_iter()
}

/// A text as a plain word where every reader takes it for one, else in quotes.
fn word(text: &str) -> String {
    // A colon within makes a word a number of minutes, for some, but not after a letter.
    let colon =
        text.starts_with(|letter: char| letter.is_ascii_alphabetic()) && !text.ends_with(':');
    let safe = |letter: char| {
        letter.is_ascii_alphanumeric() || "-_./".contains(letter) || (colon && letter == ':')
    };
    let bare = text.strip_prefix("--").unwrap_or(text);
    let begins = bare.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '/');
    if begins && text.chars().all(safe) && node::plain(text).is_string() {
        return text.to_owned();
    }
    let printable = |letter: char| matches!(letter, ' '..='~');
    if text.contains('"') && text.chars().all(printable) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::new();
    for letter in Value::from(text).to_string().chars() {
        // Some readers take these for line breaks, or for nothing.
        if matches!(letter, '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}') {
            let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
        } else {
            quoted.push(letter);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,8}".prop_map(Value::from),
            "(?s).{0,4}".prop_map(Value::from),
            "(yes|on|0644|1e3|null|~|-|- a|a: b|#|1.5|0x1|.inf|!t|&a|[*]a|%|@|`)"
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z:# -]{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// By our reader and by another one.
        #[test]
        fn what_is_written_is_read_the_same(value in values()) {
            for text in [
                format!("k:{}\n", behind_key(&value, 2)),
                format!("k: {}\n", inline(&value)),
            ] {
                let expected = json!({ "k": value });
                let read = node::parse(&text).unwrap().unwrap().value();
                prop_assert_eq!(&read, &expected, "{}", text);
                let other: Value = serde_yaml::from_str(&text).unwrap();
                prop_assert_eq!(&other, &expected, "{}", text);
            }
        }
    }

    #[test]
    fn it_reads_like_written_by_hand() {
        let value = json!({"args": ["run", "--grace", "60s"], "name": "ebbtide", "on": {"port": 7071}, "none": []});
        let lines = "- name: ebbtide\n  args:\n    - run\n    - --grace\n    - 60s\n  none: []\n  \"on\":\n    port: 7071";
        assert_eq!(item_lines(&[value], 0), lines);
    }
}
