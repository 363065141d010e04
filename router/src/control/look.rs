//! Whether a file has changed, told by one `stat`.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What tells one state of a file from another: every way of saving (in place, by a rename, by a link that is pointed
/// elsewhere) changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The state of a file now, links followed; `None` where there is none, as between two steps of a save.
pub(super) fn look(file: &Path) -> Option<Seen> {
    fs::metadata(file).ok().as_ref().map(Seen::of)
}
