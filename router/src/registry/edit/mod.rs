//! A registry's text edited as an operator would: what is not meant stays byte for byte.
//!
//! Owns the operations that every way of editing is made of, and what makes an edit acceptable. It must never write a
//! text that has a problem which the text before it did not have.

mod change;
mod merge;
mod splice;
mod style;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashSet;
use std::fmt;

pub use self::change::{Change, changes};
pub use self::merge::merge;
use self::splice::{Fault, insert, remove, rename, set};
pub use self::value::value_for;
use super::cell::Admission;
use super::index::Registry;
use super::json;
use super::name::CellName;
use super::problem::{Problem, quoted};

/// The longest way to a key: no key of an entry is so deep.
const MOST_KEYS: usize = 16;

/// One change of a registry's text. Values are JSON texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adds a cell after all others.
    Add {
        /// Its name.
        cell: CellName,
        /// Its entry, an object.
        entry: String,
    },
    /// Sets a key of a cell's entry, or the entry itself; a path of keys reaches into objects.
    Set {
        /// The cell.
        cell: CellName,
        /// The way to the key; none for the entry.
        keys: Vec<String>,
        /// Its value.
        value: String,
    },
    /// Takes a key out of a cell's entry, so that the default holds again.
    Unset {
        /// The cell.
        cell: CellName,
        /// The way to the key, at least one.
        keys: Vec<String>,
    },
    /// Puts items at the end of a list of a cell's entry.
    Append {
        /// The cell.
        cell: CellName,
        /// The way to the list, which is made if it is not there.
        keys: Vec<String>,
        /// The items, as a list.
        items: String,
    },
    /// Takes items out of a list of a cell's entry, or out of a list's objects those with such a prefix.
    Discard {
        /// The cell.
        cell: CellName,
        /// The way to the list.
        keys: Vec<String>,
        /// The items, as a list.
        items: String,
    },
    /// Sets a cell's state; where that is what the defaults say, by taking the key out.
    State {
        /// The cell.
        cell: CellName,
        /// The state.
        state: Admission,
    },
    /// Renames a cell; `default_cell` follows.
    Rename {
        /// Its name so far.
        from: CellName,
        /// Its new name.
        to: CellName,
    },
    /// Removes a cell.
    Remove {
        /// The cell.
        cell: CellName,
    },
    /// Puts another text in place of the whole.
    Replace {
        /// The text.
        text: Vec<u8>,
    },
    /// Writes the whole in one style, in the order that it has.
    Format,
}

/// Why an edit is refused; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditError {
    /// The text as it is cannot be edited: it is no JSON object.
    Unreadable(Vec<Problem>),
    /// There is no such cell.
    NoSuchCell(CellName),
    /// There is such a cell already.
    CellExists(CellName),
    /// The entry has no such key.
    NoSuchKey(String),
    /// A list has no such item.
    NoSuchItem(String),
    /// The key leads into what is no object.
    NoObject(String),
    /// A value is no JSON, or nested too deep.
    BadValue(String),
    /// The way to a key is longer than any.
    TooDeep(usize),
    /// The edited text would have problems that it has not now.
    Invalid(Vec<Problem>),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |problems: &[Problem]| {
            let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
            lines.join("\n")
        };
        match self {
            Self::Unreadable(problems) => write!(
                f,
                "the registry cannot be edited as it is: mend it, or undo\n{}",
                lines(problems)
            ),
            Self::NoSuchCell(cell) => write!(f, "there is no cell \"{cell}\""),
            Self::CellExists(cell) => write!(f, "there is a cell \"{cell}\" already"),
            Self::NoSuchKey(key) => write!(f, "there is no key {}", quoted(key)),
            Self::NoSuchItem(item) => write!(f, "the list has no item {item}"),
            Self::NoObject(key) => write!(f, "{} is no object that a key could be in", quoted(key)),
            Self::BadValue(value) => write!(
                f,
                "{} is no JSON value, or is nested too deep",
                quoted(value)
            ),
            Self::TooDeep(keys) => {
                write!(f, "no key is {keys} keys deep; write at most {MOST_KEYS}")
            }
            Self::Invalid(problems) => write!(
                f,
                "the registry would be broken by it, at these places of the edited text:\n{}",
                lines(problems)
            ),
        }
    }
}

