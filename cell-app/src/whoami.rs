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

/// Whether a header is shown.
fn is_shown(name: &str) -> bool {
    name != front_door::SIGNATURE
        && (["x-forwarded-", "fly-", "cell-"]
            .iter()
            .any(|start| name.starts_with(start))
            || name == "x-request-id")
}

/// The source of a replay, with its `state` left out.
fn without_state(source: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((key, _)) if key.trim() == "state" => "state=…".to_owned(),
        _ => part.to_owned(),
    };
    source
        .split([';', ','])
        .map(part)
        .collect::<Vec<_>>()
        .join(";")
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
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .map(|value| {
                if name == front_door::REPLAY_SOURCE {
                    without_state(&value)
                } else {
                    value.into_owned()
                }
            })
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
    use super::{is_shown, without_state};

    #[test]
    fn the_source_of_a_replay_is_shown_without_its_token() {
        for source in [
            "instance=a;state=v1.1.ab;t=1",
            "instance=a, state = v1.1.ab,t=1",
        ] {
            let shown = without_state(source);
            assert!(
                shown.contains("instance=a") && shown.contains("t=1"),
                "{shown}"
            );
            assert!(!shown.contains("v1.1.ab"), "{shown}");
        }
    }

    #[test]
    fn tokens_and_cookies_are_not_shown() {
        for name in ["cell-signature", "cookie", "authorization"] {
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
