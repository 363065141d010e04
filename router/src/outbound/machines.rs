//! The platform's Machines API, as far as waking needs it.
//!
//! Owns the bounds: its rate limits are kept here, not found out, and only so many calls are under way at once, in the
//! order in which they were wanted. A call that is slow gives its place to the next one.
//!
//! Source: Fly docs, Machines API (working with, machines resource), and the API's OpenAPI description.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

use super::chain;
use super::pace::{Action, Pace};
use crate::config::MachinesApi;

/// The longest wait that the API takes in one call (Fly docs, Machines resource: wait).
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long any call may take beyond what it was asked to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How many calls are under way at once; the next ones wait their turn.
const PLACES: usize = 16;
/// A call that takes longer than this is merely waited for: it leaves its place to another.
const SLOW: Duration = Duration::from_secs(1);
/// How many calls are merely waited for at once, at most.
const SLOW_PLACES: usize = 256;
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// Why a call did not do what was asked.
#[derive(Debug)]
pub enum ApiError {
    /// Too many calls (429); try again later, and not before what the API says.
    RateLimited(Option<Duration>),
    /// Not now: 408, 5xx, or no answer; try again later, and not before what the API says.
    Unavailable(String, Option<Duration>),
    /// Not at all: the API's own words.
    Refused(StatusCode, String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited(_) => f.write_str("the Machines API says 429: too many calls"),
            Self::Unavailable(why, _) => write!(f, "the Machines API is not available: {why}"),
            Self::Refused(status, why) => {
                write!(f, "the Machines API says {}: {why}", status.as_u16())
            }
        }
    }
}

impl std::error::Error for ApiError {}

/// A machine, as far as waking needs to know it.
#[derive(Debug, Deserialize)]
pub struct Machine {
    /// Its state, such as `started` (Fly docs, Machine states).
    pub state: String,
    /// Its address on the private network.
    #[serde(default)]
    pub private_ip: Option<IpAddr>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: Option<String>,
    message: Option<String>,
}

/// A client of the API. Its connections live on the runtime that uses it.
pub struct Machines {
    client: Client<HttpConnector, Full<Bytes>>,
    probes: Client<HttpConnector, Full<Bytes>>,
    api: MachinesApi,
    pace: Mutex<Pace>,
    places: Semaphore,
    slow: Semaphore,
}

/// What the API answered.
struct Reply {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Bytes,
}

impl fmt::Debug for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machines")
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

