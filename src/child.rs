//! The server, when ebbtide starts it: started in a process group of its own, so that a Ctrl-C
//! on the terminal reaches ebbtide alone; stopped after the drain; its orphans reaped.
//!
//! Never decides when to stop.

use std::{ffi::OsString, io, os::unix::process::CommandExt, process::Command, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    signal::unix::{Signal as Signals, SignalKind, signal},
    time::{Instant, timeout_at},
};

/// A running server. Dropping it kills the whole group.
pub struct Child {
    pid: Pid,
    name: String,
    died: Signals,
    passed: [(Signals, Signal); 3],
    ended: Option<Ended>,
    stopping: bool,
}

/// How the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    Signal(i32),
}

impl Ended {
    /// The exit code by the shell's convention: 128 + n for a signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Ended::Code(code) => code,
            Ended::Signal(number) => 128 + number,
        }
    }
}

impl Child {
    /// Starts the command.
    ///
    /// # Errors
    /// The command cannot be started; the error names it.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::other("no COMMAND was given"))?;
        let name = program.to_string_lossy().into_owned();
        // Handlers first: a server that dies at once must be seen.
        let died = signal(SignalKind::child())?;
        let passed = [
            (signal(SignalKind::hangup())?, Signal::SIGHUP),
            (signal(SignalKind::user_defined1())?, Signal::SIGUSR1),
            (signal(SignalKind::user_defined2())?, Signal::SIGUSR2),
        ];
        // What the server leaves behind comes to us, also where we are not PID 1.
        if let Err(error) = prctl::set_child_subreaper(true) {
            tracing::debug!(%error, "orphans of the server go to PID 1");
        }
        let child =
            Command::new(program).args(arguments).process_group(0).spawn().map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("the server `{name}` cannot be started: {error}"),
                )
            })?;
        let pid = Pid::from_raw(child.id().cast_signed());
        tracing::info!(pid = pid.as_raw(), command = name, "server started");
        Ok(Self { pid, name, died, passed, ended: None, stopping: false })
    }

    /// Waits until the server has ended; reaps and passes signals on meanwhile.
    pub async fn ended(&mut self) -> Ended {
        let [(hangup, _), (user1, _), (user2, _)] = &mut self.passed;
        loop {
            if let Some(ended) = self.ended {
                return ended;
            }
            let signal = tokio::select! {
                _ = self.died.recv() => None,
                _ = hangup.recv() => Some(Signal::SIGHUP),
                _ = user1.recv() => Some(Signal::SIGUSR1),
                _ = user2.recv() => Some(Signal::SIGUSR2),
            };
            match signal {
                Some(signal) => pass(self.pid, signal),
                None => self.ended = reap(self.pid),
            }
        }
    }

    /// Sends SIGTERM, and SIGKILL to the whole group when the reserve is over.
    pub async fn stop(mut self, reserve: Duration) -> Ended {
        self.stopping = true;
        let asked = Instant::now();
        pass(self.pid, Signal::SIGTERM);
        if let Ok(ended) = timeout_at(asked + reserve, self.ended()).await {
            tracing::info!(?ended, seconds = asked.elapsed().as_secs_f64(), "server stopped");
            // It died of the SIGTERM that it was sent: that is an orderly end, not a failure.
            return match ended {
                Ended::Signal(number) if number == Signal::SIGTERM as i32 => Ended::Code(0),
                other => other,
            };
        }
        tracing::warn!(
            command = self.name,
            ?reserve,
            "the server did not stop within stop_reserve and is killed"
        );
        let _ = killpg(self.pid, Signal::SIGKILL);
        pass(self.pid, Signal::SIGKILL);
        self.ended().await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Whatever it started and left in its group must not outlive the container's main process.
        let _ = killpg(self.pid, Signal::SIGKILL);
    }
}

fn pass(pid: Pid, signal: Signal) {
    if let Err(error) = kill(pid, signal) {
        tracing::debug!(%error, %signal, "the server is gone already");
    }
}

/// Collects everything that has ended, the server's orphans too; how the server ended, if it did.
fn reap(server: Pid) -> Option<Ended> {
    let mut ended = None;
    loop {
        let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Ended::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ended::Signal(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => {
                tracing::warn!(%error, "waiting for children failed");
                return ended;
            }
        };
        if pid == server {
            ended = Some(how);
        } else {
            tracing::debug!(pid = pid.as_raw(), "orphan reaped");
        }
    }
}
