//! When: the phases of a drain, what is refused in each, and the one task that decides.
//!
//! `phase`, `timeline`, `machine`, `policy`, `hooks` and `knowledge` are pure: no clock, no channel,
//! no I/O.
//! `driver` owns the clock and the channels and decides nothing that they could decide.

mod begun;
pub mod driver;
pub mod handle;
pub mod hooks;
pub mod knowledge;
pub mod machine;
pub mod phase;
pub mod policy;
pub mod report;
pub mod timeline;

pub use driver::Driver;
pub use handle::{DrainHandle, DrainWatch};
pub use phase::{Phase, Trigger};
