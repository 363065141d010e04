//! The registry file as every program edits it: one at a time, none over the other, nothing half-written, all on record.
//!
//! The history stands beside the file, and whoever writes holds its lock. An edit is on record before it is made: where a
//! program dies between the two, the next one sees it and says so. What an editor saves, who knows of no lock, is put on
//! record by the next program that comes, a running router among them. That an editor saves while an edit is made is
//! noticed up to the rename; what remains is a race that such an editor can always cause.

pub mod history;
mod propose;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::history::{Account, History, Record};
pub use self::propose::{Edit, Proposal, Refused, propose};
use crate::registry::edit::{Change, Operation, changes};
use crate::registry::{Registry, Version};

/// What the history calls an edit that came by none of our programs.
const BY_HAND: &str = "by hand";

/// What it calls the end of an edit that was put on record and then not made, as its program died.
const CUT_OFF: &str = "cut off, and not made";

/// How many versions back a good one is looked for.
const LOOK_BACK: usize = 100;

/// A registry file with its history.
#[derive(Debug, Clone)]
pub struct Store {
    file: PathBuf,
    history: PathBuf,
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

impl Store {
    /// The registry in this file; its history stands beside it, as `NAME.history.jsonl`.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        let history = file.with_extension("history.jsonl");
        Self { file, history }
    }

    /// The file of the history.
    pub fn history_file(&self) -> &Path {
        &self.history
    }

    /// The text as it is.
    ///
    /// # Errors
    /// `StoreError::File`.
    pub fn read(&self) -> Result<Vec<u8>, StoreError> {
        fs::read(&self.file).map_err(|error| StoreError::File(self.file.clone(), error))
    }

    /// Edits the text durably. What the file was before is on record then, too.
    ///
    /// # Errors
    /// `StoreError`; the file is as it was.
    pub fn edit(&self, edit: &Edit, by: &By) -> Result<Proposal, StoreError> {
        self.replace(by, edit.confirmed, |text| Ok(propose(text, edit)?))
    }

