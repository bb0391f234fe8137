//! One YAML document as a tree that knows where in the text each part stands. Pure.
//!
//! Plain words mean what kubectl takes them for (`0644` is octal, `on` is true), so that what is
//! not changed need not be understood better than kubectl does.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle, Tag};
use serde_json::{Map, Value};

/// What aliases may add to a document: beyond it, a small text would fill the memory.
const MOST_BY_ALIAS: usize = 200_000;

#[derive(Debug, Clone)]
pub struct Node {
    /// Bytes of the text, without comments and blank lines around.
    pub start: usize,
    pub end: usize,
    /// Of the document's text, from 1.
    pub line: usize,
    pub body: Body,
}

#[derive(Debug, Clone)]
pub enum Body {
    Scalar(Value),
    /// `*name`, and what it stands for.
    Alias(Value),
    Sequence {
        flow: bool,
        items: Vec<Node>,
    },
    Mapping {
        flow: bool,
        entries: Vec<Entry>,
    },
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    /// Where the key begins, and where its colon ends.
    pub start: usize,
    pub colon: usize,
    pub value: Node,
}

/// What is wrong with a text, and in which of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub line: usize,
    pub problem: String,
}

impl Node {
    /// What the text says.
    pub fn value(&self) -> Value {
        match &self.body {
            Body::Scalar(value) | Body::Alias(value) => value.clone(),
            Body::Sequence { items, .. } => items.iter().map(Node::value).collect(),
            Body::Mapping { entries, .. } => {
                let mut merged = Map::new();
                let mut own = Map::new();
                for entry in entries {
                    match (entry.key.as_str(), entry.value.value()) {
                        ("<<", Value::Object(base)) => merged.extend(base),
                        ("<<", Value::Array(bases)) => {
                            // The first of them wins.
                            for base in bases.into_iter().rev() {
                                if let Value::Object(base) = base {
                                    merged.extend(base);
                                }
                            }
                        }
                        (key, value) => {
                            own.insert(key.to_owned(), value);
                        }
                    }
                }
                merged.extend(own);
                Value::Object(merged)
            }
        }
    }

