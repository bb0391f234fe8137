//! Changes a document's text to what it shall say, and leaves alone what already says so: comments,
//! quotes, order and all. Pure.
//!
//! Never trusts itself: the new text is read again, and where it does not say what it shall, the
//! document is written anew.

use std::ops::Range;

use serde_json::{Map, Value};

use super::{
    emit,
    node::{self, Body, Entry, Node},
};

/// Puts a text in the place of a part of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub range: Range<usize>,
    pub text: String,
}

#[derive(Debug)]
pub struct Edits {
    pub edits: Vec<Edit>,
    /// The document had to be written anew: its comments are gone.
    pub anew: bool,
}

/// What to change in a text so that it says `new`; `None` where no text of ours would.
pub fn edits(text: &str, root: &Node, new: &Value) -> Option<Edits> {
    if root.value() == *new {
        return Some(Edits { edits: Vec::new(), anew: false });
    }
    let says_new = |edits: &[Edit]| {
        let read = apply(text, edits).and_then(|text| node::parse(&text).ok().flatten());
        read.is_some_and(|root| root.value() == *new)
    };
    if !matches!(root.body, Body::Mapping { flow: true, .. }) {
        let mut editor = Editor { text, edits: Vec::new() };
        editor.change(root, new, Place::Inline);
        editor.edits.sort_by_key(|edit| edit.range.start);
        if says_new(&editor.edits) {
            return Some(Edits { edits: editor.edits, anew: false });
        }
    }
    let old = &text[root.start..root.end];
    let written = match (new, &root.body) {
        (Value::Object(_), Body::Mapping { flow: true, .. }) if old.contains('\n') => {
            serde_json::to_string_pretty(new).ok()?
        }
        (Value::Object(entries), Body::Mapping { flow: false, .. }) => {
            lines(text, &emit::entry_lines(entries, 0))
        }
        _ => new.to_string(),
    };
    // JSON has no comments to lose.
    let anew = serde_json::from_str::<serde::de::IgnoredAny>(old).is_err();
    let edits = vec![Edit { range: root.start..root.end, text: written }];
    says_new(&edits).then_some(Edits { edits, anew })
}

/// The text after the edits; `None` where they meet.
pub fn apply(text: &str, edits: &[Edit]) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut done = 0;
    for edit in edits {
        result.push_str(text.get(done..edit.range.start)?);
        result.push_str(&edit.text);
        done = edit.range.end;
    }
    result.push_str(text.get(done..)?);
    Some(result)
}

/// Where a line begins that holds this byte.
pub fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |end| end + 1)
}

/// Where the next line begins, or this one, where the byte is its first.
pub fn next_line(text: &str, at: usize) -> usize {
    if at == line_start(text, at) {
        return at;
    }
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

/// The line ends of the text around.
fn lines(text: &str, written: &str) -> String {
    if text.contains("\r\n") { written.replace('\n', "\r\n") } else { written.to_owned() }
}

/// What stands around a part that is written anew.
#[derive(Clone, Copy)]
enum Place {
    /// Behind this colon, and its lines begin with so many blanks.
    Behind {
        colon: usize,
        indent: usize,
    },
    Inline,
}

struct Editor<'a> {
    text: &'a str,
    edits: Vec<Edit>,
}

