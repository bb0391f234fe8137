//! How long the answers took, as bars of text. Pure.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

/// The upper ends of the classes; what took longer is one more.
const ENDS_MILLISECONDS: [u64; 13] =
    [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000];
/// Columns of the longest bar.
const WIDTH: usize = 40;

/// The answers' times, in order.
pub struct Histogram(Vec<Duration>);

impl Histogram {
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        Self(times)
    }

    /// The time within which that many of a thousand answers came.
    pub fn within(&self, thousandth: usize) -> Option<Duration> {
        let last = self.0.len().checked_sub(1)?;
        self.0.get((self.0.len() * thousandth).div_ceil(1000).saturating_sub(1).min(last)).copied()
    }

    pub fn bars(&self) -> String {
        let counts = self.counts();
        let first = counts.iter().position(|(_, count)| *count > 0).unwrap_or(counts.len());
        let last = counts.iter().rposition(|(_, count)| *count > 0).map_or(first, |at| at + 1);
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
        let mut text = String::new();
        for (end, count) in &counts[first..last] {
            let label = match end {
                Some(end) => format!("to {}", seconds(*end)),
                None => "longer".into(),
            };
            // One call is seen, too.
            let bar = "█".repeat((count * WIDTH).div_ceil(most));
            let _ = writeln!(text, "  {label:>10}  {bar} {count}");
        }
        text
    }

    pub fn json(&self) -> Value {
        let classes = self.counts().into_iter().map(|(end, count)| {
            json!({ "up_to_seconds": end.map(|end| end.as_secs_f64()), "answers": count })
        });
        Value::Array(classes.collect())
    }

    fn counts(&self) -> Vec<(Option<Duration>, usize)> {
        let mut counts = Vec::new();
        let mut below = 0;
        for end in ENDS_MILLISECONDS.map(Duration::from_millis) {
            let until = self.0.partition_point(|time| *time <= end);
            counts.push((Some(end), until - below));
            below = until;
        }
        counts.push((None, self.0.len() - below));
        counts
    }
}

/// A duration as a person says it.
pub fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        milliseconds @ 0..=999 => format!("{milliseconds} ms"),
        1000..=9999 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format!("{:.0} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: &[u64]) -> Histogram {
        Histogram::of(milliseconds.iter().copied().map(Duration::from_millis))
    }

    #[test]
    fn bars_show_every_class_between_the_first_and_the_last() {
        let mut times = vec![10; 80];
        times.extend([51, 100, 61_000]);
        let bars = of(&times).bars();
        let lines: Vec<&str> = bars.lines().collect();
        assert_eq!(lines.len(), 13, "{bars}");
        assert_eq!(lines[0], format!("    to 10 ms  {} 80", "█".repeat(40)));
        assert_eq!(lines[1], "    to 20 ms   0");
        assert_eq!(lines[3], "   to 100 ms  █ 2");
        assert_eq!(lines[12], "      longer  █ 1");
        assert_eq!(of(&[]).bars(), "");
    }

    #[test]
    fn shares() {
        let times: Vec<u64> = (1..=200).collect();
        for (thousandth, expected) in [(500, 100), (990, 198), (1000, 200), (1, 1)] {
            let within = of(&times).within(thousandth);
            assert_eq!(within, Some(Duration::from_millis(expected)), "{thousandth}");
        }
        assert_eq!(of(&[7]).within(500), Some(Duration::from_millis(7)));
        assert_eq!(of(&[]).within(500), None);
    }

    #[test]
    fn durations_read_well() {
        for (milliseconds, text) in
            [(0, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (61_000, "61 s")]
        {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), text);
        }
    }
}
