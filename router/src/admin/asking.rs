//! What requests say, read once: names, queries, bodies, and on which version they are based.

use std::sync::Arc;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};

use super::problem::{Problem, Sort};
use crate::registry::{CellName, Version};

/// The largest body, in bytes: an entry, or thousands of steps.
pub(super) const LARGEST_BODY: usize = 1024 * 1024;
/// The largest text of a registry, in bytes: a million cells fit.
const LARGEST_TEXT: usize = 512 * 1024 * 1024;
/// How long such a text may take to come, once it is its turn.
const TEXT_TIMEOUT: Duration = Duration::from_secs(120);

/// The query.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(Problem::malformed(error.body_text())),
        }
    }
}

/// The word in the path.
#[derive(Debug)]
pub(super) struct Word(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Word {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        read.map(|Path(word)| Self(word))
            .map_err(|error| Problem::malformed(error.body_text()))
    }
}

/// The cell that the path names.
#[derive(Debug)]
pub(super) struct Named(pub(super) CellName);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Word(name) = Word::from_request_parts(parts, state).await?;
        match CellName::parse(&name) {
            Ok(name) => Ok(Self(name)),
            Err(refusal) => Err(Problem::not_found(format!(
                "There is no such cell: {refusal}."
            ))),
        }
    }
}

/// The version that the path names.
#[derive(Debug)]
pub(super) struct Versioned(pub(super) Version);

impl<S: Send + Sync> FromRequestParts<S> for Versioned {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Word(version) = Word::from_request_parts(parts, state).await?;
        let read = version.parse();
        read.map(Self)
            .map_err(|none| Problem::not_found(format!("{version:?}: {none}.")))
    }
}

/// The body as it came.
#[derive(Debug)]
pub(super) struct Text(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = Bytes::from_request(request, state).await;
        read.map(Self)
            .map_err(|error| Problem::new(error.status(), Sort::Malformed, error.body_text()))
    }
}

/// Turns of texts that are larger than other bodies may be: one at a time is in memory that is to be stored, and one that is
/// only looked at, so that nobody who may only read holds up an edit.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    stored: Arc<Semaphore>,
    looked_at: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self {
            stored: one(),
            looked_at: one(),
        }
    }
}

/// The text of a registry as it came. A large one waits for its turn before it is read, and has it until this is dropped.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) text: Bytes,
    _turn: Option<OwnedSemaphorePermit>,
}

impl<S: Send + Sync> FromRequest<S> for Draft {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Problem> {
        let length = request.body().size_hint().upper();
        if length.is_some_and(|length| length <= LARGEST_BODY as u64) {
            let Text(text) = Text::from_request(request, state).await?;
            return Ok(Self { text, _turn: None });
        }
        let Some(turns) = request.extensions().get::<Turns>() else {
            return Err(Problem::failed("Nobody said whose turn it is."));
        };
        let turns = match *request.method() {
            Method::PUT => &turns.stored,
            _ => &turns.looked_at,
        };
        let turn = Arc::clone(turns).acquire_owned().await;
        let turn = turn.map_err(|closed| Problem::failed(closed.to_string()))?;
        DefaultBodyLimit::max(LARGEST_TEXT).apply(&mut request);
        let read = timeout(TEXT_TIMEOUT, Text::from_request(request, state)).await;
        let late = |_| {
            let detail = format!("The text did not come in {} s.", TEXT_TIMEOUT.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, Sort::Malformed, detail)
        };
        let Text(text) = read.map_err(late)??;
        let turn = Some(turn);
        Ok(Self { text, _turn: turn })
    }
}

/// The body, read as JSON.
#[derive(Debug)]
pub(super) struct Sent<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Text(body) = Text::from_request(request, state).await?;
        let read = serde_json::from_slice(&body);
        read.map(Self).map_err(|error| {
            Problem::malformed(format!("The body is not what is wanted: {error}."))
        })
    }
}

/// On which version a request is based (RFC 9110 section 13).
#[derive(Debug, Clone)]
pub(super) struct Precondition {
    matches: Option<Tags>,
    none: Option<Tags>,
}

#[derive(Debug, Clone)]
enum Tags {
    Any,
    These(Vec<Version>),
}

