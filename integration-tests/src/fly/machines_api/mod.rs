//! Owns the Machines API as far as a router and an operator use it (fly-platform 3.5, 3.6).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::machine::{Machine, MachineSpec, Refused, State};
use super::platform::{Action, Platform};

mod lease;

/// The longest wait (fly-platform 3.5: max 60 s).
const WAIT_MAX_SECS: u64 = 60;

type App = Arc<Platform>;
type Answer = Result<Response, Error>;

/// Answers on `listener` until cancelled.
pub(crate) async fn serve(platform: Arc<Platform>, listener: TcpListener) {
    let machine = Router::new()
        .route("/", get(show).post(update).delete(destroy))
        .route("/start", post(start))
        .route("/stop", post(stop))
        .route("/suspend", post(suspend))
        .route("/wait", get(wait))
        .route("/cordon", post(|at, app| cordon(at, app, Action::Cordon)))
        .route(
            "/uncordon",
            post(|at, app| cordon(at, app, Action::Uncordon)),
        )
        .route(
            "/lease",
            get(lease::show).post(lease::take).delete(lease::release),
        )
        .route("/metadata", get(metadata))
        .route("/metadata/{key}", delete(unset_metadata).post(set_metadata));
    let api = Router::new()
        .route("/v1/apps/{app}/machines", get(list).post(create))
        .nest("/v1/apps/{app}/machines/{machine}", machine)
        .route("/v1/apps/{app}/volumes", get(volumes).post(create_volume))
        .route("/v1/apps/{app}/volumes/{volume}", get(volume))
        .fallback(async || Error::new(404, "no such resource"))
        .layer(middleware::from_fn_with_state(Arc::clone(&platform), gate))
        .with_state(platform);
    // Ends only by being cancelled.
    let _ = axum::serve(listener, api).await;
}

/// A refusal, as `{"error": …}`.
#[derive(Debug)]
struct Error(StatusCode, Value, Option<u64>);

