//! Real MCP clients through the real binary to real MCP servers. Needs what `tests/setup` installs.
//!
//! Never waits for a time: only for a line, an answer or an end, each bounded so that a hang fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod driven;
mod endings;
mod harness;
mod inspector;
mod matrix;
mod restarts;
mod rewriting;
mod transcripts;
