//! The platform's Machines API, as far as waking needs it.
//!
//! Source: Fly docs, Machines API (working with, machines resource), and the API's OpenAPI description.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use tokio::time::timeout;

use super::chain;
use crate::config::MachinesApi;

/// The longest wait that the API takes in one call (Fly docs, Machines resource: wait).
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long any call may take beyond what it was asked to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// Why a call did not do what was asked.
#[derive(Debug)]
pub enum ApiError {
    /// Too many calls; try again later (429).
    RateLimited,
    /// Not now: 408, 5xx, or no answer; try again later.
    Unavailable(String),
    /// Not at all: the API's own words.
    Refused(StatusCode, String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited => f.write_str("the Machines API says 429: too many calls"),
            Self::Unavailable(why) => write!(f, "the Machines API is not available: {why}"),
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
        builder.pool_timer(TokioTimer::new());
        let client = builder.build_http();
        // A probe's connection must not be what keeps a cell from stopping.
        let probes = builder.pool_max_idle_per_host(0).build_http();
        Self {
            client,
            probes,
            api,
        }
    }

    /// Asks for a machine to be started.
    ///
    /// # Errors
    /// `Refused` also where the machine is started already.
    pub async fn start(&self, app: &str, machine: &str) -> Result<(), ApiError> {
        self.call(
            Method::POST,
            &format!("/v1/apps/{app}/machines/{machine}/start"),
            CALL_TIMEOUT,
        )
        .await
        .map(|_| ())
    }

    /// Waits until a machine is started, for `patience` at most; whether it is.
    ///
    /// # Errors
    /// As any call; a wait that ran out is none.
    pub async fn wait_started(
        &self,
        app: &str,
        machine: &str,
        patience: Duration,
    ) -> Result<bool, ApiError> {
        let wait = patience.clamp(Duration::from_secs(1), LONGEST_WAIT);
        let path = format!(
            "/v1/apps/{app}/machines/{machine}/wait?state=started&timeout={}",
            wait.as_secs()
        );
        match self.send(Method::GET, &path, wait + CALL_TIMEOUT).await? {
            (StatusCode::REQUEST_TIMEOUT, _) => Ok(false),
            (status, body) => outcome(status, body).map(|_| true),
        }
    }

    /// A machine's state and address.
    ///
    /// # Errors
    /// As any call; an answer that cannot be read is `Unavailable`.
    pub async fn machine(&self, app: &str, machine: &str) -> Result<Machine, ApiError> {
        let body = self
            .call(
                Method::GET,
                &format!("/v1/apps/{app}/machines/{machine}"),
                CALL_TIMEOUT,
            )
            .await?;
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::Unavailable(format!("its answer cannot be read: {error}")))
    }

    /// Whether `GET url` is answered with a 2xx within `patience`.
    pub async fn answers(&self, url: &str, patience: Duration) -> bool {
        let Ok(request) = Request::get(url).body(Full::default()) else {
            return false;
        };
        matches!(timeout(patience, self.probes.request(request)).await, Ok(Ok(response)) if response.status().is_success())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
    ) -> Result<Bytes, ApiError> {
        let (status, body) = self.send(method, path, patience).await?;
        outcome(status, body)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let unavailable = |error: &dyn fmt::Display| ApiError::Unavailable(error.to_string());
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.api.url))
            .header(header::AUTHORIZATION, &self.api.authorization)
            .body(Full::default())
            .map_err(|error| unavailable(&error))?;
        let exchange = async {
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
            Ok((head.status, body.to_bytes()))
        };
        timeout(patience, exchange)
            .await
            .map_err(|_| ApiError::Unavailable(format!("no answer in {} s", patience.as_secs())))?
    }
}

fn outcome(status: StatusCode, body: Bytes) -> Result<Bytes, ApiError> {
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
        StatusCode::TOO_MANY_REQUESTS => ApiError::RateLimited,
        StatusCode::REQUEST_TIMEOUT => ApiError::Unavailable(said),
        status if status.is_server_error() => {
            ApiError::Unavailable(format!("{}: {said}", status.as_u16()))
        }
        status => ApiError::Refused(status, said),
    })
}
