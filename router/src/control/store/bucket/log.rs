//! The order of versions in a bucket: numbered records, each made once, and the object that is brought to the last of them.
//!
//! A record is made on the condition that there is none of its number, so that of two edits at once exactly one is made; it
//! says which state of the object it replaces. Then the object is written on the condition that it still is in that state.
//! Where a program dies between the two, the object is in the very state that the last record replaces, and whoever comes
//! next finishes the work. Where the object is in any other state than its last record says, it was written by hand, and
//! that is put on record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::super::history::{Account, Chain, Last, Record};
use super::super::{BY_HAND, said};
use super::client::{Client, Fault, Object, State, jittered, patiently};
use crate::registry::Version;
use crate::registry::edit::changes;

/// How often is tried again what the store did not do, and after how long.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// How often the object may change while it is looked at.
const TRIES: u32 = 20;

/// How many records are read at once.
const AT_ONCE: usize = 16;

/// Records are kept in memory up to so many bytes of text.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// A record as it lies in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) record: Record,
    /// The state of the object that this version takes the place of; none where there was no object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<State>,
}

/// The last record and the object, which say the same.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    /// None where there is none: never, or not any more.
    pub(super) object: Option<Object>,
    /// The last record with its number.
    pub(super) last: Option<(u64, Entry)>,
}

/// What became of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the object.
    Made,
    /// Another was made before it; it was not made.
    Late,
    /// It is on record, but the object was written by hand at the same moment, and is at this version.
    Overwritten(Option<Version>),
}

/// Why there is no order to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogFault {
    /// The store.
    Store(Fault),
    /// A record is none, or does not follow from those before it.
    Damaged(u64, String),
    /// An edit is on record, and it is not known whether it is in the object: that version.
    Unfinished(Fault, Version),
    /// It is not known whether the edit is on record.
    Unknown(Fault),
    /// The object changes all the time.
    Restless,
}

impl From<Fault> for LogFault {
    fn from(fault: Fault) -> Self {
        Self::Store(fault)
    }
}

/// The records, and what is known of them here.
#[derive(Debug)]
pub(super) struct Log {
    client: Client,
    known: Mutex<Known>,
    /// Whether the store was seen to keep to conditions.
    proven: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    /// The last number that was seen.
    last: u64,
    entries: BTreeMap<u64, (Entry, usize)>,
    bytes: usize,
}

impl Log {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
            proven: AtomicBool::new(false),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The object and the last record, brought to say the same first: what a program left undone is done, and what came by
    /// hand is put on record.
    ///
    /// # Errors
    /// `LogFault`.
    pub(super) async fn settled(&self) -> Result<Settled, LogFault> {
        for _ in 0..TRIES {
            let object = self.client.object().await?;
            let last = self.last().await?;
            let version = object.as_ref().map(|object| Version::of(&object.text));
            let state = object.as_ref().map(|object| &object.state);
            if let Some((number, entry)) = &last {
                if version == Some(entry.record.version) {
                    return Ok(Settled { object, last });
                }
                if state == entry.replaces.as_ref() {
                    self.prove(*number, entry).await?;
                    let before = object.as_ref().map_or(&b""[..], |object| &object.text);
                    self.finish(*number, entry, before).await?;
                    continue;
                }
            }
            let Some(object) = object else {
                return Ok(Settled { object, last });
            };
            // Only what stays as it is while the records are read was not written by a program with its record.
            if self.client.state().await?.as_ref() == Some(&object.state) {
                self.record_by_hand(&object, last.as_ref()).await?;
            }
        }
        Err(LogFault::Restless)
    }

    /// Makes an edit of what was settled, if it is the first to.
    ///
    /// # Errors
    /// `LogFault`.
    pub(super) async fn commit(
        &self,
        settled: &Settled,
        record: Record,
        text: Vec<u8>,
    ) -> Result<Outcome, LogFault> {
        let replaces = settled.object.as_ref().map(|object| object.state.clone());
        let version = record.version;
        let entry = Entry { record, replaces };
        let Some(number) = self.append(settled.last.as_ref(), &entry).await? else {
            return Ok(Outcome::Late);
        };
        let unfinished = |fault| LogFault::Unfinished(fault, version);
        self.prove(number, &entry).await.map_err(unfinished)?;
        let object = settled.object.as_ref();
        if object.is_some_and(|object| Version::of(&object.text) == version) {
            return Ok(Outcome::Made);
        }
        if self
            .publish(number, text, entry.replaces.as_ref())
            .await
            .map_err(unfinished)?
        {
            return Ok(Outcome::Made);
        }
        self.became(number).await.map_err(|fault| match fault {
            LogFault::Store(fault) => unfinished(fault),
            fault => fault,
        })
    }

