//! The figures as Markdown, and which goals they meet.
//!
//! Never measures.

use std::fmt::Write as _;

use crate::{
    contender::Contender,
    measure::{cpu::Cpu, instructions::Instrument, memory::Memory, stop::Stop},
};

/// Everything that one run saw.
#[derive(Default)]
pub struct Figures {
    pub machine: Vec<String>,
    pub rounds: usize,
    pub contenders: Vec<Contender>,
    pub small: Vec<Cpu>,
    pub large: Vec<Cpu>,
    /// Processor time of both sidecars for a call that one of them forwards, by that of a direct
    /// one.
    pub forwarded: Option<f64>,
    pub instrument: Option<Instrument>,
    /// Per contender: small, large.
    pub instructions: Vec<(f64, f64)>,
    /// Of ebbtide, for a request that it does not know as MCP.
    pub unknown: Option<f64>,
    pub streams: usize,
    pub memory: Vec<Memory>,
    /// Bytes per open session.
    pub session: Option<f64>,
    pub start: Vec<f64>,
    pub stops: Vec<Stop>,
    pub binary: u64,
    pub left_out: Vec<String>,
}

/// One thing that has to be reached.
pub struct Goal {
    what: &'static str,
    limit: f64,
    seen: f64,
}

impl Goal {
    /// A figure that is missing misses its goal.
    pub fn is_met(&self) -> bool {
        self.seen <= self.limit
    }
}

impl Figures {
    fn ratio(&self, of: &[Cpu], to: Contender) -> f64 {
        let column = self.contenders.iter().position(|&contender| contender == to);
        let own = of.iter().find(|cpu| cpu.contender == Contender::Ebbtide);
        own.zip(column).map_or(f64::NAN, |(own, column)| own.ratios[column])
    }

    fn of_ebbtide<T>(&self, figures: &[T], read: impl Fn(&T) -> f64) -> f64 {
        let index = self.contenders.iter().position(|&one| one == Contender::Ebbtide);
        index.and_then(|index| figures.get(index)).map_or(f64::NAN, read)
    }

    pub fn goals(&self) -> Vec<Goal> {
        let stops = || self.stops.iter().filter(|stop| stop.contender == Contender::Ebbtide);
        let lost: usize = stops().map(|stop| crate::load::CONNECTIONS - stop.completed).sum();
        let unended: usize = stops().map(|stop| stop.streams - stop.ended_properly).sum();
        let exits = stops().map(|stop| stop.exit.map_or(f64::NAN, |exit| exit.as_secs_f64() * 1e3));
        let goal = |what, limit, seen| Goal { what, limit, seen };
        let thousand = |count: f64| count / 1000.0;
        vec![
            goal("CPU per request by nginx's", 1.25, self.ratio(&self.small, Contender::Nginx)),
            goal(
                "CPU per request by the naive proxy's on one thread",
                1.0,
                self.ratio(&self.small, Contender::NaiveOneThread),
            ),
            goal(
                "CPU of both sidecars for a call that one forwards, by a direct call's",
                2.2,
                self.forwarded.unwrap_or(f64::NAN),
            ),
            goal(
                "thousand instructions per request",
                34.0,
                self.of_ebbtide(&self.instructions, |(small, _)| thousand(*small)),
            ),
            goal(
                "thousand instructions of these for knowing MCP (class, session, what is pending)",
                3.0,
                self.of_ebbtide(&self.instructions, |(small, _)| {
                    thousand(*small - self.unknown.unwrap_or(f64::NAN))
                }),
            ),
            goal(
                "instructions for 4 KiB by those for 300 bytes",
                1.1,
                self.of_ebbtide(&self.instructions, |(small, large)| large / small),
            ),
            goal(
                "KB per open event stream, 1,000 open",
                30.0,
                self.of_ebbtide(&self.memory, |memory| thousand(memory.at_thousand)),
            ),
            goal(
                "KB per open event stream, most open",
                30.0,
                self.of_ebbtide(&self.memory, |memory| thousand(memory.at_most)),
            ),
            goal(
                "KiB of anonymous memory per open session, 10,000 open",
                1.0,
                self.session.unwrap_or(f64::NAN) / 1024.0,
            ),
            goal("MiB idle", 5.0, self.of_ebbtide(&self.memory, |memory| mebibytes(memory.idle))),
            goal("MB of the stripped binary", 9.0, self.binary as f64 / 1e6),
            goal("calls lost of those in flight at SIGTERM", 0.0, lost as f64),
            goal("streams not ended properly", 0.0, unended as f64),
            goal("ms from the last completed call to the exit", 10.0, exits.fold(0.0, worst)),
        ]
    }

    pub fn markdown(&self) -> String {
        let parts =
            [self.introduction(), self.goals_table(), self.cost(), self.memory(), self.stops()];
        parts.join("\n")
    }

