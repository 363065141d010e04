//! The registry as every program edits it: one at a time, none over the other, nothing half-written, all on record.
//!
//! It lies in a file, with its history beside it, or in a bucket of an S3-compatible store, for many routers. What holds of
//! both is here; how each keeps its promise is in `file` and `bucket`.

pub mod bucket;
mod copy;
mod file;
pub mod history;
mod propose;

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use self::bucket::{Bucket, BucketError};
pub(super) use self::copy::Copy;
use self::file::FileStore;
use self::history::{Chain, Record};
pub use self::propose::{Edit, Proposal, Refused, propose};
use crate::registry::edit::{Change, Operation};
use crate::registry::{Registry, Version};

/// What the history calls an edit that came by none of our programs.
const BY_HAND: &str = "by hand";

/// What it calls the end of an edit that was put on record and then not made, as its program died.
const CUT_OFF: &str = "cut off, and not made";

/// How many versions back a good one, and a confirmed step, is looked for.
const LOOK_BACK: usize = 100;

/// How many versions are read at first where a few are likely to do, and at most at once.
const FEW: usize = 4;
const MOST: usize = 1000;

/// A registry with its history: every operation is the same wherever it lies. All of them block; in a runtime they belong
/// on a thread for that.
#[derive(Debug, Clone)]
pub struct Store(Backend);

#[derive(Debug, Clone)]
enum Backend {
    File(FileStore),
    Bucket(Arc<Bucket>),
}

/// Who edits, and through what.
#[derive(Debug, Clone)]
pub struct By {
    /// Who.
    pub who: String,
    /// Through what, such as `cell set`.
    pub through: String,
}

