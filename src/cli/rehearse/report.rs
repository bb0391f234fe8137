//! What a rehearsal says at its end: the table, the lost calls, the verdict. Pure: data in, text out.
//!
//! Never calls a rehearsal clean that did not look: an era without one answer proves nothing.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::histogram::{Histogram, seconds};
use crate::cli::{
    load::{
        ledger::{Call, Record},
        outcome::{Era, Saw},
    },
    pen::{Colour, Pen},
};

pub struct Report {
    pub url: String,
    pub began_at: Timestamp,
    pub took: Duration,
    /// Of which clients called.
    pub eras: Vec<Era>,
    pub record: Record,
    /// What kept the rehearsal from going as it was asked for.
    pub trouble: Option<String>,
}

/// A row of the table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    calls: usize,
    /// Answered with an error of the server's own.
    errors: usize,
    lost: usize,
    hung: usize,
    /// Of the answers.
    slowest: Duration,
}

impl Row {
    fn add(&mut self, call: &Call) {
        self.calls += 1;
        self.errors += usize::from(call.error.is_some());
        match &call.lost {
            None => self.slowest = self.slowest.max(call.took),
            Some(saw) => {
                self.lost += 1;
                self.hung += usize::from(saw.hangs());
            }
        }
    }

    fn ok(&self) -> usize {
        self.calls - self.errors - self.lost
    }

    fn json(&self) -> Value {
        json!({
            "calls": self.calls,
            "ok": self.ok(),
            "errors": self.errors,
            "lost": self.lost,
            "hung": self.hung,
            "slowest_seconds": self.slowest.as_secs_f64(),
        })
    }
}

impl Report {
    /// Whether no call and no session was lost, and enough was seen to say so.
    pub fn is_clean(&self) -> bool {
        self.trouble.is_none()
            && self.record.lost == 0
            && self.record.sessions.lost == 0
            && self.record.unfinished == 0
            && self.silent_eras().next().is_none()
    }

    pub fn page(&self, colour: bool) -> String {
        let pen = Pen(colour);
        let mut page = format!("\n  {} for {}\n\n", self.url, seconds(self.took));
        page += &self.table(&pen);
        page += &self.counts();
        let times = self.times();
        if let (Some(half), Some(most)) = (times.within(500), times.within(990)) {
            let _ = writeln!(
                page,
                "\n  answers: half within {}, 99 % within {}\n{}",
                seconds(half),
                seconds(most),
                times.bars().trim_end()
            );
        }
        page += &self.lost(&pen);
        let paint = if self.is_clean() { Colour::Green } else { Colour::Red };
        let _ = writeln!(page, "\n  {}", pen.paint(paint, &self.verdict()));
        page
    }

    pub fn json(&self) -> Value {
        let rows = self.rows();
        let table = rows.iter().map(|((era, kind), row)| {
            let mut value = row.json();
            value["era"] = era.name().into();
            value["call"] = (*kind).into();
            value
        });
        let times = self.times();
        let within = |share| times.within(share).map(|time| time.as_secs_f64());
        let Record { sessions, streams, .. } = &self.record;
        let lost = self.record.calls.iter().filter(|call| call.lost.is_some());
        json!({
            "url": self.url,
            "began_at": self.began_at.to_string(),
            "seconds": self.took.as_secs_f64(),
            "clean": self.is_clean(),
            "verdict": self.verdict(),
            "trouble": self.trouble,
            "total": self.total().json(),
            "unfinished": self.record.unfinished,
            "table": table.collect::<Vec<_>>(),
            "sessions": {
                "opened": sessions.opened, "held": sessions.held(), "lost": sessions.lost,
                "refused": sessions.refused,
            },
            "streams": {
                "opened": streams.opened, "ended": streams.ended, "broken": streams.broken,
                "came_back": streams.came_back, "given_up": streams.given_up,
            },
            "pods": self.pods(),
            "latency": { "p50_seconds": within(500), "p99_seconds": within(990), "classes": times.json() },
            "lost": lost.map(|call| self.call_json(call)).collect::<Vec<_>>(),
            "calls": self.record.calls.iter().map(|call| self.call_json(call)).collect::<Vec<_>>(),
        })
    }

