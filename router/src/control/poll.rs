//! A registry in a bucket under a running router: asked for all the time, and kept in a copy on this machine.
//!
//! What the store does never stops what is in force: while it is away, refuses or has nothing good, the last good version
//! serves on, also for a router that starts then and has a copy.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::gate::Gate;
use super::load::LoadError;
use super::store::bucket::{Bucket, BucketError, Object};
use super::store::{Copy, StoreError};
use crate::config::chance;
use crate::live::cells::Cells;
use crate::live::snapshot::{Publisher, Snapshot};
use crate::registry::Version;

/// How long after one look the next one is, so that a change is everywhere in less than two seconds. A look that finds
/// nothing new is one request without a body: 2.6 million a month.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest time between two looks at a store that asks to slow down.
const SLOWEST: Duration = Duration::from_secs(16);

/// After so many looks it is seen whether an edit was cut off between its record and the object: 260,000 requests a month.
const FINISH_EVERY: u32 = 10;

/// The object, and what is known of it.
#[derive(Debug)]
pub(super) struct Poll {
    gate: Gate,
    bucket: Arc<Bucket>,
    copy: Option<Copy>,
    /// The ETag of what was read last.
    seen: Option<String>,
    /// What was held back until it is confirmed.
    held: Option<Held>,
    /// The number of the last record when all was on record; none where something is not. What this process itself edits,
    /// through its admin API, is news here like anybody's.
    settled: Option<u64>,
    /// What was said of the store when it did not do as it should.
    trouble: Option<String>,
    /// Whether it was said that the copy cannot be written, or that each look reads the whole.
    warned: (bool, bool),
    pause: Duration,
    looks: u32,
}

/// A text that was held back.
#[derive(Debug)]
struct Held {
    text: Vec<u8>,
    /// The number of the last record when it was read whether one of them confirms it; none where that was not read yet.
    judged: Option<u64>,
}

impl Poll {
    /// Reads the object for the first time, or else the copy.
    ///
    /// # Errors
    /// `LoadError`.
    pub(super) fn open(
        name: PathBuf,
        bucket: Arc<Bucket>,
        copy: Option<PathBuf>,
        max_unplug_percent: u32,
    ) -> Result<(Self, Snapshot), LoadError> {
        let folder = copy.as_deref().and_then(Path::parent);
        let folder = folder.unwrap_or(Path::new("")).to_owned();
        let copy = copy.map(Copy::new);
        let mut this = Self {
            gate: Gate::new(name, folder, max_unplug_percent),
            bucket,
            copy,
            seen: None,
            held: None,
            settled: None,
            trouble: None,
            warned: (false, false),
            pause: LOOK_EVERY,
            looks: 0,
        };
        let snapshot = match this.bucket.fetch() {
            Ok(object) => {
                let snapshot = this.gate.first(&object.text, || this.last_good())?;
                this.gate.look_again(snapshot.passing);
                this.seen = Some(object.etag().to_owned());
                if snapshot.version == Version::of(&object.text) {
                    let kept = keep(this.copy.as_ref(), &object.text, &snapshot);
                    this.copied(kept);
                }
                snapshot
            }
            Err(error) => this.serve_copy(error)?,
        };
        Ok((this, snapshot))
    }

    /// What a router serves that starts while the bucket cannot be read.
    fn serve_copy(&mut self, error: BucketError) -> Result<Snapshot, LoadError> {
        let Some(copy) = &self.copy else {
            return Err(StoreError::from(error).into());
        };
        let Ok(text) = copy.text() else {
            return Err(StoreError::from(error).into());
        };
        let snapshot = self.gate.first(&text, || copy.good())?;
        self.gate.look_again(snapshot.passing);
        tracing::warn!(version = %snapshot.version, "the copy of the registry serves");
        self.in_trouble(&error);
        Ok(snapshot)
    }

    fn last_good(&self) -> Option<Vec<u8>> {
        let copy = || {
            let copy = self.copy.as_ref()?;
            copy.good().or_else(|| copy.text().ok())
        };
        self.gate.store.last_good().or_else(copy)
    }

    /// Follows the object for ever, as [`super::reload::Source::follow`] says.
    pub(super) async fn follow(
        mut self,
        publisher: &Publisher,
        cells: &Cells,
        mut hangup: Signal,
    ) -> Infallible {
        self.notice().await;
        Gate::give_back();
        loop {
            // Routers that were started at once do not ask at once.
            let pause = self.pause.mul_f64(0.9 + chance() / 10.0);
            let asked = tokio::select! {
                () = sleep(pause) => false,
                asked = hangup.recv() => asked.is_some(),
            };
            Gate::let_go(publisher);
            let again = asked || self.gate.is_due();
            let unless = self.seen.clone().filter(|_| !again);
            match self.bucket.look(unless).await {
                Ok(found) => {
                    self.out_of_trouble();
                    self.looked(found, (again, asked), publisher, cells).await;
                }
                Err(error) => {
                    self.in_trouble(&error);
                    if asked {
                        self.reload_copy(publisher, cells).await;
                    }
                }
            }
        }
    }

    async fn looked(
        &mut self,
        found: Option<Object>,
        (again, asked): (bool, bool),
        publisher: &Publisher,
        cells: &Cells,
    ) {
        let Some(object) = found.filter(|object| again || self.is_new(object)) else {
            self.looks = self.looks.wrapping_add(1);
            if let Some(held) = self.held.take() {
                self.look_for_confirmation(held, publisher, cells).await;
            }
            if self.looks.is_multiple_of(FINISH_EVERY) {
                self.look_for_records().await;
            }
            return;
        };
        self.seen = Some(object.etag().to_owned());
        self.held = None;
        let is_there = publisher.current().version == Version::of(&object.text);
        if again || !is_there {
            self.pass(object.text, asked, publisher, cells).await;
        }
        self.notice().await;
    }

