//! Folders and files beside the registry.

use std::sync::Arc;

use super::object::{Settings, refuse};
use crate::registry::fields::{Key, field};
use crate::registry::name::CellName;
use crate::registry::problem::{Place, Refusal, Report};

const CELL: &str = "{cell}";
const PATH_MAX: usize = 1000;

/// A path before `{cell}` is replaced.
pub(super) struct Template(Arc<str>);

impl Template {
    /// The path for one cell; one allocation for all cells whose path is the same.
    pub(super) fn for_cell(&self, cell: &CellName) -> Arc<str> {
        self.for_name(cell.as_str())
    }

    /// As [`Self::for_cell`].
    pub(super) fn for_name(&self, cell: &str) -> Arc<str> {
        match self.for_all() {
            Some(path) => path,
            None => self.0.replace(CELL, cell).into(),
        }
    }

    /// The path, if it is the same for all cells.
    pub(super) fn for_all(&self) -> Option<Arc<str>> {
        (!self.0.contains(CELL)).then(|| Arc::clone(&self.0))
    }
}

/// Reads the path of a file or a folder at `key`.
pub(super) fn read_path(
    own: &Settings<'_>,
    key: Key,
    place: Place<'_>,
    report: &mut Report<'_>,
) -> Option<Template> {
    let path = own.text(key)?;
    if !path.is_empty() && path.chars().count() <= PATH_MAX && !path.contains(char::is_control) {
        return Some(Template(path.into()));
    }
    let refusal = Refusal::new(
        "this is no path",
        format!(
            "use 1 to 1000 characters without control characters, as in {}",
            field(key).example
        ),
    );
    refuse(own, key, place, refusal, report);
    None
}