    /// The whole in one sentence, or as many as there are reasons for a no.
    fn verdict(&self) -> String {
        let Row { calls, errors, lost, hung, .. } = self.total();
        let sessions = &self.record.sessions;
        let mut reasons = Vec::new();
        if lost > 0 {
            let hung = match hung {
                0 => String::new(),
                hung => format!(", {hung} of them without the client being told"),
            };
            reasons.push(format!("{lost} of {calls} calls were lost{hung}."));
        }
        if sessions.lost > 0 {
            reasons.push(format!(
                "{} of {} sessions were lost: the server did not know them any more, and most real \
                 clients open no other, so that every later call of theirs fails.",
                sessions.lost, sessions.opened
            ));
        }
        if self.record.unfinished > 0 {
            reasons.push(format!(
                "{} calls were under way when the rehearsal was broken off; what became of them \
                 is not known.",
                self.record.unfinished
            ));
        }
        for era in self.silent_eras() {
            let (version, other) = match era {
                Era::Modern => ("2026-07-28", Era::Legacy),
                Era::Legacy => ("2025-11-25", Era::Modern),
            };
            let error = self.errors().find(|(call, _)| call.era == era);
            let but = match error {
                None => String::new(),
                Some((call, saw)) => format!(" with a result, but {} with {saw}", call.kind),
            };
            reasons.push(format!(
                "No call of a {} client was answered{but}: is this the server's URL, and does it \
                 speak {version}? `--era {}` leaves these clients out.",
                era.name(),
                other.name()
            ));
        }
        if let Some(trouble) = &self.trouble {
            reasons.push(format!("This proves nothing: {trouble}."));
        }
        if reasons.is_empty() {
            let sessions = match sessions.opened {
                0 => String::new(),
                opened => format!(", and none of {opened} sessions"),
            };
            let errors = match errors {
                0 => String::new(),
                errors => format!(" {errors} were answered with an error of the server's own."),
            };
            return format!("None of {calls} calls was lost{sessions}.{errors}");
        }
        reasons.join("\n  ")
    }

    /// The calls that were answered with an error of the server's own.
    fn errors(&self) -> impl Iterator<Item = (&Call, &Saw)> {
        self.record.calls.iter().filter_map(|call| Some((call, call.error.as_ref()?)))
    }

    /// Eras of which no call was answered.
    fn silent_eras(&self) -> impl Iterator<Item = Era> {
        self.eras.iter().copied().filter(|era| !self.record.has_answered(*era))
    }

    fn rows(&self) -> BTreeMap<(Era, &str), Row> {
        let mut rows = BTreeMap::<_, Row>::new();
        for call in &self.record.calls {
            rows.entry((call.era, &*call.kind)).or_default().add(call);
        }
        rows
    }

    fn total(&self) -> Row {
        let mut total = Row::default();
        self.record.calls.iter().for_each(|call| total.add(call));
        total
    }

    fn times(&self) -> Histogram {
        let answered = self.record.calls.iter().filter(|call| call.lost.is_none());
        Histogram::of(answered.map(|call| call.took))
    }

    /// How many calls each pod answered, as far as the answers told.
    fn pods(&self) -> BTreeMap<&str, usize> {
        let mut pods = BTreeMap::new();
        for pod in self.record.calls.iter().filter_map(|call| call.pod.as_deref()) {
            *pods.entry(pod).or_default() += 1;
        }
        pods
    }

    fn table(&self, pen: &Pen) -> String {
        let rows = self.rows();
        let width = rows.keys().map(|(_, kind)| kind.chars().count()).max().unwrap_or(0).max(10);
        let mut text = format!(
            "  {:<7} {:<width$} {:>8} {:>8} {:>6} {:>6} {:>6} {:>8}\n",
            "era", "call", "calls", "ok", "errors", "lost", "hung", "slowest"
        );
        let mut line = |era: &str, kind: &str, row: &Row| {
            let bad = |count: usize| match count {
                0 => format!("{count:>6}"),
                _ => pen.paint(Colour::Red, &format!("{count:>6}")),
            };
            let _ = writeln!(
                text,
                "  {era:<7} {kind:<width$} {:>8} {:>8} {:>6} {} {} {:>8}",
                row.calls,
                row.ok(),
                row.errors,
                bad(row.lost),
                bad(row.hung),
                if row.lost < row.calls { seconds(row.slowest) } else { "-".into() }
            );
        };
        for ((era, kind), row) in &rows {
            line(era.name(), kind, row);
        }
        line("all", "", &self.total());
        text
    }

