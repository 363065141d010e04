//! A JSON merge patch (RFC 7396) of a cell's entry, as operations.

use super::{EditError, Operation, readable, splice, value};
use crate::registry::json::{self, Shape};
use crate::registry::name::CellName;

/// The operations that a merge patch of a cell's entry is: a key that is null is taken out, objects are gone into, all else
/// is set.
///
/// # Errors
/// `Unreadable`, `NoSuchCell`; `BadValue` for a patch that is no object.
pub fn merge(text: &[u8], cell: &CellName, patch: &str) -> Result<Vec<Operation>, EditError> {
    let text = readable(text)?;
    let entry = splice::find(text, &["cells", cell.as_str()]);
    let entry = entry.ok_or_else(|| EditError::NoSuchCell(cell.clone()))?;
    let patch = value(patch)?;
    if Shape::of(patch) != Shape::Object {
        return Err(EditError::BadValue(patch.to_owned()));
    }
    let mut operations = Vec::new();
    step(entry, cell, &[], patch, &mut operations)?;
    Ok(operations)
}

fn step(
    entry: &str,
    cell: &CellName,
    way: &[String],
    patch: &str,
    operations: &mut Vec<Operation>,
) -> Result<(), EditError> {
    for (name, new) in members(patch)? {
        let keys: Vec<String> = way.iter().cloned().chain([name]).collect();
        let path: Vec<&str> = keys.iter().map(String::as_str).collect();
        let old = splice::find(entry, &path).map(Shape::of);
        match Shape::of(new) {
            Shape::Null if old.is_none() => {}
            Shape::Null => operations.push(Operation::Unset {
                cell: cell.clone(),
                keys,
            }),
            Shape::Object if old == Some(Shape::Object) => {
                step(entry, cell, &keys, new, operations)?
            }
            _ => operations.push(Operation::Set {
                cell: cell.clone(),
                keys,
                value: without_nulls(new)?,
            }),
        }
    }
    Ok(())
}

/// What a patch puts where there was no object: itself, without what it would have taken out.
fn without_nulls(new: &str) -> Result<String, EditError> {
    if Shape::of(new) != Shape::Object {
        return Ok(new.to_owned());
    }
    let mut kept = Vec::new();
    for (name, value) in members(new)? {
        if Shape::of(value) != Shape::Null {
            let key = serde_json::Value::from(name);
            kept.push(format!("{key}: {}", without_nulls(value)?));
        }
    }
    Ok(format!("{{{}}}", kept.join(", ")))
}

fn members(object: &str) -> Result<Vec<(String, &str)>, EditError> {
    let bad = || EditError::BadValue(object.to_owned());
    let mut found = Vec::new();
    json::members(object, |key, value| found.push((key, value))).map_err(|_| bad())?;
    let name = |(key, value)| {
        let key = json::string(key).map_err(|_| bad())?;
        Ok((key.into_owned(), value))
    };
    found.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::*;

    fn patched(entry: &str, patch: &str) -> String {
        let text = format!(r#"{{"version": 1, "cells": {{"alice": {entry}}}}}"#);
        let cell = CellName::parse("alice").unwrap();
        let operations = merge(text.as_bytes(), &cell, patch).unwrap();
        let text = apply(text.as_bytes(), &operations).unwrap();
        super::super::entry(&text, "alice").unwrap().to_owned()
    }

    #[test]
    fn a_patch_sets_takes_out_and_goes_into_objects() {
        let entry = r#"{"address": "h:1", "max_in_flight": 5}"#;
        for (patch, expected) in [
            ("{}", entry),
            (
                r#"{"max_in_flight": 6}"#,
                r#"{"address": "h:1", "max_in_flight": 6}"#,
            ),
            (
                r#"{"max_in_flight": null, "paths": null}"#,
                r#"{"address": "h:1"}"#,
            ),
            (
                r#"{"secret": {"env": "A", "file": null}}"#,
                r#"{"address": "h:1", "max_in_flight": 5, "secret": {"env": "A"}}"#,
            ),
        ] {
            assert_eq!(patched(entry, patch), expected, "{patch}");
        }
        let secret = r#"{"address": "h:1", "secret": {"env": "A"}}"#;
        assert_eq!(
            patched(secret, r#"{"secret": {"env": null, "file": "x"}}"#),
            r#"{"address": "h:1", "secret": {"file": "x"}}"#
        );
    }

    #[test]
    fn what_is_no_object_is_no_patch() {
        let text = br#"{"version": 1, "cells": {"alice": {"address": "h:1"}}}"#;
        let cell = CellName::parse("alice").unwrap();
        for patch in ["[]", "null", "{", ""] {
            let refused = merge(text, &cell, patch).unwrap_err();
            assert!(matches!(refused, EditError::BadValue(_)), "{patch}");
        }
        let nobody = CellName::parse("nobody").unwrap();
        assert_eq!(
            merge(text, &nobody, "{}"),
            Err(EditError::NoSuchCell(nobody.clone()))
        );
    }
}
