//! The last requests of one cell, and its uploads under way.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::asking::Named;
use super::problem::{Problem, Sort};
use super::{View, cells};
use crate::account::recent::Ended;
use crate::account::record::rfc3339;
use crate::account::sight::{Silent, Upload, ask};

/// What can be seen of a cell's requests.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Requests {
    /// The last 16 that are over, the newest first.
    requests: Vec<Request>,
    /// Uploads under way, the oldest first, 50 at most.
    uploads: Vec<Running>,
}

/// A request that is over.
#[derive(Debug, Serialize, ToSchema)]
struct Request {
    /// When it ended.
    #[schema(format = DateTime)]
    at: String,
    /// Its method, or the first 32 characters of it.
    method: String,
    /// Its path without the query; of one that is longer than 256 bytes the beginning, and an ellipsis.
    path: String,
    /// The status of its answer; 499 where the client left before.
    status: u16,
    /// The lane that it took: answer, hold, replay, static, stream.
    lane: &'static str,
    /// The condition that decided, or what went wrong on the way.
    reason: &'static str,
    /// Who made the error, if it is one: client, router, cell.
    error_by: Option<&'static str>,
    /// Bytes of body from the client.
    bytes_in: u64,
    /// Bytes of body to the client.
    bytes_out: u64,
    /// From its head to the end of its answer, in milliseconds.
    duration_ms: u64,
}

/// An upload under way.
#[derive(Debug, Serialize, ToSchema)]
struct Running {
    /// When its head came.
    #[schema(format = DateTime)]
    began: String,
    /// Its method, or the first 32 characters of it.
    method: String,
    /// Its path without the query; of one that is longer than 256 bytes the beginning, and an ellipsis.
    path: String,
    /// The lane that it takes: answer, hold, replay, static, stream.
    lane: &'static str,
    /// Bytes that have come.
    bytes: u64,
    /// Bytes that there are in all; null where the client has not said so.
    of: Option<u64>,
    /// How long it is under way, in milliseconds.
    age_ms: u64,
    /// How long no byte has gone through, in milliseconds.
    silent_ms: u64,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<Ended> for Request {
    fn from(ended: Ended) -> Self {
        Self {
            at: rfc3339(ended.at),
            method: ended.method.to_string(),
            path: ended.path.into(),
            status: ended.status,
            lane: ended.lane,
            reason: ended.reason,
            error_by: ended.blame.map(|blame| blame.name()),
            bytes_in: ended.bytes_in,
            bytes_out: ended.bytes_out,
            duration_ms: millis(ended.duration),
        }
    }
}

impl From<Upload> for Running {
    fn from(upload: Upload) -> Self {
        let age = upload.began.elapsed();
        Self {
            began: rfc3339(SystemTime::now() - age),
            method: upload.method.to_string(),
            path: upload.path.into(),
            lane: upload.lane,
            bytes: upload.bytes,
            of: upload.of,
            age_ms: millis(age),
            silent_ms: millis(upload.silent),
        }
    }
}

impl From<Silent> for Problem {
    fn from(Silent: Silent) -> Self {
        let detail = "A worker of the router does not answer: its thread is held up.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Sort::Failed, detail)
    }
}

/// A cell's last requests and its uploads under way, as this router has seen them since its start. Queries and headers are not
/// kept.
#[utoipa::path(get, path = "/v1/cells/{name}/requests", tag = "cells",
    params(("name" = String, Path, description = "The cell's name.")), responses(
    (status = 200, body = Requests),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn requests(
    State(view): State<Arc<View>>,
    Named(name): Named,
) -> Result<Json<Requests>, Problem> {
    let cell = cells::cell(&view, &name)?;
    let seen = ask(&view.workers, &cell.name).await?;
    Ok(Json(Requests {
        requests: seen.ended.into_iter().map(Request::from).collect(),
        uploads: seen.uploads.into_iter().map(Running::from).collect(),
    }))
}
