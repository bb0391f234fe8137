//! Real Kubernetes, real kubelet, real rollouts: any cluster that `KUBECONFIG` names and that has
//! the images of `tests/cluster/setup`. Each test has a namespace of its own.
//!
//! Never waits for a time: only for a state, each bounded so that a hang fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kubectl;
mod manifest;
mod namespace;
mod rehearsal;

mod account;
mod chart;
mod clients;
mod containers;
mod rights;
mod rollouts;
mod shapes;
mod watch;
