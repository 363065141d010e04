//! What differs between two texts of a registry, in the words of the registry.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
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
/// outermost object. Texts that differ in layout only have none.
pub fn changes(before: &[u8], after: &[u8]) -> Vec<Change> {
    let object = |text| match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let mut found = Vec::new();
    match (object(before), object(after)) {
        (Some(before), Some(after)) => compare(before, after, "", 0, &mut found),
        (None, None) if before == after => {}
        (None, Some(after)) if before.is_empty() => compare(Map::new(), after, "", 0, &mut found),
        _ => found.push(Change {
            path: String::new(),
            before: None,
            after: None,
        }),
    }
    found
}

/// Objects are compared key by key down to a cell's entry.
const DEEPEST: usize = 2;

fn compare(
    mut before: Map<String, Value>,
    mut after: Map<String, Value>,
    path: &str,
    depth: usize,
    found: &mut Vec<Change>,
) {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    for key in keys {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{key}");
        match (before.remove(&key), after.remove(&key)) {
            (before, after) if before == after => {}
            (Some(Value::Object(before)), Some(Value::Object(after))) if depth < DEEPEST => {
                compare(before, after, &path, depth + 1, found);
            }
            (None, Some(Value::Object(after))) if key == "cells" => {
                compare(Map::new(), after, &path, depth + 1, found);
            }
            (before, after) => found.push(Change {
                path,
                before,
                after,
            }),
        }
    }
}
