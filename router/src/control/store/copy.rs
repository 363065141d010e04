//! A copy on this machine of what was put in force last, so that a router starts while the store is away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::Fresh;

/// The copy: a file with the text that was put in force last. Where that was not good as a whole, the last one that was
/// lies beside it as `NAME.good`, as what stands for its broken entries.
#[derive(Debug, Clone)]
pub(in crate::control) struct Copy {
    file: PathBuf,
    good: PathBuf,
}

impl Copy {
    /// The copy in that file; its folder must be there.
    pub(in crate::control) fn new(file: PathBuf) -> Self {
        let mut good = file.clone().into_os_string();
        good.push(".good");
        Self {
            good: good.into(),
            file,
        }
    }

    /// The file.
    pub(in crate::control) fn file(&self) -> &Path {
        &self.file
    }

    /// The text that was put in force last.
    ///
    /// # Errors
    /// Those of the system; `NotFound` where there is none yet.
    pub(in crate::control) fn text(&self) -> io::Result<Vec<u8>> {
        match fs::read(&self.file) {
            // A program that died between its two steps left the older one only.
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::read(&self.good),
            read => read,
        }
    }

    /// The last text that was good as a whole, where the one that was put in force last was not.
    pub(in crate::control) fn good(&self) -> Option<Vec<u8>> {
        fs::read(&self.good).ok()
    }

    /// Keeps a text that is in force now; `whole` is whether it is good as a whole. Each process writes beside it under a
    /// name of its own, so that two routers may share a copy.
    ///
    /// # Errors
    /// Those of the system; a copy that was there is one still.
    pub(in crate::control) fn keep(&self, text: &[u8], whole: bool) -> io::Result<()> {
        let end = format!(".{}.new", std::process::id());
        let put = || Fresh::beside(self.file.clone(), &end, text)?.replace();
        if whole {
            put()?;
            return match fs::remove_file(&self.good) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if !self.good.exists() && self.file.exists() {
            fs::rename(&self.file, &self.good)?;
        }
        put()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_good_as_a_whole_stays_until_something_is_again() {
        let folder = tempfile::tempdir().unwrap();
        let copy = Copy::new(folder.path().join("copy.json"));
        let is = |text: &str, good: Option<&str>| {
            assert_eq!(copy.text().unwrap(), text.as_bytes());
            assert_eq!(copy.good().as_deref(), good.map(str::as_bytes));
        };
        assert_eq!(copy.text().unwrap_err().kind(), io::ErrorKind::NotFound);
        copy.keep(b"one", true).unwrap();
        is("one", None);
        copy.keep(b"two, broken", false).unwrap();
        is("two, broken", Some("one"));
        copy.keep(b"three, broken", false).unwrap();
        is("three, broken", Some("one"));
        fs::remove_file(folder.path().join("copy.json")).unwrap();
        is("one", Some("one"));
        copy.keep(b"four", true).unwrap();
        is("four", None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
