//! What was changed, when, by whom: one JSON object a line, in a file that only grows.
//!
//! A line holds the whole text or the difference to the line before it, so that every version can be had again. A line that
//! was cut off while it was written counts for nothing, and is taken away by the next who writes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::account::record::rfc3339;
use crate::registry::Version;
use crate::steps;

/// How far a line may be away from one with the whole text: so many lines, or fewer that are as long as it together. Whoever
/// wants the last text reads no more than that.
const FARTHEST: u32 = 100;

/// How many changes a line lists.
const LISTED: usize = 10;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When (RFC 3339, UTC): of an edit by hand, when the file was saved.
    pub at: String,
    /// Who: a name as the system told it, for people who trust each other.
    pub who: String,
    /// Through what: a command, or `by hand`.
    pub through: String,
    /// What changed, in the words of the registry.
    pub what: Vec<String>,
    /// The version after it.
    #[serde(with = "as_text")]
    pub version: Version,
    /// The version before it, where that is on record.
    #[serde(
        default,
        with = "as_text::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub of: Option<Version>,
    /// Whether it was confirmed that many cells are unplugged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    #[serde(flatten)]
    body: Body,
}

/// How the text can be had again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Body {
    Whole {
        text: Part,
    },
    Difference {
        /// How far it is away from one with the whole text.
        away: u32,
        /// Where, in bytes.
        from: usize,
        /// How many bytes went.
        removed: usize,
        /// What came instead.
        inserted: Part,
    },
}

/// What the next record needs to know of the last: not its text, which may be long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Last {
    /// The version after it.
    #[serde(with = "as_text")]
    pub version: Version,
    /// The version before it, where that is on record.
    #[serde(default, with = "as_text::optional")]
    pub of: Option<Version>,
    /// How far it is away from one with the whole text.
    #[serde(default)]
    away: u32,
}

impl From<&Record> for Last {
    fn from(record: &Record) -> Self {
        Self {
            version: record.version,
            of: record.of,
            away: match record.body {
                Body::Whole { .. } => 0,
                Body::Difference { away, .. } => away,
            },
        }
    }
}

/// Part of a text, also of one that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::registry::Version;

    pub(super) fn serialize<S: Serializer>(version: &Version, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(version)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Version, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }

    pub(super) mod optional {
        use serde::{Deserializer, Serializer};

        use crate::registry::Version;

        pub(in super::super) fn serialize<S: Serializer>(
            version: &Option<Version>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match version {
                Some(version) => to.collect_str(version),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'d, D: Deserializer<'d>>(
            from: D,
        ) -> Result<Option<Version>, D::Error> {
            super::deserialize(from).map(Some)
        }
    }
}

impl Part {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes {
                bytes: bytes.to_owned(),
            },
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes { bytes } => bytes,
        }
    }
}

/// What is known of a change beside the text.
#[derive(Debug, Clone)]
pub struct Account {
    /// When.
    pub at: SystemTime,
    /// Who.
    pub who: String,
    /// Through what.
    pub through: String,
    /// What changed; more than a few are counted only.
    pub what: Vec<String>,
    /// Whether it was confirmed that many cells are unplugged.
    pub confirmed: bool,
}

impl Record {
    /// The record of a step from `before`, whose own record is `last`, to `after`; with the whole text where there is none.
    pub fn new(account: Account, after: &[u8], before: Option<(Last, &[u8])>) -> Self {
        let body = before
            .and_then(|(last, before)| difference(before, after, last.away))
            .unwrap_or_else(|| Body::Whole {
                text: Part::of(after),
            });
        let mut what = account.what;
        let more = what.len().saturating_sub(LISTED);
        if more > 0 {
            what.truncate(LISTED);
            what.push(format!("and {more} more"));
        }
        Self {
            at: rfc3339(account.at),
            who: account.who,
            through: account.through,
            what,
            version: Version::of(after),
            of: before.map(|(last, _)| last.version),
            confirmed: account.confirmed,
            body,
        }
    }

    /// The text after this, from the one before it.
    pub(super) fn text(&self, before: &[u8]) -> Option<Vec<u8>> {
        let mut text = before.to_vec();
        self.apply(&mut text)?;
        (Version::of(&text) == self.version).then_some(text)
    }

    /// Makes the text after this of the one before it; none where it does not fit that.
    fn apply(&self, text: &mut Vec<u8>) -> Option<()> {
        match &self.body {
            Body::Whole { text: whole } => whole.bytes().clone_into(text),
            Body::Difference {
                from,
                removed,
                inserted,
                ..
            } => {
                let end = from
                    .checked_add(*removed)
                    .filter(|end| *end <= text.len())?;
                drop(text.splice(*from..end, inserted.bytes().iter().copied()));
            }
        }
        Some(())
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self.body, Body::Whole { .. })
    }
}

