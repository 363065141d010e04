//! The registry under a running router: followed where it is kept, and put in force when it changes.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::{MissedTickBehavior, interval};

use super::gate::Gate;
use super::load::LoadError;
use super::look::{Rest, Seen, look, no_file};
use super::poll::Poll;
use super::store::Store;
use crate::live::cells::Cells;
use crate::live::snapshot::{Publisher, Snapshot};
use crate::steps;

/// How often the file is looked at. A look is one `stat`; it sees every way in which editors save (in place, by a
/// rename, by a link that is pointed elsewhere) on every file system, which notifications do not.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The registry as it is followed: in a file, or in a bucket.
#[derive(Debug)]
pub struct Source(Origin);

#[derive(Debug)]
enum Origin {
    File(Watch),
    Bucket(Poll),
}

/// The registry file, and the state of it that was looked at last.
#[derive(Debug)]
struct Watch {
    gate: Gate,
    loaded: Option<Seen>,
    /// Whether the file that was looked at last could not be read.
    unread: bool,
    /// Whether all that came by hand is on record; not where somebody else was editing when it came.
    noticed: bool,
}

impl Source {
    /// Loads the registry of this name for the first time. Where it is not good as a whole, the last good version in its
    /// history, if there is one, stands for what was in force before. `max_unplug_percent` of the cells may later go without
    /// a word. `copy` is a file that a registry in a bucket is kept in as well: where the bucket cannot be read, that serves.
    ///
    /// # Errors
    /// `LoadError`, with all problems at once.
    pub fn open(
        name: PathBuf,
        copy: Option<PathBuf>,
        max_unplug_percent: u32,
    ) -> Result<(Self, Snapshot), LoadError> {
        if let Some(bucket) = Store::new(&name).bucket() {
            let (poll, snapshot) = Poll::open(name, bucket, copy, max_unplug_percent)?;
            return Ok((Self(Origin::Bucket(poll)), snapshot));
        }
        if copy.is_some() {
            tracing::warn!("--registry-copy is for a registry in a bucket: a file needs none");
        }
        let (watch, snapshot) = Watch::open(name, max_unplug_percent)?;
        Ok((Self(Origin::File(watch)), snapshot))
    }

    /// Follows the registry for ever: loads it when it has changed, and on SIGHUP whether it has or not. What is broken is
    /// reported and changes nothing. `hangup` is that signal; it also confirms what was just refused for the cells that it
    /// unplugs.
    pub async fn follow(self, publisher: &Publisher, cells: &Cells, hangup: Signal) -> Infallible {
        match self.0 {
            Origin::File(watch) => watch.follow(publisher, cells, hangup).await,
            Origin::Bucket(poll) => poll.follow(publisher, cells, hangup).await,
        }
    }
}

impl Watch {
    fn open(file: PathBuf, max_unplug_percent: u32) -> Result<(Self, Snapshot), LoadError> {
        // Looked at before it is read: a save that falls in between is seen as one.
        let loaded = look(&file);
        let text = steps::read(&file).map_err(LoadError::Unreadable)?;
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        let mut gate = Gate::new(file, folder, max_unplug_percent);
        let noticed = gate.store.notice();
        let snapshot = gate.first(&text, || gate.store.last_good())?;
        gate.look_again(snapshot.passing);
        let noticed = gate.is_noticed(noticed);
        let watch = Self {
            gate,
            loaded,
            unread: false,
            noticed,
        };
        Ok((watch, snapshot))
    }

    async fn follow(
        mut self,
        publisher: &Publisher,
        cells: &Cells,
        mut hangup: Signal,
    ) -> Infallible {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rest = Rest::since(self.loaded);
        Gate::give_back();
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                asked = hangup.recv() => asked.is_some(),
            };
            Gate::let_go(publisher);
            let now = look(&self.gate.name);
            let at_rest = rest.is_at(now);
            let is_news = now != self.loaded || self.unread || self.gate.is_due();
            if !asked && (now.is_none() || !is_news || !at_rest) {
                if !self.noticed {
                    self.notice().await;
                }
                continue;
            }
            self.loaded = now;
            self.reload(asked, publisher, cells).await;
        }
    }

    async fn reload(&mut self, asked: bool, publisher: &Publisher, cells: &Cells) {
        let (file, store) = (self.gate.name.clone(), self.gate.store.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let is_file = std::fs::metadata(&file).map(|found| found.is_file());
            let text = match is_file {
                Ok(true) => steps::read(&file),
                Ok(false) => Err(no_file()),
                Err(error) => Err(error),
            };
            let text = text.map_err(LoadError::Unreadable)?;
            Ok((text, store.notice()))
        });
        let reading = reading.await;
        self.unread = !matches!(reading, Ok(Ok(_)));
        match reading {
            Ok(Ok((text, noticed))) => {
                self.noticed = self.gate.is_noticed(noticed);
                self.gate.pass(text, asked, publisher, cells).await;
            }
            Ok(Err::<_, LoadError>(error)) => self.gate.refuse(error.lines(&self.gate.name)),
            Err(panicked) => self.gate.refuse(vec![panicked.to_string()]),
        }
    }

    async fn notice(&mut self) {
        let store = self.gate.store.clone();
        let noticed = tokio::task::spawn_blocking(move || store.notice()).await;
        self.noticed = noticed.is_ok_and(|noticed| self.gate.is_noticed(noticed));
    }
}
