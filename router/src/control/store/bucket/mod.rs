//! A registry in a bucket of an S3-compatible store, for many routers and many who edit.
//!
//! The object is the registry, as a file would be; `log` keeps its versions in order. This is where callers that block
//! meet a store that is asked asynchronously: every request is made on one thread of its own.

mod client;
mod http;
mod log;
pub(crate) mod place;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, SystemTime};

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

pub(in crate::control) use self::client::Object;
use self::client::{Client, Fault};
use self::log::{Log, LogFault, Outcome, Settled};
use self::place::Place;
use super::history::{Account, Last, Record};
use super::{By, Proposal, Refused, StoreError, said};
use crate::config::chance;
use crate::registry::Version;

/// How long an edit goes on trying while others are always first.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest rest after another edit was first.
const REST: Duration = Duration::from_millis(200);

/// A registry in a bucket. There is one for each name in a process.
pub struct Bucket {
    name: String,
    log: Result<Arc<Log>, String>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a bucket does not do what it should: where, what, and what to do.
#[derive(Debug, Clone)]
pub struct BucketError {
    name: String,
    why: Why,
}

#[derive(Debug, Clone)]
enum Why {
    /// The settings are missing or wrong.
    Settings(String),
    /// There is no order of versions to be had.
    Log(LogFault),
    /// Others were always first.
    Busy,
}

impl BucketError {
    /// Whether the same may be granted soon: the store is away, or busy.
    pub fn may_pass(&self) -> bool {
        match &self.why {
            Why::Settings(_) => false,
            Why::Busy => true,
            Why::Log(fault) => match fault {
                LogFault::Store(fault)
                | LogFault::Unfinished(fault, _)
                | LogFault::Unknown(fault) => fault.may_pass(),
                LogFault::Restless => true,
                LogFault::Damaged(..) => false,
            },
        }
    }

    /// Whether there is no object.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.why, Why::Log(LogFault::Store(Fault::Absent)))
    }

    /// Whether the store wants fewer requests.
    pub(in crate::control) fn is_throttled(&self) -> bool {
        matches!(self.why, Why::Log(LogFault::Store(Fault::Throttled { .. })))
    }
}

impl fmt::Display for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.why {
            Why::Settings(why) => f.write_str(why),
            Why::Busy => f.write_str("others edit all the time: try again"),
            Why::Log(LogFault::Store(fault)) => fault.fmt(f),
            Why::Log(LogFault::Damaged(number, why)) => write!(
                f,
                "record {number} of the history is damaged ({why}); take away what is no record of it"
            ),
            Why::Log(LogFault::Unfinished(fault, version)) => write!(
                f,
                "{fault}; the edit is on record as version {version}, and is finished by whoever comes next once the store lets them"
            ),
            Why::Log(LogFault::Unknown(fault)) => write!(
                f,
                "{fault}; it is not known whether the edit was made: look with cell-router registry history"
            ),
            Why::Log(LogFault::Restless) => f.write_str("it changes all the time: try again"),
        }
    }
}

impl std::error::Error for BucketError {}

/// The thread on which all stores are asked.
fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .thread_name("registry")
            .enable_all();
        builder.build().map_err(|error| error.to_string())
    });
    runtime.as_ref().map_err(Clone::clone)
}

impl Bucket {
    /// The bucket that a name means; none if it means a file. What is wrong with it is told by whatever is asked of it.
    pub(super) fn named(name: &Path) -> Option<Arc<Self>> {
        static OPEN: OnceLock<Mutex<HashMap<String, Arc<Bucket>>>> = OnceLock::new();
        let name = name
            .to_str()
            .filter(|name| name.starts_with(place::SCHEME))?;
        let open = OPEN.get_or_init(Mutex::default);
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = open.entry(name.to_owned()).or_insert_with(|| {
            let (shown, log) = match Self::open(name) {
                Ok((shown, client)) => (shown, Ok(Arc::new(Log::new(client)))),
                Err(why) => (name.to_owned(), Err(why)),
            };
            Arc::new(Self { name: shown, log })
        });
        Some(Arc::clone(bucket))
    }

