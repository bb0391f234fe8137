//! Proxy, ports, pool and drain on pipes in memory, under a clock that only jumps when nothing
//! else is left to do: so what happens when is exact, and costs no time.
//!
//! Never opens a socket and never waits for real time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

mod across;
mod calls;
mod connections;
mod hooks;
mod knowledge;
mod messages;
mod pending;
mod pressure;
mod sealed;
mod seeds;
mod streams;
mod timeline;
mod tunnels;
mod uploads;
