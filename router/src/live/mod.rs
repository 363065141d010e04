//! What changes: the only state that workers share.
//!
//! Owns the current snapshot of the registry, per-cell live state and the drain signal. Never decides anything.

pub mod beats;
pub mod breaker;
pub mod cells;
pub mod certificates;
pub mod clients;
pub mod drain;
pub mod pages;
pub mod passwords;
pub mod room;
pub mod sign_ins;
pub mod snapshot;
pub mod trust;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here can panic while it holds a lock, and every value is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
