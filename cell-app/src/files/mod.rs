//! `/files`: uploads of any size, listed and downloaded.
//!
//! Owns the HTTP of it; what is on disk is [`folder`]'s. Never holds more of a body than a few chunks.

mod folder;
mod name;

use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::json;
use tower_http::services::ServeFile;

use folder::NotStored;
pub(crate) use folder::{Entry, Folder};
use name::FileName;

use crate::app::{App, Failure, blocking};

/// A client that sends nothing for so long is gone: a deadline on progress, not on the upload.
const STALL: Duration = Duration::from_secs(300);

/// Read and write at a time on a download.
const DOWNLOAD_CHUNK_BYTES: usize = 64 * 1024;

/// What a browser may do with a tenant's file: show it, and run nothing in it.
const SANDBOX: &str =
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox";

/// `GET /files`: JSON.
pub(crate) async fn list(State(app): State<App>) -> Result<Response, Failure> {
    Ok(Json(entries(&app).await?).into_response())
}

/// All files, by name.
pub(crate) async fn entries(app: &App) -> Result<Vec<Entry>, Failure> {
    let folder = app.folder.clone();
    Ok(blocking(move || folder.list()).await?)
}

/// `PUT /files/{name}`: streams the body to disk. Cancelled, or cut, it leaves nothing.
pub(crate) async fn put(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let name = FileName::parse(name).map_err(Failure::bad_name)?;
    let limit = app.max_upload_bytes.unwrap_or(u64::MAX);
    if headers.contains_key(header::CONTENT_RANGE) {
        // RFC 9110 section 14.4: a server that does not support partial PUT must not take it for a whole one.
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "a file is uploaded whole: no content-range",
        ));
    }
    if content_length(&headers).is_some_and(|length| length > limit) {
        return Err(Failure::too_large(limit));
    }
    let upload = app.folder.receive(name.clone(), app.work.begin());
    let mut chunks = body.into_data_stream();
    let mut bytes = 0_u64;
    let cut = loop {
        match tokio::time::timeout(STALL, chunks.next()).await {
            Ok(Some(Ok(chunk))) => {
                bytes += chunk.len() as u64;
                if bytes > limit {
                    break Some(Failure::too_large(limit));
                }
                if !upload.push(chunk).await {
                    break None;
                }
            }
            Ok(None) => break None,
            Ok(Some(Err(_))) => {
                break Some(Failure::new(
                    StatusCode::BAD_REQUEST,
                    "the upload ended before its end",
                ));
            }
            Err(_) => {
                break Some(Failure::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "the upload made no progress",
                ));
            }
        }
    };
    if let Some(failure) = cut {
        upload.cut().await;
        return Err(failure);
    }
    let stored = upload.end().await?;
    let status = if stored.replaced {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let answer = json!({
        "name": name.as_str(),
        "bytes": stored.bytes,
        "sha256": stored.sha256,
        "machine": app.identity.machine,
    });
    Ok((status, Json(answer)).into_response())
}

/// `GET` and `HEAD /files/{name}`, with ranges and conditions (RFC 9110 sections 13 and 14).
pub(crate) async fn fetch(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let name = FileName::parse(name).map_err(Failure::bad_name)?;
    let mut response = ServeFile::new(app.folder.path(&name))
        .with_buf_chunk_size(DOWNLOAD_CHUNK_BYTES)
        .try_call(request)
        .await?
        .map(Body::new);
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Failure::not_found("no such file"));
    }
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(SANDBOX),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    Ok(response)
}

/// `DELETE /files/{name}`.
pub(crate) async fn remove(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let name = FileName::parse(name).map_err(Failure::bad_name)?;
    let folder = app.folder.clone();
    if blocking(move || folder.remove(&name)).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Failure::not_found("no such file"))
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

impl From<NotStored> for Failure {
    fn from(reason: NotStored) -> Self {
        match reason {
            NotStored::Disk(problem) if problem.kind() == io::ErrorKind::StorageFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "the cell's volume is full",
            ),
            NotStored::Disk(problem) => problem.into(),
            NotStored::Ending => Self::new(StatusCode::SERVICE_UNAVAILABLE, "the cell is stopping"),
        }
    }
}