/// The step from one text, which is so far `away`, to the next; none where that would be too far.
fn difference(before: &[u8], after: &[u8], away: u32) -> Option<Body> {
    // No difference begins or ends within a character.
    let inside = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xC0 == 0x80);
    let mut head = steps::alike(before, after);
    while head > 0 && (inside(before.get(head)) || inside(after.get(head))) {
        head -= 1;
    }
    let mut tail = steps::alike_at_end(&before[head..], &after[head..]);
    while tail > 0 && inside(before.get(before.len() - tail)) {
        tail -= 1;
    }
    let inserted = &after[head..after.len() - tail];
    let share = FARTHEST as usize * inserted.len() / after.len().max(1);
    let away = away.saturating_add(1 + u32::try_from(share).unwrap_or(FARTHEST));
    (away < FARTHEST).then(|| Body::Difference {
        away,
        from: head,
        removed: before.len() - head - tail,
        inserted: Part::of(inserted),
    })
}

/// All records of a history, oldest first; none where there is no file.
///
/// # Errors
/// Those of the system, and a line that is no record, by its number.
pub fn records(path: &Path) -> io::Result<Vec<Record>> {
    let text = match steps::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    whole_lines(&text)
}

fn whole_lines<T: DeserializeOwned>(text: &[u8]) -> io::Result<Vec<T>> {
    let mut begin = 0;
    let lines = memchr::memchr_iter(b'\n', text).map(|end| {
        let line = &text[begin..end];
        begin = end + 1;
        line
    });
    let read = |(number, line): (usize, &[u8])| {
        serde_json::from_reader(steps::Reader::new(line))
            .map_err(|error| io::Error::other(format!("line {} is no record: {error}", number + 1)))
    };
    lines.enumerate().map(read).collect()
}

/// The text after the record of this number; none where the history does not hold together there.
pub fn text_at(records: &[Record], number: usize) -> Option<Vec<u8>> {
    let whole = records[..=number].iter().rposition(Record::is_whole)?;
    let mut text = Vec::new();
    for record in &records[whole..=number] {
        record.apply(&mut text)?;
    }
    // Where a step before is not what it was, neither is this.
    (Version::of(&text) == records[number].version).then_some(text)
}

/// The steps to a version, gathered from its record back to one with the whole text.
#[derive(Debug, Default)]
pub(super) struct Chain(Vec<Record>);