impl std::error::Error for EditError {}

/// Edits a text by operations one after the other. The result has no problem that `text` has not.
///
/// # Errors
/// `EditError`, of the first operation that cannot be done or of the result.
pub fn apply(text: &[u8], operations: &[Operation]) -> Result<Vec<u8>, EditError> {
    let mut edited = text.to_owned();
    for operation in operations {
        edited = match operation {
            Operation::Replace { text } => text.clone(),
            other => step(readable(&edited)?, other)?.into_bytes(),
        };
    }
    let problems = match Registry::parse(&edited) {
        Ok(_) => Vec::new(),
        Err(problems) => fresh(problems, text),
    };
    if problems.is_empty() {
        Ok(edited)
    } else {
        Err(EditError::Invalid(problems))
    }
}

/// A cell's entry as it is written; none where there is none, or the text before it is no JSON.
pub fn entry<'t>(text: &'t [u8], cell: &str) -> Option<&'t str> {
    splice::find(std::str::from_utf8(text).ok()?, &["cells", cell])
}

/// Those problems that `before` has not.
fn fresh(problems: Vec<Problem>, before: &[u8]) -> Vec<Problem> {
    let Err(known) = Registry::parse(before) else {
        return problems;
    };
    let place = |problem: &Problem| (problem.path.clone(), problem.what.clone());
    let known: HashSet<_> = known.iter().map(place).collect();
    let is_fresh = |problem: &Problem| !known.contains(&place(problem));
    problems.into_iter().filter(is_fresh).collect()
}

/// The text, if it is one JSON object.
fn readable(text: &[u8]) -> Result<&str, EditError> {
    let unreadable = || {
        let problems = Registry::parse(text).err().unwrap_or_default();
        EditError::Unreadable(problems)
    };
    let text = std::str::from_utf8(text).map_err(|_| unreadable())?;
    json::members(text.trim(), |_, _| {}).map_err(|_| unreadable())?;
    Ok(text)
}

fn step(text: &str, operation: &Operation) -> Result<String, EditError> {
    match operation {
        Operation::Add { cell, entry } => {
            if splice::has(text, &["cells", cell.as_str()]) {
                return Err(EditError::CellExists(cell.clone()));
            }
            let entry = value(entry)?;
            insert(text, &["cells"], cell.as_str(), entry).map_err(|fault| at(fault, "cells"))
        }
        Operation::Set {
            cell,
            keys,
            value: new,
        } => {
            let path = path(text, cell, keys)?;
            set(text, &path, value(new)?).map_err(|fault| at(fault, &keys.join(".")))
        }
        Operation::Unset { cell, keys } => {
            let path = path(text, cell, keys)?;
            remove(text, &path).map_err(|fault| at(fault, &keys.join(".")))
        }
        Operation::Append { cell, keys, items } => {
            let path = path(text, cell, keys)?;
            let mut all = items_of(splice::find(text, &path).unwrap_or("[]"))?;
            all.extend(items_of(value(items)?)?);
            let list = format!("[{}]", all.join(", "));
            set(text, &path, &list).map_err(|fault| at(fault, &keys.join(".")))
        }
        Operation::Discard { cell, keys, items } => {
            let path = path(text, cell, keys)?;
            let mut left = items_of(splice::find(text, &path).unwrap_or("[]"))?;
            for item in items_of(value(items)?)? {
                let before = left.len();
                left.retain(|there| !is_item(there, item));
                if left.len() == before {
                    return Err(EditError::NoSuchItem(item.to_owned()));
                }
            }
            let list = format!("[{}]", left.join(", "));
            let done = if left.is_empty() {
                remove(text, &path)
            } else {
                set(text, &path, &list)
            };
            done.map_err(|fault| at(fault, &keys.join(".")))
        }
        Operation::State { cell, state } => set_state(text, cell, *state),
        Operation::Rename { from, to } => rename_cell(text, from, to),
        Operation::Remove { cell } => {
            remove(text, &path(text, cell, &[])?).map_err(|fault| at(fault, "cells"))
        }
        Operation::Replace { text } => Ok(String::from_utf8_lossy(text).into_owned()),
        Operation::Format => Ok(style::format(text)),
    }
}