impl Tags {
    /// The tags of a header's lines. Weak ones, and those that are none of ours, fit nothing.
    fn of(headers: &HeaderMap, name: header::HeaderName) -> Option<Self> {
        let lines = headers.get_all(name);
        let mut lines = lines
            .iter()
            .map(|line| line.to_str().unwrap_or(""))
            .peekable();
        lines.peek()?;
        let tags: Vec<&str> = lines
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .collect();
        if tags.contains(&"*") {
            return Some(Self::Any);
        }
        let version = |tag: &str| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
        Some(Self::These(tags.into_iter().filter_map(version).collect()))
    }

    fn fit(&self, now: Option<Version>) -> bool {
        match (self, now) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::These(tags), Some(now)) => tags.contains(&now),
        }
    }
}

impl Precondition {
    /// Whether it names any version.
    pub(super) fn is_given(&self) -> bool {
        self.matches.is_some()
    }

    /// Whether what there is now is what the request is based on.
    ///
    /// # Errors
    /// 412.
    pub(super) fn judge(&self, now: Option<Version>) -> Result<(), Problem> {
        if self.matches.as_ref().is_some_and(|tags| !tags.fit(now)) {
            return Err(Problem::moved(now));
        }
        if self.is_known(now) {
            return Err(Problem {
                detail: "It is there already.".to_owned(),
                ..Problem::moved(now)
            });
        }
        Ok(())
    }

    /// Whether who asks has it already: the answer is 304.
    pub(super) fn is_known(&self, now: Option<Version>) -> bool {
        self.none.as_ref().is_some_and(|tags| tags.fit(now))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self {
            matches: Tags::of(&parts.headers, header::IF_MATCH),
            none: Tags::of(&parts.headers, header::IF_NONE_MATCH),
        })
    }
}

/// The tag of a version.
pub(super) fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

/// A text with its tag, or the word that who asks has it already.
pub(super) fn tagged(
    text: Vec<u8>,
    version: Version,
    precondition: &Precondition,
) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let tag = [(header::ETAG, etag(version))];
    if precondition.is_known(Some(version)) {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (tag, kind, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_text_that_does_not_come_gives_up_its_turn() {
        let turns = Turns::default();
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::builder().method("PUT");
        let request = request.extension(turns.clone());
        let request = request.body(Body::from_stream(never)).unwrap();
        let late = Draft::from_request(request, &()).await.unwrap_err();
        assert_eq!(late.status, 408);
        assert_eq!(turns.stored.available_permits(), 1);
    }

    fn judged(name: header::HeaderName, lines: &[&'static str], now: Option<&str>) -> bool {
        let headers = lines
            .iter()
            .map(|line| (name.clone(), header::HeaderValue::from_static(line)));
        let headers: HeaderMap = headers.collect();
        let precondition = Precondition {
            matches: Tags::of(&headers, header::IF_MATCH),
            none: Tags::of(&headers, header::IF_NONE_MATCH),
        };
        precondition
            .judge(now.map(|now| now.parse().unwrap()))
            .is_ok()
    }

    #[test]
    fn an_edit_fits_the_version_that_it_names() {
        let (old, now) = ("0000000000000001", Some("0000000000000002"));
        let fits = |lines: &[&'static str], now| judged(header::IF_MATCH, lines, now);
        assert!(fits(&[], now));
        assert!(fits(&[], None));
        assert!(fits(&["\"0000000000000002\""], now));
        assert!(!fits(&["\"0000000000000002\""], Some(old)));
        assert!(!fits(&["\"0000000000000002\""], None));
        assert!(fits(&["\"0000000000000001\", \"0000000000000002\""], now));
        assert!(fits(&["\"0000000000000001\"", "\"0000000000000002\""], now));
        assert!(fits(&["*"], now));
        assert!(!fits(&["*"], None));
        // Weak tags compare with nothing (RFC 9110 section 8.8.3.2).
        assert!(!fits(&["W/\"0000000000000002\""], now));
        assert!(!fits(&["0000000000000002"], now));
        assert!(!fits(&[""], now));
    }

    #[test]
    fn what_must_not_be_there_yet_is_not() {
        let fits = |lines: &[&'static str], now| judged(header::IF_NONE_MATCH, lines, now);
        assert!(fits(&["*"], None));
        assert!(!fits(&["*"], Some("0000000000000002")));
        assert!(fits(&["\"0000000000000001\""], Some("0000000000000002")));
    }
}
