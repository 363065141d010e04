//! From a registry's text to a snapshot, with the secrets and certificates that it names.

use std::fmt;
use std::fs;
use std::hash::Hash;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::HashMap;

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
    keys: HashMap<SecretSource, Arc<Keys>>,
    trust: HashMap<TrustSource, Arc<Trust>>,
    pages: HashMap<Arc<str>, Arc<Pages>>,
    passwords: HashMap<Arc<str>, Arc<Passwords>>,
    folders: HashMap<Arc<str>, Arc<PathBuf>>,
    faults: Vec<Fault>,
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
            let mut miss = |key, refusal| {
                let cell = cell.name.clone();
                self.faults.push(Fault { cell, key, refusal });
            };
            if let Some(source) = &cell.secret
                && let Err(why) = once(&mut self.keys, source, || secret(source, folder, variable))
            {
                miss("secret", why);
            }
            if let Some(source) = cell.policy.tls.as_ref().map(|tls| &tls.trust)
                && let Err(why) = once(&mut self.trust, source, || judge(source, folder))
            {
                miss("tls", why);
            }
            if let Some(source) = &cell.policy.pages
                && let Err(why) = once(&mut self.pages, source, || pages::read(source, folder))
            {
                miss("pages", why);
            }
            if let Some(source) = cell
                .policy
                .sign_in
                .as_ref()
                .and_then(|sign_in| sign_in.file())
                && let Err(why) = once(&mut self.passwords, source, || passwords(source, folder))
            {
                miss("sign_in", why);
            }
            if let Some(source) = cell.policy.files.as_ref().map(|files| &files.folder)
                && let Err(why) = once(&mut self.folders, source, || files(source, folder))
            {
                miss("static", why);
            }
        }
        if let Some(source) = registry.pages()
            && let Err(why) = once(&mut self.pages, source, || pages::read(source, folder))
        {
            // No entry is about it: there is none, or each has told.
            tracing::warn!("the pages in defaults: {why}");
        }
    }

    /// Takes over what cells that stay as they were had then, and what cannot be had now.
    fn keep(&mut self, registry: &Registry, last: &Snapshot) {
        for cell in registry.cells() {
            if let (Some(source), Some(keys)) = (&cell.secret, last.keys(cell)) {
                let keys = || Arc::clone(keys);
                self.keys
                    .entry(SecretSource::clone(source))
                    .or_insert_with(keys);
            }
            if let (Some(tls), Some(trust)) = (&cell.policy.tls, last.trust(cell)) {
                let trust = || Arc::clone(trust);
                self.trust.entry(tls.trust.clone()).or_insert_with(trust);
            }
            if let (Some(source), Some(pages)) = (&cell.policy.pages, last.pages(Some(cell))) {
                let pages = || Arc::clone(pages);
                self.pages.entry(Arc::clone(source)).or_insert_with(pages);
            }
            if let (Some(sign_in), Some(passwords)) = (&cell.policy.sign_in, last.passwords(cell))
                && let Some(source) = sign_in.file()
            {
                let passwords = || Arc::clone(passwords);
                let kept = self.passwords.entry(Arc::clone(source));
                kept.or_insert_with(passwords);
            }
            if let (Some(files), Some(folder)) = (&cell.policy.files, last.folder(cell)) {
                let folder = || Arc::clone(folder);
                let kept = self.folders.entry(Arc::clone(&files.folder));
                kept.or_insert_with(folder);
            }
        }
    }

    fn snapshot(self, registry: Registry, text: &[u8], flags: Vec<Flag>) -> Snapshot {
        Snapshot {
            registry,
            version: Version::of(text),
            flags,
            keys: self.keys,
            trust: self.trust,
            pages: self.pages,
            passwords: self.passwords,
            folders: self.folders,
        }
    }
}

/// Reads what `source` names, unless it has been read already.
fn once<S: Clone + Eq + Hash, T>(
    read: &mut HashMap<S, Arc<T>>,
    source: &S,
    how: impl FnOnce() -> Result<T, Refusal>,
) -> Result<(), Refusal> {
    if !read.contains_key(source) {
        read.insert(source.clone(), Arc::new(how()?));
    }
    Ok(())
}

fn secret(
    source: &SecretSource,
    folder: &Path,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Keys, Refusal> {
    let refuse = |what: String, fix: &str| Refusal {
        what,
        fix: fix.to_owned(),
    };
    let (named, text, fix) = match source {
        SecretSource::Env(name) => {
            let named = format!("the environment variable {name}");
            let fix = "set it and start the router anew";
            let text = variable(name).ok_or_else(|| refuse(format!("{named} is not set"), fix))?;
            (named, text, fix)
        }
        SecretSource::File(path) => {
            let named = format!("the file {path}");
            let text = fs::read_to_string(folder.join(&**path))
                .map_err(|error| refuse(format!("{named}: {error}"), MEND_FILE))?;
            (named, text, MEND_FILE)
        }
    };
    Keys::parse(&text).map_err(|none| refuse(format!("{named}: {none}"), fix))
}

fn judge(source: &TrustSource, folder: &Path) -> Result<Trust, Refusal> {
    let refuse = |what| Refusal {
        what,
        fix: MEND_FILE.to_owned(),
    };
    match source {
        TrustSource::Authorities(path) => fs::read(folder.join(path))
            .map_err(|error| error.to_string())
            .and_then(|pem| Trust::authorities(&pem))
            .map_err(|why| refuse(format!("the file {path}: {why}"))),
        TrustSource::Key(pin) => Trust::key(*pin).map_err(refuse),
    }
}

fn files(source: &str, folder: &Path) -> Result<PathBuf, Refusal> {
    let path = folder.join(source);
    let why = match fs::metadata(&path) {
        Ok(found) if found.is_dir() => return Ok(path),
        Ok(_) => "it is no folder".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Refusal {
        what: format!("the folder {source}: {why}"),
        fix: MEND_FILE.to_owned(),
    })
}

fn passwords(source: &str, folder: &Path) -> Result<Passwords, Refusal> {
    fs::read_to_string(folder.join(source))
        .map_err(|error| error.to_string())
        .and_then(|text| Passwords::parse(&text))
        .map_err(|why| Refusal {
            what: format!("the file {source}: {why}"),
            fix: MEND_FILE.to_owned(),
        })
}

pub(super) const MEND_FILE: &str = "mend it, then touch the registry or send SIGHUP to the router";
