//! Kubernetes manifests as people write them: many documents in one text, read with line numbers
//! and changed without touching the rest. Pure.

pub mod diff;
pub mod edit;
mod emit;
pub mod node;

use std::{fmt, ops::Range};

use serde_json::Value;

use self::node::{Body, Node};

/// One document of a text.
#[derive(Debug)]
pub struct Document<'a> {
    pub text: &'a str,
    /// Where it begins in the whole text, in bytes, and in which line.
    pub offset: usize,
    pub line: usize,
    /// From 1, counted by those that say something.
    pub number: usize,
    pub root: Node,
}

/// An object of a document: the document itself, or an item of its List.
#[derive(Debug, Clone)]
pub struct Object {
    pub document: usize,
    /// Where it stands in the document, as a JSON pointer.
    pub pointer: String,
    pub value: Value,
}

/// A text that is no manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub document: usize,
    pub line: usize,
    pub problem: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "document {}, line {}: {}", self.document, self.line, self.problem)?;
        if self.problem.contains("{{") {
            write!(out, "; a template is rendered first, as in `helm template`")?;
        }
        if self.problem.contains('\u{feff}') {
            write!(out, "; its invisible first character, U+FEFF, has no place there")?;
        }
        Ok(())
    }
}

/// Reads all documents of a text.
pub fn read(text: &str) -> Result<Vec<Document<'_>>, Unreadable> {
    if text.contains('\r') && !text.contains('\n') {
        return Err(Unreadable { document: 1, line: 1, problem: LONE_RETURN.into() });
    }
    let mut documents = Vec::new();
    let mut line = 1;
    let mut offset = 0;
    for part in split(text) {
        let number = documents.len() + 1;
        let root = node::parse(part).map_err(|broken| {
            let said = part.lines().nth(broken.line.saturating_sub(1)).unwrap_or_default().trim();
            let said: String = said.chars().take(80).collect();
            let problem = format!("{}: `{said}`", broken.problem);
            Unreadable { document: number, line: line + broken.line - 1, problem }
        })?;
        if let Some(at) = lone_return(part, root.as_ref()) {
            let line = line + part[..at].matches('\n').count();
            return Err(Unreadable { document: number, line, problem: LONE_RETURN.into() });
        }
        if let Some(root) = &root
            && matches!(root.body, Body::Sequence { .. })
        {
            let line = line + root.line - 1;
            return Err(Unreadable { document: number, line, problem: SEQUENCE.into() });
        }
        // `---` alone says nothing.
        if let Some(root) = root.filter(|root| !matches!(root.body, Body::Scalar(Value::Null))) {
            documents.push(Document { text: part, offset, line, number, root });
        }
        line += part.matches('\n').count();
        offset += part.len();
    }
    Ok(documents)
}

const LONE_RETURN: &str = "a carriage return alone ends this line: expected line ends as on Unix or \
                           Windows; `tr '\\r' '\\n'` makes them so";
const SEQUENCE: &str = "a list, where a document is one object: part them by `---`, or make them the \
                        `items` of a `kind: List`";

/// Where a line ends with a carriage return alone, as no reader but YAML's own takes it: what is
/// cut and changed by lines would not be what it seems. Within a text it does no harm.
fn lone_return(text: &str, root: Option<&Node>) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut all = text.match_indices('\r').map(|(at, _)| at);
    let mut lone = all.by_ref().filter(|at| bytes.get(at + 1) != Some(&b'\n')).peekable();
    lone.peek()?;
    let mut texts = Vec::new();
    if let Some(root) = root {
        spans(root, &mut texts);
    }
    lone.find(|at| {
        let before = texts.partition_point(|span: &Range<usize>| span.start <= *at);
        !before.checked_sub(1).is_some_and(|found| texts[found].contains(at))
    })
}

