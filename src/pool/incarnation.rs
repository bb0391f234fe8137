//! Which of the processes that have listened at the upstream's address listens now, as far as one
//! can tell from outside: where somebody listened and then nobody, whoever comes next is another.
//!
//! Never takes a connection that broke for an end: servers close theirs as they like.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

#[derive(Debug)]
pub(super) struct Incarnation {
    number: AtomicU32,
    /// Whether somebody listened when that was asked last.
    listens: AtomicBool,
}

impl Default for Incarnation {
    fn default() -> Self {
        Self { number: AtomicU32::new(1), listens: AtomicBool::new(false) }
    }
}

impl Incarnation {
    /// From 1 on.
    pub fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// Learns from what became of an attempt to connect. Whether somebody listens, where that is
    /// news.
    pub fn learn<T>(&self, connected: &io::Result<T>) -> Option<bool> {
        match connected {
            Ok(_) => (!self.listens.swap(true, Relaxed)).then_some(true),
            // Anything else may be the network's, or that of a server which has too much to do.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let listened = self.listens.swap(false, Relaxed);
                if listened {
                    self.number.fetch_add(1, Relaxed);
                }
                listened.then_some(false)
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_there_can_be_another() {
        let incarnation = Incarnation::default();
        for (connected, number) in [
            (Err(io::ErrorKind::ConnectionRefused), 1),
            (Ok(()), 1),
            (Err(io::ErrorKind::TimedOut), 1),
            (Err(io::ErrorKind::ConnectionRefused), 2),
            (Err(io::ErrorKind::ConnectionRefused), 2),
            (Ok(()), 2),
            (Err(io::ErrorKind::ConnectionRefused), 3),
        ] {
            incarnation.learn(&connected.map_err(io::Error::from));
            assert_eq!(incarnation.number(), number, "{connected:?}");
        }
    }
}
