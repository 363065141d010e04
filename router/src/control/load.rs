//! From a registry's text to a snapshot, with the secrets and certificates that it names.

use std::fmt;
use std::fs;
use std::hash::Hash;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::HashMap;

use super::look::{may_pass, read, read_text};
use super::pages;
use super::store::StoreError;
use crate::live::pages::Pages;
use crate::live::passwords::Passwords;
use crate::live::snapshot::Snapshot;
use crate::live::trust::Trust;
use crate::registry::{
    Fault, Flag, Problem, Refusal, Registry, SecretSource, TrustSource, Version,
};
use crate::steps::Steps;
use crate::wire::signature::Keys;

/// The largest file that an entry names, in bytes: passwords of many, or authorities. Secrets are a few lines.
const LARGEST: u64 = 16 << 20;
const LARGEST_SECRET: u64 = 64 << 10;

/// Why a file gives no snapshot.
#[derive(Debug)]
pub enum LoadError {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It cannot be had from where it is kept.
    Unavailable(StoreError),
    /// It is no valid registry, or what it names cannot be had.
    Invalid(Vec<Problem>),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::File(_, error) => Self::Unreadable(error),
            error => Self::Unavailable(error),
        }
    }
}

impl LoadError {
    /// One line for each problem, with the file's name.
    pub fn lines(&self, file: &Path) -> Vec<String> {
        let file = file.display().to_string();
        match self {
            Self::Unreadable(error) => vec![format!(
                "{file}: {error}; check the path and the permissions"
            )],
            Self::Unavailable(error) => vec![error.to_string()],
            Self::Invalid(problems) => problems
                .iter()
                .map(|problem| problem.in_file(&file).to_string())
                .collect(),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines(Path::new("registry")).join("\n"))
    }
}

impl std::error::Error for LoadError {}