    fn counts(&self) -> String {
        let Record { sessions, streams, .. } = &self.record;
        let mut text = String::new();
        if self.eras.contains(&Era::Legacy) {
            let _ = writeln!(
                text,
                "\n  sessions: {} opened, {} held, {} lost; {} times refused with 503 and asked for again",
                sessions.opened,
                sessions.held(),
                sessions.lost,
                sessions.refused
            );
            let _ = writeln!(
                text,
                "  stand-alone streams: {} opened, {} ended by the server, {} broken off, {} came \
                 back, {} given up",
                streams.opened, streams.ended, streams.broken, streams.came_back, streams.given_up
            );
        }
        if let Some((call, saw)) = self.errors().next() {
            let _ = writeln!(
                text,
                "  errors of the server's own, which are answers: the first of {} was {} {}: {saw}",
                self.total().errors,
                call.kind,
                call.id
            );
        }
        let pods = self.pods();
        if !pods.is_empty() {
            let pods: Vec<_> = pods.iter().map(|(pod, calls)| format!("{pod} {calls}")).collect();
            let _ = writeln!(text, "  answers by pod: {}", pods.join(", "));
        }
        text
    }

    fn lost(&self, pen: &Pen) -> String {
        let mut text = String::new();
        // They are noted in the order of their ends, which a hang puts off.
        let mut lost: Vec<&Call> = self.record.calls.iter().collect();
        lost.sort_by_key(|call| call.started);
        for call in lost {
            let Some(saw) = &call.lost else { continue };
            if text.is_empty() {
                text += "\n  lost calls: when (UTC), how long it took, which, who answered, what the client saw\n";
            }
            let pod = call.pod.as_deref().map(|pod| format!(" {pod}")).unwrap_or_default();
            let hung = if saw.hangs() { " (hung)" } else { "" };
            let _ = writeln!(
                text,
                "  {} {:>7}  {} {} {}{pod}: {}",
                self.at(call).strftime("%H:%M:%S%.3f"),
                seconds(call.took),
                call.era.name(),
                call.kind,
                call.id,
                pen.paint(Colour::Yellow, &format!("{saw}{hung}"))
            );
        }
        text
    }

    fn at(&self, call: &Call) -> Timestamp {
        // Only a clock far outside of our time is out of range.
        self.began_at.checked_add(call.started).unwrap_or(self.began_at)
    }