/// Why nothing was stored.
#[derive(Debug)]
pub enum StoreError {
    /// A file cannot be read or written.
    File(PathBuf, io::Error),
    /// The bucket does not do it.
    Bucket(BucketError),
    /// The edit is not to be made.
    Refused(Refused),
    /// The history has no such version.
    NoSuchVersion(Version),
    /// The history has nothing before what is there.
    NothingToUndo,
    /// The history does not hold together at this version.
    Damaged(Version),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Bucket(error) => error.fmt(f),
            Self::Refused(refused) => refused.fmt(f),
            Self::NoSuchVersion(version) => write!(
                f,
                "the history has no version {version}; `cell-router registry history` lists them"
            ),
            Self::NothingToUndo => f.write_str("the history has nothing before this version"),
            Self::Damaged(version) => {
                write!(
                    f,
                    "the history is damaged: version {version} cannot be had from it"
                )
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<BucketError> for StoreError {
    fn from(error: BucketError) -> Self {
        Self::Bucket(error)
    }
}

impl Store {
    /// The registry of this name: a file, or `s3://BUCKET/KEY`, for which the environment says where the store is and who
    /// asks (see `bucket::place`).
    pub fn new(name: impl Into<PathBuf>) -> Self {
        let name = name.into();
        Self(match Bucket::named(&name) {
            Some(bucket) => Backend::Bucket(bucket),
            None => Backend::File(FileStore::new(name)),
        })
    }

    /// The bucket that it lies in; none for a file.
    pub(super) fn bucket(&self) -> Option<Arc<Bucket>> {
        match &self.0 {
            Backend::File(_) => None,
            Backend::Bucket(bucket) => Some(Arc::clone(bucket)),
        }
    }

    /// The text as it is.
    ///
    /// # Errors
    /// `StoreError::File`, `StoreError::Bucket`.
    pub fn read(&self) -> Result<Vec<u8>, StoreError> {
        match &self.0 {
            Backend::File(file) => file.read(),
            Backend::Bucket(bucket) => bucket.read(),
        }
    }

    /// The text, and what `plan` wants done to it. Where an object is lost, or was not made yet, it is planned for an empty
    /// text, if the plan is to put another in place of the whole.
    ///
    /// # Errors
    /// `StoreError::File`, `StoreError::Bucket`, and those of `plan`.
    pub fn planned<E: From<StoreError>>(
        &self,
        plan: impl Fn(&[u8]) -> Result<Vec<Operation>, E>,
    ) -> Result<(Vec<u8>, Vec<Operation>), E> {
        match self.read() {
            Ok(text) => {
                let operations = plan(&text)?;
                Ok((text, operations))
            }
            Err(StoreError::Bucket(absent)) if absent.is_absent() => match plan(b"") {
                Ok(operations) if is_fresh(&operations) => Ok((Vec::new(), operations)),
                _ => Err(StoreError::Bucket(absent).into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Edits the text durably. What it was before is on record then, too.
    ///
    /// # Errors
    /// `StoreError`; the text is as it was, unless the error says that this is not known.
    pub fn edit(&self, edit: &Edit, by: &By) -> Result<Proposal, StoreError> {
        let fresh = is_fresh(&edit.operations);
        self.replace(by, edit.confirmed, fresh, |text| Ok(propose(text, edit)?))
    }

    /// Brings back the text of a version, or of the one before the current one.
    ///
    /// # Errors
    /// As those of [`Store::edit`].
    pub fn undo(&self, to: Option<Version>, edit: &Edit, by: &By) -> Result<Proposal, StoreError> {
        self.replace(by, edit.confirmed, true, |text| {
            let text_then = self.then(to, Version::of(text))?;
            let operations = vec![Operation::Replace { text: text_then }];
            let edit = Edit {
                operations,
                ..edit.clone()
            };
            Ok(propose(text, &edit)?)
        })
    }

    /// Every version, oldest first.
    ///
    /// # Errors
    /// `StoreError::File`, `StoreError::Bucket`.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        self.walk(None, MOST, |_, record| {
            records.push(record);
            ControlFlow::Continue(())
        })?;
        records.reverse();
        Ok(records)
    }

    /// Goes through the versions, the newest first, until `visit` breaks off: all, or those below a number. A version has a
    /// greater number than those before it. `enough` is how many it will take, as far as can be told: so many are read first.
    ///
    /// # Errors
    /// `StoreError::File`, `StoreError::Bucket`.
    pub fn walk(
        &self,
        below: Option<u64>,
        enough: usize,
        mut visit: impl FnMut(u64, Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        match &self.0 {
            Backend::File(file) => {
                let records = (0..).zip(file.records()?);
                let below = records.take_while(|(number, _)| below.is_none_or(|end| *number < end));
                let records: Vec<_> = below.collect();
                let mut newest = records.into_iter().rev();
                let _ = newest.try_for_each(|(number, record)| visit(number, record));
            }
            Backend::Bucket(bucket) => {
                let (mut below, mut count) = (below, enough.clamp(1, MOST));
                loop {
                    let records = bucket.newest(below, count)?;
                    let all = records.len() < count;
                    for (number, record) in records {
                        below = Some(number);
                        if visit(number, record).is_break() {
                            return Ok(());
                        }
                    }
                    if all {
                        break;
                    }
                    count = (count * 4).min(MOST);
                }
            }
        }
        Ok(())
    }

    /// The text of a version.
    ///
    /// # Errors
    /// `StoreError`.
    pub fn text_of(&self, version: Version) -> Result<Vec<u8>, StoreError> {
        let mut chain = Chain::default();
        self.walk(None, FEW, |_, record| {
            if chain.is_empty() && record.version != version {
                return ControlFlow::Continue(());
            }
            chain.take(record)
        })?;
        if chain.is_empty() {
            return Err(StoreError::NoSuchVersion(version));
        }
        chain.text().ok_or(StoreError::Damaged(version))
    }

    /// The newest version in the history that is good as a whole.
    pub fn last_good(&self) -> Option<Vec<u8>> {
        let mut records = Vec::new();
        let walked = self.walk(None, FEW, |_, record: Record| {
            let enough = records.len() + 1 >= LOOK_BACK && record.is_whole();
            records.push(record);
            if enough {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        walked.ok()?;
        records.reverse();
        let newest = (0..records.len()).rev().take(LOOK_BACK);
        newest
            .filter_map(|number| history::text_at(&records, number))
            .find(|text| Registry::parse(text).is_ok())
    }

    /// Puts on record what came by hand; in a bucket, also brings to its end what a program that died has left. Waits for
    /// nobody else who edits: false where that is to be asked again, for somebody edits the file at this moment.
    ///
    /// # Errors
    /// `StoreError::File`, `StoreError::Bucket`.
    pub fn notice(&self) -> Result<bool, StoreError> {
        match &self.0 {
            Backend::File(file) => file.notice(),
            Backend::Bucket(bucket) => bucket.notice().map(|()| true),
        }
    }

    /// Whether the way from the version `since` to the version `to` was agreed to, however many cells it unplugs: one of its
    /// steps was confirmed, or each was made by a program, which judged it then. Together they may be more than either.
    ///
    /// # Errors
    /// `StoreError::File`, `StoreError::Bucket`.
    pub fn was_agreed(&self, since: Version, to: Version) -> Result<bool, StoreError> {
        let (mut seen, mut within, mut by_hand, mut agreed) = (0, false, false, false);
        self.walk(None, FEW, |_, record| {
            seen += 1;
            within |= record.version == to;
            let back = within && record.version == since;
            agreed = match back {
                true => !by_hand,
                // Nobody has seen what came by hand after it.
                false => within && record.confirmed && !by_hand,
            };
            // What looks like an edit that was not made may be a save, too, that took one back.
            by_hand |= within && [BY_HAND, CUT_OFF].contains(&&*record.through);
            if back || agreed || seen >= LOOK_BACK {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(agreed)
    }

    /// The text of `which`, or of the version before `now`: the one on record below the newest record of `now`, or the
    /// newest where `now` is not on record yet.
    ///
    /// # Errors
    /// `StoreError`.
    pub fn then(&self, which: Option<Version>, now: Version) -> Result<Vec<u8>, StoreError> {
        if let Some(which) = which {
            return self.text_of(which);
        }
        // Where nothing is there, there is no need to look for it.
        let mut seen = now == Version::of(b"");
        let (mut newest, mut before) = (None, None);
        self.walk(None, FEW, |_, record| {
            newest.get_or_insert(record.version);
            if seen && record.version != now {
                before = Some(record.version);
                return ControlFlow::Break(());
            }
            seen |= record.version == now;
            ControlFlow::Continue(())
        })?;
        let before = before.or(newest.filter(|_| !seen));
        self.text_of(before.ok_or(StoreError::NothingToUndo)?)
    }

    /// Puts in place what `propose` makes of the text. `fresh` is whether it can do without one.
    fn replace(
        &self,
        by: &By,
        confirmed: bool,
        fresh: bool,
        propose: impl Fn(&[u8]) -> Result<Proposal, StoreError>,
    ) -> Result<Proposal, StoreError> {
        match &self.0 {
            Backend::File(file) => file.replace(by, confirmed, propose),
            Backend::Bucket(bucket) => bucket.replace(by, confirmed, fresh, propose),
        }
    }
}

/// Whether that can be done without a text that is there.
fn is_fresh(operations: &[Operation]) -> bool {
    matches!(operations, [Operation::Replace { .. }])
}

fn said(changes: &[Change]) -> Vec<String> {
    if changes.is_empty() {
        return vec!["the layout only".to_owned()];
    }
    changes.iter().map(Change::to_string).collect()
}

/// Who runs this program, as the environment tells it: for people who trust each other.
pub fn who(variable: impl Fn(&str) -> Option<String>) -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| variable(name).filter(|name| !name.is_empty()));
    name.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()))
}
