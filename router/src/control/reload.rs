//! From the registry file to a snapshot, at start and whenever the file changes.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::hash::Hash;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::look::{Seen, look};
use crate::live::cells::Cells;
use crate::live::snapshot::{Publisher, Snapshot};
use crate::live::trust::Trust;
use crate::registry::{Cell, Problem, Registry, SecretSource, TrustSource};
use crate::wire::signature::Keys;

/// How often the file is looked at. A look is one `stat`; it sees every way in which editors save (in place, by a
/// rename, by a link that is pointed elsewhere) on every file system, which notifications do not.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why a file gives no snapshot.
#[derive(Debug)]
pub enum LoadError {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is no valid registry.
    Invalid(Vec<Problem>),
    /// Secrets or certificates that it names cannot be had; one text for each.
    Named(Vec<String>),
}

impl LoadError {
    /// One line for each problem, with the file's name.
    pub fn lines(&self, file: &Path) -> Vec<String> {
        let file = file.display().to_string();
        match self {
            Self::Unreadable(error) => vec![format!(
                "{file}: {error}; check the path and the permissions"
            )],
            Self::Invalid(problems) => problems
                .iter()
                .map(|problem| problem.in_file(&file).to_string())
                .collect(),
            Self::Named(missing) => missing
                .iter()
                .map(|missing| format!("{file}: {missing}"))
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

/// Reads the file, and the secrets and certificates it names: relative paths are meant from its folder. `variable` reads
/// the environment.
///
/// # Errors
/// `LoadError`, with all problems at once.
pub fn load(file: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Snapshot, LoadError> {
    let text = fs::read(file).map_err(LoadError::Unreadable)?;
    let registry = Registry::parse(&text).map_err(LoadError::Invalid)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut missing = Vec::new();
    let mut miss = |cell: &Cell, key: &str, why: String| {
        missing.push(format!("$.cells.{}.{key}: {why}", cell.name.as_str()));
    };
    let (mut keys, mut trust) = (HashMap::new(), HashMap::new());
    for cell in registry.cells() {
        if let Some(source) = &cell.secret
            && let Err(why) = once(&mut keys, source, || secret(source, folder, &variable))
        {
            miss(cell, "secret", why);
        }
        if let Some(source) = cell.tls.as_ref().map(|tls| &tls.trust)
            && let Err(why) = once(&mut trust, source, || judge(source, folder))
        {
            miss(cell, "tls", why);
        }
    }
    if missing.is_empty() {
        Ok(Snapshot {
            registry,
            keys,
            trust,
        })
    } else {
        Err(LoadError::Named(missing))
    }
}

/// Reads what `source` names, unless it has been read already.
fn once<S: Clone + Eq + Hash, T>(
    read: &mut HashMap<S, Arc<T>>,
    source: &S,
    how: impl FnOnce() -> Result<T, String>,
) -> Result<(), String> {
    if !read.contains_key(source) {
        read.insert(source.clone(), Arc::new(how()?));
    }
    Ok(())
}

fn secret(
    source: &SecretSource,
    folder: &Path,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Keys, String> {
    let (named, text) = match source {
        SecretSource::Env(name) => {
            let named = format!("the environment variable {name}");
            let text = variable(name)
                .ok_or_else(|| format!("{named} is not set; set it and start the router anew"))?;
            (named, text)
        }
        SecretSource::File(path) => {
            let named = format!("the file {path}");
            let text = fs::read_to_string(folder.join(path))
                .map_err(|error| format!("{named}: {error}"))?;
            (named, text)
        }
    };
    Keys::parse(&text).map_err(|none| format!("{named}: {none}"))
}

fn judge(source: &TrustSource, folder: &Path) -> Result<Trust, String> {
    match source {
        TrustSource::Authorities(path) => fs::read(folder.join(path))
            .map_err(|error| error.to_string())
            .and_then(|pem| Trust::authorities(&pem))
            .map_err(|why| format!("the file {path}: {why}")),
        TrustSource::Key(pin) => Trust::key(*pin),
    }
}

/// The registry file, and the state of it that was loaded last.
#[derive(Debug)]
pub struct Source {
    file: PathBuf,
    loaded: Option<Seen>,
}

impl Source {
    /// Loads the file for the first time.
    ///
    /// # Errors
    /// As [`load`].
    pub fn open(file: PathBuf) -> Result<(Self, Snapshot), LoadError> {
        // Looked at before it is read: a save that falls in between is seen as one.
        let loaded = look(&file);
        let snapshot = load(&file, |name| std::env::var(name).ok())?;
        Ok((Self { file, loaded }, snapshot))
    }

    /// Follows the file for ever: loads it when it has changed and come to rest, and on SIGHUP whether it has or not. What
    /// is broken is reported and changes nothing. `hangup` is that signal.
    pub async fn follow(
        mut self,
        publisher: &Publisher,
        cells: &Cells,
        mut hangup: Signal,
    ) -> std::convert::Infallible {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = self.loaded;
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                asked = hangup.recv() => asked.is_some(),
            };
            let now = look(&self.file);
            // Written to at this moment, perhaps: wait until two looks agree.
            let at_rest = now == last;
            last = now;
            if !asked && (now.is_none() || now == self.loaded || !at_rest) {
                continue;
            }
            self.loaded = now;
            reload(&self.file, publisher, cells).await;
        }
    }
}

async fn reload(file: &Path, publisher: &Publisher, cells: &Cells) {
    let began = Instant::now();
    let owned = file.to_owned();
    // Parsing a large file takes a while; nothing else of this thread has to wait for it.
    let loading =
        tokio::task::spawn_blocking(move || load(&owned, |name| std::env::var(name).ok()));
    match loading.await {
        Ok(Ok(snapshot)) => {
            let count = snapshot.registry.len();
            publisher.publish(snapshot);
            let current = publisher.subscribe();
            cells.retain(|name| current.borrow().registry.cell(name.as_str()).is_some());
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(registry = %file.display(), cells = count, took_ms = took, "registry loaded");
        }
        Ok(Err(error)) => {
            let problems = error.lines(file);
            tracing::error!(registry = %file.display(), problems = problems.len(), "registry refused: the last good one serves on");
            for problem in problems {
                tracing::error!("{problem}");
            }
        }
        Err(panicked) => {
            tracing::error!(%panicked, "registry refused: the last good one serves on")
        }
    }
}