    /// The part that a JSON pointer names, or the last one on the way to it.
    pub fn nearest(&self, pointer: &str) -> &Node {
        let mut node = self;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match &node.body {
                Body::Mapping { entries, .. } => {
                    entries.iter().find(|entry| entry.key == step).map(|entry| &entry.value)
                }
                Body::Sequence { items, .. } => {
                    step.parse().ok().and_then(|index: usize| items.get(index))
                }
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}

/// Reads the one document of a text; `None` where there is none.
pub fn parse(text: &str) -> Result<Option<Node>, Broken> {
    let mut options = granit_parser::options! { flow_nesting_limit: 100, block_nesting_limit: 100 };
    options.set_emit_comments(false);
    let mut builder = Builder {
        text,
        open: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        line: 1,
        by_alias: 0,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) =
            event.map_err(|error| Broken { line: error.marker().line(), problem: error.info() })?;
        builder.line = span.start.line();
        let range = span.byte_range().unwrap_or_default();
        builder
            .event(event, range.start, range.end)
            .map_err(|problem| Broken { line: builder.line, problem })?;
    }
    Ok(builder.root)
}

/// A collection that has not ended yet.
struct Open {
    node: Node,
    anchor: usize,
    /// Of a mapping: the key that waits for its value.
    key: Option<(String, usize, usize)>,
    /// Of a mapping: the keys so far.
    seen: HashSet<String>,
}

impl Open {
    fn awaits_key(&self) -> bool {
        matches!(self.node.body, Body::Mapping { .. }) && self.key.is_none()
    }
}

struct Builder<'a> {
    text: &'a str,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Value>,
    line: usize,
    by_alias: usize,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, start: usize, end: usize) -> Result<(), String> {
        let line = self.line;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let parent = self.open.last();
                let is_key = parent.is_some_and(Open::awaits_key);
                if is_key {
                    let mut start = start;
                    if anchor != 0 {
                        self.anchors.insert(anchor, text.clone().into_owned().into());
                        let line = self.text[..start].rfind('\n').map_or(0, |end| end + 1);
                        start = self.text[line..start].rfind('&').map_or(start, |at| line + at);
                    }
                    return self.key(text.into_owned(), start, end);
                }
                let value = scalar(&text, style, tag.as_deref());
                let end = self.end_of_scalar(start, end, &text, style);
                let mut node = Node { start, end, line, body: Body::Scalar(value) };
                if start == end {
                    // Nothing is written: it stands behind its colon.
                    let colon = parent.and_then(|open| open.key.as_ref()).map(|key| key.2);
                    (node.start, node.end) = (colon.unwrap_or(start), colon.unwrap_or(end));
                    if let Some(colon) = colon.filter(|_| is_block(style)) {
                        // Of a block text without a word there is the mark, and blank lines.
                        let mark = self.text[colon..].split('\n').next().unwrap_or_default();
                        let end = colon + mark.trim_end().len();
                        node.end = self.with_blank_lines(end, &text, style);
                    }
                }
                self.ended(node, anchor)
            }
            Event::Alias(id) => {
                let is_key = self.open.last().is_some_and(Open::awaits_key);
                let value = self.anchors.get(&id).cloned().ok_or("an alias of what contains it")?;
                self.by_alias += weight(&value);
                if self.by_alias > MOST_BY_ALIAS {
                    return Err("aliases that stand for more than a manifest can hold".into());
                }
                match value {
                    Value::String(key) if is_key => self.key(key, start, end),
                    value => self.ended(Node { start, end, line, body: Body::Alias(value) }, 0),
                }
            }
            Event::SequenceStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                self.begin(start, end, Body::Sequence { flow, items: Vec::new() }, anchor)
            }
            Event::MappingStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                self.begin(start, end, Body::Mapping { flow, entries: Vec::new() }, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.open.pop() else {
                    return Ok(());
                };
                // Of a block the parser's end lies behind the comments that follow.
                open.node.end = match &open.node.body {
                    Body::Sequence { flow: false, items } => {
                        items.last().map_or(open.node.end, |last| last.end)
                    }
                    Body::Mapping { flow: false, entries } => {
                        entries.last().map_or(open.node.end, |last| last.value.end.max(last.colon))
                    }
                    _ => end,
                };
                self.ended(open.node, open.anchor)
            }
            _ => Ok(()),
        }
    }

    /// Without what only stands below; but the blank lines below a block text that keeps them
    /// are its own.
    fn end_of_scalar(&self, start: usize, end: usize, text: &str, style: ScalarStyle) -> usize {
        let end = start + self.text[start..end].trim_end().len();
        self.with_blank_lines(end, text, style)
    }

    fn with_blank_lines(&self, end: usize, text: &str, style: ScalarStyle) -> usize {
        let keeps = text.ends_with("\n\n") || text == "\n";
        if !is_block(style) || !keeps {
            return end;
        }
        let lines = self.text[end..].split_inclusive('\n');
        // The first of them is the rest of the text's last line.
        let blank = lines.take_while(|line| line.trim().is_empty());
        end + blank.map(str::len).sum::<usize>()
    }

    fn begin(&mut self, start: usize, end: usize, body: Body, anchor: usize) -> Result<(), String> {
        if self.open.last().is_some_and(Open::awaits_key) {
            return Err("a key that is not a plain word".into());
        }
        let node = Node { start, end, line: self.line, body };
        self.open.push(Open { node, anchor, key: None, seen: HashSet::new() });
        Ok(())
    }

    fn key(&mut self, key: String, start: usize, end: usize) -> Result<(), String> {
        // A key of a flow mapping may have none.
        let rest = &self.text[end..];
        let behind = rest.trim_start();
        let colon = end + if behind.starts_with(':') { rest.len() - behind.len() + 1 } else { 0 };
        if let Some(open) = self.open.last_mut() {
            if !open.seen.insert(key.clone()) {
                return Err(format!("the key `{key}` is there twice"));
            }
            open.key = Some((key, start, colon));
        }
        Ok(())
    }

    fn ended(&mut self, value: Node, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.anchors.insert(anchor, value.value());
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(open) => match (&mut open.node.body, open.key.take()) {
                (Body::Mapping { entries, .. }, Some((key, start, colon))) => {
                    entries.push(Entry { key, start, colon, value });
                }
                (Body::Sequence { items, .. }, _) => items.push(value),
                _ => return Err("a key that is not a plain word".into()),
            },
        }
        Ok(())
    }
}