    fn introduction(&self) -> String {
        let mut out = String::from(
            "# Performance

Written by `make bench`. All contenders ran in one run on one core, together with the clients and the server behind them; so compare ratios, within one table, and not times from one machine with those of another.

",
        );
        for fact in &self.machine {
            let _ = writeln!(out, "- {fact}");
        }
        for reason in &self.left_out {
            let _ = writeln!(out, "- left out: {reason}");
        }
        out
    }

    fn goals_table(&self) -> String {
        let mut out = String::from("## Goals\n\n| | goal | seen | |\n|---|---|---|---|\n");
        for goal in self.goals() {
            let met = if goal.is_met() { "met" } else { "**missed**" };
            let _ =
                writeln!(out, "| {} | ≤ {} | {:.2} | {met} |", goal.what, goal.limit, goal.seen);
        }
        out
    }

    fn cost(&self) -> String {
        let by = self.instrument.map_or("not counted", Instrument::name);
        let mut out = format!(
            "## Cost of a request

A JSON-RPC POST of 300 bytes (answer 304) or of 4 KiB (answer 4 KiB) on 64 keep-alive connections. CPU is the proxy's own, in seconds per 100,000 requests, the median of {} slices of 10,000; the ratio is the median of ebbtide's slices by the other's in the same round. Of a call that one sidecar forwards to another, since the session is there, the processor time of both is compared in the same way with that of the call that comes to the right one. Instructions are those in user space per request, in thousands, by `{by}`.

| | CPU s, 300 B | ebbtide by it | CPU s, 4 KiB | ebbtide by it | Ki user, 300 B | Ki user, 4 KiB |
|---|---|---|---|---|---|---|
",
            self.rounds
        );
        for (index, contender) in self.contenders.iter().enumerate() {
            let (small, large) =
                self.instructions.get(index).copied().unwrap_or((f64::NAN, f64::NAN));
            let _ = writeln!(
                out,
                "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} |",
                contender.name(),
                self.small[index].seconds,
                self.ratio(&self.small, *contender),
                self.large[index].seconds,
                self.ratio(&self.large, *contender),
                thousands(small),
                thousands(large),
            );
        }
        out
    }

    fn memory(&self) -> String {
        let mut out = format!(
            "## Memory and start

Resident memory; an open stream is a GET that got one event and stays. Sessions are opened by `initialize`, one after the other, and count by what of memory is no file's. First 200: milliseconds from the start of the process, the median of 15. ebbtide's binary has {:.2} MB.

| | idle MiB | bytes per stream, 1,000 open | bytes per stream, {} open | first 200 ms |
|---|---|---|---|---|
",
            self.binary as f64 / 1e6,
            self.streams
        );
        for ((contender, memory), start) in
            self.contenders.iter().zip(&self.memory).zip(&self.start)
        {
            let _ = writeln!(
                out,
                "| {} | {:.1} | {:.0} | {:.0} | {start:.1} |",
                contender.name(),
                mebibytes(memory.idle),
                memory.at_thousand,
                memory.at_most
            );
        }
        out
    }

    fn stops(&self) -> String {
        let mut out = String::from(
            "## Stop

64 calls in flight, which the server answers 0.5 s after the signal; without and with 10 endless event streams beside them. The worst of 5 times for calls and streams, the median for the exit: after the last completed call, or after the signal where none was completed.

| | signal | calls completed | streams ended properly | exit |
|---|---|---|---|---|
",
        );
        for stop in &self.stops {
            let exit = stop.exit.map_or("still there after 6 s".to_owned(), |exit| {
                format!("{:.1} ms", exit.as_secs_f64() * 1000.0)
            });
            let streams = match stop.streams {
                0 => "–".to_owned(),
                streams => format!("{} of {streams}", stop.ended_properly),
            };
            let (name, signal) = (stop.contender.name(), stop.signal.as_str());
            let completed = stop.completed;
            let _ = writeln!(out, "| {name} | {signal} | {completed} of 64 | {streams} | {exit} |");
        }
        out
    }
}

fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn thousands(count: f64) -> String {
    if count.is_nan() { "–".to_owned() } else { format!("{:.1}", count / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_misses_its_goal() {
        let seen = |figures: &Figures, what: &str| {
            let goals = figures.goals();
            goals.iter().find(|goal| goal.what.contains(what)).map(Goal::is_met)
        };
        let mut figures = Figures::default();
        for (what, of) in [("one forwards", 2.2), ("per open session", 1024.0)] {
            for (figure, met) in [(None, false), (Some(of), true), (Some(of * 1.01), false)] {
                (figures.forwarded, figures.session) = (figure, figure);
                assert_eq!(seen(&figures, what), Some(met), "{what} {figure:?}");
            }
        }
        assert!(
            figures
                .markdown()
                .contains("for a call that one forwards, by a direct call's | ≤ 2.2 |")
        );
    }
}
