//! What a text must pass before it is in force, and what is said of it.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::load::{LoadError, load};
use super::store::{Store, StoreError};
use super::unplug::{self, Unplugged};
use crate::live::cells::Cells;
use crate::live::snapshot::{Publisher, Snapshot};
use crate::registry::{CellName, Registry, Version};
use crate::steps::Steps;

/// A little longer than the allocator keeps what is let go of.
const KEPT: Duration = Duration::from_millis(1100);

/// How long after what an entry names could not be read it is read again; doubled each time up to the longest.
const FIRST_AGAIN: Duration = Duration::from_millis(500);
const LONGEST_AGAIN: Duration = Duration::from_secs(60);

/// In how many parts it gives that back, at most.
const PARTS: usize = 5;

/// So many bytes are taken from the system and given back to it as they are; none of them is touched.
const LARGE: usize = 64 << 20;

/// Why a text is not put in force.
#[derive(Debug)]
enum Refused {
    /// It cannot be used.
    Load(LoadError),
    /// It would unplug more cells than may go without a word.
    Unplugs(Unplugged, Version),
}

/// Where texts come from, and what was held back of them.
#[derive(Debug)]
pub(super) struct Gate {
    /// The registry's name.
    pub(super) name: PathBuf,
    /// What relative paths in it are meant from.
    pub(super) folder: PathBuf,
    pub(super) store: Store,
    pub(super) max_unplug_percent: u32,
    /// What was refused because of the cells that it unplugs.
    pub(super) to_be_confirmed: Option<Version>,
    /// Whether it was said that the history cannot be written.
    pub(super) warned: bool,
    /// When what could not be read is to be read again, and how long after that if it still cannot be.
    again: Option<(Instant, Duration)>,
    /// Why the last text was not in force, as it was said.
    refused: Vec<String>,
    /// Cells that went with the last step, or before it and were still in use.
    gone: Vec<CellName>,
}

