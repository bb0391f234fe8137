//! The real binary against scripted servers and clients on loopback: what no SDK would send.
//!
//! Never waits for a time: only for bytes, a line or an end, each bounded so that a hang fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

mod bad_input;
mod bad_messages;
mod check;
mod drain;
mod h2c;
mod http;
mod inject;
mod keys;
mod knowledge;
mod rehearse;
mod rollout;
mod settings;
mod webhook;
mod wrapper;
