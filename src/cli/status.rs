//! `ebbtide status`: what a person wants to see of the sidecar in this pod. Only shows.

use std::fmt::Write;

use clap::ArgMatches;
use http::Method;
use serde_json::Value;

use super::{Outcome, block_on, client, say};

pub fn main(matches: &ArgMatches) -> Outcome {
    let address = match client::address(matches) {
        Ok(address) => address,
        Err(text) => return Outcome::Usage(text),
    };
    if matches.get_flag("ready") {
        return match block_on_ask(address, "/readyz") {
            Ok(body) => {
                print!("{}", String::from_utf8_lossy(&body));
                Outcome::Done
            }
            Err(text) => Outcome::Failed(text),
        };
    }
    let body = block_on_ask(address, "/status");
    let (body, status) = match body {
        Ok(body) => match serde_json::from_slice::<Value>(&body) {
            Ok(status) => (body, status),
            Err(error) => {
                return Outcome::Failed(format!(
                    "{address} does not answer as ebbtide does: {error}"
                ));
            }
        },
        Err(text) => return Outcome::Failed(text),
    };
    if matches.get_flag("json") {
        say(std::io::stdout(), &String::from_utf8_lossy(&body));
    } else {
        say(std::io::stdout(), &page(&status));
    }
    Outcome::Done
}

fn block_on_ask(address: std::net::SocketAddr, path: &str) -> Result<bytes::Bytes, String> {
    let mut answer = Err(String::new());
    block_on(async {
        answer = client::ask(address, Method::GET, path).await;
        Outcome::Done
    });
    answer
}

/// The status as text.
fn page(status: &Value) -> String {
    let mut page = String::new();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    // Writing to a String cannot fail.
    let mut line = |text: String| {
        let _ = writeln!(page, "{text}");
    };
    let why = status["why"].as_str().map(|why| format!(" (why: {why})")).unwrap_or_default();
    line(format!("phase      {}{why}", text(&status["phase"])));
    if let Some(left) = status["seconds_to_cut"].as_f64() {
        line(format!("time left  {left:.1} s until the cut"));
    }
    line(format!("knowledge  {}", text(&status["knowledge"])));
    let restart = status["server_restart"].as_str();
    let restart = restart.map(|state| format!(" (its container restarts: {state})"));
    line(format!("upstream   {}{}", text(&status["upstream"]), restart.unwrap_or_default()));
    let pool = &status["pool"];
    line(format!(
        "pool       {} in use ({} streams), {} idle, {} waiting; {} created, {} reused, {} timed out, \
         {} unreachable",
        number(&pool["in_use"]),
        number(&pool["streams"]),
        number(&pool["idle"]),
        number(&pool["waiting"]),
        number(&pool["created"]),
        number(&pool["reused"]),
        number(&pool["timed_out"]),
        number(&pool["unreachable"]),
    ));
    let flight = &status["in_flight"];
    line(format!(
        "in flight  {} calls, {} streams, {} pending calls; {} sessions",
        number(&flight["finite"]),
        number(&flight["streams"]),
        number(&flight["pending"]),
        number(&flight["sessions"]),
    ));
    let moved = &status["sessions"];
    line(format!(
        "sessions   {} handed over, {} reopened, {} refused, {} lost",
        number(&moved["handed_over"]),
        number(&moved["reopened"]),
        number(&moved["refused"]),
        number(&moved["lost"]),
    ));
    let exchanges = flight["exchanges"].as_array().map_or(&[][..], Vec::as_slice);
    if !exchanges.is_empty() {
        line(String::new());
        line(format!("{:>9}  {:<12} {:<28} {:<20} SESSION", "AGE", "CLASS", "METHOD", "TOOL"));
    }
    for exchange in exchanges {
        line(format!(
            "{:>8.1}s  {:<12} {:<28} {:<20} {}",
            exchange["age_seconds"].as_f64().unwrap_or(0.0),
            text(&exchange["class"]),
            text(&exchange["method"]),
            text(&exchange["tool"]),
            text(&exchange["session"]),
        ));
    }
    if let Some(report) = status["report"].as_object() {
        line(String::new());
        line(format!(
            "drained in {:.2} s: {} completed, {} refused, {} streams ended, {} cut, {} lost",
            report["seconds"].as_f64().unwrap_or(0.0),
            number(&report["completed"]),
            number(&report["refused"]),
            number(&report["streams_ended"]),
            number(&report["cut"]),
            number(&report["lost"]),
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_phase_and_calls() {
        let page = page(&serde_json::json!({
            "phase": "Draining", "why": "signal", "seconds_to_cut": 12.3, "knowledge": "timers",
            "upstream": "http://127.0.0.1:3000", "server_restart": "Stopping",
            "pool": { "in_use": 1, "streams": 0, "idle": 2, "waiting": 0, "created": 3,
                "reused": 4, "timed_out": 0, "unreachable": 9 },
            "in_flight": { "finite": 1, "streams": 0, "sessions": 1, "exchanges": [
                { "class": "call", "method": "tools/call", "tool": "slow", "session": "abc",
                  "age_seconds": 2.5 } ] },
            "sessions": { "handed_over": 5, "reopened": 6, "refused": 7, "lost": 8 },
            "report": null,
        }));
        for part in [
            "Draining (why: signal)",
            "12.3 s",
            "tools/call",
            "slow",
            "abc",
            "2.5s",
            "its container restarts: Stopping",
            "9 unreachable",
            "5 handed over, 6 reopened, 7 refused, 8 lost",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
