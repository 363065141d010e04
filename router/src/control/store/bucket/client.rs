//! One object and the records beside it, as a store keeps them: read, written only on conditions, and told apart by state.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::StatusCode;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::{
    Error as Refusal, GetOptions, GetResult, ObjectMeta, ObjectStore as _, PutMode, PutOptions,
    RetryConfig, UpdateVersion,
};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::http::{Answer, Connector};
use super::place::Place;
use crate::config::chance;

/// The largest object that is read, in bytes: a registry of a million cells has about a fifth of it.
const LARGEST: u64 = 1024 * 1024 * 1024;

/// The largest number of a record: twelve digits.
const LAST: u64 = 999_999_999_999;

/// How many keys a store lists at a time (Amazon S3 API, ListObjectsV2).
const PAGE: usize = 1000;

/// Time in which something more of an answer must come.
const STALL: Duration = Duration::from_secs(5);

/// Time for an answer that is read at once, such as a page of a list.
const WHOLE_ANSWER: Duration = Duration::from_secs(30);

/// How long is waited each time before what was throttled is asked for again.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// What tells one state of an object from another. A store's ETag may be a sum of the text, so that a text that comes
/// back has it again; when it was put in place then differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The ETag.
    pub(super) etag: String,
    /// When it was put there, by the store's clock, in seconds since 1970.
    pub(super) modified: i64,
}

/// An object as it was when it was read.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// Its text.
    pub(crate) text: Vec<u8>,
    pub(super) state: State,
}

impl Object {
    /// Its ETag.
    pub(crate) fn etag(&self) -> &str {
        &self.state.etag
    }
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no such object.
    Absent,
    /// There is no such bucket.
    NoBucket,
    /// The condition does not hold: somebody else was there before.
    Unmet,
    /// Whoever asks may not: the store's words.
    Forbidden(String),
    /// This machine's clock is wrong by the store's: its words.
    Clock(String),
    /// Too many requests: the store's words. `sent` is as below.
    Throttled { why: String, sent: bool },
    /// It cannot be reached, or is not well. `sent` is whether the request may have been carried out all the same.
    Away { why: String, sent: bool },
    /// The object is larger than what is read: its size in bytes.
    Oversized(u64),
    /// The store does not keep to conditions.
    Unconditional,
    /// It says something else.
    Odd(String),
}

impl Fault {
    /// Whether the same request may be granted soon.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Away { .. })
    }

    /// Whether the request may have been carried out.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(
            self,
            Self::Away { sent: true, .. } | Self::Throttled { sent: true, .. }
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "there is no such object; put one there with cell-router registry apply FILE",
            ),
            Self::NoBucket => f.write_str(
                "there is no such bucket; check the name, AWS_ENDPOINT_URL_S3 and AWS_REGION",
            ),
            Self::Unmet => f.write_str("somebody else has written at this moment"),
            Self::Forbidden(said) => write!(
                f,
                "the store does not allow it ({said}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what the key may do"
            ),
            Self::Clock(said) => write!(f, "the store says {said}; set this machine's clock"),
            Self::Throttled { why, .. } => write!(f, "the store asks to slow down ({why})"),
            Self::Away { why, .. } => write!(f, "the store is away: {why}"),
            Self::Oversized(size) => write!(
                f,
                "the object has {size} bytes, and no more than {LARGEST} are read"
            ),
            Self::Unconditional => f.write_str(
                "the store writes whatever the condition (If-Match, If-None-Match), so that edits would be lost; use one that keeps to them",
            ),
            Self::Odd(said) => write!(f, "the store says {said}"),
        }
    }
}

/// A client for one registry and its history. Its connections live on the runtime that it is used on.
#[derive(Debug)]
pub(super) struct Client {
    store: AmazonS3,
    object: Path,
    history: Path,
}

impl Client {
    /// A client for that place; `settings` are the variables that [`super::place::is_setting`] holds of.
    ///
    /// # Errors
    /// What is wrong with the settings, as text.
    pub(super) fn new(
        place: Place,
        settings: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let mut builder = AmazonS3Builder::new();
        let mut authorities = None;
        for (name, value) in settings.filter(|(_, value)| !value.is_empty()) {
            if name == "AWS_CA_BUNDLE" {
                authorities = Some(value);
            } else {
                let key = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>();
                builder = match key {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                };
            }
        }
        builder = builder
            .with_bucket_name(place.bucket)
            .with_region(place.region)
            // The URL has the bucket already, wherever it belongs.
            .with_virtual_hosted_style_request(true)
            .with_http_connector(Connector::new(authorities.as_deref())?)
            // Whoever asks knows better whether to ask again.
            .with_retry(RetryConfig {
                max_retries: 0,
                ..RetryConfig::default()
            });
        if let Some(url) = place.url {
            builder = builder.with_endpoint(url);
        }
        let key = |error: object_store::path::Error| error.to_string();
        let stem = place.key.strip_suffix(".json").unwrap_or(&place.key);
        Ok(Self {
            store: builder.build().map_err(|error| error.to_string())?,
            object: Path::parse(&place.key).map_err(key)?,
            history: Path::parse(format!("{stem}.history")).map_err(key)?,
        })
    }

