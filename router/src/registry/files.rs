//! Files of a cell that the router serves itself.

use std::sync::Arc;
use std::time::Duration;

use super::sign_in::PlainPath;

/// The files of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Files {
    /// The folder, `{cell}` already replaced.
    pub folder: Arc<str>,
    /// Where they are, as the cell sees paths.
    pub path: PlainPath,
    /// What becomes of a request for which there is no file.
    pub missing: Missing,
    /// For how long clients need not ask again; zero has them ask each time whether a file has changed.
    pub max_age: Duration,
}

/// What becomes of a request at the files' path for which there is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// 404, and 405 for what is no GET.
    NotFound,
    /// It is the cell's.
    Cell,
}

impl Missing {
    /// Both with their names in the file.
    pub(super) const ALL: [(&'static str, Missing); 2] =
        [("not_found", Missing::NotFound), ("cell", Missing::Cell)];
}
