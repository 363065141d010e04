//! The registry file under a running router: followed, and put in force when it changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::load::{LoadError, load};
use super::look::{Seen, look};
use super::store::{Store, StoreError};
use super::unplug::{self, Unplugged};
use crate::live::cells::Cells;
use crate::live::snapshot::{Publisher, Snapshot};
use crate::registry::Version;

/// How often the file is looked at. A look is one `stat`; it sees every way in which editors save (in place, by a
/// rename, by a link that is pointed elsewhere) on every file system, which notifications do not.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why a file is not put in force.
#[derive(Debug)]
enum Refused {
    /// It cannot be used.
    Load(LoadError),
    /// It would unplug more cells than may go without a word.
    Unplugs(Unplugged, Version),
}

impl Refused {
    fn lines(&self, file: &Path) -> Vec<String> {
        match self {
            Self::Load(error) => error.lines(file),
            Self::Unplugs(unplugged, version) => vec![format!(
                "{}: this edit unplugs {unplugged}; if that is meant, confirm it with kill -HUP {}; what may go without is --max-unplug-percent (the file is version {version})",
                file.display(),
                std::process::id(),
            )],
        }
    }
}

/// The registry file, and the state of it that was looked at last.
#[derive(Debug)]
pub struct Source {
    file: PathBuf,
    loaded: Option<Seen>,
    max_unplug_percent: u32,
    /// What was refused because of the cells that it unplugs.
    to_be_confirmed: Option<Version>,
    store: Store,
    /// Whether it was said that the history cannot be written.
    warned: bool,
}

impl Source {
    /// Loads the file for the first time. Where it is not good as a whole, the last good version in its history, if there
    /// is one, stands for what was in force before. `max_unplug_percent` of the cells may later go without a word.
    ///
    /// # Errors
    /// `LoadError`, with all problems at once.
    pub fn open(file: PathBuf, max_unplug_percent: u32) -> Result<(Self, Snapshot), LoadError> {
        // Looked at before it is read: a save that falls in between is seen as one.
        let loaded = look(&file);
        let began = Instant::now();
        let text = fs::read(&file).map_err(LoadError::Unreadable)?;
        let store = Store::new(&file);
        let noticed = store.notice();
        let snapshot = match load(&text, folder(&file), None, variable) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let snapshot = beside_last_good(&store, &file, &text, &error).ok_or(error)?;
                report(&file, &snapshot, began);
                snapshot
            }
        };
        let mut source = Self {
            file,
            loaded,
            max_unplug_percent,
            to_be_confirmed: None,
            store,
            warned: false,
        };
        source.unrecorded(noticed.err());
        Ok((source, snapshot))
    }

    /// Follows the file for ever: loads it when it has changed and come to rest, and on SIGHUP whether it has or not. What
    /// is broken is reported and changes nothing. `hangup` is that signal; it also confirms what was just refused for the
    /// cells that it unplugs.
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
            let confirmed = self.to_be_confirmed.take().filter(|_| asked);
            self.reload(publisher, cells, confirmed).await;
        }
    }

    async fn reload(&mut self, publisher: &Publisher, cells: &Cells, confirmed: Option<Version>) {
        let began = Instant::now();
        let (file, last, most) = (
            self.file.clone(),
            publisher.current(),
            self.max_unplug_percent,
        );
        // Parsing a large file takes a while; nothing else of this thread has to wait for it.
        let store = self.store.clone();
        let loading =
            tokio::task::spawn_blocking(move || prepare(&store, &file, &last, confirmed, most));
        let prepared = match loading.await {
            Ok(prepared) => prepared,
            Err(panicked) => {
                tracing::error!(%panicked, "registry refused: the last good one serves on");
                return;
            }
        };
        self.unrecorded(prepared.unrecorded);
        match prepared.outcome {
            Ok(snapshot) => {
                publisher.publish(snapshot);
                let current = publisher.current();
                cells.retain(|name| current.registry.cell(name.as_str()).is_some());
                report(&self.file, &current, began);
            }
            Err(refused) => {
                refuse(&self.file, &refused.lines(&self.file));
                if let Refused::Unplugs(_, version) = refused {
                    self.to_be_confirmed = Some(version);
                }
            }
        }
    }

    /// Says once that the history is not complete.
    fn unrecorded(&mut self, error: Option<StoreError>) {
        if let Some(error) = error.filter(|_| !self.warned) {
            self.warned = true;
            tracing::warn!("{error}: what is edited by hand is not put on record");
        }
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What was good last, and beside it what the file, which is not good as a whole, can change.
fn beside_last_good(
    store: &Store,
    file: &Path,
    text: &[u8],
    error: &LoadError,
) -> Option<Snapshot> {
    let good = store.last_good()?;
    let last = load(&good, folder(file), None, variable).ok()?;
    match load(text, folder(file), Some(&last), variable) {
        Ok(snapshot) => Some(snapshot),
        Err(_) => {
            refuse(file, &error.lines(file));
            Some(last)
        }
    }
}

/// What was found of the file beside what it says.
struct Prepared {
    outcome: Result<Snapshot, Refused>,
    /// Why what came by hand is not on record.
    unrecorded: Option<StoreError>,
}

fn prepare(
    store: &Store,
    file: &Path,
    last: &Arc<Snapshot>,
    confirmed: Option<Version>,
    most: u32,
) -> Prepared {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) => {
            return Prepared {
                outcome: Err(Refused::Load(LoadError::Unreadable(error))),
                unrecorded: None,
            };
        }
    };
    let version = Version::of(&text);
    let noticed = store.notice();
    let confirmed = || confirmed == Some(version) || store.was_confirmed(last.version, version);
    let outcome = match load(&text, folder(file), Some(last), variable) {
        Ok(next) => match unplug::unplugged(&last.registry, &next.registry) {
            unplugged if unplugged.is_over(most) && !confirmed() => {
                Err(Refused::Unplugs(unplugged, version))
            }
            _ => Ok(next),
        },
        Err(error) => Err(Refused::Load(error)),
    };
    Prepared {
        outcome,
        unrecorded: noticed.err(),
    }
}

fn refuse(file: &Path, problems: &[String]) {
    tracing::error!(registry = %file.display(), problems = problems.len(), "registry refused: the last good one serves on");
    for problem in problems {
        tracing::error!("{problem}");
    }
}

fn report(file: &Path, snapshot: &Snapshot, began: Instant) {
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    for flag in &snapshot.flags {
        let now = if flag.kept {
            "its last good version serves on"
        } else {
            "it has no good version, and is left out"
        };
        for problem in &flag.problems {
            let place = problem.in_file(&file.display().to_string()).to_string();
            tracing::error!(cell = flag.cell, kept = flag.kept, "{place}; {now}");
        }
    }
    tracing::info!(registry = %file.display(), version = %snapshot.version, cells = snapshot.registry.len(), flagged = snapshot.flags.len(), took_ms = took, "registry loaded");
}
