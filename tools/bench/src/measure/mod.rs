//! One file per thing that is measured; each gives one figure per contender, or one of ebbtide
//! alone where the others have no such thing, and judges nothing.

pub mod cpu;
pub mod forwarded;
pub mod instructions;
pub mod memory;
pub mod sessions;
pub mod start;
pub mod stop;

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
