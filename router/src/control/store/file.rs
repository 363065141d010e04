//! A registry in a file.
//!
//! The history stands beside the file, and whoever writes holds its lock. An edit is on record before it is made: where a
//! program dies between the two, the next one sees it and says so. What an editor saves, who knows of no lock, is put on
//! record by the next program that comes, a running router among them. An edit exchanges the two texts instead of writing
//! over the one that is there, so that what an editor has saved up to that moment is found, and put back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::history::{self, Account, History, Record};
use super::{BY_HAND, By, CUT_OFF, Proposal, Refused, StoreError, said};
use crate::registry::Version;
use crate::registry::edit::changes;
use crate::steps;

/// The end of the name of what is written beside the file.
const FRESH: &str = ".new";

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
        steps::read(&self.file).map_err(|error| StoreError::File(self.file.clone(), error))
    }

    /// Every version, oldest first.
    pub(super) fn records(&self) -> Result<Vec<Record>, StoreError> {
        history::records(&self.history).map_err(|error| self.history_error(error))
    }

    /// Puts on record what came by hand. Waits for nobody: where somebody holds the lock, who may have looked before it
    /// came, nothing is done, and this is to be asked again.
    pub(super) fn notice(&self) -> Result<bool, StoreError> {
        let locked = History::try_lock(&self.history);
        let Some(mut history) = locked.map_err(|error| self.history_error(error))? else {
            return Ok(false);
        };
        let text = self.read()?;
        self.salvage(&mut history, &text)?;
        self.settle(&mut history, &text)?;
        Ok(true)
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
        self.salvage(&mut history, &text)?;
        self.settle(&mut history, &text)?;
        let proposal = propose(&text)?;
        if proposal.text == text {
            return Ok(proposal);
        }
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
            last.map(|last| (last, text.as_slice())),
        );
        history
            .append(&record)
            .map_err(|error| self.history_error(error))?;
        // Only now is there something beside the file: what `salvage` goes by.
        let failed = |error| StoreError::File(self.file.clone(), error);
        let mut saved = Fresh::write(&self.file, &proposal.text)
            .and_then(|fresh| fresh.exchange(&text, &proposal.text))
            .map_err(failed)?;
        let Some(newest) = saved.last().map(|text| Version::of(text)) else {
            return Ok(proposal);
        };
        saved.dedup();
        for text in &saved {
            self.settle(&mut history, text)?;
        }
        Err(Refused::Conflict {
            based_on: None,
            now: newest,
        }
        .into())
    }

    /// Puts on record what lies beside the file since a program died that had exchanged the two, unless it is what the edit
    /// was made of: an editor saved it at that moment.
    fn salvage(&self, history: &mut History, text: &[u8]) -> Result<(), StoreError> {
        let failed = |error| StoreError::File(self.file.clone(), error);
        let beside = Fresh::place(&fs::canonicalize(&self.file).map_err(failed)?, FRESH);
        let left = match fs::read(&beside) {
            Ok(left) => left,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::File(beside, error)),
        };
        let last = history.last().map_err(|error| self.history_error(error))?;
        if let Some(last) = last.filter(|last| last.version == Version::of(text))
            && last.of != Some(Version::of(&left))
        {
            self.settle(history, &left)?;
        }
        fs::remove_file(&beside).map_err(failed)
    }

    /// Puts on record how the text came to be what it is, unless the last record says so.
    fn settle(&self, history: &mut History, text: &[u8]) -> Result<(), StoreError> {
        let failed = |error| self.history_error(error);
        let last = history.last().map_err(failed)?;
        if last.is_some_and(|last| last.version == Version::of(text)) {
            return Ok(());
        }
        let cut_off = last.and_then(|last| last.of) == Some(Version::of(text));
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
        let record = Record::new(account, text, last.zip(before));
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
    /// all, so that what a killed program leaves is found.
    fn write(file: &Path, text: &[u8]) -> io::Result<Self> {
        // A link stays one.
        Self::beside(fs::canonicalize(file)?, FRESH, text)
    }

    fn place(target: &Path, end: &str) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(end);
        target.with_file_name(name)
    }

    /// Under a name that ends in `end`, for a file that need not be there yet.
    pub(super) fn beside(target: PathBuf, end: &str, text: &[u8]) -> io::Result<Self> {
        let beside = Self::place(&target, end);
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
        self.sync()
    }

    /// Puts the text, `new`, in place of `old`, and nothing else: where others save meanwhile, what they saved last is there
    /// in the end. What they saved, oldest first.
    fn exchange(self, old: &[u8], new: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let (mut expected, mut put) = (old.to_owned(), new.to_owned());
        let mut saved: Vec<Vec<u8>> = Vec::new();
        loop {
            match renameat_with(CWD, &self.beside, CWD, &self.target, RenameFlags::EXCHANGE) {
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    return self.overwrite(old);
                }
                Err(error) => return Err(error.into()),
            }
            let found = fs::read(&self.beside)?;
            if found == expected {
                break;
            }
            saved.push(found.clone());
            expected = std::mem::replace(&mut put, found);
        }
        self.sync()?;
        fs::remove_file(&self.beside)?;
        Ok(saved)
    }

    /// The same on a file system that cannot exchange: a save between the look and the rename is lost.
    fn overwrite(self, old: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let found = fs::read(&self.target)?;
        if found != old {
            fs::remove_file(&self.beside)?;
            return Ok(vec![found]);
        }
        self.replace()?;
        Ok(Vec::new())
    }

    fn sync(&self) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The file, and what is beside it, in a folder of its own.
    fn place(text: &str) -> (tempfile::TempDir, FileStore) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registry.json");
        fs::write(&file, text).unwrap();
        (folder, FileStore::new(file))
    }

    fn edit(store: &FileStore, to: &str, meanwhile: impl FnOnce()) -> Result<Proposal, StoreError> {
        let by = By {
            who: "alice".to_owned(),
            through: "cell set".to_owned(),
        };
        store.replace(&by, false, |before| {
            meanwhile();
            Ok(Proposal {
                text: to.into(),
                before: Version::of(before),
                version: Version::of(to.as_bytes()),
                changes: Vec::new(),
            })
        })
    }

    fn through(store: &FileStore) -> Vec<(String, Version)> {
        let records = store.records().unwrap().into_iter();
        records
            .map(|record| (record.through, record.version))
            .collect()
    }

    fn line(through: &str, text: &str) -> (String, Version) {
        (through.to_owned(), Version::of(text.as_bytes()))
    }

    #[test]
    fn what_is_saved_while_an_edit_is_made_is_put_back() {
        let (folder, store) = place("old");
        let save = || fs::write(&store.file, "saved").unwrap();
        let conflict = edit(&store, "new", save).unwrap_err();
        assert!(
            matches!(conflict, StoreError::Refused(Refused::Conflict { now, .. }) if now == Version::of(b"saved"))
        );
        assert_eq!(store.read().unwrap(), b"saved");
        let lines = [
            line(BY_HAND, "old"),
            line("cell set", "new"),
            line(BY_HAND, "saved"),
        ];
        assert_eq!(through(&store), lines);
        assert_eq!(edit(&store, "new", || {}).unwrap().text, b"new");
        assert_eq!(store.read().unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_was_saved_before_a_program_died_is_put_on_record() {
        let (folder, store) = place("old");
        edit(&store, "new", || {}).unwrap();
        let beside = folder.path().join(".registry.json.new");
        // What the edit was made of is on record already; what an editor saved right before the exchange is not.
        for (left, lines) in [("old", 2), ("saved", 4)] {
            fs::write(&beside, left).unwrap();
            assert!(store.notice().unwrap());
            assert!(!beside.exists());
            assert_eq!(store.read().unwrap(), b"new");
            assert_eq!(through(&store).len(), lines, "{left}");
        }
        assert_eq!(
            through(&store)[2..],
            [line(BY_HAND, "saved"), line(CUT_OFF, "new")]
        );
    }

    #[test]
    fn an_edit_that_never_came_to_its_exchange_leaves_no_text() {
        let (folder, store) = place("old");
        edit(&store, "new", || {}).unwrap();
        // As a kill leaves it that comes while the new text is written.
        fs::write(&store.file, "old").unwrap();
        let beside = folder.path().join(".registry.json.new");
        fs::write(&beside, "ne").unwrap();
        assert!(store.notice().unwrap());
        assert!(!beside.exists());
        let lines = [
            line(BY_HAND, "old"),
            line("cell set", "new"),
            line(CUT_OFF, "old"),
        ];
        assert_eq!(through(&store), lines);
    }

    #[test]
    fn who_edits_at_this_moment_is_not_waited_for() {
        let (_folder, store) = place("old");
        let edited = edit(&store, "new", || assert!(!store.notice().unwrap()));
        assert!(edited.is_ok() && store.notice().unwrap());
    }
}
