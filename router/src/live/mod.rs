//! What changes: the only state that workers share.
//!
//! Owns the current snapshot of the registry, per-cell live state and the drain signal. Never decides anything.

pub mod cells;
pub mod certificates;
pub mod drain;
pub mod snapshot;
pub mod trust;
