//! Who is let in to what, and what is put on record of it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};

use super::View;
use super::access::{Access, Bearer, Denied, Role};
use super::document::{api, groups};
use super::editing::{Audit, Who};
use super::events::Feed;
use super::page;
use super::problem::{Problem, Sort};

/// The largest body, in bytes: a registry of a million cells fits.
const LARGEST_BODY: usize = 512 * 1024 * 1024;

/// Who may pass to a group of routes.
#[derive(Debug, Clone)]
struct Gate {
    access: Arc<Access>,
    role: Role,
}

/// Answers all that can be asked.
pub(super) fn app(view: Arc<View>, access: Arc<Access>, feed: Arc<Feed>) -> Router {
    let gate = |role| {
        let access = Arc::clone(&access);
        middleware::from_fn_with_state(Gate { access, role }, admit)
    };
    let document = Router::new()
        .route(
            "/v1/openapi.json",
            axum::routing::get(|| async { Json(api()) }),
        )
        .route_layer(gate(Role::Read));
    groups()
        .into_iter()
        .fold(document, |all, (role, routes)| {
            let (routes, _) = routes.split_for_parts();
            all.merge(routes.with_state(Arc::clone(&view)).route_layer(gate(role)))
        })
        .route("/up", axum::routing::get(|| async { "ok" }))
        .merge(page::files())
        .fallback(|| async {
            Problem::not_found("There is nothing here; /v1/openapi.json says what there is.")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Sort::Malformed,
                "This cannot be done here; /v1/openapi.json says what can.",
            )
        })
        .layer(Extension(feed))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
}

/// Lets in who may ask. What changes something is put on record, and so is what is refused; it goes on to its end though
/// the client leaves.
async fn admit(
    State(gate): State<Gate>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let operation = Operation {
        method: request.method().clone(),
        uri: request.uri().clone(),
        client,
    };
    let bearer = match gate.access.admit(bearer(request.headers()), gate.role) {
        Ok(bearer) => bearer,
        Err(denied) => {
            operation.denied(&denied);
            return Problem::from(denied).into_response();
        }
    };
    let with = with(request.headers());
    let bearer_then = bearer.clone();
    request.extensions_mut().insert(Who { bearer, with });
    if gate.role == Role::Read {
        return next.run(request).await;
    }
    let done = tokio::spawn(async move {
        let response = next.run(request).await;
        operation.record(&bearer_then, with, &response);
        response
    });
    match done.await {
        Ok(response) => response,
        Err(panicked) => Problem::failed(panicked.to_string()).into_response(),
    }
}

/// What is done, as it stands in the log.
struct Operation {
    method: Method,
    uri: Uri,
    client: SocketAddr,
}

impl Operation {
    fn denied(&self, denied: &Denied) {
        let who = match denied {
            Denied::Role(_, name) => name.as_str(),
            Denied::Unknown | Denied::TooMany | Denied::NoFile => "",
        };
        let (method, path, client) = (self.method.as_str(), self.uri.path(), self.client.ip());
        tracing::warn!(who, %client, method, path, ?denied, "admin: refused");
    }

    fn record(&self, bearer: &Bearer, with: &str, response: &Response) {
        let (who, role, client) = (&*bearer.name, bearer.role.name(), self.client.ip());
        let (method, path, status) = (self.method.as_str(), self.uri.path(), response.status());
        let status = status.as_u16();
        if status >= 400 {
            tracing::warn!(who, role, with, %client, method, path, status, "admin: refused");
        } else {
            let what = response.extensions().get::<Audit>();
            let what = what.map_or("", |audit| &*audit.0);
            tracing::info!(who, role, with, %client, method, path, status, what, "admin: done");
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What the client says that it is, for the history: nothing else depends on it.
fn with(headers: &HeaderMap) -> &'static str {
    let said = headers.get("cell-router-client");
    match said.map(axum::http::HeaderValue::as_bytes) {
        Some(b"cli") => "cli",
        Some(b"page") => "page",
        _ => "api",
    }
}
