//! charts/ebbtide as helm renders it, without a cluster: what each template makes of the values,
//! which values are refused, and what the tools of the field say about the result. Needs helm,
//! kubeconform and promtool on the PATH; `tests/run` leaves this level out where they are missing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod helm;

mod monitoring;
mod network;
mod notes;
mod policy;
mod rights;
mod values;
mod webhook;