/// The items of a list as written.
fn items_of(list: &str) -> Result<Vec<&str>, EditError> {
    let mut items = Vec::new();
    json::items(list, |item| items.push(item)).map_err(|_| EditError::BadValue(list.to_owned()))?;
    Ok(items)
}

/// Whether an item of a list is the one that is meant: the same value, or an object with it as its prefix.
fn is_item(there: &str, meant: &str) -> bool {
    let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
    match (read(there), read(meant)) {
        (Some(there), Some(meant)) => there == meant || there.get("prefix") == Some(&meant),
        _ => false,
    }
}

fn at(fault: Fault, key: &str) -> EditError {
    match fault {
        Fault::NoSuchKey => EditError::NoSuchKey(key.to_owned()),
        Fault::NoObject => EditError::NoObject(key.to_owned()),
    }
}

/// A value that is edited in. It is read into a tree, for that bounds its depth (at 127): what takes it apart recurses.
fn value(text: &str) -> Result<&str, EditError> {
    let trimmed = text.trim();
    match serde_json::from_str::<serde_json::Value>(trimmed) {
        Ok(_) => Ok(trimmed),
        Err(_) => Err(EditError::BadValue(text.to_owned())),
    }
}

/// The way from the root to a key of a cell that is there.
fn path<'a>(text: &str, cell: &'a CellName, keys: &'a [String]) -> Result<Vec<&'a str>, EditError> {
    if keys.len() > MOST_KEYS {
        return Err(EditError::TooDeep(keys.len()));
    }
    let mut path = vec!["cells", cell.as_str()];
    if !splice::has(text, &path) {
        return Err(EditError::NoSuchCell(cell.clone()));
    }
    path.extend(keys.iter().map(String::as_str));
    Ok(path)
}

fn set_state(text: &str, cell: &CellName, state: Admission) -> Result<String, EditError> {
    let keys = ["state".to_owned()];
    let path = path(text, cell, &keys)?;
    let default = splice::text_at(text, &["defaults", "state"]);
    let default = default.unwrap_or_else(|| Admission::Active.as_str().to_owned());
    let done = if default == state.as_str() {
        match remove(text, &path) {
            Err(Fault::NoSuchKey) => Ok(text.to_owned()),
            done => done,
        }
    } else {
        set(text, &path, &format!("\"{}\"", state.as_str()))
    };
    done.map_err(|fault| at(fault, "state"))
}

fn rename_cell(text: &str, from: &CellName, to: &CellName) -> Result<String, EditError> {
    let path = path(text, from, &[])?;
    if splice::has(text, &["cells", to.as_str()]) {
        return Err(EditError::CellExists(to.clone()));
    }
    let name = format!("\"{to}\"");
    let renamed = rename(text, &path, &name).map_err(|fault| at(fault, "cells"))?;
    if splice::text_at(text, &["default_cell"]).as_deref() != Some(from.as_str()) {
        return Ok(renamed);
    }
    set(&renamed, &["default_cell"], &name).map_err(|fault| at(fault, "default_cell"))
}

/// As a person would say it: `set alice.state to "paused"`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { cell, .. } => write!(f, "add {cell}"),
            Self::Set { cell, keys, value } if keys.is_empty() => {
                write!(f, "set {cell} to {value}")
            }
            Self::Set { cell, keys, value } => {
                write!(f, "set {cell}.{} to {value}", keys.join("."))
            }
            Self::Unset { cell, keys } => write!(f, "take {cell}.{} out", keys.join(".")),
            Self::Append { cell, keys, items } => {
                write!(f, "add {items} to {cell}.{}", keys.join("."))
            }
            Self::Discard { cell, keys, items } => {
                write!(f, "take {items} out of {cell}.{}", keys.join("."))
            }
            Self::State { cell, state } => write!(f, "make {cell} {}", state.as_str()),
            Self::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Self::Remove { cell } => write!(f, "remove {cell}"),
            Self::Replace { .. } => f.write_str("replace the whole text"),
            Self::Format => f.write_str("format"),
        }
    }
}