impl Gate {
    /// The gate of that registry, through which nothing has passed yet.
    pub(super) fn new(name: PathBuf, folder: PathBuf, max_unplug_percent: u32) -> Self {
        Self {
            store: Store::new(&name),
            name,
            folder,
            max_unplug_percent,
            to_be_confirmed: None,
            warned: false,
            again: None,
            refused: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// The first snapshot: of a text, and where that is not good as a whole, beside what was `good` last.
    ///
    /// # Errors
    /// `LoadError`, with all problems at once, where nothing was good before.
    pub(super) fn first(
        &self,
        text: &[u8],
        good: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<Snapshot, LoadError> {
        let began = Instant::now();
        let error = match self.load(text, None) {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => error,
        };
        let last = good().and_then(|good| self.load(&good, None).ok());
        let Some(last) = last else {
            return Err(error);
        };
        let snapshot = match self.load(text, Some(&last)) {
            Ok(snapshot) => snapshot,
            Err(_) => {
                self.say(&error.lines(&self.name));
                last
            }
        };
        self.report(&snapshot, began);
        Ok(snapshot)
    }

    /// Puts a text in force if it may be; whether it is. What is broken is reported and changes nothing. `asked` confirms
    /// what was just refused for the cells that it unplugs; that stays refused while what is in force is only read again.
    pub(super) async fn pass(
        &mut self,
        text: Vec<u8>,
        asked: bool,
        publisher: &Publisher,
        cells: &Cells,
    ) -> bool {
        let began = Instant::now();
        let repeats = self.is_due() && !asked;
        let confirmed = self.to_be_confirmed.filter(|_| asked);
        let (last, most) = (publisher.current(), self.max_unplug_percent);
        let before = last.version;
        let (store, folder) = (self.store.clone(), self.folder.clone());
        // Parsing a large file takes a while; nothing else of this thread has to wait for it.
        let judging = tokio::task::spawn_blocking(move || {
            judge(&text, &folder, &last, most, |version| {
                confirmed == Some(version)
                    || store.was_agreed(last.version, version).unwrap_or(false)
            })
        });
        match judging.await {
            Ok(Ok((snapshot, Left { removed, moved }))) => {
                self.look_again(snapshot.passing);
                self.refused.clear();
                let last = publisher.current();
                let same = snapshot.version == last.version && snapshot.flags == last.flags;
                if repeats && same && snapshot.passing == last.passing {
                    return true;
                }
                publisher.publish(snapshot);
                let current = publisher.current();
                self.to_be_confirmed = self.to_be_confirmed.filter(|_| current.version == before);
                moved.iter().for_each(|name| cells.begin_anew(name));
                self.forget(removed, &current.registry, cells);
                self.report(&current, began);
                true
            }
            Ok(Err(refused)) => {
                if !repeats {
                    self.refused.clear();
                }
                self.refuse(self.lines(&refused));
                self.look_again(self.again.is_some());
                self.to_be_confirmed = match refused {
                    Refused::Unplugs(_, version) => Some(version),
                    Refused::Load(_) => None,
                };
                false
            }
            Err(panicked) => {
                self.look_again(false);
                tracing::error!(%panicked, "registry refused: the last good one serves on");
                false
            }
        }
    }

    /// Forgets what is kept of cells that are not in the registry any more. Who knew only the registry before may have made it
    /// anew, so each is looked at again after the next step.
    fn forget(&mut self, removed: Vec<CellName>, registry: &Registry, cells: &Cells) {
        self.gone
            .retain(|name| registry.cell(name.as_str()).is_none() && !cells.forget(name));
        for name in &removed {
            cells.forget(name);
        }
        self.gone.extend(removed);
    }

    /// Lets go of what was in force and is used no more, away from whoever answers requests.
    pub(super) fn let_go(publisher: &Publisher) {
        let unused = publisher.unused();
        if !unused.is_empty() {
            drop(tokio::task::spawn_blocking(move || {
                let unused = unused.into_iter().filter_map(Arc::into_inner);
                unused.for_each(|snapshot| snapshot.registry.let_go());
            }));
            Self::give_back();
        }
    }

    /// Has the allocator give back what it took to read a large text. It keeps what is let go of for a second, and then
    /// gives back a part of it each time that more is let go of; a router that nobody edits would hold it for ever.
    pub(super) fn give_back() {
        drop(tokio::spawn(async {
            for _ in 0..PARTS {
                sleep(KEPT).await;
                drop(black_box(Vec::<u8>::with_capacity(LARGE)));
            }
        }));
    }

    fn load(&self, text: &[u8], last: Option<&Snapshot>) -> Result<Snapshot, LoadError> {
        load(text, &self.folder, last, variable)
    }

    /// Says once that the history is not complete.
    pub(super) fn unrecorded(&mut self, error: Option<StoreError>) {
        if let Some(error) = error.filter(|_| !self.warned) {
            self.warned = true;
            tracing::warn!("{error}: what is edited by hand is not put on record");
        }
    }

    /// Whether all is on record, or never will be, which is said once.
    pub(super) fn is_noticed(&mut self, noticed: Result<bool, StoreError>) -> bool {
        match noticed {
            Ok(noticed) => noticed,
            Err(error) => {
                self.unrecorded(Some(error));
                true
            }
        }
    }

    fn lines(&self, refused: &Refused) -> Vec<String> {
        match refused {
            Refused::Load(error) => error.lines(&self.name),
            Refused::Unplugs(unplugged, version) => {
                let or = match self.store.bucket() {
                    Some(_) => ", or for all routers by saving the same with --confirm-unplug",
                    None => "",
                };
                vec![format!(
                    "{}: this edit unplugs {unplugged}; if that is meant, confirm it with kill -HUP {}{or}; what may go without is --max-unplug-percent (the file is version {version})",
                    self.name.display(),
                    std::process::id(),
                )]
            }
        }
    }

    /// Says why a text is not in force, unless that was said last.
    pub(super) fn refuse(&mut self, problems: Vec<String>) {
        if self.refused != problems {
            self.say(&problems);
            self.refused = problems;
        }
    }

    fn say(&self, problems: &[String]) {
        tracing::error!(registry = %self.name.display(), problems = problems.len(), "registry refused: the last good one serves on");
        for problem in problems {
            tracing::error!("{problem}");
        }
    }

    /// Has what could not be read be read again, if that may go better; each time after twice as long.
    pub(super) fn look_again(&mut self, passing: bool) {
        let pause = self.again.map_or(FIRST_AGAIN, |(_, pause)| pause);
        let next = (pause * 2).min(LONGEST_AGAIN);
        self.again = passing.then(|| (Instant::now() + pause, next));
    }

    /// Whether what could not be read is to be read again by now.
    pub(super) fn is_due(&self) -> bool {
        self.again.is_some_and(|(at, _)| at <= Instant::now())
    }

    fn report(&self, snapshot: &Snapshot, began: Instant) {
        let name = self.name.display();
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        for flag in &snapshot.flags {
            let now = if flag.kept {
                "its last good version serves on"
            } else {
                "it has no good version, and is left out"
            };
            for problem in &flag.problems {
                let place = problem.in_file(&name.to_string()).to_string();
                tracing::error!(cell = flag.cell, kept = flag.kept, "{place}; {now}");
            }
        }
        tracing::info!(registry = %name, version = %snapshot.version, cells = snapshot.registry.len(), flagged = snapshot.flags.len(), took_ms = took, "registry loaded");
    }
}

/// Cells that are not where they were.
#[derive(Debug, Default)]
struct Left {
    removed: Vec<CellName>,
    moved: Vec<CellName>,
}

/// The snapshot of a text beside what was in force until now, and the cells that have left; unless it unplugs too much
/// and was not confirmed.
fn judge(
    text: &[u8],
    folder: &Path,
    last: &Arc<Snapshot>,
    most: u32,
    confirmed: impl FnOnce(Version) -> bool,
) -> Result<(Snapshot, Left), Refused> {
    let next = load(text, folder, Some(last), variable).map_err(Refused::Load)?;
    let unplugged = unplug::unplugged(&last.registry, &next.registry);
    if unplugged.is_over(most) && !confirmed(next.version) {
        return Err(Refused::Unplugs(unplugged, next.version));
    }
    let left = left(&last.registry, &next.registry);
    Ok((next, left))
}

fn left(last: &Registry, next: &Registry) -> Left {
    let mut steps = Steps::default();
    let mut left = Left::default();
    for cell in last.cells() {
        steps.step();
        match next.cell(cell.name.as_str()) {
            None => left.removed.push(cell.name.clone()),
            Some(now) if now.placement != cell.placement => left.moved.push(cell.name.clone()),
            Some(_) => {}
        }
    }
    left
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(cells: &str) -> Registry {
        let text = format!(r#"{{"version": 1, "cells": {{{cells}}}}}"#);
        Registry::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_cell_that_went_is_forgotten_also_where_it_was_made_anew() {
        let (with, without) = (registry(r#""alice": {"address": "h:1"}"#), registry(""));
        let mut gate = Gate::new(PathBuf::from("registry.json"), PathBuf::new(), 20);
        let (cells, alice) = (Cells::default(), CellName::parse("alice").unwrap());
        let removed = left(&with, &without).removed;
        assert_eq!(removed, std::slice::from_ref(&alice));
        drop(cells.live(&alice));
        gate.forget(removed.clone(), &without, &cells);
        assert!(cells.find("alice").is_none());
        // By who had not heard of the step yet.
        drop(cells.live(&alice));
        gate.forget(Vec::new(), &without, &cells);
        assert!(cells.find("alice").is_none());
        // It is there again.
        gate.forget(removed, &without, &cells);
        drop(cells.live(&alice));
        gate.forget(Vec::new(), &with, &cells);
        assert!(cells.find("alice").is_some());
    }
}