    fn call_json(&self, call: &Call) -> Value {
        let lost = call.lost.as_ref();
        let saw = lost.or(call.error.as_ref());
        json!({
            "at": self.at(call).to_string(),
            "seconds_since_start": call.started.as_secs_f64(),
            "took_seconds": call.took.as_secs_f64(),
            "era": call.era.name(),
            "call": &*call.kind,
            "id": call.id,
            "pod": call.pod,
            "ok": saw.is_none(),
            "lost": lost.is_some(),
            "hung": lost.is_some_and(Saw::hangs),
            "saw": saw.map(Saw::word),
            "status": saw.and_then(Saw::status),
            "code": saw.and_then(Saw::code),
            "text": saw.map(ToString::to_string),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::load::{
        ledger::{Sessions, Streams},
        outcome::RpcError,
    };

    fn call(era: Era, kind: &str, id: &str, lost: Option<Saw>) -> Call {
        Call {
            started: Duration::from_millis(1500),
            took: Duration::from_millis(30),
            era,
            kind: kind.into(),
            id: id.into(),
            pod: Some("mcp-0".into()),
            lost,
            error: None,
        }
    }

    fn report(calls: Vec<Call>) -> Report {
        let lost = calls.iter().filter(|call| call.lost.is_some()).count();
        Report {
            url: "http://mcp/mcp".into(),
            began_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            took: Duration::from_mins(1),
            eras: vec![Era::Modern, Era::Legacy],
            record: Record { calls, lost, ..Record::default() },
            trouble: None,
        }
    }

    fn right() -> Vec<Call> {
        vec![
            call(Era::Modern, "tools/list", "0-1", None),
            call(Era::Legacy, "initialize", "1-1", None),
            call(Era::Legacy, "ping", "1-2", None),
        ]
    }

    #[test]
    fn the_verdict_is_clean_only_if_all_was_seen_and_nothing_lost() {
        let clean = report(right());
        assert!(clean.is_clean());
        assert_eq!(clean.verdict(), "None of 3 calls was lost.");

        let mut lost = right();
        lost.push(call(Era::Legacy, "ping", "1-3", Some(Saw::StreamEnded)));
        lost.push(call(Era::Legacy, "ping", "1-4", Some(Saw::Reset(String::new()))));
        let lost = report(lost);
        assert!(!lost.is_clean());
        let verdict = "2 of 5 calls were lost, 1 of them without the client being told.";
        assert_eq!(lost.verdict(), verdict);

        for (missing, named) in [(0, "--era legacy"), (2, "--era modern")] {
            let mut calls = right();
            calls.remove(missing);
            let silent = report(calls);
            assert!(!silent.is_clean());
            assert!(silent.verdict().contains(named), "{}", silent.verdict());
        }
        assert!(!report(Vec::new()).is_clean());

        let mut unfinished = report(right());
        unfinished.record.unfinished = 2;
        assert!(!unfinished.is_clean());
        assert!(unfinished.verdict().starts_with("2 calls were under way"));

        let mut trouble = report(right());
        trouble.trouble = Some("the rollout was stuck".into());
        assert!(!trouble.is_clean());
        assert_eq!(trouble.verdict(), "This proves nothing: the rollout was stuck.");

        let mut held = report(right());
        held.record.sessions.opened = 4;
        assert!(held.is_clean());
        assert_eq!(held.verdict(), "None of 3 calls was lost, and none of 4 sessions.");
        held.record.sessions.lost = 3;
        assert!(!held.is_clean());
        assert!(held.verdict().starts_with("3 of 4 sessions were lost"), "{}", held.verdict());
    }

    #[test]
    fn errors_of_the_server_are_answers_and_are_told() {
        let unknown = RpcError { code: -32602, message: "unknown tool".into() };
        let mut refused = call(Era::Legacy, "tools/call a", "1-3", None);
        refused.error = Some(Saw::Error(unknown));
        let mut calls = right();
        calls.push(refused);
        let mut some = report(calls);
        assert!(some.is_clean());
        let verdict =
            "None of 4 calls was lost. 1 were answered with an error of the server's own.";
        assert_eq!(some.verdict(), verdict);
        let page = some.page(false);
        for part in [
            "legacy  tools/call a        1        0      1      0      0    30 ms",
            "the first of 1 was tools/call a 1-3: error -32602: unknown tool",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        let json = some.json();
        assert_eq!((&json["total"]["ok"], &json["total"]["errors"]), (&json!(3), &json!(1)));
        let told = &json["calls"][3];
        assert_eq!(
            (&told["ok"], &told["lost"], &told["code"]),
            (&json!(false), &json!(false), &json!(-32602))
        );

        // Where no call was answered otherwise, it proves nothing.
        some.record.calls.remove(2);
        assert!(!some.is_clean());
        assert!(
            some.verdict().contains("but tools/call a with error -32602"),
            "{}",
            some.verdict()
        );
    }

    #[test]
    fn the_page_shows_every_lost_call() {
        let refused = RpcError { code: -32010, message: "draining".into() };
        let mut calls = right();
        calls.push(call(Era::Modern, "tools/call slow", "0-2", Some(Saw::Error(refused))));
        calls.push(call(Era::Modern, "tools/call slow", "0-3", Some(Saw::TimeOut)));
        let mut report = report(calls);
        report.record.sessions = Sessions { opened: 5, lost: 2, refused: 1 };
        report.record.streams =
            Streams { opened: 9, ended: 3, broken: 2, came_back: 4, given_up: 1 };
        let page = report.page(false);
        for part in [
            "modern  tools/call slow        2        0      0      2      1        -",
            "modern  tools/list             1        1      0      0      0    30 ms",
            "all                            5        3      0      2      1    30 ms",
            "5 opened, 3 held, 2 lost; 1 times refused",
            "9 opened, 3 ended by the server, 2 broken off, 4 came back, 1 given up",
            "answers by pod: mcp-0 5",
            "half within 30 ms, 99 % within 30 ms",
            "03:04:06.500   30 ms  modern tools/call slow 0-2 mcp-0: error -32010: draining\n",
            "0-3 mcp-0: no answer before the time-out (hung)\n",
            "2 of 5 calls were lost, 1 of them",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains('\x1b'));
        assert!(report.page(true).contains("\x1b[1;31m"));
    }

    #[test]
    fn a_program_gets_the_same() {
        let refused = RpcError { code: -32010, message: "draining".into() };
        let mut calls = right();
        calls.push(call(Era::Legacy, "ping", "1-3", Some(Saw::Status(200, Some(refused)))));
        let json = report(calls).json();
        assert_eq!(json["clean"], false);
        assert_eq!(
            json["total"],
            json!({ "calls": 4, "ok": 3, "errors": 0, "lost": 1, "hung": 0, "slowest_seconds": 0.03 })
        );
        assert_eq!(json["calls"].as_array().map(Vec::len), Some(4));
        let lost = &json["lost"][0];
        assert_eq!(
            (&lost["id"], &lost["code"], &lost["saw"], &lost["at"]),
            (&json!("1-3"), &json!(-32010), &json!("status"), &json!("2026-01-02T03:04:06.5Z"))
        );
        assert_eq!(json["pods"], json!({ "mcp-0": 4 }));
    }
}
