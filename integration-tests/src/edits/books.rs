//! Whether each edit that somebody was told of is there, or on record with what undid it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cell_router::control::store::history::Record;
use cell_router::registry::edit::changes;
use cell_router::registry::{Registry, Version};
use serde_json::Value;

use super::scene::Scene;
use super::writers::Read;
use crate::client::Error;

const BY_HAND: &str = "by hand";
pub(super) const CUT_OFF: &str = "cut off, and not made";

/// An edit that somebody was told was made.
#[derive(Debug)]
pub(super) struct Acknowledged {
    pub(super) cell: String,
    pub(super) value: usize,
    /// The version after it.
    pub(super) version: String,
    /// How often others were faster before.
    pub(super) overtaken: usize,
    /// How often the file was broken before.
    pub(super) unreadable: usize,
}

/// A save by an editor.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) way: &'static str,
    pub(super) version: Version,
}

/// What all of it came to.
#[derive(Debug)]
pub struct Books {
    /// Edits that were acknowledged, by the page and by commands, and saves by an editor.
    pub edits: [usize; 3],
    /// How often others were faster, and how often the file was broken by an editor at that moment.
    pub again: [usize; 2],
    /// How the editor saved.
    pub ways: BTreeMap<&'static str, usize>,
    /// How many acknowledged edits a save of the editor undid.
    pub undone: usize,
    /// Lines of the history, and those of edits that an editor overtook before they were acknowledged.
    pub records: [usize; 2],
    /// Looks of the reader at the file, and different texts that it saw.
    pub looks: [usize; 2],
    /// Versions that the router served.
    pub served: usize,
}

impl Books {
    pub(super) fn close(
        scene: &Scene,
        page: Vec<Acknowledged>,
        script: Vec<Acknowledged>,
        saved: Vec<Saved>,
        read: Read,
    ) -> Result<Self, Error> {
        let history = scene.history()?;
        let edits = [page.len(), script.len(), saved.len()];
        let mut told: BTreeMap<&str, (&str, &Acknowledged)> = BTreeMap::new();
        for (who, all) in [("anna", &page), ("script", &script)] {
            told.extend(all.iter().map(|edit| (edit.version.as_str(), (who, edit))));
        }
        let saves: BTreeSet<_> = saved.iter().map(|save| save.version).collect();
        let mut standing: BTreeMap<String, usize> = BTreeMap::new();
        let (mut undone, mut found, mut withdrawn) = (0, BTreeSet::new(), 0);
        for (number, (record, text)) in history.iter().enumerate().skip(1) {
            let wrong = |what: &str| Error::from(format!("record {number}: {what}: {record:?}"));
            let version = record.version.to_string();
            let is_by_hand = record.through == BY_HAND || record.through == CUT_OFF;
            match told.get(version.as_str()) {
                Some((who, edit)) if !is_by_hand => {
                    if record.who != *who || !is_just(edit, &history[number - 1].1, text) {
                        return Err(wrong("it is more than the edit, or by another"));
                    }
                    standing.insert(edit.cell.clone(), edit.value);
                    found.insert(version);
                }
                _ if is_by_hand => {
                    // Half a text is what an editor has not written to its end yet.
                    let Ok(registry) = Registry::parse(text) else {
                        continue;
                    };
                    if !saves.contains(&record.version) {
                        return Err(wrong("nobody has saved that"));
                    }
                    let before = standing.len();
                    standing.retain(|cell, value| number_of(&registry, cell) == Some(*value));
                    undone += before - standing.len();
                }
                _ => {
                    let next = history.get(number + 1).map(|(next, _)| next);
                    if !next.is_some_and(is_hand) {
                        return Err(wrong("nobody was told of it, and it stands"));
                    }
                    withdrawn += 1;
                }
            }
        }
        let mut missing = told.keys().filter(|version| !found.contains(**version));
        if let Some(version) = missing.next() {
            return Err(format!("not on record: {:?}", told[version]).into());
        }
        let known: BTreeSet<_> = history.iter().map(|(record, _)| record.version).collect();
        if let Some(save) = saved.iter().find(|save| !known.contains(&save.version)) {
            return Err(format!("not on record: {save:?}").into());
        }
        if let Some(version) = read.versions.difference(&known).next() {
            return Err(format!("{version} was there, and is not on record").into());
        }
        // What stands by the books is what is there.
        let registry = scene.registry()?;
        for (cell, value) in &standing {
            if number_of(&registry, cell) != Some(*value) {
                return Err(format!("{cell} = {value} is lost").into());
            }
        }
        let all = || page.iter().chain(&script);
        let mut ways = BTreeMap::new();
        for save in &saved {
            *ways.entry(save.way).or_default() += 1;
        }
        Ok(Self {
            edits,
            again: [
                all().map(|edit| edit.overtaken).sum(),
                all().map(|edit| edit.unreadable).sum(),
            ],
            ways,
            undone,
            records: [history.len(), withdrawn],
            looks: [read.looks, read.versions.len()],
            served: served(scene, &history)?,
        })
    }
}

fn is_hand(record: &Record) -> bool {
    record.through == BY_HAND
}

fn number_of(registry: &Registry, cell: &str) -> Option<usize> {
    Some(registry.cell(cell)?.policy.limits.max_in_flight as usize)
}

/// Whether the step between two texts is that edit and nothing else.
fn is_just(edit: &Acknowledged, before: &[u8], after: &[u8]) -> bool {
    let found = changes(before, after);
    let [change] = found.as_slice() else {
        return false;
    };
    let path = format!("cells.{}", edit.cell);
    let value = Value::from(edit.value);
    let after = change.after.as_ref();
    if change.path == path {
        after.is_some_and(|entry| entry["max_in_flight"] == value)
    } else {
        change.path == format!("{path}.max_in_flight") && after == Some(&value)
    }
}

/// How many versions the router served, each of them good as a whole.
fn served(scene: &Scene, history: &[(Record, Vec<u8>)]) -> Result<usize, Error> {
    let mut served = 0;
    for line in scene.router.process().stderr.all() {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] != "registry loaded" {
            continue;
        }
        served += 1;
        let is_it = |record: &Record| event["version"] == record.version.to_string();
        let text = history.iter().find(|(record, _)| is_it(record));
        let is_good = text.is_some_and(|(_, text)| Registry::parse(text).is_ok());
        if !is_good || event["flagged"] != 0 {
            return Err(format!("the router serves what is not good: {line}").into());
        }
    }
    Ok(served)
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [page, script, saves] = self.edits;
        let [overtaken, unreadable] = self.again;
        let ways: Vec<_> = self
            .ways
            .iter()
            .map(|(way, n)| format!("{n} {way}"))
            .collect();
        writeln!(
            f,
            "{page} edits by the page, {script} by commands, {saves} saves by an editor ({}), at once: none lost, all on record",
            ways.join(", ")
        )?;
        writeln!(
            f,
            "{overtaken} times somebody else was faster, {unreadable} times the file was broken by the editor: tried again"
        )?;
        writeln!(
            f,
            "the editor's saves undid {} edits, each on record with what undid it",
            self.undone
        )?;
        writeln!(
            f,
            "{} records, each following the one before it; {} of edits that a save overtook",
            self.records[0], self.records[1]
        )?;
        write!(
            f,
            "{} looks at the file saw {} texts, none half written; the router served {} versions, all good",
            self.looks[0], self.looks[1], self.served
        )
    }
}
