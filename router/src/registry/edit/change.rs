//! What differs between two texts of a registry, in the words of the registry.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::registry::json;
use crate::steps::Steps;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// Where, such as `cells.alice.state`; empty for the whole text.
    pub path: String,
    /// The value before, as JSON; none if there was none.
    pub before: Option<Value>,
    /// The value after, as JSON; none if there is none.
    pub after: Option<Value>,
}

/// `cells.alice.state: "active" -> "paused"`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            before,
            after,
        } = self;
        match (before, after) {
            (None, Some(after)) => write!(f, "+ {path}: {after}"),
            (Some(before), None) => write!(f, "- {path}: {before}"),
            (Some(before), Some(after)) => write!(f, "~ {path}: {before} -> {after}"),
            (None, None) if path.is_empty() => f.write_str("~ the text, which is no registry here"),
            (None, None) => write!(f, "~ {path}: its place or layout"),
        }
    }
}

/// Every difference between two texts, in alphabetical order: one for each key of an entry, of the defaults, and of the
/// outermost object. Texts that differ in layout only have none. What is written alike is not looked into, so that a
/// large registry costs little more than its keys.
pub fn changes(before: &[u8], after: &[u8]) -> Vec<Change> {
    let mut found = Vec::new();
    if before == after {
        return found;
    }
    let before = if before.is_empty() { b"{}" } else { before };
    match (outermost(before), outermost(after)) {
        (Some(before), Some(after)) => compare(before, after, "", 0, &mut found),
        _ => found.push(Change {
            path: String::new(),
            before: None,
            after: None,
        }),
    }
    found
}

/// The members of an object as written, each with its key as written.
type Members<'t> = Vec<(&'t str, &'t str)>;

/// The same by their names. Of a name that is there twice the last counts.
type Named<'t> = BTreeMap<Cow<'t, str>, &'t str>;

fn outermost(text: &[u8]) -> Option<Members<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    members(text.trim())
}

fn members(object: &str) -> Option<Members<'_>> {
    let mut found = Members::new();
    json::members(object, |key, value| found.push((key, value))).ok()?;
    Some(found)
}

fn named<'t>(members: &[(&'t str, &'t str)]) -> Named<'t> {
    let name = |key| json::string(key).unwrap_or(Cow::Borrowed(key));
    let members = members.iter().map(|(key, value)| (name(key), *value));
    members.collect()
}

/// Takes away what two lists begin and end with alike: most of a large registry, of which one cell was edited.
fn trimmed<'m, T: PartialEq>(mut one: &'m [T], mut other: &'m [T]) -> (&'m [T], &'m [T]) {
    let mut steps = Steps::default();
    while let ([first, rest @ ..], [same, others @ ..]) = (one, other)
        && first == same
    {
        steps.step();
        (one, other) = (rest, others);
    }
    while let ([rest @ .., last], [others @ .., same]) = (one, other)
        && last == same
    {
        steps.step();
        (one, other) = (rest, others);
    }
    (one, other)
}

/// Objects are compared key by key down to a cell's entry.
const DEEPEST: usize = 2;

fn compare(
    before: Members<'_>,
    after: Members<'_>,
    path: &str,
    depth: usize,
    found: &mut Vec<Change>,
) {
    let (before, after) = trimmed(&before, &after);
    let (mut before, mut after) = (named(before), named(after));
    before.retain(|key, value| {
        let same = after.get(key) == Some(value);
        if same {
            after.remove(key);
        }
        !same
    });
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    for key in keys {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{key}");
        let (before, after) = (before.get(&key).copied(), after.get(&key).copied());
        // Cells of a text that had none are told one by one.
        let nothing = || (depth == 0 && key == "cells").then(Members::new);
        if depth < DEEPEST
            && let Some(before) = before.map_or_else(nothing, members)
            && let Some(after) = after.map_or_else(nothing, members)
        {
            compare(before, after, &path, depth + 1, found);
            continue;
        }
        let value = |json: Option<&str>| json.and_then(|json| serde_json::from_str(json).ok());
        let (before, after): (Option<Value>, Option<Value>) = (value(before), value(after));
        if before != after {
            found.push(Change {
                path,
                before,
                after,
            });
        }
    }
}
