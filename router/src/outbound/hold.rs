//! Waiting for a paused cell.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout_at;

use super::StreamError;
use crate::live::snapshot::Snapshot;
use crate::registry::Cell;

/// Waits until the cell's entry differs from `cell`, for as long as that entry lets a request be held, counted from
/// `began`. Cancel safe.
///
/// # Errors
/// `HoldTimeout`.
pub async fn until_changed(
    cell: &Cell,
    began: tokio::time::Instant,
    changes: watch::Receiver<Arc<Snapshot>>,
) -> Result<(), StreamError> {
    let patience = cell.policy.limits.hold_timeout;
    let changed = timeout_at(began + patience, changed(cell, changes)).await;
    changed.map_err(|_| StreamError::HoldTimeout(patience))
}

/// Waits until the cell's entry differs from `cell`. Cancel safe.
pub async fn changed(cell: &Cell, mut changes: watch::Receiver<Arc<Snapshot>>) {
    let changed = changes.wait_for(|snapshot| {
        snapshot
            .registry
            .cell(cell.name.as_str())
            .is_none_or(|now| **now != *cell)
    });
    if changed.await.is_err() {
        // The publisher is gone only with the process.
        std::future::pending().await
    }
}