    /// What became of an edit of this number that is not in the object any more: somebody else has finished it, and gone on
    /// perhaps; or it was overwritten by hand.
    async fn became(&self, number: u64) -> Result<Outcome, LogFault> {
        let now = self.settled().await?;
        let made = match now.last {
            Some((last, _)) if last == number => now.object.is_some(),
            Some(_) => self.entry(number + 1).await?.record.through != BY_HAND,
            None => false,
        };
        Ok(if made {
            Outcome::Made
        } else {
            Outcome::Overwritten(now.object.map(|object| Version::of(&object.text)))
        })
    }

    /// Settles, and sees whether the store can be trusted with edits. The number of the last record; 0 where there is none.
    ///
    /// # Errors
    /// `LogFault`.
    pub(super) async fn notice(&self) -> Result<u64, LogFault> {
        let Some((number, entry)) = self.settled().await?.last else {
            return Ok(0);
        };
        self.prove(number, &entry).await?;
        Ok(number)
    }

    /// The newest records with their numbers, the newest first: of those below that number, or of all. So many, unless
    /// there are fewer.
    ///
    /// # Errors
    /// `LogFault`.
    pub(super) async fn newest(
        &self,
        below: Option<u64>,
        count: usize,
    ) -> Result<Vec<(u64, Record)>, LogFault> {
        let numbers = self.client.newest(below, count).await?;
        let read = numbers
            .into_iter()
            .map(|number| async move { Ok((number, self.entry(number).await?.record)) });
        let read = futures_util::stream::iter(read).buffered(AT_ONCE);
        read.try_collect().await
    }

    /// The text after the last record; none where the history does not hold together there.
    async fn last_text(&self) -> Result<Option<Vec<u8>>, LogFault> {
        let (mut chain, mut below) = (Chain::default(), None);
        loop {
            let records = self.newest(below, AT_ONCE).await?;
            let Some((oldest, _)) = records.last() else {
                return Ok(chain.text());
            };
            below = Some(*oldest);
            for (_, record) in records {
                if chain.take(record).is_break() {
                    return Ok(chain.text());
                }
            }
        }
    }

    /// The last record with its number.
    ///
    /// # Errors
    /// `LogFault`.
    pub(super) async fn last(&self) -> Result<Option<(u64, Entry)>, LogFault> {
        let mut last = self.client.newest(None, 1).await?.pop().unwrap_or(0);
        let known = self.known().last;
        if last < known {
            if self.client.has_record(known).await? {
                // It is there, whatever the list says.
                last = known;
            } else {
                // The history was taken away.
                *self.known() = Known::default();
            }
        }
        if last == 0 {
            return Ok(None);
        }
        let entry = self.entry(last).await?;
        let mut known = self.known();
        known.last = known.last.max(last);
        Ok(Some((last, entry)))
    }

    async fn entry(&self, number: u64) -> Result<Entry, LogFault> {
        if let Some((entry, _)) = self.known().entries.get(&number) {
            return Ok(entry.clone());
        }
        let text = self.client.record(number).await?;
        let entry: Entry = serde_json::from_slice(&text)
            .map_err(|error| LogFault::Damaged(number, error.to_string()))?;
        self.known().keep(number, &entry, text.len());
        Ok(entry)
    }

    /// Makes the record after that one; its number, or none where another was made before it.
    async fn append(
        &self,
        last: Option<&(u64, Entry)>,
        entry: &Entry,
    ) -> Result<Option<u64>, LogFault> {
        if let Some((number, last)) = last {
            self.prove(*number, last).await?;
        }
        let number = last.map_or(0, |(number, _)| *number) + 1;
        let text = spelled(entry)?;
        if !self.create(number, entry, &text).await? {
            // It is there, whatever the list of records says.
            let mut known = self.known();
            known.last = known.last.max(number);
            return Ok(None);
        }
        {
            let mut known = self.known();
            known.last = number;
            known.keep(number, entry, text.len());
        }
        Ok(Some(number))
    }

