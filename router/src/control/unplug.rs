//! Whether an edit unplugs more cells than may go without a word.

use std::fmt;

use crate::registry::{Admission, Cell, Registry};
use crate::steps::Steps;

/// Fewer cells than this may always go: so many are removed by hand and by intention.
pub(super) const FEWEST: usize = 10;

/// How many are named.
const NAMED: usize = 5;

/// What an edit takes out of service: cells that are removed, or disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplugged {
    count: usize,
    of: usize,
    first: Vec<String>,
}

impl Unplugged {
    /// Whether that are 10 cells or more, and more than so many of a hundred that were in service.
    pub fn is_over(&self, percent: u32) -> bool {
        self.count >= FEWEST && self.count as u128 * 100 > self.of as u128 * u128::from(percent)
    }
}

/// `12 of 40 cells (a, b, c, d, e and 7 more)`
impl fmt::Display for Unplugged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, of, first } = self;
        write!(f, "{count} of {of} cells ({}", first.join(", "))?;
        match count.saturating_sub(first.len()) {
            0 => f.write_str(")"),
            more => write!(f, " and {more} more)"),
        }
    }
}

fn is_plugged(cell: &Cell) -> bool {
    cell.policy.state != Admission::Disabled
}

/// What the step from `last` to `next` unplugs.
pub fn unplugged(last: &Registry, next: &Registry) -> Unplugged {
    let mut unplugged = Unplugged {
        count: 0,
        of: 0,
        first: Vec::new(),
    };
    let mut steps = Steps::default();
    for cell in last.cells().filter(|cell| is_plugged(cell)) {
        steps.step();
        unplugged.of += 1;
        let stays = next.cell(cell.name.as_str());
        if stays.is_none_or(|cell| !is_plugged(cell)) {
            unplugged.count += 1;
            if unplugged.first.len() < NAMED {
                unplugged.first.push(cell.name.to_string());
            }
        }
    }
    unplugged
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells `c0`, `c1` ... of which those from `disabled` on are disabled.
    fn registry(cells: std::ops::Range<usize>, disabled: usize) -> Registry {
        let entry = |index: usize| {
            let state = if index < disabled {
                "active"
            } else {
                "disabled"
            };
            format!(r#""c{index}": {{"address": "h:1", "state": "{state}"}}"#)
        };
        let cells: Vec<_> = cells.map(entry).collect();
        let text = format!(r#"{{"version": 1, "cells": {{{}}}}}"#, cells.join(","));
        Registry::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn removed_and_disabled_cells_are_unplugged() {
        let last = registry(0..50, 40);
        let count = |next: &Registry| unplugged(&last, next).count;
        assert_eq!(count(&last), 0);
        assert_eq!(count(&registry(0..100, 100)), 0);
        assert_eq!(count(&registry(3..50, 38)), 5);
        // What was disabled may go.
        assert_eq!(count(&registry(0..40, 40)), 0);
        assert_eq!(unplugged(&last, &registry(0..40, 40)).of, 40);
        let shown = unplugged(&last, &registry(7..50, 40)).to_string();
        assert_eq!(shown, "7 of 40 cells (c0, c1, c2, c3, c4 and 2 more)");
    }

    #[test]
    fn the_share_counts_from_ten_cells_on() {
        let over = |count, of, percent| {
            let first = Vec::new();
            Unplugged { count, of, first }.is_over(percent)
        };
        assert!(!over(9, 9, 20));
        assert!(over(10, 10, 20));
        assert!(!over(10, 50, 20));
        assert!(over(11, 50, 20));
        assert!(over(10, 1000, 0));
        assert!(!over(1000, 1000, 100));
    }
}
