//! What can be asked, and the document that says so.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Access, Denied, Role};
use super::problem::Problem;
use super::{View, metrics};
use crate::account::tally::CellCounts;
use crate::live::cells::Stage;
use crate::live::snapshot::Snapshot;
use crate::registry::{Admission, Cell, CellName, Flag, Protocol};

/// Entries on a page unless asked otherwise, and at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

#[derive(OpenApi)]
#[openapi(
    info(title = "Cell Router", description = "Live state of a router and its cells."),
    tags((name = "cells"), (name = "router"))
)]
struct Document;

fn routes() -> OpenApiRouter<Arc<View>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(prometheus))
}

/// The OpenAPI document of all that can be asked, made from the code that answers it.
pub fn document() -> String {
    let (_, api) = routes().split_for_parts();
    let text = api.to_pretty_json().unwrap_or_default();
    text + "\n"
}

/// Answers all of it.
pub(super) fn app(view: Arc<View>, access: Arc<Access>) -> Router {
    let (router, api) = routes().split_for_parts();
    router
        .route(
            "/v1/openapi.json",
            axum::routing::get(|| async move { Json(api) }),
        )
        .route("/up", axum::routing::get(|| async { "ok" }))
        .fallback(|| async {
            Problem::new(
                StatusCode::NOT_FOUND,
                "There is nothing here; /v1/openapi.json says what there is.",
            )
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "This cannot be done here; /v1/openapi.json says what can.",
            )
        })
        .layer(middleware::from_fn(admit))
        .layer(Extension(access))
        .with_state(view)
}

/// Lets in who may ask. Only whether the router is up is told to everybody.
async fn admit(
    Extension(access): Extension<Arc<Access>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path() == "/up" {
        return next.run(request).await;
    }
    match access.admit(bearer(request.headers()), Role::Read) {
        Ok(_) => next.run(request).await,
        Err(denied) => {
            tracing::warn!(client = %client.ip(), path = request.uri().path(), ?denied, "admin: refused");
            refusal(denied).into_response()
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn refusal(denied: Denied) -> Problem {
    match denied {
        Denied::Unknown => Problem::new(
            StatusCode::UNAUTHORIZED,
            "Send a token that the router knows: Authorization: Bearer TOKEN.",
        ),
        Denied::Role(role) => Problem::new(
            StatusCode::FORBIDDEN,
            format!("A token of the role {} does not allow this.", role.name()),
        ),
        Denied::TooMany => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many tokens that do not fit were tried; wait a moment.",
        ),
        Denied::NoFile => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The file of tokens cannot be read; the router's log says why.",
        ),
    }
}

/// Which cells are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Part of the name.
    #[serde(default)]
    search: String,
    /// The name after which to go on: `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Some cells, by name.
#[derive(Debug, Serialize, ToSchema)]
struct Page {
    /// The cells.
    cells: Vec<Summary>,
    /// How many fit in all.
    total: usize,
    /// What to give as `after` for the next page; null on the last.
    next: Option<String>,
}

/// A cell in short.
#[derive(Debug, Serialize, ToSchema)]
struct Summary {
    /// Its name.
    name: String,
    /// Its state in the registry: active, paused, maintenance, disabled.
    state: &'static str,
    /// Where it lives.
    placement: String,
    /// Requests on their way to it and back.
    in_flight: u32,
    /// Requests that wait for a place at it.
    queued: u32,
    /// How far the wake has come that is under way: asking, starting, readying.
    waking: Option<&'static str>,
    /// Whether its entry is not in force as it is written; `problems` of the cell says why.
    flagged: bool,
    /// Whether its breaker keeps requests from it, or did so and it has not answered since.
    breaker_open: bool,
}

/// A cell with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
struct Detail {
    #[serde(flatten)]
    summary: Summary,
    /// What it speaks: http1, http2.
    protocol: &'static str,
    /// Requests since the router's start, by lane.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    requests: std::collections::HashMap<&'static str, u64>,
    /// Those that went wrong, by who made the error: client, router, cell.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    errors: std::collections::HashMap<&'static str, u64>,
    /// Bytes of bodies from clients.
    bytes_in: u64,
    /// Bytes of bodies to clients.
    bytes_out: u64,
    /// What is wrong with its entry as it is written, where its last good version is in force instead.
    problems: Vec<String>,
    /// When the last request ended, in seconds since 1970.
    last_request: Option<u64>,
}

/// The cells whose names contain what is searched for, in the order of names.
#[utoipa::path(get, path = "/v1/cells", tag = "cells", params(Wanted), responses(
    (status = 200, body = Page),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(view): State<Arc<View>>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(wanted) =
        wanted.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let limit = wanted.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let detail = format!("limit is {limit}; write 1 to {LARGEST_PAGE}.");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let snapshot = Arc::clone(&view.publisher.subscribe().borrow());
    let mut found: Vec<_> = snapshot
        .registry
        .cells()
        .filter(|cell| cell.name.as_str().contains(&wanted.search))
        .collect();
    let total = found.len();
    if let Some(after) = &wanted.after {
        found.retain(|cell| cell.name.as_str() > after.as_str());
    }
    let more = found.len() > limit;
    if more {
        // Only those that are shown need an order.
        found.select_nth_unstable_by(limit, |one, other| {
            one.name.as_str().cmp(other.name.as_str())
        });
        found.truncate(limit);
    }
    found.sort_unstable_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    let cells: Vec<_> = found
        .iter()
        .map(|cell| summary(&view, &snapshot, cell))
        .collect();
    let next = cells.last().filter(|_| more).map(|last| last.name.clone());
    Ok(Json(Page { cells, total, next }))
}