impl Editor<'_> {
    fn change(&mut self, old: &Node, new: &Value, place: Place) {
        if old.value() == *new {
            return;
        }
        match (&old.body, new) {
            (Body::Mapping { flow: false, entries }, Value::Object(new))
                if entries.iter().any(|entry| new.contains_key(&entry.key)) =>
            {
                self.block_mapping(old, entries, new);
            }
            (Body::Mapping { flow: true, entries }, Value::Object(new))
                if !entries.is_empty()
                    && entries.iter().all(|entry| new.contains_key(&entry.key)) =>
            {
                self.flow_mapping(old, entries, new);
            }
            (Body::Sequence { flow: false, items }, Value::Array(new)) if !new.is_empty() => {
                self.block_sequence(items, new, place);
            }
            (Body::Sequence { flow: true, items }, Value::Array(new))
                if !items.is_empty() && !new.is_empty() =>
            {
                self.flow_sequence(old, items, new, place);
            }
            _ => self.replace(old, new, place),
        }
    }

    fn replace(&mut self, old: &Node, new: &Value, place: Place) {
        match place {
            Place::Behind { colon, indent } => {
                let written = emit::behind_key(new, indent);
                self.put(colon..self.last_line_end(old).max(colon), &written);
            }
            Place::Inline => self.put(old.start..self.last_line_end(old), &emit::inline(new)),
        }
    }

    /// Where a part ends, without the line's end where it ends with a whole line.
    fn last_line_end(&self, old: &Node) -> usize {
        let own = &self.text[old.start..old.end];
        old.start + own.strip_suffix('\n').map_or(own, |own| own.trim_end_matches('\r')).len()
    }

    fn block_mapping(&mut self, old: &Node, entries: &[Entry], new: &Map<String, Value>) {
        let first = entries.first().map_or(old.start, |entry| entry.start);
        let column = first - line_start(self.text, first);
        let mut rest = entries;
        while let [entry, behind @ ..] = rest {
            rest = behind;
            let end = end_of(entry);
            if let Some(value) = new.get(&entry.key) {
                let indent = column + 2;
                self.change(&entry.value, value, Place::Behind { colon: entry.colon, indent });
                continue;
            }
            let begin = line_start(self.text, entry.start);
            let alone = self.text[begin..entry.start].trim().is_empty();
            let stays = behind.iter().position(|entry| new.contains_key(&entry.key));
            match (stays, self.comment_behind(entry.start, end)) {
                // The dash before it stays, and all that goes with it goes at once.
                (Some(stays), _) if !alone => {
                    let gone = &entries[entries.len() - behind.len() - 1..][..=stays];
                    let next = behind[stays].start;
                    let comments = self.comments(gone, next, column);
                    self.put(entry.start..next, &comments);
                    rest = &behind[stays..];
                }
                // What people wrote beside it is theirs.
                (_, Some(comment)) => self.put(entry.start..comment, ""),
                _ => self.put(begin..next_line(self.text, end), ""),
            }
        }
        let added = added(old, entries, new);
        if !added.is_empty() {
            self.insert(next_line(self.text, old.end), &emit::entry_lines(&added, column));
        }
    }

    fn flow_mapping(&mut self, old: &Node, entries: &[Entry], new: &Map<String, Value>) {
        for entry in entries {
            self.change(&entry.value, &new[&entry.key], Place::Inline);
        }
        let added = added(old, entries, new);
        let end = entries.last().map_or(old.start, |last| last.value.end.max(last.colon));
        if !added.is_empty() {
            let written = emit::inline(&Value::Object(added));
            self.put(end..end, &format!(", {}", &written[1..written.len() - 1]));
        }
    }

    /// As in a block, where the same number of items goes and comes, or only one of both.
    fn flow_sequence(&mut self, old: &Node, items: &[Node], new: &[Value], place: Place) {
        let (gone, come) = difference(items, new);
        if !gone.is_empty() && !come.is_empty() && gone.len() != come.len() {
            self.replace(old, &Value::from(new.to_vec()), place);
            return;
        }
        let stays = |index: &usize| !gone.contains(index) || !come.is_empty();
        for index in (0..items.len()).filter(stays) {
            let at = if index < gone.end { index } else { new.len() - (items.len() - index) };
            self.change(&items[index], &new[at], Place::Inline);
        }
        let next = items.get(gone.end).map(|item| item.start);
        let before = gone.start.checked_sub(1).map(|last| items[last].end);
        if come.is_empty() && !gone.is_empty() {
            let begin = if next.is_some() { None } else { before };
            let begin = begin.unwrap_or(items[gone.start].start);
            self.put(begin..next.unwrap_or(items[gone.end - 1].end), "");
        } else if gone.is_empty() && !come.is_empty() {
            let written: Vec<String> = new[come].iter().map(emit::inline).collect();
            let written = written.join(", ");
            match (next, before) {
                (Some(next), _) => self.put(next..next, &format!("{written}, ")),
                (None, Some(before)) => self.put(before..before, &format!(", {written}")),
                (None, None) => self.replace(old, &Value::from(new.to_vec()), place),
            }
        }
    }

    /// Items that are alike at both ends are changed in place; what is between goes, or comes.
    fn block_sequence(&mut self, items: &[Node], new: &[Value], place: Place) {
        let (gone, range) = difference(items, new);
        let (before, come) = (gone.start, &new[range]);
        let pairs = gone.len().min(come.len());
        let Some(dash) = items.first().and_then(|first| self.dash(first)) else {
            return;
        };
        let column = dash - line_start(self.text, dash);
        for (index, item) in items.iter().enumerate() {
            if index < before + pairs {
                self.change(item, &new[index], Place::Inline);
            } else if index >= gone.end {
                self.change(item, &new[new.len() - (items.len() - index)], Place::Inline);
            } else if let Some(dash) = self.dash(item) {
                let range = line_start(self.text, dash)..next_line(self.text, item.end);
                self.put(range, "");
            }
        }
        if come.len() > pairs {
            let at = match (before + pairs).checked_sub(1) {
                Some(previous) => next_line(self.text, items[previous].end),
                None => match place {
                    Place::Behind { colon, .. } => next_line(self.text, colon),
                    Place::Inline => line_start(self.text, dash),
                },
            };
            self.insert(at, &emit::item_lines(&come[pairs..], column));
        }
    }

    /// What people wrote beside and below entries that stand one below the other, the next of which
    /// begins there: each on a line of its own, the next entry behind it.
    fn comments(&self, entries: &[Entry], next: usize, column: usize) -> String {
        let begins = entries.iter().skip(1).map(|entry| entry.start).chain([next]);
        let gaps = entries.iter().zip(begins).map(|(entry, next)| &self.text[end_of(entry)..next]);
        let comments = gaps.flat_map(str::lines).filter_map(|line| Some(&line[line.find('#')?..]));
        let behind = format!("\n{}", " ".repeat(column));
        comments.flat_map(|comment| [comment, &behind]).collect()
    }

    /// Where a comment begins behind what stands in one line.
    fn comment_behind(&self, start: usize, end: usize) -> Option<usize> {
        let line = self.text[start..].split('\n').next()?;
        let behind = line.get(end - start..)?;
        let blanks = behind.len() - behind.trim_start().len();
        (blanks > 0 && behind[blanks..].starts_with('#')).then_some(end + blanks)
    }

    /// The dash before an item; comments may stand between.
    fn dash(&self, item: &Node) -> Option<usize> {
        let mut end = item.start;
        loop {
            let begin = line_start(self.text, end);
            let line = &self.text.as_bytes()[begin..end];
            let is_comment =
                |at: &usize| line[*at] == b'#' && (*at == 0 || line[*at - 1].is_ascii_whitespace());
            let code = (0..line.len()).find(is_comment).unwrap_or(line.len());
            let is_dash = |at: &usize| {
                line[*at] == b'-' && line.get(at + 1).is_none_or(u8::is_ascii_whitespace)
            };
            if let Some(at) = (0..code).rev().find(is_dash) {
                return Some(begin + at);
            }
            end = begin.checked_sub(1)?;
        }
    }

    /// Whole lines, without the last one's end.
    fn insert(&mut self, at: usize, written: &str) {
        let at_end = at == self.text.len() && !self.text.ends_with('\n');
        let written = if at_end { format!("\n{written}") } else { format!("{written}\n") };
        self.put(at..at, &written);
    }

    fn put(&mut self, range: Range<usize>, written: &str) {
        self.edits.push(Edit { range, text: lines(self.text, written) });
    }
}