/// Makes a snapshot of a text, reading the secrets and certificates that it names: relative paths are meant from `folder`,
/// and `variable` reads the environment. With the snapshot that was in force until now, an entry that is broken, or names
/// what cannot be had, is flagged and stays as it was; see [`Registry::parse_beside`].
///
/// # Errors
/// `LoadError::Invalid`, with all problems at once; without `last`, those of entries, too.
pub fn load(
    text: &[u8],
    folder: &Path,
    last: Option<&Snapshot>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Snapshot, LoadError> {
    let none = Registry::default();
    let before = last.map_or(&none, |last| &last.registry);
    let (registry, flags) = match last {
        Some(_) => Registry::parse_beside(text, before, &[]),
        None => Registry::parse(text).map(|registry| (registry, Vec::new())),
    }
    .map_err(LoadError::Invalid)?;
    let mut named = Named::default();
    named.read(&registry, folder, &variable);
    if named.faults.is_empty() {
        return Ok(named.snapshot(registry, text, flags));
    }
    let (registry, flags) =
        Registry::parse_beside(text, before, &named.faults).map_err(LoadError::Invalid)?;
    let Some(last) = last else {
        let mut problems: Vec<_> = flags.into_iter().flat_map(|flag| flag.problems).collect();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        return Err(LoadError::Invalid(problems));
    };
    named.read(&registry, folder, &variable);
    named.keep(&registry, last);
    Ok(named.snapshot(registry, text, flags))
}

/// What entries name, as far as it has been read.
#[derive(Default)]
struct Named {
    keys: Once<SecretSource, Keys>,
    trust: Once<TrustSource, Trust>,
    pages: Once<Arc<str>, Pages>,
    passwords: Once<Arc<str>, Passwords>,
    folders: Once<Arc<str>, PathBuf>,
    faults: Vec<Fault>,
    /// Whether one of them may pass.
    passing: bool,
}

impl Named {
    fn read(
        &mut self,
        registry: &Registry,
        folder: &Path,
        variable: &impl Fn(&str) -> Option<String>,
    ) {
        let mut steps = Steps::default();
        for cell in registry.cells() {
            steps.step();
            let mut miss = |key, missing: Missing| {
                let (cell, refusal) = (cell.name.clone(), missing.refusal);
                self.faults.push(Fault { cell, key, refusal });
                self.passing |= missing.passing;
            };
            if let Some(source) = &cell.secret
                && let Err(why) = self.keys.read(source, || secret(source, folder, variable))
            {
                miss("secret", why);
            }
            if let Some(source) = cell.policy.tls.as_ref().map(|tls| &tls.trust)
                && let Err(why) = self.trust.read(source, || judge(source, folder))
            {
                miss("tls", why);
            }
            if let Some(source) = &cell.policy.pages
                && let Err(why) = self.pages.read(source, || pages::read(source, folder))
            {
                miss("pages", why);
            }
            if let Some(source) = cell
                .policy
                .sign_in
                .as_ref()
                .and_then(|sign_in| sign_in.file())
                && let Err(why) = self.passwords.read(source, || passwords(source, folder))
            {
                miss("sign_in", why);
            }
            if let Some(source) = cell.policy.files.as_ref().map(|files| &files.folder)
                && let Err(why) = self.folders.read(source, || files(source, folder))
            {
                miss("static", why);
            }
        }
        if let Some(source) = registry.pages()
            && let Err(why) = self.pages.read(source, || pages::read(source, folder))
        {
            // No entry is about it: there is none, or each has told.
            self.passing |= why.passing;
            tracing::warn!("the pages in defaults: {}", why.refusal);
        }
    }

    /// Takes over what cells that stay as they were had then, and what cannot be had now.
    fn keep(&mut self, registry: &Registry, last: &Snapshot) {
        if let (Some(source), Some(pages)) = (registry.pages(), last.pages(None)) {
            let pages = || Arc::clone(pages);
            self.pages
                .there
                .entry(Arc::clone(source))
                .or_insert_with(pages);
        }
        for cell in registry.cells() {
            if let (Some(source), Some(keys)) = (&cell.secret, last.keys(cell)) {
                let keys = || Arc::clone(keys);
                self.keys
                    .there
                    .entry(SecretSource::clone(source))
                    .or_insert_with(keys);
            }
            if let (Some(tls), Some(trust)) = (&cell.policy.tls, last.trust(cell)) {
                let trust = || Arc::clone(trust);
                self.trust
                    .there
                    .entry(tls.trust.clone())
                    .or_insert_with(trust);
            }
            if let (Some(source), Some(pages)) = (&cell.policy.pages, last.pages(Some(cell))) {
                let pages = || Arc::clone(pages);
                self.pages
                    .there
                    .entry(Arc::clone(source))
                    .or_insert_with(pages);
            }
            if let (Some(sign_in), Some(passwords)) = (&cell.policy.sign_in, last.passwords(cell))
                && let Some(source) = sign_in.file()
            {
                let passwords = || Arc::clone(passwords);
                let kept = self.passwords.there.entry(Arc::clone(source));
                kept.or_insert_with(passwords);
            }
            if let (Some(files), Some(folder)) = (&cell.policy.files, last.folder(cell)) {
                let folder = || Arc::clone(folder);
                let kept = self.folders.there.entry(Arc::clone(&files.folder));
                kept.or_insert_with(folder);
            }
        }
    }

    fn snapshot(self, registry: Registry, text: &[u8], flags: Vec<Flag>) -> Snapshot {
        Snapshot {
            registry,
            version: Version::of(text),
            flags,
            passing: self.passing,
            keys: self.keys.there,
            trust: self.trust.there,
            pages: self.pages.there,
            passwords: self.passwords.there,
            folders: self.folders.there,
        }
    }
}

/// Why what an entry names cannot be had.
#[derive(Clone)]
pub(super) struct Missing {
    refusal: Refusal,
    passing: bool,
}

impl Missing {
    /// The file or folder that is `named`: `why`, which the operator has to mend.
    pub(super) fn new(named: &str, why: impl fmt::Display) -> Self {
        let refusal = Refusal {
            what: format!("{named}: {why}"),
            fix: MEND_FILE.to_owned(),
        };
        let passing = false;
        Self { refusal, passing }
    }

    /// The file or folder that is `named` cannot be read.
    pub(super) fn unread(named: &str, error: &io::Error) -> Self {
        let passing = may_pass(error);
        Self {
            passing,
            ..Self::new(named, error)
        }
    }
}

/// What has been read of one sort, each once, however many cells name it.
struct Once<S, T> {
    there: HashMap<S, Arc<T>>,
    missing: HashMap<S, Missing>,
}

impl<S, T> Default for Once<S, T> {
    fn default() -> Self {
        Self {
            there: HashMap::default(),
            missing: HashMap::default(),
        }
    }
}

impl<S: Clone + Eq + Hash, T> Once<S, T> {
    /// Reads what `source` names, unless it has been read already.
    fn read(
        &mut self,
        source: &S,
        how: impl FnOnce() -> Result<T, Missing>,
    ) -> Result<(), Missing> {
        if self.there.contains_key(source) {
            return Ok(());
        }
        if let Some(why) = self.missing.get(source) {
            return Err(why.clone());
        }
        let read = how().inspect_err(|why| {
            self.missing.insert(source.clone(), why.clone());
        })?;
        self.there.insert(source.clone(), Arc::new(read));
        Ok(())
    }
}

fn secret(
    source: &SecretSource,
    folder: &Path,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Keys, Missing> {
    match source {
        SecretSource::Env(name) => {
            let refuse = |why: &dyn fmt::Display| Missing {
                refusal: Refusal {
                    what: format!("the environment variable {name}{why}"),
                    fix: "set it and start the router anew".to_owned(),
                },
                passing: false,
            };
            let text = variable(name).ok_or_else(|| refuse(&" is not set"))?;
            Keys::parse(&text).map_err(|none| refuse(&format_args!(": {none}")))
        }
        SecretSource::File(path) => {
            let named = format!("the file {path}");
            let text = text(&named, &folder.join(&**path), LARGEST_SECRET)?;
            Keys::parse(&text).map_err(|none| Missing::new(&named, none))
        }
    }
}

fn judge(source: &TrustSource, folder: &Path) -> Result<Trust, Missing> {
    match source {
        TrustSource::Authorities(path) => {
            let named = format!("the file {path}");
            let pem = read(&folder.join(path), LARGEST)
                .map_err(|error| Missing::unread(&named, &error))?;
            Trust::authorities(&pem).map_err(|why| Missing::new(&named, why))
        }
        TrustSource::Key(pin) => Trust::key(*pin).map_err(|what| Missing {
            refusal: Refusal {
                what,
                fix: MEND_FILE.to_owned(),
            },
            passing: false,
        }),
    }
}

fn files(source: &str, folder: &Path) -> Result<PathBuf, Missing> {
    let named = format!("the folder {source}");
    let path = folder.join(source);
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(Missing::new(&named, "it is no folder")),
        Err(error) => Err(Missing::unread(&named, &error)),
    }
}

fn passwords(source: &str, folder: &Path) -> Result<Passwords, Missing> {
    let named = format!("the file {source}");
    let text = text(&named, &folder.join(source), LARGEST)?;
    Passwords::parse(&text).map_err(|why| Missing::new(&named, why))
}

fn text(named: &str, path: &Path, most: u64) -> Result<String, Missing> {
    read_text(path, most).map_err(|error| Missing::unread(named, &error))
}

const MEND_FILE: &str = "mend it, then touch the registry or send SIGHUP to the router";

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_many_name_is_looked_for_once_whether_it_is_there_or_not() {
        for there in [true, false] {
            let (mut files, looks) = (Once::default(), Cell::new(0));
            for _ in 0..3 {
                let read = files.read(&"a.pem", || {
                    looks.set(looks.get() + 1);
                    there
                        .then_some(7)
                        .ok_or_else(|| Missing::new("a.pem", "it is gone"))
                });
                assert_eq!(read.is_ok(), there);
            }
            assert_eq!(looks.get(), 1);
        }
    }
}
