//! The other processes of the pod, where it shares its process namespace: a sidecar's container
//! has no `kill` in it, and its process 1 could not be killed from within.

use std::fs;

use nix::{
    sys::signal::{Signal, kill as send},
    unistd::Pid,
};

/// Sends SIGKILL to every process of that name; how many it reached.
pub fn kill(name: &str) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|number| {
            let found = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
            found.trim_end() == name && send(Pid::from_raw(*number), Signal::SIGKILL).is_ok()
        })
        .count()
}
