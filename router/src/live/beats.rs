//! What is heard of cells that beat, and which of them are missing.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::Instant;

use super::lock;
use crate::registry::CellName;

/// The beats of all cells. Nothing is kept of a cell that has sent none and is not missing.
#[derive(Debug, Default)]
pub struct Beats {
    cells: Mutex<HashMap<CellName, Pulse>>,
    counts: Mutex<Counts>,
}

/// What is known of one cell.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// The last beat.
    pub last: Option<Beat>,
    /// Since when it is missing, in seconds since 1970: the end of what was heard of it.
    pub missing_since: Option<u64>,
}

/// A beat that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// What the cell says of when, in milliseconds since 1970.
    pub time_ms: u64,
    /// When it came.
    pub at: Instant,
    /// The same, in seconds since 1970.
    pub at_s: u64,
}

/// What beats, and word of their absence, came to.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Beats by outcome.
    pub beats: HashMap<&'static str, u64>,
    /// Notices to the webhook by outcome.
    pub notices: HashMap<&'static str, u64>,
}

impl Beats {
    /// Hears a beat of a cell; whether it is newer than the one before by the cell's own clock.
    pub fn hear(&self, cell: &CellName, beat: Beat) -> bool {
        let mut cells = lock(&self.cells);
        let Some(pulse) = cells.get_mut(cell) else {
            let last = Some(beat);
            let pulse = Pulse {
                last,
                ..Pulse::default()
            };
            cells.insert(cell.clone(), pulse);
            return true;
        };
        let newer = pulse.last.is_none_or(|last| beat.time_ms > last.time_ms);
        if newer {
            pulse.last = Some(beat);
        }
        newer
    }

    /// What is known of a cell.
    pub fn pulse(&self, cell: &str) -> Pulse {
        lock(&self.cells).get(cell).copied().unwrap_or_default()
    }

    /// Says that a cell is missing since then, or is not any more.
    pub fn set_missing(&self, cell: &CellName, since: Option<u64>) {
        let mut cells = lock(&self.cells);
        if since.is_some() || cells.contains_key(cell) {
            cells.entry(cell.clone()).or_default().missing_since = since;
        }
    }

    /// The cells that are missing.
    pub fn missing(&self) -> Vec<CellName> {
        let cells = lock(&self.cells);
        let missing = cells
            .iter()
            .filter(|(_, pulse)| pulse.missing_since.is_some());
        missing.map(|(name, _)| name.clone()).collect()
    }

    /// Forgets cells that `keep` does not name.
    pub fn retain(&self, keep: impl Fn(&CellName) -> bool) {
        lock(&self.cells).retain(|name, _| keep(name));
    }

    /// Counts a beat by what became of it.
    pub fn count(&self, outcome: &'static str) {
        *lock(&self.counts).beats.entry(outcome).or_default() += 1;
    }

    /// Counts a notice by what became of it.
    pub fn count_notice(&self, outcome: &'static str) {
        *lock(&self.counts).notices.entry(outcome).or_default() += 1;
    }

    /// What has been counted since the start. What may go wrong with notices is there with 0 before it does, so that the
    /// first time is seen as a change.
    pub fn counts(&self) -> Counts {
        let mut counts = lock(&self.counts).clone();
        for outcome in ["delivered", "failed", "dropped"] {
            counts.notices.entry(outcome).or_default();
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(time_ms: u64) -> Beat {
        Beat {
            time_ms,
            at: Instant::now(),
            at_s: 0,
        }
    }

    #[test]
    fn a_beat_counts_once_and_an_older_one_never() {
        let beats = Beats::default();
        let [alice, bob] = ["alice", "bob"].map(|name| CellName::parse(name).unwrap());
        assert!(beats.hear(&alice, beat(10)));
        assert!(!beats.hear(&alice, beat(10)), "the same once more");
        assert!(!beats.hear(&alice, beat(9)));
        assert_eq!(beats.pulse("alice").last.map(|last| last.time_ms), Some(10));
        assert!(beats.hear(&bob, beat(9)), "each cell by itself");
        assert!(beats.hear(&alice, beat(11)));
    }

    #[test]
    fn of_a_cell_that_was_never_heard_of_nothing_is_kept() {
        let beats = Beats::default();
        let alice = CellName::parse("alice").unwrap();
        beats.set_missing(&alice, None);
        assert!(lock(&beats.cells).is_empty());
        beats.set_missing(&alice, Some(7));
        assert_eq!(beats.missing(), std::slice::from_ref(&alice));
        assert_eq!(beats.pulse("alice").missing_since, Some(7));
        beats.retain(|_| false);
        assert!(lock(&beats.cells).is_empty());
    }
}