    /// Whether an object is another than the one that was read last; one that came though it is not is told of.
    fn is_new(&mut self, object: &Object) -> bool {
        if self.seen.as_deref() != Some(object.etag()) {
            return true;
        }
        if !self.warned.1 {
            self.warned.1 = true;
            tracing::warn!(registry = %self.gate.name.display(), "the store passes over If-None-Match: every look reads the whole registry");
        }
        false
    }

    /// Finishes what was cut off, and puts on record what could not be before.
    async fn look_for_records(&mut self) {
        let more = match self.settled {
            Some(number) => self.bucket.has_more(number).await.unwrap_or(false),
            None => true,
        };
        if more {
            self.notice().await;
        }
    }

    /// Puts in force what was held back, if it was confirmed meanwhile.
    async fn look_for_confirmation(&mut self, held: Held, publisher: &Publisher, cells: &Cells) {
        let more = match held.judged {
            Some(number) => self.bucket.has_more(number).await.unwrap_or(false),
            None => true,
        };
        if !more {
            self.held = Some(held);
            return;
        }
        let last = self.bucket.last().await.ok();
        let (store, now) = (self.gate.store.clone(), publisher.current().version);
        let judging = spawn_blocking(move || {
            let confirmed = store.was_agreed(now, Version::of(&held.text));
            (held, confirmed.ok())
        });
        match judging.await {
            Ok((held, Some(true))) => self.pass(held.text, true, publisher, cells).await,
            Ok((held, confirmed)) => {
                let judged = confirmed.and(last).or(held.judged);
                self.held = Some(Held { judged, ..held });
            }
            Err(panicked) => tracing::error!(%panicked, "what is held back stays so"),
        }
    }

    async fn pass(&mut self, text: Vec<u8>, asked: bool, publisher: &Publisher, cells: &Cells) {
        let passed = self.gate.pass(text.clone(), asked, publisher, cells).await;
        if !passed {
            let held = Held { text, judged: None };
            self.held = self.gate.to_be_confirmed.map(|_| held);
            return;
        }
        let (copy, current) = (self.copy.clone(), publisher.current());
        let kept = spawn_blocking(move || keep(copy.as_ref(), &text, &current)).await;
        self.copied(kept.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))));
    }

    /// Reads again what the text in force names, such as secrets, while the store is away: if the copy has that text.
    async fn reload_copy(&mut self, publisher: &Publisher, cells: &Cells) {
        let Some(copy) = self.copy.clone() else {
            return;
        };
        let (file, version) = (copy.file().to_owned(), publisher.current().version);
        let reading = spawn_blocking(move || {
            let text = copy.text()?;
            Ok::<_, std::io::Error>(Some(text).filter(|text| Version::of(text) == version))
        });
        let file = file.display();
        match reading.await {
            Ok(Ok(Some(text))) => {
                self.gate.pass(text, false, publisher, cells).await;
            }
            Ok(Ok(None)) => {
                tracing::warn!("{file}: the copy is not what is in force; nothing is read again");
            }
            Ok(Err(error)) => tracing::warn!("{file}: {error}; nothing is read again"),
            Err(panicked) => tracing::error!(%panicked, "the copy is not read"),
        }
    }

    async fn notice(&mut self) {
        let noticed = self.bucket.noticed().await;
        self.settled = noticed.as_ref().ok().copied();
        // What is away now is told of where it is looked at.
        if let Some(error) = noticed.err().filter(|error| !error.may_pass()) {
            self.gate.unrecorded(Some(error.into()));
        }
    }

    fn copied(&mut self, kept: std::io::Result<()>) {
        if let (Err(error), Some(copy), false) = (kept, &self.copy, self.warned.0) {
            self.warned.0 = true;
            tracing::warn!(
                "{}: {error}: no copy of the registry is kept",
                copy.file().display()
            );
        }
    }

    /// Says what is wrong with the store, once.
    fn in_trouble(&mut self, error: &BucketError) {
        self.pause = next_pause(self.pause, error.is_throttled());
        let said = error.to_string();
        if self.trouble.as_ref() != Some(&said) {
            tracing::error!("{said}; the last good registry serves on");
            self.trouble = Some(said);
        }
    }

    fn out_of_trouble(&mut self) {
        self.pause = LOOK_EVERY;
        if self.trouble.take().is_some() {
            tracing::info!(registry = %self.gate.name.display(), "the registry can be read again");
        }
    }
}

/// How long after a look that failed the next one is.
fn next_pause(pause: Duration, throttled: bool) -> Duration {
    if throttled {
        (pause * 2).min(SLOWEST)
    } else {
        LOOK_EVERY
    }
}

fn keep(copy: Option<&Copy>, text: &[u8], snapshot: &Snapshot) -> std::io::Result<()> {
    match copy {
        Some(copy) => copy.keep(text, snapshot.flags.is_empty()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_asks_to_slow_down_is_asked_less_and_less_often() {
        let mut pause = LOOK_EVERY;
        let slower = [2, 4, 8, 16, 16].map(|_| {
            pause = next_pause(pause, true);
            pause.as_secs()
        });
        assert_eq!(slower, [2, 4, 8, 16, 16]);
        assert_eq!(next_pause(pause, false), LOOK_EVERY);
    }
}
