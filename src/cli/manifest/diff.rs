//! Edits of a text as a unified diff. Pure.

use std::{fmt::Write as _, ops::Range};

use super::edit::{Edit, line_start, next_line};

const CONTEXT: usize = 3;

/// Lines that go, by number from 0, and the lines that come in their place.
struct Change<'a> {
    gone: Range<usize>,
    come: Vec<&'a str>,
}

/// What `diff -u` would say of a text and what the edits make of it. The edits are in order.
pub fn unified(name: &str, text: &str, edits: &[Edit]) -> String {
    let whole = whole_lines(text, edits);
    if whole.is_empty() {
        return String::new();
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let changes: Vec<Change> = whole.iter().map(|edit| change(text, &lines, edit)).collect();
    let mut result = format!("--- {name}\n+++ {name} (injected)\n");
    let mut grown: isize = 0;
    let mut rest = changes.as_slice();
    while let Some(first) = rest.first() {
        let near = |pair: &[Change]| pair[1].gone.start - pair[0].gone.end <= 2 * CONTEXT;
        let count = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (hunk, later) = rest.split_at(count);
        rest = later;
        let from = first.gone.start.saturating_sub(CONTEXT);
        let to = (hunk[count - 1].gone.end + CONTEXT).min(lines.len());
        let growth =
            |change: &Change| change.come.len().cast_signed() - change.gone.len().cast_signed();
        let grows: isize = hunk.iter().map(growth).sum();
        let length = (to - from).cast_signed() + grows;
        let start = from.cast_signed() + grown + 1;
        let _ = writeln!(result, "@@ -{},{} +{start},{length} @@", from + 1, to - from);
        grown += grows;
        let mut at = from;
        for change in hunk {
            put(&mut result, ' ', &lines[at..change.gone.start]);
            put(&mut result, '-', &lines[change.gone.clone()]);
            put(&mut result, '+', &change.come);
            at = change.gone.end;
        }
        put(&mut result, ' ', &lines[at..to]);
    }
    result
}

fn put(result: &mut String, sign: char, lines: &[&str]) {
    for line in lines {
        let _ = write!(result, "{sign}{line}");
        if !line.ends_with('\n') {
            result.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// The edits widened to whole lines, those that share a line as one.
fn whole_lines(text: &str, edits: &[Edit]) -> Vec<Edit> {
    let mut whole: Vec<Edit> = Vec::new();
    // Where the text of the last one is taken from the old text again.
    let mut done = 0;
    for edit in edits {
        let start = line_start(text, edit.range.start);
        let end = next_line(text, edit.range.end);
        match whole.last_mut() {
            Some(last) if start < last.range.end => {
                let tail = last.range.end - done;
                last.text.truncate(last.text.len() - tail);
                last.text += &text[done..edit.range.start];
                last.text += &edit.text;
                last.text += &text[edit.range.end..end.max(last.range.end)];
                last.range.end = end.max(last.range.end);
            }
            _ => whole.push(Edit {
                range: start..end,
                text: text[start..edit.range.start].to_owned()
                    + &edit.text
                    + &text[edit.range.end..end],
            }),
        }
        done = edit.range.end;
    }
    whole
}

fn change<'a>(text: &str, lines: &[&str], edit: &'a Edit) -> Change<'a> {
    let start = text[..edit.range.start].matches('\n').count();
    let mut come: Vec<&str> = edit.text.split_inclusive('\n').collect();
    let old = text[edit.range.clone()].split_inclusive('\n').count();
    let mut gone = start.min(lines.len())..(start + old).min(lines.len());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let before = lines[gone.clone()].iter().zip(&come).take_while(same).count();
    gone.start += before;
    come.drain(..before);
    let after = lines[gone.clone()].iter().rev().zip(come.iter().rev()).take_while(same).count();
    gone.end -= after;
    come.truncate(come.len() - after);
    Change { gone, come }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_like_diff() {
        let text = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk: 1, 2\nl";
        let at = text.find("1, 2").unwrap();
        let edits = [
            Edit { range: 2..2, text: "new\n".into() },
            Edit { range: at..at + 1, text: "one".into() },
            Edit { range: at + 3..at + 4, text: "two".into() },
            Edit { range: text.len()..text.len(), text: "\nm".into() },
        ];
        let expected = "--- f\n+++ f (injected)\n@@ -1,4 +1,5 @@\n a\n+new\n b\n c\n d\n@@ -8,5 +9,6 @@\n h\n i\n j\n-k: 1, 2\n+k: one, two\n-l\n\\ No newline at end of file\n+l\n+m\n\\ No newline at end of file\n";
        assert_eq!(unified("f", text, &edits), expected);
        assert_eq!(unified("f", text, &[]), "");
    }
}