    /// The whole name, and a client.
    fn open(name: &str) -> Result<(String, Client), String> {
        let place = Place::read(name, |name| std::env::var(name).ok())?;
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            let pair = (name.into_string().ok()?, value.into_string().ok()?);
            place::is_setting(&pair.0).then_some(pair)
        });
        runtime()?;
        let shown = format!("{}{}/{}", place::SCHEME, place.bucket, place.key);
        Ok((shown, Client::new(place, settings)?))
    }

    /// Asks on the store's thread, and gives what comes of it to whoever awaits it on any.
    async fn ask<T, F>(&self, ask: impl FnOnce(Arc<Log>) -> F) -> Result<T, BucketError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LogFault>> + Send + 'static,
    {
        let (log, runtime) = self.ready()?;
        let answered = runtime.spawn(ask(log)).await;
        let answered = answered.expect("nothing that is asked panics");
        answered.map_err(|fault| self.error(Why::Log(fault)))
    }

    /// The same for callers that block.
    fn wait<T, F>(&self, ask: impl FnOnce(Arc<Log>) -> F) -> Result<T, BucketError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LogFault>> + Send + 'static,
    {
        let (log, runtime) = self.ready()?;
        let (answer, answered) = mpsc::sync_channel(1);
        let asked = ask(log);
        runtime.spawn(async move {
            // Whoever has stopped waiting needs no answer.
            let _ = answer.send(asked.await);
        });
        let answered = answered.recv().expect("nothing that is asked panics");
        answered.map_err(|fault| self.error(Why::Log(fault)))
    }

    fn ready(&self) -> Result<(Arc<Log>, &'static Runtime), BucketError> {
        let wrong = |why: String| self.error(Why::Settings(why));
        let log = self.log.as_ref().map_err(|why| wrong(why.clone()))?;
        Ok((Arc::clone(log), runtime().map_err(wrong)?))
    }

    fn error(&self, why: Why) -> BucketError {
        BucketError {
            name: self.name.clone(),
            why,
        }
    }

    /// The object, unless it still has this ETag. Awaited on any runtime.
    ///
    /// # Errors
    /// `BucketError`.
    pub(in crate::control) async fn look(
        &self,
        unless: Option<String>,
    ) -> Result<Option<Object>, BucketError> {
        self.ask(
            move |log: Arc<Log>| async move { Ok(log.client().look(unless.as_deref()).await?) },
        )
        .await
    }

    /// Whether there is a record after that number, whoever made it, this process included. Awaited on any runtime.
    ///
    /// # Errors
    /// `BucketError`.
    pub(in crate::control) async fn has_more(&self, number: u64) -> Result<bool, BucketError> {
        self.ask(move |log: Arc<Log>| async move { Ok(log.client().has_record(number + 1).await?) })
            .await
    }

    /// The number of the last record; 0 where there is none. Awaited on any runtime.
    ///
    /// # Errors
    /// `BucketError`.
    pub(in crate::control) async fn last(&self) -> Result<u64, BucketError> {
        self.ask(move |log: Arc<Log>| async move {
            Ok(log.last().await?.map_or(0, |(number, _)| number))
        })
        .await
    }

    /// As [`super::Store::notice`]; the number of the last record then, 0 where there is none. Awaited on any runtime.
    ///
    /// # Errors
    /// `BucketError`.
    pub(in crate::control) async fn noticed(&self) -> Result<u64, BucketError> {
        self.ask(move |log: Arc<Log>| async move { log.notice().await })
            .await
    }

    /// The object, for those who block.
    ///
    /// # Errors
    /// `BucketError`.
    pub(in crate::control) fn fetch(&self) -> Result<Object, BucketError> {
        let read = move |log: Arc<Log>| async move { Ok(log.client().object().await?) };
        let object = self.wait(read)?;
        object.ok_or_else(|| self.error(Why::Log(Fault::Absent.into())))
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, StoreError> {
        Ok(self.fetch()?.text)
    }

    /// The newest records with their numbers, the newest first: of those below that number, or of all. So many, unless
    /// there are fewer.
    pub(super) fn newest(
        &self,
        below: Option<u64>,
        count: usize,
    ) -> Result<Vec<(u64, Record)>, StoreError> {
        Ok(self.wait(move |log: Arc<Log>| async move { log.newest(below, count).await })?)
    }

    pub(super) fn notice(&self) -> Result<(), StoreError> {
        self.wait(move |log: Arc<Log>| async move { log.notice().await })?;
        Ok(())
    }

    fn settled(&self) -> Result<Settled, BucketError> {
        self.wait(move |log: Arc<Log>| async move { log.settled().await })
    }

    /// Lets others go first.
    fn rest(&self) -> Result<(), BucketError> {
        self.wait(move |_| async move {
            sleep(REST.mul_f64(chance())).await;
            Ok(())
        })
    }

    /// Puts in place what `propose` makes of the text; where another edit is first, of the text that it left. `fresh` is
    /// whether it can do without a text.
    pub(super) fn replace(
        &self,
        by: &By,
        confirmed: bool,
        fresh: bool,
        propose: impl Fn(&[u8]) -> Result<Proposal, StoreError>,
    ) -> Result<Proposal, StoreError> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let settled = self.settled()?;
            let text = match &settled.object {
                Some(object) => object.text.clone(),
                None if fresh => Vec::new(),
                None => return Err(self.error(Why::Log(Fault::Absent.into())).into()),
            };
            let proposal = propose(&text)?;
            let same = proposal.text == text;
            if same && !(confirmed && settled.awaits_confirmation()) {
                return Ok(proposal);
            }
            let what = if same {
                vec!["what is stored is confirmed".to_owned()]
            } else {
                said(&proposal.changes)
            };
            let account = Account {
                at: SystemTime::now(),
                who: by.who.clone(),
                through: by.through.clone(),
                what,
                confirmed,
            };
            let last = settled.last.as_ref().map(|(_, entry)| &entry.record);
            let before = last
                .filter(|last| last.version == Version::of(&text))
                .map(|last| (Last::from(last), text.as_slice()));
            let mut record = Record::new(account, &proposal.text, before);
            // What was gone follows what was there.
            record.of = last.map(|last| last.version);
            let made = proposal.text.clone();
            let outcome =
                self.wait(
                    move |log: Arc<Log>| async move { log.commit(&settled, record, made).await },
                )?;
            match outcome {
                Outcome::Made => return Ok(proposal),
                Outcome::Late => self.rest()?,
                Outcome::Overwritten(now) => {
                    let now = now.unwrap_or_else(|| Version::of(b""));
                    let based_on = None;
                    return Err(Refused::Conflict { based_on, now }.into());
                }
            }
        }
        Err(self.error(Why::Busy).into())
    }
}

impl Settled {
    /// Whether nobody has confirmed the version: it may have come by hand, or another edit may have followed what did.
    fn awaits_confirmation(&self) -> bool {
        let last = self.last.as_ref().map(|(_, entry)| &entry.record);
        self.object.is_some() && last.is_some_and(|last| !last.confirmed)
    }
}