/// One cell.
#[utoipa::path(get, path = "/v1/cells/{name}", tag = "cells", params(("name" = String, Path, description = "The cell's name.")), responses(
    (status = 200, body = Detail),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn show(
    State(view): State<Arc<View>>,
    Path(name): Path<String>,
) -> Result<Json<Detail>, Problem> {
    let snapshot = Arc::clone(&view.publisher.subscribe().borrow());
    let Some(cell) = snapshot.registry.cell(&name) else {
        let detail = format!("There is no cell {name:?}.");
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let mut counts = CellCounts::default();
    for tally in &view.tallies {
        tally
            .cell(&name)
            .into_iter()
            .for_each(|more| counts.merge(more));
    }
    Ok(Json(Detail {
        summary: summary(&view, &snapshot, cell),
        protocol: match cell.protocol {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
        },
        requests: counts.requests,
        errors: counts.errors,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        problems: flags(&snapshot, &cell.name)
            .flat_map(|flag| &flag.problems)
            .map(ToString::to_string)
            .collect(),
        last_request: Some(counts.last_request).filter(|at| *at > 0),
    }))
}

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "router", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn prometheus(State(view): State<Arc<View>>) -> Result<impl IntoResponse, Problem> {
    let text = metrics::text(&view)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text))
}

fn flags<'s>(snapshot: &'s Snapshot, name: &CellName) -> impl Iterator<Item = &'s Flag> {
    let name = name.clone();
    snapshot
        .flags
        .iter()
        .filter(move |flag| flag.cell == name.as_str())
}

fn summary(view: &View, snapshot: &Snapshot, cell: &Cell) -> Summary {
    let live = view.cells.find(cell.name.as_str());
    Summary {
        name: cell.name.as_str().to_owned(),
        state: match cell.state {
            Admission::Active => "active",
            Admission::Paused => "paused",
            Admission::Maintenance => "maintenance",
            Admission::Disabled => "disabled",
        },
        placement: cell.placement.to_string(),
        in_flight: live.as_ref().map_or(0, |live| live.in_flight()),
        queued: live.as_ref().map_or(0, |live| live.queued()),
        waking: live
            .as_ref()
            .and_then(|live| live.waking())
            .map(|stage| match stage {
                Stage::Asking => "asking",
                Stage::Starting => "starting",
                Stage::Readying => "readying",
            }),
        flagged: flags(snapshot, &cell.name).next().is_some(),
        breaker_open: live.is_some_and(|live| live.breaker.is_open()),
    }
}
