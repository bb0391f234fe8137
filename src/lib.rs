//! ebbtide: a sidecar reverse proxy that lets any MCP server pod be rolled, scaled in, evicted or
//! restarted without one client noticing. ARCHITECTURE.md is the map.

pub mod admin;
pub mod app;
pub mod child;
pub mod cli;
pub mod config;
pub mod drain;
pub mod inflight;
pub mod kubernetes;
pub mod mcp;
pub mod pool;
pub mod proxy;
pub mod serve;
pub mod sessions;
pub mod signals;
pub mod tasks;
pub mod telemetry;
