//! Where cells post their beats: a listener of its own, on the private network.
//!
//! Cells run what tenants wrote, so they reach neither the operators' listener nor more of this one than one question: is
//! this beat signed with the secret of the cell that it names? Each connection is for one, and short.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::problem::{Problem, Sort};
use crate::decision::beat::skew;
use crate::http2::Budget;
use crate::inbound::accept;
use crate::live::beats::{Beat, Beats};
use crate::live::clients::Clients;
use crate::live::drain::{Signal, Stop};
use crate::live::lock;
use crate::live::room::Room;
use crate::live::snapshot::Publisher;
use crate::outbound::absence::Absence;
use crate::outbound::webhook::Webhook;

/// Connections at once; further ones wait.
const MOST_CONNECTIONS: usize = 1024;
/// Of them, those of one client: an IPv4 address, or a /64 network of IPv6.
const MOST_OF_A_CLIENT: usize = 128;
/// How long a connection may last.
const PATIENCE: Duration = Duration::from_secs(10);
/// Beats that prove nothing, at once, and more of them each second, before the next ones get 429.
const FAILURES: u32 = 20;
const FAILURES_PER_SECOND: u32 = 1;
/// The largest head, in bytes.
const LARGEST_HEAD: usize = 8192;
/// The header with the proof.
const SIGNATURE: &str = "cell-signature";

/// What beats are held against.
#[derive(Debug)]
pub struct Desk {
    publisher: Publisher,
    beats: Arc<Beats>,
    failures: Mutex<Budget>,
}

/// Why a beat does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It is posted elsewhere.
    Elsewhere,
    /// It is not posted.
    Method,
    /// It has a body.
    Body,
    /// It has no signature, or more than one.
    Unsigned,
    /// There is no such cell.
    NoCell,
    /// The cell is not asked to beat.
    NotAwaited,
    /// It is not signed with a secret of the cell.
    Forged,
    /// Its time is so many milliseconds off.
    Stale(u64),
    /// It is not newer than the last one.
    Replayed,
    /// Too many prove nothing.
    TooMany,
}

impl Refused {
    /// Its name in the metrics.
    fn outcome(self) -> &'static str {
        match self {
            Self::Elsewhere | Self::Method => "malformed",
            Self::Body => "too_large",
            Self::Unsigned => "unsigned",
            Self::NoCell => "no_such_cell",
            Self::NotAwaited => "not_awaited",
            Self::Forged => "forged",
            Self::Stale(_) => "stale",
            Self::Replayed => "replayed",
            Self::TooMany => "too_many",
        }
    }

    /// Whether it may come from anybody.
    fn is_unproven(self) -> bool {
        !matches!(self, Self::NotAwaited | Self::Stale(_) | Self::Replayed)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let denied = |detail| Self::new(StatusCode::UNAUTHORIZED, Sort::Denied, detail);
        match refused {
            Refused::Elsewhere => Self::not_found(
                "A cell posts its beats to /v1/cells/NAME/beat; nothing else is here.",
            ),
            Refused::Method => Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Sort::Malformed,
                "A beat is posted.",
            ),
            Refused::Body => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Sort::Malformed,
                "A beat has no body.",
            ),
            Refused::Unsigned => denied("Send one field cell-signature: v1.TIME.MAC."),
            Refused::NoCell => Self::not_found("There is no such cell."),
            Refused::NotAwaited => {
                Self::refused("The cell is not asked to beat: its entry has no beat_every_s.")
            }
            Refused::Forged => denied("The signature is not made with a secret of this cell."),
            Refused::Stale(off_ms) => Self::refused(format!(
                "The beat is {off_ms} ms off the router's clock; set the clocks, or send it at once."
            )),
            Refused::Replayed => Self::refused("The beat is not newer than the last one."),
            Refused::TooMany => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                Sort::Denied,
                "Too many beats that prove nothing were sent; wait a moment.",
            ),
        }
    }
}

impl Desk {
    /// Holds beats against the registry in force, and puts good ones on `beats`.
    pub fn new(publisher: Publisher, beats: Arc<Beats>) -> Self {
        let failures = Budget::new(FAILURES, FAILURES_PER_SECOND, Instant::now());
        Self {
            publisher,
            beats,
            failures: Mutex::new(failures),
        }
    }

