//! The picture, the table and the sentence at the end of the demo. Pure: data in, text out.

use std::fmt::Write;

use serde_json::{Value, json};

use super::clients::{Call, End};

/// One run as it was seen.
pub struct Run {
    pub protected: bool,
    pub seconds: f64,
    pub pods: Vec<Pod>,
    pub calls: Vec<Call>,
    pub sessions_lost: u64,
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
    fn count(&self, end: End) -> usize {
        self.calls.iter().filter(|call| call.end == end).count()
    }

    /// Calls that did not get their result.
    pub fn lost(&self) -> usize {
        self.count(End::Failed) + self.count(End::Hung)
    }

    fn slowest(&self) -> f64 {
        let answered = self.calls.iter().filter(|call| call.end == End::Ok);
        answered.map(|call| call.took).fold(0.0, f64::max)
    }

    pub fn json(&self) -> Value {
        json!({
            "calls": self.calls.len(),
            "ok": self.count(End::Ok),
            "failed": self.count(End::Failed),
            "hung": self.count(End::Hung),
            "sessions_lost": self.sessions_lost,
            "slowest_seconds": self.slowest(),
            "seconds": self.seconds,
        })
    }
}

#[derive(Clone, Copy)]
enum Colour {
    Green,
    Yellow,
    Red,
    Dim,
}

struct Pen(bool);

impl Pen {
    fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.0 || text.trim().is_empty() {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "1;31",
            Colour::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
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
        let _ = writeln!(text, "  {:>7}  {}", "calls", ticks(&run.calls, seconds, End::Ok, &pen));
        let lost = ticks(&run.calls, seconds, End::Failed, &pen);
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

/// A tick in each column in which calls ended so; hung and failed are one.
fn ticks(calls: &[Call], seconds: f64, end: End, pen: &Pen) -> String {
    let mut line = String::new();
    for at in 0..WIDTH {
        let hit = calls.iter().any(|call| {
            (call.end == End::Ok) == (end == End::Ok) && column(call.ended, seconds) == at
        });
        line += &match (hit, end) {
            (false, _) => " ".into(),
            (true, End::Ok) => pen.paint(Colour::Dim, "·"),
            (true, _) => pen.paint(Colour::Red, "✗"),
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
    let count = |end| [without.count(end).to_string(), with.count(end).to_string()];
    row("calls", [without.calls.len().to_string(), with.calls.len().to_string()], false);
    row("answered", count(End::Ok), false);
    row("failed", count(End::Failed), true);
    row("hung", count(End::Hung), true);
    let sessions = [without.sessions_lost.to_string(), with.sessions_lost.to_string()];
    row("sessions lost", sessions, true);
    let slowest = |run: &Run| format!("{:.1} s", run.slowest());
    row("slowest answer", [slowest(without), slowest(with)], false);
    text
}

fn sentence(without: &Run, with: &Run) -> String {
    let sessions = if with.sessions_lost > 0 {
        "\n  Sessions still end with their pod: carrying them over is still to come."
    } else {
        ""
    };
    format!(
        "\n  The same rolling update lost {} of {} calls without ebbtide and {} of {} with it.{sessions}\n",
        without.lost(),
        without.calls.len(),
        with.lost(),
        with.calls.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(protected: bool, ends: &[End]) -> Run {
        let bar = |from, phase: &str| Bar { from, phase: phase.into() };
        let bars =
            vec![bar(0.0, "Starting"), bar(1.0, "Serving"), bar(5.0, "Draining"), bar(8.0, "")];
        let call = |(at, end): (u32, &End)| Call { ended: at.into(), took: 0.5, end: *end };
        Run {
            protected,
            seconds: 10.0,
            pods: vec![Pod { name: "mcp-0".into(), bars }],
            calls: (0..).zip(ends).map(call).collect(),
            sessions_lost: 1,
        }
    }

    #[test]
    fn lost_calls_stand_out_and_colour_is_for_terminals() {
        let without = run(false, &[End::Ok, End::Failed, End::Hung]);
        let with = run(true, &[End::Ok, End::Ok]);
        let plain = draw(&without, &with, false);
        assert!(!plain.contains('\x1b'));
        assert!(plain.contains("lost 2 of 3 calls without ebbtide and 0 of 2 with it"), "{plain}");
        // Two columns, and the legend.
        assert_eq!(plain.matches('✗').count(), 3, "{plain}");
        assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
        assert!(draw(&without, &with, true).contains("\x1b[1;31m✗"));
    }
}