    /// The object, unless it still has this ETag. Asks once.
    pub(super) async fn look(&self, unless: Option<&str>) -> Result<Option<Object>, Fault> {
        match self.get(&self.object, unless).await {
            Ok((meta, text)) => Ok(Some(Object {
                text,
                state: state(&meta)?,
            })),
            Err(None) => Ok(None),
            Err(Some(fault)) => Err(fault),
        }
    }

    /// The object; none where there is none.
    pub(super) async fn object(&self) -> Result<Option<Object>, Fault> {
        match patiently(|| self.look(None)).await {
            Err(Fault::Absent) => Ok(None),
            read => read,
        }
    }

    /// The object's state; none where there is no object.
    pub(super) async fn state(&self) -> Result<Option<State>, Fault> {
        match patiently(|| self.head(&self.object)).await? {
            Some(meta) => state(&meta).map(Some),
            None => Ok(None),
        }
    }

    /// Puts a text in place of that state, or where there is no object.
    pub(super) async fn put(&self, text: Vec<u8>, of: Option<&State>) -> Result<(), Fault> {
        let of = of.map(|state| state.etag.clone());
        self.write(&self.object, text, of).await
    }

    /// The text of the record of that number.
    pub(super) async fn record(&self, number: u64) -> Result<Vec<u8>, Fault> {
        let key = self.key(number);
        patiently(|| async {
            let read = self.get(&key, None).await;
            read.map(|(_, text)| text)
                .map_err(|fault| fault.unwrap_or(Fault::Absent))
        })
        .await
    }

    /// Whether there is a record of that number.
    pub(super) async fn has_record(&self, number: u64) -> Result<bool, Fault> {
        Ok(self.head(&self.key(number)).await?.is_some())
    }

    /// Writes a record where there is none of that number, or in place of the one with that ETag.
    pub(super) async fn write_record(
        &self,
        number: u64,
        text: Vec<u8>,
        of: Option<String>,
    ) -> Result<(), Fault> {
        self.write(&self.key(number), text, of).await
    }

    /// The numbers of the newest records, the newest first: of those below that number, or of all. So many, unless there
    /// are fewer.
    pub(super) async fn newest(&self, below: Option<u64>, count: usize) -> Result<Vec<u64>, Fault> {
        let mut numbers = Vec::new();
        let mut after = below.map(|number| self.key(number));
        while numbers.len() < count {
            let most = (count - numbers.len()).min(PAGE);
            let page = patiently(|| self.page(after.as_ref(), most)).await?;
            numbers.extend(page.iter().filter_map(number));
            match page.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        Ok(numbers)
    }

    /// The keys of the next records after that key, in order; none if there are no more.
    async fn page(&self, after: Option<&Path>, most: usize) -> Result<Vec<Path>, Fault> {
        let options = PaginatedListOptions {
            offset: after.map(ToString::to_string),
            max_keys: Some(most),
            ..PaginatedListOptions::default()
        };
        let folder = format!("{}/", self.history);
        let list = self.store.list_paginated(Some(&folder), options);
        let listed = timeout(WHOLE_ANSWER, list).await.map_err(|_| late())?;
        let listed = listed.map_err(|error| fault(&error))?.result.objects;
        Ok(listed.into_iter().map(|meta| meta.location).collect())
    }

    /// Stores list in the order of names, so the newest record has the first one.
    fn key(&self, number: u64) -> Path {
        let down = LAST.saturating_sub(number);
        self.history.clone().join(format!("{down:012}.json"))
    }

    async fn head(&self, key: &Path) -> Result<Option<ObjectMeta>, Fault> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let asked = timeout(WHOLE_ANSWER, self.store.get_opts(key, options));
        match asked.await.map_err(|_| late())? {
            Ok(result) => Ok(Some(result.meta)),
            Err(error) => match fault(&error) {
                Fault::Absent => Ok(None),
                fault => Err(fault),
            },
        }
    }

