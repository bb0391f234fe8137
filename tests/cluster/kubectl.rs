//! Runs kubectl, which finds the cluster by `KUBECONFIG`; waits are kubectl's own, each bounded so
//! that a hang fails.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Only a test that hangs takes so long.
pub const HANG: Duration = Duration::from_mins(6);

/// What kubectl printed.
pub fn kubectl(arguments: &[&str]) -> String {
    attempt(arguments, None).unwrap_or_else(|error| panic!("{error}"))
}

/// What kubectl printed, or why it failed.
pub fn attempt(arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    let mut child = command(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A kubectl that fails before it has read says why on stderr.
    let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("kubectl {}: {told}", arguments.join(" ")))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// A program that goes on printing, and all that it has printed so far; ended when dropped.
pub struct Following {
    child: Child,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Following {
    pub fn start(arguments: &[&str]) -> Self {
        Self::of(command(arguments)).0
    }

    /// Any other program whose standard input and output are pipes.
    pub fn of(mut command: Command) -> (Self, ChildStdin) {
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = Arc::new(Said::default());
        let writer = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writer.state.lock().unwrap().0.push(line);
                writer.changed.notify_all();
            }
            writer.state.lock().unwrap().1 = true;
            writer.changed.notify_all();
        });
        (Self { child, said }, stdin)
    }

    pub fn lines(&self) -> Vec<String> {
        self.said.state.lock().unwrap().0.clone()
    }

    /// Waits for a line that holds the text.
    pub fn until(&self, text: &str) -> String {
        let found = self.wait(|lines, _| lines.iter().find(|line| line.contains(text)).cloned());
        found.unwrap_or_else(|| panic!("no line with `{text}` in {:#?}", self.lines()))
    }

    /// Waits until it has ended; all that it printed.
    pub fn to_the_end(&self) -> Vec<String> {
        let all = self.wait(|lines, ended| ended.then(|| lines.to_vec()));
        all.unwrap_or_else(|| panic!("this goes on and on: {:#?}", self.lines()))
    }

    fn wait<T>(&self, find: impl Fn(&[String], bool) -> Option<T>) -> Option<T> {
        let until = Instant::now() + HANG;
        let mut state = self.said.state.lock().unwrap();
        loop {
            if let Some(found) = find(&state.0, state.1) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.said.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often is asked again: a kubectl at once after the other would take a processor.
const PAUSE: Duration = Duration::from_millis(300);

/// Asks again until the answer is what is waited for.
#[allow(clippy::disallowed_methods, reason = "a pause between two asks, not a time to wait for")]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < HANG, "it never came to that: {what}");
        std::thread::sleep(PAUSE);
    }
}

pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
}