    /// Takes a beat.
    fn take(&self, request: &Request<Incoming>) -> Result<(), Refused> {
        let name = named(request.uri().path()).ok_or(Refused::Elsewhere)?;
        if request.method() != Method::POST {
            return Err(Refused::Method);
        }
        if !request.body().is_end_stream() {
            return Err(Refused::Body);
        }
        let token = token(request.headers()).ok_or(Refused::Unsigned)?;
        let snapshot = self.publisher.current();
        let cell = snapshot.registry.cell(name).ok_or(Refused::NoCell)?;
        let keys = snapshot.keys(cell).ok_or(Refused::Forged)?;
        let time_ms = keys.beat(token, name).ok_or(Refused::Forged)?;
        if cell.policy.limits.beat_every.is_zero() {
            return Err(Refused::NotAwaited);
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if let Some(off) = skew(time_ms, now_ms) {
            return Err(Refused::Stale(off));
        }
        let beat = Beat {
            time_ms,
            at: Instant::now(),
            at_s: now.as_secs(),
        };
        match self.beats.hear(&cell.name, beat) {
            true => Ok(()),
            false => Err(Refused::Replayed),
        }
    }

    fn answer(&self, request: &Request<Incoming>, client: SocketAddr) -> Response {
        let refused = match self.take(request) {
            Ok(()) => {
                self.beats.count("accepted");
                return StatusCode::NO_CONTENT.into_response();
            }
            Err(refused) => refused,
        };
        let left = !refused.is_unproven() || lock(&self.failures).spend(Instant::now());
        let refused = if left { refused } else { Refused::TooMany };
        self.beats.count(refused.outcome());
        if left {
            let (client, path) = (client.ip(), request.uri().path());
            tracing::warn!(%client, path, ?refused, "beat refused");
        }
        Problem::from(refused).into_response()
    }
}

/// The cell that a path names.
fn named(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/v1/cells/")?.strip_suffix("/beat")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(SIGNATURE).iter();
    match (lines.next(), lines.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    }
}

/// Takes beats, looks for those that stay away, and tells of them, on a thread of its own until the router is told to stop:
/// who is missing then is for the next router to say.
///
/// # Errors
/// Those of the system, where no thread can be had.
pub fn start(
    listener: TcpListener,
    absence: Absence,
    webhook: Option<Webhook>,
    signal: Signal,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("beats".to_owned())
        .spawn(move || runtime.block_on(run(listener, absence, webhook, signal)))
}

async fn run(listener: TcpListener, absence: Absence, webhook: Option<Webhook>, signal: Signal) {
    let desk = Desk::new(absence.publisher.clone(), Arc::clone(&absence.beats));
    signal.reached(Stop::Running).await;
    if let Some(webhook) = webhook {
        tokio::spawn(webhook.run());
    }
    tokio::select! {
        served = serve(listener, Arc::new(desk), signal.clone()) => if let Err(error) = served {
            tracing::error!(%error, "the listener for beats ended");
        },
        never = absence.follow() => match never {},
    }
    signal.reached(Stop::Now).await;
}

async fn serve(listener: TcpListener, desk: Arc<Desk>, signal: Signal) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let clients = Arc::new(Clients::new(MOST_OF_A_CLIENT));
    let room = Room::new(MOST_CONNECTIONS, 1);
    let stop = async move { signal.reached(Stop::Draining).await };
    let admit = |stream, client: SocketAddr| {
        let connected = clients.enter(client.ip());
        if connected.is_none()
            && let Some(refused) = clients.refuse()
        {
            tracing::warn!(client = %client.ip(), refused, "too many connections for beats");
        }
        Some((stream, client, connected?))
    };
    accept::accept(
        listener,
        &room,
        stop,
        admit,
        |(stream, client, connected), place| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                let _counted = (place, connected);
                // Whoever takes longer has their connection closed; there is nobody to tell.
                let _ = timeout(PATIENCE, converse(stream, client, &desk)).await;
            });
        },
    )
    .await;
    Ok(())
}

/// Answers one request.
async fn converse(stream: TcpStream, client: SocketAddr, desk: &Desk) {
    let service = service_fn(|request: Request<Incoming>| {
        let mut response = desk.answer(&request, client);
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    // What breaks off is sent again by a cell that lives.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_cell() {
        for (path, name) in [
            ("/v1/cells/alice/beat", Some("alice")),
            ("/v1/cells//beat", None),
            ("/v1/cells/a/b/beat", None),
            ("/v1/cells/alice", None),
            ("/v1/cells/alice/beat/", None),
            ("/", None),
        ] {
            assert_eq!(named(path), name, "{path}");
        }
    }
}
