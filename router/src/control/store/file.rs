//! A registry in a file.
//!
//! The history stands beside the file, and whoever writes holds its lock. An edit is on record before it is made: where a
//! program dies between the two, the next one sees it and says so. What an editor saves, who knows of no lock, is put on
//! record by the next program that comes, a running router among them. That an editor saves while an edit is made is
//! noticed up to the rename; what remains is a race that such an editor can always cause.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::history::{self, Account, History, Record};
use super::{BY_HAND, By, CUT_OFF, Proposal, Refused, StoreError, said};
use crate::registry::Version;
use crate::registry::edit::changes;

/// A registry file with its history.
#[derive(Debug, Clone)]
pub(super) struct FileStore {
    file: PathBuf,
    history: PathBuf,
}

impl FileStore {
    /// The registry in this file; its history stands beside it, as `NAME.history.jsonl`.
    pub(super) fn new(file: PathBuf) -> Self {
        let history = file.with_extension("history.jsonl");
        Self { file, history }
    }

    /// The text as it is.
    pub(super) fn read(&self) -> Result<Vec<u8>, StoreError> {
        fs::read(&self.file).map_err(|error| StoreError::File(self.file.clone(), error))
    }

    /// Every version, oldest first.
    pub(super) fn records(&self) -> Result<Vec<Record>, StoreError> {
        history::records(&self.history).map_err(|error| self.history_error(error))
    }

    /// Puts on record what came by hand. Waits for nobody: who holds the lock puts on record what is there, too.
    pub(super) fn notice(&self) -> Result<(), StoreError> {
        let locked = History::try_lock(&self.history);
        match locked.map_err(|error| self.history_error(error))? {
            Some(mut history) => self.settle(&mut history, &self.read()?),
            None => Ok(()),
        }
    }

    fn lock(&self) -> Result<History, StoreError> {
        History::lock(&self.history).map_err(|error| self.history_error(error))
    }

    fn history_error(&self, error: io::Error) -> StoreError {
        StoreError::File(self.history.clone(), error)
    }

    /// Puts in place what `propose` makes of the text, on record and durably.
    pub(super) fn replace(
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

/// A text beside the file that it is to replace, on the disk already.
#[derive(Debug)]
pub(super) struct Fresh {
    beside: PathBuf,
    target: PathBuf,
}

impl Fresh {
    /// With the mode of the file, and its owner where that is allowed. Whoever calls holds the lock: the name is one for
    /// all, so that what a killed program leaves is written over.
    fn write(file: &Path, text: &[u8]) -> io::Result<Self> {
        // A link stays one.
        Self::beside(fs::canonicalize(file)?, ".new", text)
    }

    /// Under a name that ends in `end`, for a file that need not be there yet.
    pub(super) fn beside(target: PathBuf, end: &str, text: &[u8]) -> io::Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(end);
        let beside = target.with_file_name(name);
        let mut options = OpenOptions::new();
        let mut fresh = options
            .write(true)
            .create(true)
            .truncate(true)
            .open(&beside)?;
        if let Ok(metadata) = fs::metadata(&target) {
            // Who may not give files away keeps them.
            let _ = std::os::unix::fs::fchown(&fresh, Some(metadata.uid()), Some(metadata.gid()));
            fresh.set_permissions(metadata.permissions())?;
        }
        fresh.write_all(text)?;
        fresh.sync_all()?;
        Ok(Self { beside, target })
    }

    pub(super) fn replace(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.target)?;
        sync_folder(self.target.parent().unwrap_or(Path::new("/")))
    }
}

/// A rename or a new name is on the disk when its folder is.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    File::open(folder)?.sync_all()
}