/// Where texts stand, in order.
fn spans(node: &Node, found: &mut Vec<Range<usize>>) {
    match &node.body {
        Body::Scalar(_) => found.push(node.start..node.end),
        Body::Alias(_) => {}
        Body::Sequence { items, .. } => {
            for item in items {
                spans(item, found);
            }
        }
        Body::Mapping { entries, .. } => {
            for entry in entries {
                spans(&entry.value, found);
            }
        }
    }
}

/// The objects of all documents, those of Lists one by one.
pub fn objects(documents: &[Document<'_>]) -> Vec<Object> {
    let mut objects = Vec::new();
    for (document, found) in documents.iter().enumerate() {
        collect(document, String::new(), found.root.value(), &mut objects);
    }
    objects
}

/// An object, or, as kubectl does it, those of a List, also of one that is in another.
fn collect(document: usize, pointer: String, mut value: Value, objects: &mut Vec<Object>) {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => {
            for (index, item) in items.into_iter().enumerate() {
                collect(document, format!("{pointer}/items/{index}"), item, objects);
            }
        }
        items => {
            if let (Some(items), Some(place)) = (items, value.get_mut("items")) {
                *place = items;
            }
            objects.push(Object { document, pointer, value });
        }
    }
}

impl Object {
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// As kubectl names it.
    pub fn title(&self) -> String {
        let metadata = &self.value["metadata"];
        let name = metadata["name"].as_str().or(metadata["generateName"].as_str());
        format!("{}/{}", self.kind(), name.unwrap_or("(without a name)"))
    }

    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }
}

/// Cuts a text where documents begin and end: at `---` and `...` at the start of a line, which
/// can be nothing else there.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut at = 0;
    // What there was since the last cut.
    let (mut has_directive, mut has_more) = (false, false);
    for line in text.split_inclusive('\n') {
        let marks = |mark: &str| {
            line.strip_prefix(mark)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        // A directive belongs to what it stands before.
        let only_directives = has_directive && !has_more;
        if marks("---") && !only_directives && at > begin {
            parts.push(&text[begin..at]);
            (begin, has_directive, has_more) = (at, false, false);
        }
        has_directive |= line.starts_with('%');
        has_more |= !line.trim().is_empty() && !line.starts_with(['#', '%']);
        at += line.len();
        if marks("...") {
            parts.push(&text[begin..at]);
            (begin, has_directive, has_more) = (at, false, false);
        }
    }
    parts.push(&text[begin..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart() {
        let text =
            "# head\n---\na: 1\n--- # second\nb: |\n  --- x\n...\n%YAML 1.2\n---\nc: 3\n---\n---\n";
        let documents = read(text).unwrap();
        let found: Vec<_> = documents
            .iter()
            .map(|found| (found.number, found.line, found.root.value().to_string()))
            .collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[1], (2, 4, r#"{"b":"--- x\n"}"#.to_owned()));
        assert_eq!(found[2].2, r#"{"c":3}"#);
        assert_eq!(split(text).concat(), text);
    }

    #[test]
    fn errors_name_document_and_line() {
        let error = read("a: 1\n---\nb: 2\nc: {{ .Values.c }}\n").unwrap_err().to_string();
        assert!(error.starts_with("document 2, line 4: "), "{error}");
        assert!(error.contains("helm template"), "{error}");
        for (text, place, problem) in [
            ("a: 1\n---\n# it\n- kind: Pod\n", "document 2, line 4: ", "a list, where"),
            ("[{\"kind\": \"Pod\"}]", "document 1, line 1: ", "a list, where"),
            ("# head\rkind: Pod\r", "document 1, line 1: ", "carriage return"),
            ("a: 1\n---\nb: 2\nkind: Pod\rspec: {}\n", "document 2, line 4: ", "carriage return"),
            ("a: 1\n---\n# b\rc: 1\n", "document 2, line 3: ", "carriage return"),
            ("a: 1\r---\rb: 1\n", "document 1, line 1: ", "carriage return"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with(place) && error.contains(problem), "{text:?}: {error}");
        }
        assert!(read("a: |\n  10 %\r  20 %\nb: \"x\r  y\"\r\n").is_ok());
    }
}
