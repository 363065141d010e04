//! An edit of a text, judged before anything is written: what every store of a registry does first. Without I/O.

use std::fmt;

use crate::control::unplug::{FEWEST, Unplugged, unplugged};
use crate::registry::edit::{Change, EditError, Operation, apply, changes};
use crate::registry::{Registry, Version};

/// An edit that is wanted.
#[derive(Debug, Clone)]
pub struct Edit {
    /// What is to be done, one after the other, all or nothing.
    pub operations: Vec<Operation>,
    /// The version that whoever edits has seen; none edits whatever is there.
    pub based_on: Option<Version>,
    /// Whether more cells than may go without a word are meant to be unplugged.
    pub confirmed: bool,
    /// How many that are, in percent.
    pub max_unplug_percent: u32,
}

/// An edit that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The text after it.
    pub text: Vec<u8>,
    /// The version before it.
    pub before: Version,
    /// The version after it: the same if nothing changes.
    pub version: Version,
    /// What changes; nothing where only the layout does.
    pub changes: Vec<Change>,
}

/// Why an edit is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It was based on a version that is not the one there is.
    Conflict {
        /// The version that it was based on; none where it changed while the edit was made.
        based_on: Option<Version>,
        /// The version there is.
        now: Version,
    },
    /// It cannot be done, or would break the registry.
    Edit(EditError),
    /// It takes too many cells out of service without a word.
    Unplugs(Unplugged),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict {
                based_on: Some(based_on),
                now,
            } => write!(
                f,
                "the registry is not at version {based_on} any more but at {now}: look again, then edit again"
            ),
            Self::Conflict {
                based_on: None,
                now,
            } => write!(
                f,
                "the registry was saved by somebody else at this moment (version {now}): look again, then edit again"
            ),
            Self::Edit(error) => error.fmt(f),
            Self::Unplugs(unplugged) => write!(
                f,
                "this would unplug {unplugged}; if that is meant, say so with --confirm-unplug"
            ),
        }
    }
}

impl std::error::Error for Refused {}

/// What an edit makes of a text.
///
/// # Errors
/// `Refused`; a conflict before all else.
pub fn propose(text: &[u8], edit: &Edit) -> Result<Proposal, Refused> {
    let before = Version::of(text);
    if let Some(based_on) = edit.based_on.filter(|based_on| *based_on != before) {
        let (based_on, now) = (Some(based_on), before);
        return Err(Refused::Conflict { based_on, now });
    }
    let after = apply(text, &edit.operations).map_err(Refused::Edit)?;
    if !edit.confirmed
        && may_unplug_many(&edit.operations)
        && let (Some(last), Some(next)) = (registry(text), registry(&after))
    {
        let unplugged = unplugged(&last, &next);
        if unplugged.is_over(edit.max_unplug_percent) {
            return Err(Refused::Unplugs(unplugged));
        }
    }
    Ok(Proposal {
        before,
        version: Version::of(&after),
        changes: changes(text, &after),
        text: after,
    })
}

/// Whether operations may take so many cells out of service that it is to be counted. Each that is about one cell unplugs
/// that at most; to count is to read both texts, which takes a while where there are many cells.
fn may_unplug_many(operations: &[Operation]) -> bool {
    let is_whole = |operation: &Operation| matches!(operation, Operation::Replace { .. });
    operations.len() >= FEWEST || operations.iter().any(is_whole)
}

/// The registry of a text, without its broken entries; none where it is broken as a whole.
fn registry(text: &[u8]) -> Option<Registry> {
    let read = Registry::parse_beside(text, &Registry::default(), &[]);
    read.ok().map(|(registry, _)| registry)
}