    /// Brings back the text of a version, or of the one before the current one.
    ///
    /// # Errors
    /// `StoreError`; the file is as it was.
    pub fn undo(&self, to: Option<Version>, edit: &Edit, by: &By) -> Result<Proposal, StoreError> {
        self.replace(by, edit.confirmed, |text| {
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
    /// `StoreError::File`.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        history::records(&self.history).map_err(|error| self.history_error(error))
    }

    /// The text of a version.
    ///
    /// # Errors
    /// `StoreError`.
    pub fn text_of(&self, version: Version) -> Result<Vec<u8>, StoreError> {
        let records = self.records()?;
        let number = records
            .iter()
            .rposition(|record| record.version == version)
            .ok_or(StoreError::NoSuchVersion(version))?;
        history::text_at(&records, number).ok_or(StoreError::Damaged(version))
    }

    /// The newest version in the history that is good as a whole.
    pub fn last_good(&self) -> Option<Vec<u8>> {
        let records = self.records().ok()?;
        let newest = (0..records.len()).rev().take(LOOK_BACK);
        newest
            .filter_map(|number| history::text_at(&records, number))
            .find(|text| Registry::parse(text).is_ok())
    }

    /// Puts on record what came by hand. Waits for nobody: who holds the lock puts on record what is there, too.
    ///
    /// # Errors
    /// `StoreError::File`.
    pub fn notice(&self) -> Result<(), StoreError> {
        let locked = History::try_lock(&self.history);
        match locked.map_err(|error| self.history_error(error))? {
            Some(mut history) => self.settle(&mut history, &self.read()?),
            None => Ok(()),
        }
    }

    /// Whether one of the steps from the version `since` to the version `to` was confirmed, however many cells it unplugs.
    pub fn was_confirmed(&self, since: Version, to: Version) -> bool {
        let records = self.records().unwrap_or_default();
        let steps = records
            .iter()
            .rev()
            .skip_while(|record| record.version != to);
        let mut steps = steps.take_while(|record| record.version != since);
        steps.any(|record| record.confirmed)
    }

    /// The text of `to`, or of the version before `now`.
    fn then(&self, to: Option<Version>, now: Version) -> Result<Vec<u8>, StoreError> {
        if let Some(to) = to {
            return self.text_of(to);
        }
        let records = self.records()?;
        let before = records.iter().rev().find(|record| record.version != now);
        self.text_of(before.ok_or(StoreError::NothingToUndo)?.version)
    }

    fn lock(&self) -> Result<History, StoreError> {
        History::lock(&self.history).map_err(|error| self.history_error(error))
    }

    fn history_error(&self, error: io::Error) -> StoreError {
        StoreError::File(self.history.clone(), error)
    }

    fn replace(
        &self,
        by: &By,
        confirmed: bool,
        propose: impl FnOnce(&[u8]) -> Result<Proposal, StoreError>,
    ) -> Result<Proposal, StoreError> {
        let mut history = self.lock()?;
        let text = self.read()?;
        self.settle(&mut history, &text)?;
        let proposal = propose(&text)?;
        if proposal.text == text {
            return Ok(proposal);
        }
        let fresh = Fresh::write(&self.file, &proposal.text)
            .map_err(|error| StoreError::File(self.file.clone(), error))?;
        let account = Account {
            at: SystemTime::now(),
            who: by.who.clone(),
            through: by.through.clone(),
            what: said(&proposal.changes),
            confirmed,
        };
        let last = history.last().map_err(|error| self.history_error(error))?;
        let record = Record::new(
            account,
            &proposal.text,
            last.as_ref().map(|last| (last, text.as_slice())),
        );
        history
            .append(&record)
            .map_err(|error| self.history_error(error))?;
        let now = self.read()?;
        if now != text {
            self.settle(&mut history, &now)?;
            let now = Version::of(&now);
            return Err(Refused::Conflict {
                based_on: None,
                now,
            }
            .into());
        }
        fresh
            .replace()
            .map_err(|error| StoreError::File(self.file.clone(), error))?;
        Ok(proposal)
    }

    /// Puts on record how the text came to be what it is, unless the last record says so.
    fn settle(&self, history: &mut History, text: &[u8]) -> Result<(), StoreError> {
        let failed = |error| self.history_error(error);
        let last = history.last().map_err(failed)?;
        if last
            .as_ref()
            .is_some_and(|last| last.version == Version::of(text))
        {
            return Ok(());
        }
        let cut_off = last.as_ref().and_then(|last| last.of) == Some(Version::of(text));
        let before = history.last_text().map_err(failed)?;
        let metadata =
            fs::metadata(&self.file).map_err(|error| StoreError::File(self.file.clone(), error))?;
        let what = match &before {
            None => vec!["the history begins".to_owned()],
            Some(before) => said(&changes(before, text)),
        };
        let account = Account {
            at: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            who: format!("user {}", metadata.uid()),
            through: if cut_off { CUT_OFF } else { BY_HAND }.to_owned(),
            what,
            confirmed: false,
        };
        let before = before.as_deref();
        let record = Record::new(account, text, last.as_ref().zip(before));
        history.append(&record).map_err(failed)
    }
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

/// A text beside the file that it is to replace, on the disk already.
#[derive(Debug)]
struct Fresh {
    beside: PathBuf,
    target: PathBuf,
}

impl Fresh {
    /// With the mode of the file, and its owner where that is allowed. Whoever calls holds the lock: the name is one for
    /// all, so that what a killed program leaves is written over.
    fn write(file: &Path, text: &[u8]) -> io::Result<Self> {
        // A link stays one.
        let target = fs::canonicalize(file)?;
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".new");
        let beside = target.with_file_name(name);
        let metadata = fs::metadata(&target)?;
        let mut options = OpenOptions::new();
        let mut fresh = options
            .write(true)
            .create(true)
            .truncate(true)
            .open(&beside)?;
        // Who may not give files away keeps them.
        let _ = std::os::unix::fs::fchown(&fresh, Some(metadata.uid()), Some(metadata.gid()));
        fresh.set_permissions(metadata.permissions())?;
        fresh.write_all(text)?;
        fresh.sync_all()?;
        Ok(Self { beside, target })
    }

    fn replace(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.target)?;
        sync_folder(self.target.parent().unwrap_or(Path::new("/")))
    }
}

/// A rename or a new name is on the disk when its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    File::open(folder)?.sync_all()
}
