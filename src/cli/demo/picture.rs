//! The picture, the table and the sentence at the end of the demo. Pure: data in, text out.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::cli::{
    load::{
        ledger::{Call, Record},
        outcome::Saw,
    },
    pen::{Colour, Pen},
};

/// One run as it was seen.
pub struct Run {
    pub protected: bool,
    pub seconds: f64,
    pub pods: Vec<Pod>,
    pub record: Record,
}

#[derive(Debug, Clone)]
pub struct Pod {
    pub name: String,
    pub bars: Vec<Bar>,
}

/// From when on the pod was in which phase; the empty phase is its end.
#[derive(Debug, Clone)]
pub struct Bar {
    pub from: f64,
    pub phase: String,
}

/// Columns of the time line.
const WIDTH: usize = 64;

impl Run {
    fn calls(&self) -> usize {
        self.record.calls.len()
    }

    fn answered(&self) -> usize {
        self.calls() - self.lost()
    }

    /// Calls that did not get their result.
    pub fn lost(&self) -> usize {
        self.record.lost
    }

    /// Lost without the client being told.
    fn hung(&self) -> usize {
        self.record.calls.iter().filter(|call| call.lost.as_ref().is_some_and(Saw::hangs)).count()
    }

    fn slowest(&self) -> f64 {
        let answered = self.record.calls.iter().filter(|call| call.lost.is_none());
        answered.map(|call| call.took.as_secs_f64()).fold(0.0, f64::max)
    }

    pub fn json(&self) -> Value {
        let why = |call: &Call| {
            let saw = call.lost.as_ref()?;
            Some(format!("{} {} {}: {saw}", call.era.name(), call.kind, call.id))
        };
        json!({
            "lost_calls": self.record.calls.iter().filter_map(why).collect::<Vec<_>>(),
            "calls": self.calls(),
            "ok": self.answered(),
            "failed": self.lost() - self.hung(),
            "hung": self.hung(),
            "sessions_lost": self.record.sessions.lost,
            "slowest_seconds": self.slowest(),
            "seconds": self.seconds,
        })
    }
}

/// Both runs, one above the other.
pub fn draw(without: &Run, with: &Run, colour: bool) -> String {
    let pen = Pen(colour);
    let seconds = without.seconds.max(with.seconds);
    let mut text = String::new();
    for run in [without, with] {
        let title = if run.protected { "with ebbtide" } else { "without ebbtide" };
        let _ = writeln!(text, "\n  Rolling update {title}");
        for pod in &run.pods {
            let bars = bars(pod, seconds, &pen);
            let _ = writeln!(text, "  {:>7}  {bars}", pod.name);
        }
        let _ =
            writeln!(text, "  {:>7}  {}", "calls", ticks(&run.record.calls, seconds, false, &pen));
        let lost = ticks(&run.record.calls, seconds, true, &pen);
        let _ = writeln!(text, "  {:>7}  {lost}", "lost");
    }
    let _ = writeln!(
        text,
        "\n  {}\n",
        pen.paint(
            Colour::Dim,
            "░ starting  █ serving  ▓ withdrawing  ▒ draining   · answered  ✗ lost"
        )
    );
    text += &table(without, with, &pen);
    text += &sentence(without, with);
    text
}

fn column(at: f64, seconds: f64) -> usize {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a column, not a measure"
    )]
    let column = (at / seconds * WIDTH as f64) as usize;
    column.min(WIDTH - 1)
}

fn bars(pod: &Pod, seconds: f64, pen: &Pen) -> String {
    let mut line = String::new();
    for at in 0..WIDTH {
        let bar = pod.bars.iter().rev().find(|bar| column(bar.from, seconds) <= at);
        line += &match bar.map_or("", |bar| &bar.phase) {
            "Starting" => pen.paint(Colour::Dim, "░"),
            "Serving" => pen.paint(Colour::Green, "█"),
            "Withdrawing" => pen.paint(Colour::Yellow, "▓"),
            "Draining" | "Cutting" | "Drained" => pen.paint(Colour::Yellow, "▒"),
            _ => " ".into(),
        };
    }
    line
}

