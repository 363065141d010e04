//! Owns leases: who may write to a machine for now (fly-platform 3.5).

use std::time::Duration;

use super::{
    Action, Answer, App, At, Deserialize, Error, HeaderMap, IntoResponse, Json, Machine, Platform,
    Query, Response, Shared, StatusCode, json, known, ok,
};

/// Time to live when none is asked for, in seconds.
const TTL_DEFAULT_SECS: u64 = 60;

/// The header that shows a lease.
const NONCE: &str = "fly-machine-lease-nonce";

fn conflict(text: &str) -> Error {
    Error(
        StatusCode::CONFLICT,
        json!({ "status": "error", "message": text, "code": "invalid" }),
        None,
    )
}

fn held(platform: &Platform, machine: &Machine) -> Option<(String, Duration)> {
    let lease = machine.with_config(|config| config.lease.clone());
    lease.filter(|(_, expires)| *expires > platform.now())
}

fn shown(nonce: &str, expires: Duration, status: StatusCode) -> Response {
    let data = json!({ "nonce": nonce, "expires_at": expires.as_secs(), "owner": "router" });
    (status, Json(json!({ "status": "success", "data": data }))).into_response()
}

/// Refuses a write to a leased machine that does not show the lease's nonce.
pub(super) fn check(
    platform: &Platform,
    machine: &Machine,
    headers: &HeaderMap,
) -> Result<(), Error> {
    match held(platform, machine) {
        Some((nonce, _)) if headers.get(NONCE).is_none_or(|shown| *shown != *nonce) => {
            Err(conflict("machine lease currently held"))
        }
        _ => Ok(()),
    }
}

pub(super) async fn show(at: At, Shared(platform): Shared<App>) -> Answer {
    let machine = known(&platform, &at, Action::Lease).await?;
    let (nonce, expires) = held(&platform, &machine).ok_or_else(|| Error::new(404, "no lease"))?;
    Ok(shown(&nonce, expires, StatusCode::OK))
}

#[derive(Deserialize)]
pub(super) struct Ttl {
    ttl: Option<u64>,
}

pub(super) async fn take(
    at: At,
    Query(query): Query<Ttl>,
    Shared(platform): Shared<App>,
    headers: HeaderMap,
    body: Option<Json<Ttl>>,
) -> Answer {
    let machine = known(&platform, &at, Action::Lease).await?;
    check(&platform, &machine, &headers)?;
    // Clients pass the time in the query, the documentation has it in the body.
    let ttl = query
        .ttl
        .or(body.and_then(|body| body.0.ttl))
        .unwrap_or(TTL_DEFAULT_SECS);
    let expires = platform.now() + Duration::from_secs(ttl);
    let nonce = held(&platform, &machine).map_or_else(crate::fly::fresh_id, |(nonce, _)| nonce);
    machine.with_config(|config| config.lease = Some((nonce.clone(), expires)));
    Ok(shown(&nonce, expires, StatusCode::CREATED))
}

pub(super) async fn release(at: At, Shared(platform): Shared<App>, headers: HeaderMap) -> Answer {
    let machine = known(&platform, &at, Action::Lease).await?;
    check(&platform, &machine, &headers)?;
    machine.with_config(|config| config.lease = None);
    Ok(ok())
}