impl Chain {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the record before those it has; breaks off where it needs no more.
    pub(super) fn take(&mut self, record: Record) -> ControlFlow<()> {
        let enough = record.is_whole();
        self.0.push(record);
        if enough {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// The text of the version; none where the history does not hold together there.
    pub(super) fn text(mut self) -> Option<Vec<u8>> {
        self.0.reverse();
        text_at(&self.0, self.0.len().checked_sub(1)?)
    }
}

/// A history that nobody else writes to as long as this lasts.
#[derive(Debug)]
pub struct History {
    file: File,
}

impl History {
    /// Waits until nobody else writes, and then is the only one who does.
    ///
    /// # Errors
    /// Those of the system.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock()?;
        Self::locked(file)
    }

    /// The same without waiting; none where somebody else writes.
    ///
    /// # Errors
    /// Those of the system.
    pub fn try_lock(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Self::locked(file).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn locked(file: File) -> io::Result<Self> {
        let mut history = Self { file };
        history.mend()?;
        Ok(history)
    }

    /// Takes away what was cut off while it was written.
    fn mend(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut back = 4096;
        loop {
            let tail = self.tail(back)?;
            if tail.last().is_none_or(|byte| *byte == b'\n') {
                return Ok(());
            }
            let end = tail.iter().rposition(|byte| *byte == b'\n');
            if end.is_some() || back >= length {
                let cut = tail.len() - end.map_or(0, |end| end + 1);
                return self.file.set_len(length - cut as u64);
            }
            back *= 2;
        }
    }

    /// The last so many bytes.
    fn tail(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let length = self.file.metadata()?.len();
        self.file
            .seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut tail = Vec::new();
        tail.try_reserve_exact(usize::try_from(bytes.min(length)).unwrap_or(usize::MAX))?;
        steps::read_to_end(&mut self.file, &mut tail)?;
        Ok(tail)
    }

    /// The last records, oldest first, from where `enough` of them are read.
    fn last_records<T: DeserializeOwned>(
        &mut self,
        enough: impl Fn(&[T]) -> bool,
    ) -> io::Result<Vec<T>> {
        let length = self.file.metadata()?.len();
        let mut back = 4096;
        loop {
            let tail = self.tail(back)?;
            let all = back >= length;
            // The first line may be half a one.
            let start = if all {
                0
            } else {
                memchr::memchr(b'\n', &tail).map_or(tail.len(), |end| end + 1)
            };
            let records = whole_lines(&tail[start..])?;
            if all || enough(&records) {
                return Ok(records);
            }
            back *= 4;
        }
    }

    /// The last record, without its text.
    ///
    /// # Errors
    /// Those of the system.
    pub fn last(&mut self) -> io::Result<Option<Last>> {
        let records = self.last_records(|records: &[Last]| !records.is_empty())?;
        Ok(records.last().copied())
    }

    /// The text after the last record; none where the history does not hold together.
    ///
    /// # Errors
    /// Those of the system.
    pub fn last_text(&mut self) -> io::Result<Option<Vec<u8>>> {
        let records =
            self.last_records(|records: &[Record]| records.iter().any(Record::is_whole))?;
        let last = records.len().checked_sub(1);
        Ok(last.and_then(|last| text_at(&records, last)))
    }

    /// Adds a record; it is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the system.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record).map_err(io::Error::other)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).read(true).open(path)?;
    if is_new && let Some(folder) = path.parent() {
        super::file::sync_folder(folder)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(what: &[&str]) -> Account {
        Account {
            at: SystemTime::UNIX_EPOCH,
            who: "alice".to_owned(),
            through: "cell set".to_owned(),
            what: what.iter().map(|what| (*what).to_owned()).collect(),
            confirmed: false,
        }
    }

    /// Records of these texts, one after the other.
    fn chain(texts: &[Vec<u8>]) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let before = records
                .last()
                .map(|last| (Last::from(last), texts[index - 1].as_slice()));
            let record = Record::new(account(&["x"]), text, before);
            records.push(record);
        }
        records
    }

    #[test]
    fn every_text_of_a_chain_can_be_had_again() {
        let texts: Vec<Vec<u8>> = ["", "abc", "abXc", "abXc", "é", "è", "éè", "", "zé"]
            .iter()
            .map(|text| text.as_bytes().to_owned())
            .chain([vec![0xff, 0xfe], vec![0xff], b"a".to_vec()])
            .chain((0..250).map(|number| format!("{{{number}}}").into_bytes()))
            .collect();
        let records = chain(&texts);
        for (number, text) in texts.iter().enumerate() {
            assert_eq!(text_at(&records, number).as_ref(), Some(text), "{number}");
            let line = serde_json::to_string(&records[number]).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(
                serde_json::from_str::<Record>(&line).unwrap(),
                records[number]
            );
        }
    }

    /// Texts of which the lines of one step are changed, one after the other.
    fn edited(step: usize) -> Vec<Vec<u8>> {
        let mut lines = vec![0; 1000];
        let edits = (0..400).map(|number| {
            let from = number * step % 1000;
            lines[from..1000.min(from + step)].fill(number);
            let lines = lines.iter().map(|number| format!("{number:03}\n"));
            lines.collect::<String>().into_bytes()
        });
        edits.collect()
    }

    #[test]
    fn the_whole_text_is_never_farther_than_its_length_in_differences() {
        for (step, often) in [(1, 4), (100, 40)] {
            let texts = edited(step);
            let records = chain(&texts);
            let (mut lines, mut bytes, mut wholes) = (0, 0, 0);
            for (record, text) in records.iter().zip(&texts) {
                match &record.body {
                    Body::Whole { .. } => (lines, bytes, wholes) = (0, 0, wholes + 1),
                    Body::Difference { inserted, .. } => {
                        lines += 1;
                        bytes += inserted.bytes().len();
                    }
                }
                assert!(lines < 100 && bytes <= text.len(), "{lines} {bytes}");
            }
            assert_eq!(wholes, often);
            assert_eq!(text_at(&records, 399).as_ref(), texts.last());
        }
    }

    #[test]
    fn a_history_that_does_not_hold_together_gives_no_text() {
        let mut records = chain(&[b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        records.remove(1);
        assert_eq!(text_at(&records, 1), None);
    }

    #[test]
    fn a_line_that_was_cut_off_is_taken_away() {
        let records = chain(&[b"one".to_vec(), b"two".to_vec()]);
        let folder =
            std::env::temp_dir().join(format!("cell-router-history-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("history.jsonl");
        let line = |record| serde_json::to_string(record).unwrap() + "\n";
        for cut in [0, 1, 50, 10_000] {
            let half = "x".repeat(cut);
            std::fs::write(&path, line(&records[0]) + &half).unwrap();
            let mut history = History::lock(&path).unwrap();
            assert_eq!(history.last().unwrap(), Some(Last::from(&records[0])));
            history.append(&records[1]).unwrap();
            assert_eq!(history.last_text().unwrap().as_deref(), Some(&b"two"[..]));
            drop(history);
            assert_eq!(super::records(&path).unwrap(), records);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_record_lists_a_few_changes_and_when() {
        let record = Record::new(account(&["x"; 12]), b"", None);
        assert_eq!(record.what.len(), 11);
        assert_eq!(record.what[10], "and 2 more");
        assert_eq!(record.at, "1970-01-01T00:00:00.000Z");
    }
}