/// A tick in each column in which calls ended so.
fn ticks(calls: &[Call], seconds: f64, lost: bool, pen: &Pen) -> String {
    let ended = |call: &Call| (call.started + call.took).as_secs_f64();
    let mut line = String::new();
    for at in 0..WIDTH {
        let hit = calls
            .iter()
            .any(|call| call.lost.is_some() == lost && column(ended(call), seconds) == at);
        line += &match (hit, lost) {
            (false, _) => " ".into(),
            (true, false) => pen.paint(Colour::Dim, "·"),
            (true, true) => pen.paint(Colour::Red, "✗"),
        };
    }
    line
}

fn table(without: &Run, with: &Run, pen: &Pen) -> String {
    let mut text = format!("  {:<22}{:>16}{:>16}\n", "", "without", "with ebbtide");
    let mut row = |name: &str, values: [String; 2], bad: bool| {
        let paint = |value: &String| {
            let colour = if bad && value != "0" { Colour::Red } else { Colour::Green };
            pen.paint(colour, &format!("{value:>16}"))
        };
        let _ = writeln!(text, "  {name:<22}{}{}", paint(&values[0]), paint(&values[1]));
    };
    let count = |of: fn(&Run) -> usize| [of(without).to_string(), of(with).to_string()];
    row("calls", count(Run::calls), false);
    row("answered", count(Run::answered), false);
    row("failed", count(|run| run.lost() - run.hung()), true);
    row("hung", count(Run::hung), true);
    let sessions = [&without.record, &with.record].map(|record| record.sessions.lost.to_string());
    row("sessions lost", sessions, true);
    let slowest = |run: &Run| format!("{:.1} s", run.slowest());
    row("slowest answer", [slowest(without), slowest(with)], false);
    text
}

fn sentence(without: &Run, with: &Run) -> String {
    format!(
        "\n  The same rolling update lost {} of {} calls without ebbtide and {} of {} with it.\n",
        without.lost(),
        without.calls(),
        with.lost(),
        with.calls(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::load::outcome::Era;

    fn run(protected: bool, ends: &[Option<Saw>]) -> Run {
        let bar = |from, phase: &str| Bar { from, phase: phase.into() };
        let bars =
            vec![bar(0.0, "Starting"), bar(1.0, "Serving"), bar(5.0, "Draining"), bar(8.0, "")];
        let call = |(at, lost): (u64, &Option<Saw>)| Call {
            started: Duration::from_secs(at),
            took: Duration::from_millis(500),
            era: Era::Modern,
            kind: "tools/call search".into(),
            id: at.to_string(),
            pod: None,
            lost: lost.clone(),
            error: None,
        };
        let calls: Vec<Call> = (0..).zip(ends).map(call).collect();
        let lost = ends.iter().flatten().count();
        Run {
            protected,
            seconds: 10.0,
            pods: vec![Pod { name: "mcp-0".into(), bars }],
            record: Record { calls, lost, ..Record::default() },
        }
    }

    #[test]
    fn lost_calls_stand_out_and_colour_is_for_terminals() {
        let without = run(false, &[None, Some(Saw::SessionGone(404)), Some(Saw::TimeOut)]);
        let with = run(true, &[None, None]);
        let plain = draw(&without, &with, false);
        assert!(!plain.contains('\x1b'));
        assert!(plain.contains("lost 2 of 3 calls without ebbtide and 0 of 2 with it"), "{plain}");
        // Two columns, and the legend.
        assert_eq!(plain.matches('✗').count(), 3, "{plain}");
        assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
        let hung = plain.lines().find(|line| line.starts_with("  hung")).unwrap_or_default();
        assert_eq!(hung.split_whitespace().collect::<Vec<_>>(), ["hung", "1", "0"]);
        assert!(draw(&without, &with, true).contains("\x1b[1;31m✗"));
    }
}