fn is_block(style: ScalarStyle) -> bool {
    matches!(style, ScalarStyle::Literal | ScalarStyle::Folded)
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(weight).sum::<usize>(),
        _ => 1,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
    if is_text || (style != ScalarStyle::Plain && tag.is_none_or(Tag::is_custom)) {
        return text.into();
    }
    plain(text)
}

/// What kubectl takes a plain word for.
pub fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return true.into();
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return false.into();
        }
        _ => {}
    }
    number(text).unwrap_or_else(|| text.into())
}

fn number(text: &str) -> Option<Value> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|letter: char| letter.is_ascii_digit() || letter == '.') {
        return None;
    }
    let digits = digits.replace('_', "").to_ascii_lowercase();
    let (radix, whole) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'o', ..] => (8, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits.as_str()),
    };
    if let Ok(number) = u64::from_str_radix(whole, radix)
        && sign.is_empty()
        && !whole.starts_with('+')
    {
        return Some(number.into());
    }
    if let Ok(number) = i64::from_str_radix(&format!("{sign}{whole}"), radix) {
        return Some(number.into());
    }
    let float = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'-' | b'+'));
    if !float {
        return None;
    }
    let number: f64 = format!("{sign}{digits}").parse().ok()?;
    serde_json::Number::from_f64(number).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_words_mean_what_kubectl_takes_them_for() {
        for (text, value) in [
            ("0644", json!(420)),
            ("0x1F", json!(31)),
            ("0b11", json!(3)),
            ("0", json!(0)),
            ("-7", json!(-7)),
            ("1_000", json!(1000)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("~", json!(null)),
            ("0.1.0", json!("0.1.0")),
            ("10m", json!("10m")),
            ("25%", json!("25%")),
            ("-", json!("-")),
            (".", json!(".")),
            ("12e", json!("12e")),
            ("089", json!(89.0)),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "# head\na: &x {b: 1, c: ['2', \"t\\u00e4\"]}\nd: *x\ne:\nf:\n  <<: *x\n  b: 2\ng: !!str 5\nh: !mine 5\ni: |\n  l\n\n# end\n";
        let root = parse(text).unwrap().unwrap();
        let inner = json!({"b": 1, "c": ["2", "tä"]});
        let value = json!({
            "a": inner, "d": inner, "e": null, "f": {"b": 2, "c": ["2", "tä"]}, "g": "5", "h": 5,
            "i": "l\n",
        });
        assert_eq!(root.value(), value);
        assert_eq!(root.nearest("/f/b").line, 7);
        assert_eq!(root.nearest("/a/nothing").line, 2);
        assert!(parse("# nothing\n").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_read_says_in_which_line() {
        let bomb = (0..10).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            let many = vec![format!("*a{level}"); 10].join(", ");
            format!("{text}a{}: &a{} [{many}]\n", level + 1, level + 1)
        });
        for (text, line, part) in [
            ("a: [1\nb: 2\n", 2, ""),
            ("a: 1\na: 2\n", 2, "`a` is there twice"),
            ("a: *nowhere\n", 1, "anchor"),
            ("a: \"half\n", 1, "quote"),
            ("{{ .Values.x }}: 1\n", 1, ""),
            ("? [a, b]\n: c\n", 1, "plain word"),
            (&"[".repeat(100_000), 1, "limit"),
            (&bomb, 6, "aliases"),
            ("a: &a [*a]\n", 1, ""),
        ] {
            let broken = parse(text).unwrap_err();
            assert_eq!(broken.line, line, "{text:.40}: {broken:?}");
            assert!(broken.problem.contains(part), "{text:.40}: {broken:?}");
        }
    }
}