impl Error {
    fn new(status: u16, text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self(
            StatusCode::from_u16(status).expect("valid statuses only"),
            json!({ "error": text }),
            None,
        )
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::new(412, refused.0)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut answer = (self.0, Json(self.1)).into_response();
        if let Some(seconds) = self.2 {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        answer
    }
}

/// Checks the token, and marks each answer.
async fn gate(Shared(platform): Shared<App>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    // fly-platform 3.5: the official client says `FlyV1` for some tokens and `Bearer` for others.
    let token = given.and_then(|given| {
        given
            .strip_prefix("Bearer ")
            .or(given.strip_prefix("FlyV1 "))
    });
    let mut answer = if token == Some(platform.token.as_str()) {
        next.run(request).await
    } else {
        Error::new(401, "unauthorized").into_response()
    };
    let id = HeaderValue::from_str(&super::fresh_id()).expect("hex digits");
    answer.headers_mut().insert("fly-request-id", id);
    answer
}

/// Counts the call, then lets faults and the rate limit speak.
async fn called(platform: &Platform, action: Action, subject: &str) -> Result<(), Error> {
    let allowed = platform.call(action, subject);
    platform.faults.before_answer(action, subject).await;
    if let Some(fault) = platform.faults.api_fault(action, subject) {
        let Error(status, words, _) = Error::new(fault.status, "emulated fault");
        return Err(Error(status, words, fault.retry_after_s));
    }
    allowed
        .then_some(())
        .ok_or_else(|| Error::new(429, "rate limit exceeded"))
}

type At = Path<(String, String)>;

async fn known(platform: &Platform, at: &At, action: Action) -> Result<Arc<Machine>, Error> {
    let (app, id) = &at.0;
    called(platform, action, id).await?;
    let machine = platform.machine(id).filter(|machine| machine.app == *app);
    machine
        .filter(|machine| machine.state() != State::Destroyed)
        .ok_or_else(|| Error::new(404, "machine not found"))
}

async fn in_app(platform: &Platform, app: &str, action: Action) -> Result<(), Error> {
    called(platform, action, app).await?;
    platform
        .has_app(app)
        .then_some(())
        .ok_or_else(|| Error::new(404, "App not found"))
}

fn ok() -> Response {
    Json(json!({ "ok": true })).into_response()
}

async fn list(
    Path(app): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    Shared(platform): Shared<App>,
) -> Answer {
    in_app(&platform, &app, Action::List).await?;
    let fits = |machine: &Arc<Machine>| {
        query.iter().all(|(key, wanted)| match key.as_str() {
            "region" => machine.region == *wanted,
            key => key.strip_prefix("metadata.").is_none_or(|key| {
                machine.with_config(|config| config.metadata.get(key) == Some(wanted))
            }),
        })
    };
    let found: Vec<Value> = platform
        .machines(&app)
        .iter()
        .filter(|m| fits(m))
        .map(|m| m.to_json())
        .collect();
    Ok(Json(found).into_response())
}

async fn show(at: At, Shared(platform): Shared<App>) -> Answer {
    Ok(Json(known(&platform, &at, Action::Get).await?.to_json()).into_response())
}

#[derive(Deserialize)]
struct Create {
    name: Option<String>,
    region: Option<String>,
    config: Value,
    #[serde(default)]
    skip_launch: bool,
}

async fn create(
    Path(app): Path<String>,
    Shared(platform): Shared<App>,
    Json(asked): Json<Create>,
) -> Answer {
    in_app(&platform, &app, Action::Create).await?;
    if asked.config.get("image").is_none() {
        return Err(Error::new(400, "config.image is required"));
    }
    let mut spec = MachineSpec::cell(&app, asked.name.as_deref().unwrap_or("cell"));
    spec.region = asked.region;
    let machine = Machine::new(spec, &platform.region, None)
        .map_err(|error| Error::new(503, error.to_string()))?;
    write(&machine, asked.config);
    let machine = Arc::new(machine);
    platform.add_machine(Arc::clone(&machine));
    if !asked.skip_launch {
        machine.start(&platform)?;
    }
    Ok(Json(machine.to_json()).into_response())
}

/// Takes over a config as written: environment, services, metadata.
fn write(machine: &Machine, written: Value) {
    let strings = |value: Option<&Value>| -> Vec<(String, String)> {
        let map = value.and_then(Value::as_object).into_iter().flatten();
        map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    };
    let services = written
        .get("services")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let ports = services
        .iter()
        .filter_map(|service| service.get("ports")?.as_array())
        .flatten();
    machine.with_config(|config| {
        config.env.extend(strings(written.get("env")));
        config.metadata = strings(written.get("metadata")).into_iter().collect();
        config.public_ports = ports
            .filter_map(|port| port.get("port")?.as_u64()?.try_into().ok())
            .collect();
        // fly-platform 3.3: through the API both are off when omitted; autostop has three words and reads back others.
        let service = services.first();
        let field = |name| service.and_then(|service: &Value| service.get(name));
        config.autostart = field("autostart") == Some(&Value::Bool(true));
        config.autostop =
            field("autostop").is_some_and(|value| *value != "off" && *value != Value::Bool(false));
        config.written = Some(written);
        config.version += 1;
    });
}

#[derive(Deserialize)]
struct Update {
    config: Value,
    current_version: Option<String>,
}

async fn update(
    at: At,
    Shared(platform): Shared<App>,
    headers: HeaderMap,
    Json(asked): Json<Update>,
) -> Answer {
    let machine = known(&platform, &at, Action::Update).await?;
    lease::check(&platform, &machine, &headers)?;
    let current = machine.with_config(|config| config.instance_id());
    if asked
        .current_version
        .is_some_and(|version| version != current)
    {
        return Err(Error::new(412, "current_version does not match"));
    }
    write(&machine, asked.config);
    // fly-platform 3.5: an update restarts the machine.
    if machine.state() == State::Started {
        machine.stop().await?;
        machine.start(&platform)?;
    }
    Ok(Json(machine.to_json()).into_response())
}

async fn destroy(
    at: At,
    Query(query): Query<Vec<(String, String)>>,
    Shared(platform): Shared<App>,
) -> Answer {
    let machine = known(&platform, &at, Action::Delete).await?;
    let forced = query
        .iter()
        .any(|(key, value)| (key == "force" || key == "kill") && value == "true");
    if machine.state() == State::Started && !forced {
        return Err(Error::new(412, "machine is started, stop it or force"));
    }
    machine.destroy();
    Ok(ok())
}

async fn start(at: At, Shared(platform): Shared<App>, headers: HeaderMap) -> Answer {
    let machine = known(&platform, &at, Action::Start).await?;
    lease::check(&platform, &machine, &headers)?;
    let previous = machine.state().name();
    // On a running machine this is an error without harm (fly-platform 3.5).
    machine.start(&platform)?;
    Ok(
        Json(json!({ "previous_state": previous, "migrated": false, "new_host": "" }))
            .into_response(),
    )
}

async fn stop(at: At, Shared(platform): Shared<App>, headers: HeaderMap) -> Answer {
    let machine = known(&platform, &at, Action::Stop).await?;
    lease::check(&platform, &machine, &headers)?;
    let before = machine.begin_stop()?;
    tokio::spawn(async move { machine.finish_stop(before).await });
    Ok(ok())
}

async fn suspend(at: At, Shared(platform): Shared<App>) -> Answer {
    known(&platform, &at, Action::Suspend).await?.suspend()?;
    Ok(ok())
}

#[derive(Deserialize)]
struct Wait {
    state: Option<String>,
    timeout: Option<u64>,
    instance_id: Option<String>,
}

async fn wait(at: At, Query(wait): Query<Wait>, Shared(platform): Shared<App>) -> Answer {
    let machine = known(&platform, &at, Action::Wait).await?;
    let wanted = match wait.state.as_deref().unwrap_or("started") {
        "started" => State::Started,
        "stopped" => State::Stopped,
        "suspended" => State::Suspended,
        "destroyed" => State::Destroyed,
        other => return Err(Error::new(400, format!("cannot wait for state `{other}`"))),
    };
    if wanted == State::Stopped && wait.instance_id.is_none() {
        return Err(Error::new(
            400,
            "instance_id is required to wait for stopped",
        ));
    }
    let secs = wait.timeout.unwrap_or(WAIT_MAX_SECS);
    if secs > WAIT_MAX_SECS {
        return Err(Error::new(
            400,
            format!("timeout is over {WAIT_MAX_SECS} s"),
        ));
    }
    match tokio::time::timeout(Duration::from_secs(secs), machine.reached(&[wanted])).await {
        Ok(_) => Ok(ok()),
        Err(_) => Err(Error::new(
            408,
            format!("timeout reached waiting for state `{}`", wanted.name()),
        )),
    }
}

async fn cordon(at: At, Shared(platform): Shared<App>, action: Action) -> Answer {
    let machine = known(&platform, &at, action).await?;
    machine.with_config(|config| config.cordoned = action == Action::Cordon);
    Ok(ok())
}

async fn metadata(at: At, Shared(platform): Shared<App>) -> Answer {
    let machine = known(&platform, &at, Action::Metadata).await?;
    Ok(Json(machine.with_config(|config| config.metadata.clone())).into_response())
}

type AtKey = Path<(String, String, String)>;

#[derive(Deserialize)]
struct MetadataValue {
    value: String,
}

async fn set_metadata(
    Path((app, id, key)): AtKey,
    Shared(platform): Shared<App>,
    Json(set): Json<MetadataValue>,
) -> Answer {
    let machine = known(&platform, &Path((app, id)), Action::Metadata).await?;
    machine.with_config(|config| config.metadata.insert(key, set.value));
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn unset_metadata(Path((app, id, key)): AtKey, Shared(platform): Shared<App>) -> Answer {
    let machine = known(&platform, &Path((app, id)), Action::Metadata).await?;
    machine.with_config(|config| config.metadata.remove(&key));
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn volumes(Path(app): Path<String>, Shared(platform): Shared<App>) -> Answer {
    in_app(&platform, &app, Action::Volumes).await?;
    Ok(Json(platform.volumes(&app)).into_response())
}

async fn create_volume(
    Path(app): Path<String>,
    Shared(platform): Shared<App>,
    Json(asked): Json<Value>,
) -> Answer {
    in_app(&platform, &app, Action::Volumes).await?;
    Ok(Json(platform.create_volume(&app, &asked)).into_response())
}

async fn volume(at: At, Shared(platform): Shared<App>) -> Answer {
    let (app, id) = at.0;
    in_app(&platform, &app, Action::Volumes).await?;
    let found = platform
        .volumes(&app)
        .unwrap_or_default()
        .into_iter()
        .find(|volume| volume["id"] == *id);
    let found = found.ok_or_else(|| Error::new(404, "volume not found"))?;
    Ok(Json(found).into_response())
}