impl Machines {
    /// A client of the API at that URL.
    pub fn new(api: MachinesApi) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(PLACES);
        let client = builder.build_http();
        // A probe's connection must not be what keeps a cell from stopping.
        let probes = builder.pool_max_idle_per_host(0).build_http();
        Self {
            client,
            probes,
            api,
            pace: Mutex::default(),
            places: Semaphore::new(PLACES),
            slow: Semaphore::new(SLOW_PLACES),
        }
    }

    /// Asks for a machine to be started.
    ///
    /// # Errors
    /// `Refused` also where the machine is started already.
    pub async fn start(&self, app: &str, machine: &str) -> Result<(), ApiError> {
        let path = format!("/v1/apps/{app}/machines/{machine}/start");
        let call = (Action::Start, Method::POST, path);
        outcome(self.send(call, machine, CALL_TIMEOUT).await?).map(|_| ())
    }

    /// Asks for a machine to be stopped. The platform tells what runs on it, and gives it time to end.
    ///
    /// # Errors
    /// As any call.
    pub async fn stop(&self, app: &str, machine: &str) -> Result<(), ApiError> {
        let path = format!("/v1/apps/{app}/machines/{machine}/stop");
        let call = (Action::Stop, Method::POST, path);
        outcome(self.send(call, machine, CALL_TIMEOUT).await?).map(|_| ())
    }

    /// Waits until a machine is started, for `patience` at most; whether it is, as far as is known. Returns at once
    /// where as much is waited for already as may be.
    ///
    /// # Errors
    /// As any call; a wait that ran out is none.
    pub async fn wait_started(
        &self,
        app: &str,
        machine: &str,
        patience: Duration,
    ) -> Result<bool, ApiError> {
        if self.slow.available_permits() == 0 {
            return Ok(false);
        }
        let wait = patience.clamp(Duration::from_secs(1), LONGEST_WAIT);
        let path = format!(
            "/v1/apps/{app}/machines/{machine}/wait?state=started&timeout={}",
            wait.as_secs()
        );
        let call = (Action::Wait, Method::GET, path);
        let reply = self.send(call, machine, wait + CALL_TIMEOUT).await?;
        if reply.status == StatusCode::REQUEST_TIMEOUT {
            return Ok(false);
        }
        outcome(reply).map(|_| true)
    }

    /// A machine's state and address.
    ///
    /// # Errors
    /// As any call; an answer that cannot be read is `Unavailable`.
    pub async fn machine(&self, app: &str, machine: &str) -> Result<Machine, ApiError> {
        let path = format!("/v1/apps/{app}/machines/{machine}");
        let call = (Action::Get, Method::GET, path);
        let body = outcome(self.send(call, machine, CALL_TIMEOUT).await?)?;
        serde_json::from_slice(&body)
            .map_err(|error| unavailable(&format!("its answer cannot be read: {error}")))
    }

    /// Whether `GET url` is answered with a 2xx within `patience`.
    pub async fn answers(&self, url: &str, patience: Duration) -> bool {
        let Ok(request) = Request::get(url).body(Full::default()) else {
            return false;
        };
        matches!(timeout(patience, self.probes.request(request)).await, Ok(Ok(response)) if response.status().is_success())
    }

    /// Makes a call when it is its turn, and waits for the answer, for `patience` at most.
    async fn send(
        &self,
        (action, method, path): (Action, Method, String),
        machine: &str,
        patience: Duration,
    ) -> Result<Reply, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.api.url))
            .header(header::AUTHORIZATION, &self.api.authorization)
            .body(Full::default())
            .map_err(|error| unavailable(&error))?;
        let place = self.turn(action, machine).await;
        let exchange = timeout(patience, self.exchange(request));
        tokio::pin!(exchange);
        let late = |_| unavailable(&format!("no answer in {} s", patience.as_secs()));
        let slow = match action {
            Action::Start | Action::Stop | Action::Get => SLOW,
            Action::Wait => Duration::ZERO,
        };
        tokio::select! {
            biased;
            answered = &mut exchange => return answered.map_err(late)?,
            () = sleep(slow) => {}
        }
        // Where too much is waited for already, it keeps the place that it has.
        let _place = self.slow.try_acquire().map_or(place, |slow| slow);
        exchange.await.map_err(late)?
    }

    /// Waits for a place, behind those who came before, at a time when the machine may be asked this. Whoever has to
    /// wait for a machine's own limit has no place meanwhile.
    async fn turn(&self, action: Action, machine: &str) -> SemaphorePermit<'_> {
        loop {
            let place = self.places.acquire().await;
            let place = place.expect("the semaphore is never closed");
            let taken = {
                let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
                pace.take(action, machine, Instant::now())
            };
            match taken {
                Ok(()) => return place,
                Err(early) => {
                    drop(place);
                    sleep(early).await;
                }
            }
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, ApiError> {
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| unavailable(&chain(&error)))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(Reply {
            status: head.status,
            retry_after: retry_after(&head.headers),
            body: body.to_bytes(),
        })
    }
}

fn unavailable(why: &dyn fmt::Display) -> ApiError {
    ApiError::Unavailable(why.to_string(), None)
}

/// `retry-after` in seconds; a date is passed over, for the API sends none (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn outcome(reply: Reply) -> Result<Bytes, ApiError> {
    let Reply {
        status,
        retry_after,
        body,
    } = reply;
    if status.is_success() {
        return Ok(body);
    }
    let said = serde_json::from_slice::<ErrorBody>(&body)
        .ok()
        .and_then(|said| said.error.or(said.message));
    let said = said.unwrap_or_else(|| {
        status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_owned()
    });
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS => ApiError::RateLimited(retry_after),
        StatusCode::REQUEST_TIMEOUT => ApiError::Unavailable(said, retry_after),
        status if status.is_server_error() => {
            ApiError::Unavailable(format!("{}: {said}", status.as_u16()), retry_after)
        }
        status => ApiError::Refused(status, said),
    })
}
