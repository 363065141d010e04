//! Who is let in to what, and what is put on record of it.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use futures_util::FutureExt as _;

use super::View;
use super::access::{Access, Bearer, Denied, Pass, Role};
use super::asking::{LARGEST_BODY, Turns};
use super::document::{api, groups};
use super::editing::{Audit, Who};
use super::events::Feed;
use super::page;
use super::problem::{Problem, Sort};
use super::reading_on::read_on;

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
        .layer(Extension(Turns::default()))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn(read_on))
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
    let admitted = match gate.access.is_open() && is_led_here(&request) {
        true => Err(Denied::LedHere),
        false => gate.access.admit(token(request.headers()), gate.role),
    };
    let bearer = match admitted {
        Ok(bearer) => bearer,
        Err(denied) => {
            operation.denied(&denied);
            return Problem::from(denied).into_response();
        }
    };
    let with = with(request.headers());
    let bearer_then = bearer.clone();
    let pass = Pass::new(&gate.access, token(request.headers()));
    request.extensions_mut().insert(pass);
    request.extensions_mut().insert(Who { bearer, with });
    if gate.role == Role::Read {
        return next.run(request).await;
    }
    let done = tokio::spawn(async move {
        let response = finished(next.run(request)).await;
        operation.record(&bearer_then, with, &response);
        response
    });
    match done.await {
        Ok(response) => response,
        Err(ended) => Problem::failed(ended.to_string()).into_response(),
    }
}

/// The answer, also of what panics: it may have been done in part, and is on record for that.
async fn finished(run: impl Future<Output = Response>) -> Response {
    let finished = AssertUnwindSafe(run).catch_unwind().await;
    finished.unwrap_or_else(|_| {
        Problem::failed("The router could not do it; its log says why.").into_response()
    })
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
            Denied::Unknown | Denied::TooMany | Denied::NoFile | Denied::LedHere => "",
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

/// Whether a browser may have been led here by another's page: it names a host by a name that anybody can let lead here (DNS
/// rebinding), or says that the page is another's (RFC 6454).
fn is_led_here(request: &Request) -> bool {
    let headers = request.headers();
    let said = headers.get_all(header::HOST).iter();
    let said = said.map(|host| host.to_str().unwrap_or_default());
    let hosts: Vec<_> = said
        .chain(request.uri().authority().map(Authority::as_str))
        .collect();
    let origins = headers.get_all(header::ORIGIN).iter();
    let mut pages = origins.map(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        origin.split_once("://").map_or("", |(_, host)| host)
    });
    // What a page loads without reading it says no origin (Fetch Metadata Request Headers, section 2.4). Who follows a link
    // sees the answer, and the page with the link does not.
    let says = |name, value: &str| headers.get(name).is_some_and(|said| said == value);
    let follows = request.method().is_safe()
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document");
    let mut sites = headers.get_all("sec-fetch-site").iter();
    !hosts.iter().all(|host| is_local(host))
        || pages.any(|page| !hosts.contains(&page))
        || !follows && sites.any(|site| site != "same-origin" && site != "none")
}

/// Whether a host, with a port or without, is an address or `localhost`.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_plain = !authority.as_str().contains('@');
    is_plain && (name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok())
}

fn token(headers: &HeaderMap) -> Option<&str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_has_an_answer_for_the_record() {
        let response = finished(async { panic!("the test wants it") }).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
