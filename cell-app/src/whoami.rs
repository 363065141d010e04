//! `/whoami`: what this cell was told about the request. For tests and for whoever sets up a router.
//!
//! Never shows a token: neither `cell-signature` nor the `state` of a replay.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::entrance::Visit;
use crate::front_door;

/// Whether a header is shown; `fly-replay-src` holds the token.
fn is_shown(name: &str) -> bool {
    name != "fly-replay-src"
        && (name.starts_with("x-forwarded-") || name.starts_with("fly-") || name == "x-request-id")
}

/// Any method on `/whoami`.
pub(crate) async fn whoami(
    State(app): State<App>,
    Extension(visit): Extension<Visit>,
    request: Request,
) -> Response {
    let mut headers: Map<String, Value> = Map::new();
    for name in request
        .headers()
        .keys()
        .filter(|name| is_shown(name.as_str()))
    {
        let lines: Vec<String> = request
            .headers()
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        headers.insert(name.to_string(), lines.join(", ").into());
    }
    Json(json!({
        "cell": app.identity.cell,
        "machine": app.identity.machine,
        "app": app.identity.app,
        "region": app.identity.region,
        "method": request.method().as_str(),
        "host": front_door::host(request.headers()),
        "path": visit.target,
        "lane": visit.lane,
        "headers": headers,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::is_shown;

    #[test]
    fn tokens_and_cookies_are_not_shown() {
        for name in [
            "cell-signature",
            "fly-replay-src",
            "cookie",
            "authorization",
        ] {
            assert!(!is_shown(name), "{name}");
        }
        for name in [
            "x-forwarded-for",
            "fly-client-ip",
            "fly-replay-failed",
            "x-request-id",
        ] {
            assert!(is_shown(name), "{name}");
        }
    }
}
