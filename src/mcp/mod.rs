//! What ebbtide knows of the Model Context Protocol: which class an exchange belongs to, what a
//! JSON-RPC body asks for, where an SSE event ends and what it says, and how an error is written
//! that every client survives.
//!
//! A leaf: it never does I/O, never waits, and never holds more of a body than a bound allows.

pub mod answers;
pub mod class;
pub mod error;
pub mod events;
pub mod initialize;
pub mod message;
pub mod scanner;
pub mod sse;
pub mod told;

pub use class::Class;
