//! What every route shares, and the table of routes.
//!
//! Owns how a failure is told: one short text for the client, and the cause for the log only.

use std::fmt;
use std::io;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::config::BasePath;
use crate::files::{self, Folder};
use crate::front_door::FrontDoor;
use crate::identity::Identity;
use crate::live::{self, Pushes};
use crate::store::Store;
use crate::work::Work;
use crate::{pages, posts, whoami};

/// Largest body of a post, as form or JSON, in bytes.
const POST_BYTES: usize = 1024 * 1024;

/// What the routes work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) identity: Arc<Identity>,
    pub(crate) front_door: Arc<FrontDoor>,
    pub(crate) base_path: Option<BasePath>,
    pub(crate) max_upload_bytes: Option<u64>,
    pub(crate) store: Store,
    pub(crate) folder: Folder,
    pub(crate) pushes: Pushes,
    pub(crate) work: Work,
}

/// The routes, as they are seen once the entrance has let a request in.
pub(crate) fn routes(app: App) -> Router {
    Router::new()
        .route("/", get(pages::home))
        .route("/assets/cell.css", get(pages::style))
        .route("/assets/cell.js", get(pages::script))
        .route("/posts", get(posts::list).post(posts::add))
        .route(
            "/posts/{id}",
            get(posts::show).put(posts::replace).delete(posts::remove),
        )
        .route("/files", get(files::list))
        .route(
            "/files/{name}",
            get(files::fetch).put(files::put).delete(files::remove),
        )
        .route("/live", get(live::socket))
        .route("/events", get(live::events))
        .route("/up", get(up))
        .route("/whoami", axum::routing::any(whoami::whoami))
        .fallback(async || Failure::not_found("no such page"))
        .layer(DefaultBodyLimit::max(POST_BYTES))
        .with_state(app)
}

/// `GET /up`: whether this cell can serve. Says which cell and machine it is, for whoever reached a reused address.
async fn up(axum::extract::State(app): axum::extract::State<App>) -> Response {
    let (code, status) = if app.work.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if let Err(problem) = app.store.ping().await {
        tracing::error!(%problem, "the database does not answer");
        (StatusCode::SERVICE_UNAVAILABLE, "database")
    } else {
        (StatusCode::OK, "ok")
    };
    let Identity { cell, machine, .. } = &*app.identity;
    (
        code,
        Json(json!({ "cell": cell, "machine": machine, "status": status })),
    )
        .into_response()
}

/// Runs file work on a blocking thread; once begun, it runs to its end.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => Err(io::Error::other(ended)),
    }
}

/// An answer other than what was asked for: JSON `{"error": …}` with its status.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    text: String,
}

impl Failure {
    /// A failure that says `text` to the client.
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    /// 400 for a name that breaks `rule`.
    pub(crate) fn bad_name(rule: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rule)
    }

    /// 404.
    pub(crate) fn not_found(text: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// 413.
    pub(crate) fn too_large(limit: u64) -> Self {
        let text = format!("this cell takes uploads of at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    fn internal(cause: &dyn fmt::Display) -> Self {
        tracing::error!(%cause, "failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the cell failed; its log says why",
        )
    }
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Self {
        Self::internal(&cause)
    }
}

impl From<JsonRejection> for Failure {
    fn from(refused: JsonRejection) -> Self {
        Self::new(refused.status(), refused.body_text())
    }
}

impl From<FormRejection> for Failure {
    fn from(refused: FormRejection) -> Self {
        Self::new(refused.status(), refused.body_text())
    }
}

impl From<crate::store::Problem> for Failure {
    fn from(cause: crate::store::Problem) -> Self {
        Self::internal(&cause)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.text }))).into_response()
    }
}
