//! What ebbtide costs: beside nginx, `HAProxy` and a naive proxy, in one run, on one core.
//!
//! Prints Markdown, writes it where it is told, and ends with 1 when a goal was missed.

#![allow(clippy::cast_precision_loss, reason = "these are figures for people")]

mod cluster;
mod contender;
mod load;
mod measure;
mod naive;
mod process;
mod report;
mod upstream;

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command, value_parser};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    contender::{ALL, Contender, Place, find},
    measure::{
        cpu, forwarded, instructions, instructions::Instrument, memory, sessions, start, stop,
    },
    report::Figures,
    upstream::Upstream,
};

fn main() -> anyhow::Result<ExitCode> {
    let matches = arguments().get_matches();
    match matches.subcommand() {
        Some(("naive", matches)) => naive(matches).map(|()| ExitCode::SUCCESS),
        _ => bench(&matches),
    }
}

fn arguments() -> Command {
    let path = value_parser!(PathBuf);
    Command::new("ebbtide-bench")
        .about("Compares ebbtide with nginx, HAProxy and a naive proxy in one run")
        .arg(
            Arg::new("ebbtide")
                .long("ebbtide")
                .value_name("BINARY")
                .value_parser(path.clone())
                .default_value("target/release/ebbtide"),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .value_name("FILE")
                .value_parser(path)
                .help("Writes the tables there, too"),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("NUMBER")
                .value_parser(value_parser!(usize))
                .default_value("15")
                .help("Slices of each contender"),
        )
        .subcommand(
            Command::new("naive")
                .about("The naive proxy itself")
                .arg(Arg::new("threads").required(true).value_parser(["one", "many"]))
                .arg(Arg::new("listen").required(true).value_parser(value_parser!(SocketAddr)))
                .arg(Arg::new("upstream").required(true).value_parser(value_parser!(SocketAddr))),
        )
}

fn naive(matches: &ArgMatches) -> anyhow::Result<()> {
    let address = |name| *matches.get_one::<SocketAddr>(name).expect("required");
    let many = matches.get_one::<String>("threads").is_some_and(|threads| threads == "many");
    let mut builder = if many {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        // As on a node with two cores, also where this run is held to one.
        builder.worker_threads(2);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()?.block_on(naive::run(address("listen"), address("upstream")))
}

fn bench(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let rounds = *matches.get_one::<usize>("rounds").expect("it has a default");
    let ebbtide = matches.get_one::<PathBuf>("ebbtide").expect("it has a default");
    let ebbtide = fs::canonicalize(ebbtide)
        .with_context(|| format!("{} is missing: `make build`", ebbtide.display()))?;
    hold_to_one_core()?;
    let scratch = std::env::temp_dir().join(format!("ebbtide-bench-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = runtime.block_on(run(ebbtide, scratch.clone(), rounds));
    drop(fs::remove_dir_all(scratch));
    let figures = figures?;
    let markdown = figures.markdown();
    println!("{markdown}");
    if let Some(file) = matches.get_one::<PathBuf>("output") {
        fs::write(file, &markdown).with_context(|| format!("writing {}", file.display()))?;
    }
    let missed = figures.goals().iter().any(|goal| !goal.is_met());
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All that is started later inherits it.
fn hold_to_one_core() -> anyhow::Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let core = (0..CpuSet::count()).rev().find(|&core| allowed.is_set(core).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(core.context("no core to run on")?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// Open streams that a sidecar is asked to hold.
const WANTED_STREAMS: usize = 10_000;

async fn run(ebbtide: PathBuf, scratch: PathBuf, rounds: usize) -> anyhow::Result<Figures> {
    let upstream = Upstream::start().await?;
    let streams = memory::most_streams()?;
    let place = Place { ebbtide, scratch, upstream: upstream.port, streams };
    let mut figures = Figures { machine: machine().await, rounds, streams, ..Figures::default() };
    for contender in ALL {
        if contender.program(&place).is_file() {
            figures.contenders.push(contender);
        } else {
            figures.left_out.push(format!("{} is not installed", contender.name()));
        }
    }
    if streams < WANTED_STREAMS {
        figures.left_out.push(format!(
            "{WANTED_STREAMS} open streams: the limit on open files allows {streams}"
        ));
    }
    let contenders = figures.contenders.clone();
    eprintln!("processor time of small requests, then of large ones…");
    figures.small = cpu::measure(&place, &contenders, rounds, "/small", 300).await?;
    figures.large = cpu::measure(&place, &contenders, rounds, "/large", 4096).await?;
    eprintln!("processor time of calls that another pod forwards…");
    match forwarded::measure(&place, &upstream, rounds).await {
        Ok(ratio) => figures.forwarded = Some(ratio),
        Err(error) => figures.left_out.push(format!("calls that another pod forwards: {error:#}")),
    }
    figures.instrument = Instrument::here().await;
    if let Some(instrument) = figures.instrument {
        for &contender in &contenders {
            eprintln!("instructions of {}…", contender.name());
            let of = async |path, size| {
                instructions::measure(&place, contender, instrument, path, size).await
            };
            figures.instructions.push((of("/small", 300).await?, of("/large", 4096).await?));
            if contender == Contender::Ebbtide {
                figures.unknown = Some(of(load::UNKNOWN, 300).await?);
            }
        }
    } else {
        figures.left_out.push("instructions: neither perf's counters nor valgrind are here".into());
    }
    for &contender in &contenders {
        eprintln!("memory of {}…", contender.name());
        figures.memory.push(memory::measure(&place, contender, figures.streams).await?);
    }
    eprintln!("memory of sessions…");
    figures.session = Some(sessions::measure(&place).await?);
    eprintln!("time to the first answer…");
    figures.start = start::measure(&place, &contenders).await?;
    for &contender in contenders.iter().filter(|one| **one != Contender::Naive) {
        for &signal in contender.stops() {
            for streams in [0, 10] {
                eprintln!("stop of {} by {signal} with {streams} streams…", contender.name());
                let stop = stop::measure(&place, &upstream, contender, signal, streams).await?;
                figures.stops.push(stop);
            }
        }
    }
    figures.binary = fs::metadata(&place.ebbtide)?.len();
    Ok(figures)
}

/// What the figures depend on.
async fn machine() -> Vec<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
    let number = processors.lines().filter(|line| line.starts_with("processor")).count();
    let mut facts = vec![format!("{model}, {number} cores, of which one was used")];
    for (program, argument) in [("nginx", "-v"), ("haproxy", "-v"), ("valgrind", "--version")] {
        let output = tokio::process::Command::new(find(program)).arg(argument).output().await;
        if let Ok(output) = output {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            facts.push(text.lines().next().unwrap_or_default().to_owned());
        }
    }
    facts
}