/// Where an entry ends.
fn end_of(entry: &Entry) -> usize {
    entry.value.end.max(entry.colon)
}

/// What the text does not say yet, be it by a merge.
fn added(old: &Node, entries: &[Entry], new: &Map<String, Value>) -> Map<String, Value> {
    let said = old.value();
    let is_new = |(key, value): &(&String, &Value)| {
        !entries.iter().any(|entry| entry.key == **key) && said.get(key) != Some(value)
    };
    new.iter().filter(is_new).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Which items go, and which come in their place: those at both ends that are alike stay.
fn difference(items: &[Node], new: &[Value]) -> (Range<usize>, Range<usize>) {
    let old: Vec<Value> = items.iter().map(Node::value).collect();
    let most = old.len().min(new.len());
    let alike = |pair: &(&Value, &Value)| are_alike(pair.0, pair.1);
    let before = old.iter().zip(new).take_while(alike).count();
    let after = old.iter().rev().zip(new.iter().rev()).take_while(alike).count();
    let after = after.min(most - before);
    (before..items.len() - after, before..new.len() - after)
}

/// Whether two items are the same thing, perhaps changed.
fn are_alike(old: &Value, new: &Value) -> bool {
    let name = |value: &Value| value.get("name").cloned();
    old == new || (name(old).is_some() && name(old) == name(new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn changed(text: &str, change: impl FnOnce(&mut Value)) -> (String, bool) {
        let root = node::parse(text).unwrap().unwrap();
        let mut value = root.value();
        change(&mut value);
        let edits = edits(text, &root, &value).unwrap();
        let after = apply(text, &edits.edits).unwrap();
        assert_eq!(node::parse(&after).unwrap().unwrap().value(), value, "{after}");
        (after, edits.anew)
    }

    const TEXT: &str = "# head\nspec: # of it\n  # the list\n  containers:\n  # ours\n  - name: a   # first\n    mode: 0644\n  - {name: 'b', port: x}\n\n  # end of spec\n";

    #[test]
    fn what_is_not_changed_stays_as_it_was_written() {
        for (change, from, to) in [
            (
                (|value| value["spec"]["grace"] = json!(60)) as fn(&mut Value),
                "port: x}\n",
                "port: x}\n  grace: 60\n",
            ),
            (|value| value["spec"]["containers"][1]["port"] = json!(3000), "port: x", "port: 3000"),
            (
                |value| value["spec"]["containers"][1]["on"] = json!("a"),
                "port: x",
                "port: x, \"on\": a",
            ),
            (
                |value| {
                    let list = value["spec"]["containers"].as_array_mut().unwrap();
                    list.insert(0, json!({"name": "z", "args": ["1"]}));
                },
                "  containers:\n",
                "  containers:\n  - name: z\n    args:\n      - \"1\"\n",
            ),
            (
                |value| {
                    value["spec"]["containers"][0].as_object_mut().unwrap().remove("mode");
                },
                "    mode: 0644\n",
                "",
            ),
            (
                |value| {
                    value["spec"]["containers"][0].as_object_mut().unwrap().remove("name");
                },
                "name: a   # first\n    mode",
                "# first\n    mode",
            ),
            (
                |value| {
                    value["spec"]["containers"].as_array_mut().unwrap().remove(1);
                },
                "  - {name: 'b', port: x}\n",
                "",
            ),
        ] {
            let (after, anew) = changed(TEXT, change);
            assert_eq!(after, TEXT.replacen(from, to, 1));
            assert!(!anew);
            let (after, _) = changed(&TEXT.replace('\n', "\r\n"), change);
            assert_eq!(after, TEXT.replacen(from, to, 1).replace('\n', "\r\n"));
        }
    }

    /// A port gives its name and its host port to the sidecar's, wherever they stand.
    #[test]
    fn what_goes_first_in_an_item_leaves_the_comments_about_it() {
        for (text, expected) in [
            ("p:\n- name: a\n  # below\n  port: 1\n", "p:\n- # below\n  port: 1\n"),
            ("p:\n- name: a\n  host: 2\n  port: 1\n", "p:\n- port: 1\n"),
            ("p:\n- host: 2\n  name: a\n  port: 1\n", "p:\n- port: 1\n"),
            (
                "p:\n- name: a # b-e\n  host: 2\n  # two\n\n  # three\n  port: 1\n",
                "p:\n- # b-e\n  # two\n  # three\n  port: 1\n",
            ),
            ("p:\n- port: 1\n  name: a\n  host: 2\n", "p:\n- port: 1\n"),
        ] {
            for text in [text.to_owned(), text.replace('\n', "\r\n")] {
                let (after, anew) = changed(&text, |value| value["p"][0] = json!({"port": 1}));
                assert_eq!(after.replace("\r\n", "\n"), expected);
                assert!(!anew);
            }
        }
    }

    #[test]
    fn a_dash_in_a_comment_is_none() {
        let text = "p:\n- # the server - main\n  # - and more\n  name: a\n- name: b\n";
        let (after, anew) = changed(text, |value| {
            value["p"].as_array_mut().unwrap().insert(0, json!({"name": "z"}));
        });
        assert_eq!(after, text.replacen("p:\n", "p:\n- name: z\n", 1));
        assert!(!anew);
        let (after, _) = changed(text, |value| {
            value["p"].as_array_mut().unwrap().remove(0);
        });
        assert_eq!(after, "p:\n- name: b\n");
    }

    #[test]
    fn a_list_between_brackets_keeps_its_comments() {
        let text = "p: [\n  # big\n  {name: a}, # one\n  {name: b, mode: 0640},\n] # why\n";
        let item = json!({"name": "z", "on": "a"});
        for (at, from, to) in [
            (0, "{name: a}", "{name: z, \"on\": a}, {name: a}"),
            (1, "{name: b", "{name: z, \"on\": a}, {name: b"),
            (2, "0640}", "0640}, {name: z, \"on\": a}"),
        ] {
            let (after, anew) = changed(text, |value| {
                value["p"].as_array_mut().unwrap().insert(at, item.clone());
            });
            assert_eq!(after, text.replacen(from, to, 1));
            assert!(!anew);
            let (back, anew) = changed(&after, |value| {
                value["p"].as_array_mut().unwrap().remove(at);
            });
            assert_eq!(back, text);
            assert!(!anew);
        }
        let (after, _) = changed(text, |value| value["p"] = json!([{"name": "b", "mode": 416}]));
        assert_eq!(after, "p: [\n  # big\n  {name: b, mode: 0640},\n] # why\n");
        let (after, _) = changed(text, |value| value["p"] = json!([{"name": "a"}]));
        assert_eq!(after, "p: [\n  # big\n  {name: a},\n] # why\n");
    }

    /// The blank lines below it belong to a text that keeps them.
    #[test]
    fn what_stands_below_a_text_that_keeps_its_blank_lines() {
        let text = "spec: # of it\n  a:\n  - b: |+\n      x\n\n\n  # c\n  d: >+\n\n\n  e: 1\n";
        for text in [text.to_owned(), text.replace('\n', "\r\n")] {
            let (after, anew) = changed(&text, |value| value["spec"]["a"][0]["c"] = json!(1));
            assert!(!anew && after.contains("# of it"), "{after}");
            let (after, anew) = changed(&text, |value| {
                value["spec"]["a"].as_array_mut().unwrap().push(json!({"b": 2}));
                value["spec"]["d"] = json!(5);
            });
            assert!(!anew && after.contains("# c") && after.contains("  d: 5"), "{after}");
            let (after, anew) = changed(&text, |value| value["spec"]["a"][0]["b"] = json!(1));
            assert!(!anew && after.contains("  - b: 1"), "{after}");
            let (after, anew) = changed(&text, |value| {
                value["spec"]["a"][0] = json!({"f": 1});
                value["spec"].as_object_mut().unwrap().remove("d");
            });
            assert!(!anew && after.contains("# c"), "{after}");
        }
    }

    #[test]
    fn keys_with_anchors() {
        let text = "# head\n&s spec:\n  &l list:\n  - name: &n a # first\n    *n : 2\n";
        let (after, anew) = changed(text, |value| {
            value["spec"]["list"].as_array_mut().unwrap().insert(0, json!({"name": "z"}));
            value["spec"]["more"] = json!(1);
        });
        assert!(!anew, "{after}");
        assert!(
            after.starts_with("# head\n&s spec:\n  &l list:\n  - name: z\n  - name: &n a # first"),
            "{after}"
        );
    }

    #[test]
    fn where_the_text_cannot_be_mended_it_is_written_anew() {
        let text = "a: &x # comment\n  b: 1\nc: *x\n";
        let (after, anew) = changed(text, |value| value["a"]["b"] = json!(2));
        assert!(anew && after.contains("c:\n  b: 1"), "{after}");
        let (after, anew) = changed(text, |value| value["c"]["b"] = json!(2));
        assert!(!anew && after.starts_with("a: &x # comment\n  b: 1\nc:"), "{after}");
        let (after, anew) = changed("{\"a\": {\n\"b\": 1}}\n", |value| value["c"] = json!(1));
        assert_eq!(
            (after.as_str(), anew),
            ("{\n  \"a\": {\n    \"b\": 1\n  },\n  \"c\": 1\n}\n", false)
        );
    }

    #[test]
    fn a_text_without_a_last_line_end_keeps_so() {
        let (after, _) = changed("a:\n  b: 1", |value| value["a"]["c"] = json!(2));
        assert_eq!(after, "a:\n  b: 1\n  c: 2");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (0..3_u8).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
            Just(json!("a\nb\n")),
            Just(Value::Null)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("name|[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_can_be_made_to_say_anything(old in values(), new in values(), flow: bool) {
            let (old, new) = (json!({ "k": old, "l": 1 }), json!({ "k": new, "l": 1 }));
            let text = if flow {
                format!("k: {}\nl: 1\n", emit::inline(&old["k"]))
            } else {
                format!("{}\n", emit::entry_lines(old.as_object().unwrap(), 0))
            };
            let (_, anew) = changed(&text, |value| *value = new.clone());
            prop_assert!(!anew || !flow, "{}", text);
        }
    }
}
