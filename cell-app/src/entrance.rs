//! What every request passes before the routes see it.
//!
//! In this order:
//! 1. `/up` is answered to everyone, and is not work.
//! 2. A request that names another machine is sent there with a replay. This comes before the proof: the request is not
//!    this cell's to judge, the machine it names asks for the proof itself, and nothing of this tenant is told.
//! 3. A request without a proof is refused, if the cell has a secret. Up to here nothing keeps the cell awake.
//! 4. The router's challenge is answered: who this cell is. It does not keep the cell awake either.
//! 5. The request is counted as work until its answer has been sent, and the base path is taken off.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Query, Request, State};
use axum::http::request::Parts;
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use crate::app::{App, Failure};
use crate::config::BasePath;
use crate::front_door::{self, Lane};
use crate::identity::is_machine_id;
use crate::work::Running;

/// Names the machine that must serve the request (fly-platform 1.12).
const FORCE_INSTANCE: HeaderName = HeaderName::from_static("fly-force-instance-id");
/// Names the machine that has answered.
const MACHINE: HeaderName = HeaderName::from_static("fly-machine-id");
/// A replay instruction (fly-platform 1.2).
const REPLAY: HeaderName = HeaderName::from_static("fly-replay");
/// The prefix that a proxy in front has taken off.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Where the router asks who this cell is (docs/signature.md).
const IDENTITY: &str = "/.well-known/cell-identity";

/// Said to a request that cannot prove where it came from.
const REFUSAL: &str = "this cell takes requests only through its front door: ask at the tenant's public address. \
    An operator who sees this there: the router and the cell (CELL_SECRET, CELL_NAME) do not agree, or a clock is wrong";

/// How a request came, for the routes.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// What proved that it came through the front door.
    pub(crate) lane: Lane,
    /// Path and query as they arrived.
    pub(crate) target: String,
    /// What links in an answer begin with: empty, or a [`BasePath`].
    prefix: String,
}

impl Visit {
    /// `path` as the client must ask for it.
    pub(crate) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// The middleware around all routes.
pub(crate) async fn enter(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map_or("/", PathAndQuery::as_str)
        .to_owned();
    if head.uri.path() == "/up" {
        let mut response = next.run(Request::from_parts(head, body)).await;
        name_machine(&app, response.headers_mut());
        return response;
    }
    if let Some(instruction) = elsewhere(&app, &head.headers) {
        return (StatusCode::CONFLICT, [(REPLAY, instruction)]).into_response();
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let Some(lane) = app.front_door.admit(&head, now) else {
        tracing::warn!(method = %head.method, path = head.uri.path(), "refused: not through the front door");
        let mut response = Failure::new(StatusCode::FORBIDDEN, REFUSAL).into_response();
        finish(&app, response.headers_mut());
        return response;
    };
    if lane == Lane::Stream && head.method == Method::GET && head.uri.path() == IDENTITY {
        let mut response = prove(&app, &head.uri).unwrap_or_else(Failure::into_response);
        finish(&app, response.headers_mut());
        return response;
    }
    let running = app.work.begin();
    let prefix = take_base_path(&app, &mut head, &target);
    head.extensions.insert(Visit {
        lane,
        target,
        prefix,
    });
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    let mut response = next.run(Request::from_parts(head, body)).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), ?lane, "answered");
    finish(&app, response.headers_mut());
    response.map(|body| {
        Body::new(Counted {
            body,
            _running: running,
        })
    })
}

/// What the router asks on a new connection.
#[derive(serde::Deserialize)]
struct Challenge {
    nonce: String,
    address: String,
}

/// Answers a challenge, if it was addressed to this machine: else another one, at an address that was this cell's,
/// could hand its own challenge on.
fn prove(app: &App, uri: &Uri) -> Result<Response, Failure> {
    let bad = || Failure::new(StatusCode::BAD_REQUEST, "this is no challenge");
    let Query(Challenge { nonce, address }) = Query::try_from_uri(uri).map_err(|_| bad())?;
    let dialled: SocketAddr = address.parse().map_err(|_| bad())?;
    let elsewhere = |own: std::net::IpAddr| own.to_canonical() != dialled.ip().to_canonical();
    if app.identity.address.is_some_and(elsewhere) {
        tracing::warn!(%dialled, own = ?app.identity.address, "a challenge for another address was refused");
        return Err(Failure::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this challenge is for another address",
        ));
    }
    let lines = app.front_door.prove(&nonce, &address).ok_or_else(bad)?;
    Ok(lines.into_response())
}

/// The replay instruction for a request that names another machine.
fn elsewhere(app: &App, headers: &HeaderMap) -> Option<HeaderValue> {
    let here = app.identity.machine.as_deref()?;
    let named = headers.get(FORCE_INSTANCE)?.to_str().ok()?.trim();
    if named == here || !is_machine_id(named) {
        return None;
    }
    // The replay replaces `fly-replay-src`, so a token in it must be handed on.
    let state = front_door::replay_states(headers).find(|state| {
        !state.is_empty()
            && state
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
    });
    let instruction = match state {
        Some(state) => format!("instance={named};state={state}"),
        None => format!("instance={named}"),
    };
    HeaderValue::try_from(instruction).ok()
}

/// Takes the base path off the target; returns what links must begin with.
fn take_base_path(app: &App, head: &mut Parts, target: &str) -> String {
    if let Some(base) = &app.base_path
        && let Some(Ok(rest)) = base.strip(target).map(PathAndQuery::try_from)
    {
        let mut uri = std::mem::take(&mut head.uri).into_parts();
        uri.path_and_query = Some(rest);
        head.uri = Uri::from_parts(uri).unwrap_or_default();
        return base.as_str().to_owned();
    }
    head.headers
        .get(FORWARDED_PREFIX)
        .and_then(|prefix| BasePath::parse(prefix.to_str().ok()?).ok())
        .map_or_else(String::new, |prefix| prefix.as_str().to_owned())
}

fn name_machine(app: &App, headers: &mut HeaderMap) {
    if let Some(Ok(machine)) = app.identity.machine.as_deref().map(HeaderValue::try_from) {
        headers.insert(MACHINE, machine);
    }
}

fn finish(app: &App, headers: &mut HeaderMap) {
    name_machine(app, headers);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
}

/// A response body that is work until it has been sent or given up.
struct Counted {
    body: Body,
    _running: Running,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