    /// Whether it was this one that was made.
    async fn create(&self, number: u64, entry: &Entry, text: &[u8]) -> Result<bool, LogFault> {
        let (mut doubtful, mut last) = (false, Fault::Absent);
        for pause in PAUSES {
            let written = self.client.write_record(number, text.to_owned(), None);
            match written.await {
                Ok(()) => return Ok(true),
                // The one that is there may be this one, made when no answer came.
                Err(Fault::Unmet) if doubtful => {
                    let there = self
                        .client
                        .record(number)
                        .await
                        .map_err(LogFault::Unknown)?;
                    return Ok(serde_json::from_slice::<Entry>(&there).is_ok_and(|it| it == *entry));
                }
                Err(Fault::Unmet) => return Ok(false),
                Err(fault) if fault.may_pass() => {
                    doubtful |= fault.is_doubtful();
                    last = fault;
                    sleep(jittered(pause)).await;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        Err(if doubtful {
            LogFault::Unknown(last)
        } else {
            last.into()
        })
    }

    /// Puts the text of a record in place of that state of the object; whether it was that state, as far as is known.
    async fn publish(&self, number: u64, text: Vec<u8>, of: Option<&State>) -> Result<bool, Fault> {
        let (mut doubtful, mut last) = (false, Fault::Absent);
        for pause in PAUSES {
            let written = if doubtful {
                self.publish_again(number, text.clone(), of).await
            } else {
                self.client.put(text.clone(), of).await
            };
            match written {
                Ok(()) => return Ok(true),
                Err(Fault::Unmet) => return Ok(false),
                Err(fault) if fault.may_pass() => {
                    doubtful |= fault.is_doubtful();
                    last = fault;
                    sleep(jittered(pause)).await;
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(last)
    }

    /// Writes once more what may have been written and undone by somebody since: the object has the ETag that it had before
    /// then, but another time, and there is another record.
    async fn publish_again(
        &self,
        number: u64,
        text: Vec<u8>,
        of: Option<&State>,
    ) -> Result<(), Fault> {
        let has_next = patiently(|| self.client.has_record(number + 1)).await?;
        if has_next || self.client.state().await?.as_ref() != of {
            return Err(Fault::Unmet);
        }
        self.client.put(text, of).await
    }

    /// Brings the object to a record that it was not brought to.
    async fn finish(&self, number: u64, entry: &Entry, before: &[u8]) -> Result<(), LogFault> {
        let text = match entry.record.text(before) {
            Some(text) => text,
            None => {
                let text = self.last_text().await?;
                text.ok_or_else(|| LogFault::Damaged(number, "its text cannot be had".to_owned()))?
            }
        };
        let of = entry.replaces.as_ref();
        if self.publish(number, text, of).await? {
            tracing::info!(version = %entry.record.version, "an edit that was cut off is finished");
        }
        Ok(())
    }

    async fn record_by_hand(
        &self,
        object: &Object,
        last: Option<&(u64, Entry)>,
    ) -> Result<(), LogFault> {
        let before = match last {
            None => None,
            Some((_, entry)) => {
                let text = self.last_text().await?;
                text.filter(|text| Version::of(text) == entry.record.version)
            }
        };
        let what = match &before {
            None if last.is_none() => vec!["the history begins".to_owned()],
            None => vec!["the text before it cannot be had".to_owned()],
            Some(before) => said(&changes(before, &object.text)),
        };
        let seconds = u64::try_from(object.state.modified).unwrap_or_default();
        let account = Account {
            at: UNIX_EPOCH + Duration::from_secs(seconds),
            who: "who may write to the bucket".to_owned(),
            through: BY_HAND.to_owned(),
            what,
            confirmed: false,
        };
        let before = last
            .map(|(_, entry)| Last::from(&entry.record))
            .zip(before.as_deref());
        let mut record = Record::new(account, &object.text, before);
        record.of = last.map(|(_, entry)| entry.record.version);
        let entry = Entry {
            record,
            replaces: Some(object.state.clone()),
        };
        if let Some(number) = self.append(last, &entry).await? {
            self.prove(number, &entry).await?;
        }
        Ok(())
    }

    /// Sees whether the store keeps to conditions, on a record that is there: what it must refuse would write the same.
    async fn prove(&self, number: u64, entry: &Entry) -> Result<(), Fault> {
        if self.proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let text = spelled(entry)?;
        let no_etag = Some("\"00000000000000000000000000000000\"".to_owned());
        for of in [None, no_etag] {
            let write = || self.client.write_record(number, text.clone(), of.clone());
            match patiently(write).await {
                Err(Fault::Unmet) => {}
                Ok(()) => return Err(Fault::Unconditional),
                Err(fault) => return Err(fault),
            }
        }
        self.proven.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Keeps a record for the next who asks; the oldest ones go.
    fn keep(&mut self, number: u64, entry: &Entry, bytes: usize) {
        if bytes > KEPT_BYTES / 4 {
            return;
        }
        if let Some((_, replaced)) = self.entries.insert(number, (entry.clone(), bytes)) {
            self.bytes -= replaced;
        }
        self.bytes += bytes;
        while self.bytes > KEPT_BYTES {
            let Some((_, (_, gone))) = self.entries.pop_first() else {
                return;
            };
            self.bytes -= gone;
        }
    }
}

fn spelled(entry: &Entry) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(entry).map_err(|error| Fault::Odd(error.to_string()))
}
