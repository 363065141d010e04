//! Questions about the router: its numbers, its state, where a request would go, and who asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::asking::Sent;
use super::editing::{Who, blocking};
use super::problem::{Place, Problem};
use super::{View, metrics};
use crate::control::explain::{self, Question};
use crate::decision::BodyLength;
use crate::registry::{Registry, Version};

/// The largest body that can be asked about, in bytes: the largest integer that every reader of JSON has.
const LARGEST_BODY: f64 = 9_007_199_254_740_991.0;

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "router", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
))]
pub(super) async fn prometheus(
    State(view): State<Arc<View>>,
) -> Result<impl IntoResponse, Problem> {
    let text = metrics::text(&view).map_err(|error| Problem::failed(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text))
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    /// The name in the token's line.
    name: String,
    /// What the token allows: read, operate, edit.
    role: &'static str,
}

/// Whose token it is, and what it allows.
#[utoipa::path(get, path = "/v1/session", tag = "router", responses(
    (status = 200, body = Session),
))]
pub(super) async fn session(Extension(who): Extension<Who>) -> Json<Session> {
    Json(Session {
        name: who.bearer.name,
        role: who.bearer.role.name(),
    })
}

/// A router and its registry.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Standing {
    /// When it began to serve, in seconds since 1970.
    since: u64,
    /// Whether it can wake cells and put them to sleep.
    wakes: bool,
    /// The version of the registry that is in force.
    version: String,
    /// Cells in it.
    cells: usize,
    /// Entries that are not in force as they are written.
    flags: Vec<Flagged>,
    /// The version that is stored; null where it cannot be read now.
    stored: Option<String>,
    /// Why what is stored cannot be read: what is in force serves on.
    unreadable: Option<String>,
    /// Why what is stored is not in force: what is wrong with it as a whole.
    refused: Vec<Place>,
    /// Requests on their way to cells and back.
    in_flight: u64,
    /// Requests that wait for a sleeping or paused cell.
    held: usize,
    /// Cells that are being woken.
    waking: u64,
    /// Cells whose breakers keep requests from them.
    breakers_open: u64,
}

/// An entry that is not in force as it is written.
#[derive(Debug, Serialize, ToSchema)]
struct Flagged {
    /// The cell.
    cell: String,
    /// Whether its last good version is in force; else it is left out.
    kept: bool,
    /// What is wrong with it.
    problems: Vec<Place>,
}

/// The router, and how the registry that is stored and the one that is in force compare.
#[utoipa::path(get, path = "/v1/router", tag = "router", responses(
    (status = 200, body = Standing),
))]
pub(super) async fn router(State(view): State<Arc<View>>) -> Result<Json<Standing>, Problem> {
    blocking(move || {
        let snapshot = view.publisher.current();
        let text = view.store.read();
        let stored = text.as_ref().ok().map(|text| Version::of(text));
        let refused = match &text {
            Ok(text) if stored != Some(snapshot.version) => {
                let read = Registry::parse_beside(text, &snapshot.registry, &[]);
                read.err().unwrap_or_default()
            }
            Ok(_) | Err(_) => Vec::new(),
        };
        let census = view.cells.census();
        let since = view.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let places =
            |problems: &[crate::registry::Problem]| problems.iter().map(Place::from).collect();
        let flags = snapshot.flags.iter().map(|flag| Flagged {
            cell: flag.cell.clone(),
            kept: flag.kept,
            problems: places(&flag.problems),
        });
        Ok(Json(Standing {
            since: since.as_secs(),
            wakes: view.waker.is_some(),
            version: snapshot.version.to_string(),
            cells: snapshot.registry.len(),
            flags: flags.collect(),
            stored: stored.map(|stored| stored.to_string()),
            unreadable: text.err().map(|error| error.to_string()),
            refused: places(&refused),
            in_flight: census.in_flight,
            held: census.held,
            waking: census.waking,
            breakers_open: census.breakers_open,
        }))
    })
    .await
}

/// A request to be explained.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Explained {
    /// The method: a token (RFC 9110 section 9.1).
    #[schema(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", example = "GET")]
    method: String,
    /// The whole URL.
    #[schema(example = "http://alice.example.com/")]
    url: String,
    /// Header lines beside `Host`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body's length in bytes, where there is a body; at most 2^53 - 1.
    // JSON has one kind of number: 5.0 is a length, too.
    #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
    body_bytes: Option<f64>,
    /// Whether the body's length is unknown.
    #[serde(default)]
    chunked: bool,
    /// As if the cell's machine were asleep.
    #[serde(default)]
    asleep: bool,
}

fn length(bytes: f64) -> Result<u64, Problem> {
    if bytes.fract() == 0.0 && (0.0..=LARGEST_BODY).contains(&bytes) {
        return Ok(bytes as u64);
    }
    let detail = format!("body_bytes is {bytes}; write a whole number up to {LARGEST_BODY}.");
    Err(Problem::unprocessable(detail))
}

/// Where a request would go now, and why, by the decision that a real one would get. Nothing is sent.
#[utoipa::path(post, path = "/v1/explain", tag = "router", request_body = Explained, responses(
    (status = 200, body = explain::Explanation),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn explain(
    State(view): State<Arc<View>>,
    Sent(asked): Sent<Explained>,
) -> Result<Json<explain::Explanation>, Problem> {
    let length = asked.body_bytes.map(length).transpose()?;
    let bad = |what: &str, error: &dyn std::fmt::Display| {
        Problem::unprocessable(format!("{what}: {error}."))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        let name: HeaderName = name.parse().map_err(|error| bad(name, &error))?;
        let value = HeaderValue::from_str(value).map_err(|error| bad(name.as_str(), &error))?;
        headers.append(name, value);
    }
    let snapshot = view.publisher.current();
    let mut question = Question {
        method: asked
            .method
            .parse()
            .map_err(|error| bad("method", &error))?,
        url: asked.url.parse().map_err(|error| bad("url", &error))?,
        headers,
        body: match (length, asked.chunked) {
            (_, true) => BodyLength::Unknown,
            (Some(bytes), false) => BodyLength::Known(bytes),
            (None, false) => BodyLength::None,
        },
        place: view.config.place.clone(),
        https_redirect: view.config.https_redirect,
        replay_max_bytes: view.config.replay_max_bytes,
        asleep: asked.asleep,
        state: crate::decision::CellState::default(),
    };
    let ask = |question: &Question| {
        explain::explain(&snapshot.registry, question).map_err(|error| bad("url", &error))
    };
    let first = ask(&question)?;
    // The live state is that of the cell which the question turned out to be about.
    let cell = first
        .cell
        .as_ref()
        .and_then(|name| snapshot.registry.cell(name));
    let Some(cell) = cell else {
        return Ok(Json(first));
    };
    question.state = view.cells.state(cell);
    Ok(Json(ask(&question)?))
}