    /// None where it still has this ETag.
    async fn get(
        &self,
        key: &Path,
        unless: Option<&str>,
    ) -> Result<(ObjectMeta, Vec<u8>), Option<Fault>> {
        let options = GetOptions {
            if_none_match: unless.map(str::to_owned),
            ..GetOptions::default()
        };
        let asked = timeout(WHOLE_ANSWER, self.store.get_opts(key, options)).await;
        let result = match asked.map_err(|_| late())? {
            Err(Refusal::NotModified { .. }) => return Err(None),
            asked => asked.map_err(|error| fault(&error))?,
        };
        Ok(whole(result).await?)
    }

    /// Asks once: whoever writes has to find out what became of it before it is asked for again.
    async fn write(&self, key: &Path, text: Vec<u8>, of: Option<String>) -> Result<(), Fault> {
        let mode = match of {
            Some(etag) => PutMode::Update(UpdateVersion {
                e_tag: Some(etag),
                version: None,
            }),
            None => PutMode::Create,
        };
        let put = self
            .store
            .put_opts(key, Bytes::from(text).into(), PutOptions::from(mode));
        match put.await {
            Ok(_) => Ok(()),
            Err(error) => Err(match fault(&error) {
                // What is gone is in no state that was asked for.
                Fault::Absent => Fault::Unmet,
                fault => fault,
            }),
        }
    }
}

/// Asks again, more and more slowly, while the store asks to slow down.
pub(super) async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    for pause in PAUSES {
        match ask().await {
            Err(Fault::Throttled { .. }) => sleep(jittered(pause)).await,
            answered => return answered,
        }
    }
    ask().await
}

/// About so long, so that many who wait do not all come back at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + chance() / 2.0)
}

async fn whole(result: GetResult) -> Result<(ObjectMeta, Vec<u8>), Fault> {
    let meta = result.meta.clone();
    if meta.size > LARGEST {
        return Err(Fault::Oversized(meta.size));
    }
    let mut text = Vec::with_capacity(usize::try_from(meta.size).unwrap_or_default());
    let mut pieces = result.into_stream();
    while let Some(piece) = timeout(STALL, pieces.next()).await.map_err(|_| late())? {
        text.extend_from_slice(&piece.map_err(|error| fault(&error))?);
    }
    if text.len() as u64 != meta.size {
        let why = format!("{} bytes of {} came", text.len(), meta.size);
        return Err(Fault::Away { why, sent: true });
    }
    Ok((meta, text))
}

fn state(meta: &ObjectMeta) -> Result<State, Fault> {
    let etag = meta.e_tag.clone();
    Ok(State {
        etag: etag.ok_or_else(|| Fault::Odd("no ETag; use a store that gives one".to_owned()))?,
        modified: meta.last_modified.timestamp(),
    })
}

fn late() -> Fault {
    Fault::Away {
        why: "it does not answer in time".to_owned(),
        sent: true,
    }
}

/// The number of a record by its key.
fn number(key: &Path) -> Option<u64> {
    let down = key.filename()?.strip_suffix(".json")?.parse().ok()?;
    LAST.checked_sub(down)
}

/// What a refusal means.
fn fault(error: &Refusal) -> Fault {
    if let Refusal::Precondition { .. }
    | Refusal::AlreadyExists { .. }
    | Refusal::NotModified { .. } = error
    {
        return Fault::Unmet;
    }
    if let Some(answer) = cause::<Answer>(error) {
        return meant(answer);
    }
    match cause::<HttpError>(error) {
        Some(error) => Fault::Away {
            why: error.source().unwrap_or(error).to_string(),
            sent: error.kind() != HttpErrorKind::Connect,
        },
        None => Fault::Odd(error.to_string()),
    }
}

/// What an answer means that is no success.
fn meant(answer: &Answer) -> Fault {
    let said = || answer.to_string();
    match (answer.status, &*answer.code) {
        (_, "RequestTimeTooSkewed" | "RequestExpired") => Fault::Clock(said()),
        (_, "NoSuchBucket") => Fault::NoBucket,
        (_, "SlowDown") | (StatusCode::TOO_MANY_REQUESTS, _) => Fault::Throttled {
            why: said(),
            sent: false,
        },
        // This may be a proxy's, which does not know what has been carried out.
        (StatusCode::SERVICE_UNAVAILABLE, _) => Fault::Throttled {
            why: said(),
            sent: true,
        },
        (StatusCode::NOT_FOUND, _) => Fault::Absent,
        (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, _) => Fault::Forbidden(said()),
        (StatusCode::NOT_IMPLEMENTED, _) => Fault::Unconditional,
        (status, _) if status.is_server_error() => Fault::Away {
            why: said(),
            sent: true,
        },
        _ => Fault::Odd(said()),
    }
}

/// The error of that type among an error and its causes.
fn cause<T: Error + 'static>(error: &Refusal) -> Option<&T> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
