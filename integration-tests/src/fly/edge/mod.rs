//! Owns the public edge: it takes requests from clients, delivers them to machines, and executes replays.
//!
//! It must never answer from content of its own, except errors; each of these carries `fly-emulated-error`.

mod body;
mod cache;
mod headers;
mod instruction;
mod send;
mod target;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::body::Recorded;
use self::cache::ReplayCache;
use self::headers::{Arrival, Head, delivered, hostname};
use self::instruction::{Instruction, is_replay};
use self::send::{AnswerBody, exchange, relay};
use self::target::Aim;
use super::machine::Machine;
use super::platform::Platform;
use crate::process::lock;

/// Replays of one request (fly-platform 1.1); one more is PA02.
const REPLAYS_MAX: usize = 10;
/// Largest JSON instruction that is read, in bytes; nobody documents one.
const INSTRUCTION_MAX_BYTES: usize = 64 * 1024;

/// A public port of an app.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) app: String,
    pub(crate) public_port: u16,
}

/// Why a request came to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Straight from the client.
    First,
    /// Replayed by an earlier answer.
    Replay,
    /// By the replay cache, without asking the entry app.
    CacheHit,
    /// Back to the machine whose replay failed.
    Fallback,
}

/// One request given to one machine.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Value of `fly-request-id`, the same for all deliveries of a request.
    pub request_id: String,
    /// App of the machine.
    pub app: String,
    /// Id of the machine.
    pub machine: String,
    /// Why it came there.
    pub kind: Kind,
    /// How many replays came before, this one included.
    pub hops: usize,
}

/// Why a replay never got a connection (fly-platform 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// The instruction's time ran out.
    Timeout,
    /// The target was tried and tried.
    RetriesExhausted,
    /// There is no machine that will do.
    NoCandidate,
}

impl FailureReason {
    fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::RetriesExhausted => "retries_exhausted",
            Self::NoCandidate => "no_candidate",
        }
    }
}

/// Why the client gets an error of the edge's own.
#[derive(Debug)]
struct EdgeError {
    /// Log code (fly-platform 7).
    code: &'static str,
    status: u16,
    text: String,
    unreached: Option<FailureReason>,
}

impl EdgeError {
    fn new(code: &'static str, status: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            status,
            text: text.into(),
            unreached: None,
        }
    }

    /// fly-platform 7: 503 = no healthy or startable machine.
    fn unreached(reason: FailureReason) -> Self {
        let code = match reason {
            FailureReason::Timeout => "PM03",
            FailureReason::RetriesExhausted => "PR03",
            FailureReason::NoCandidate => "PR01",
        };
        Self {
            unreached: Some(reason),
            ..Self::new(code, 503, reason.name())
        }
    }
}

/// The edge of one platform, for all its listeners.
pub(crate) struct Edge {
    platform: Arc<Platform>,
    cache: Mutex<ReplayCache>,
    strips_forged: bool,
}

/// Accepts clients on `listener` until cancelled.
pub(crate) async fn serve(edge: Arc<Edge>, listener: TcpListener, door: Door) {
    let mut clients = JoinSet::new();
    loop {
        // An accept error concerns a client that is gone.
        let Ok((stream, peer)) = listener.accept().await else {
            continue;
        };
        while clients.try_join_next().is_some() {}
        // Small writes must not wait for each other; without it they only come later.
        let _ = stream.set_nodelay(true);
        let (edge, door) = (Arc::clone(&edge), door.clone());
        clients.spawn(async move {
            let service = service_fn(move |request| {
                let (edge, door) = (Arc::clone(&edge), door.clone());
                async move {
                    Ok::<_, std::convert::Infallible>(edge.handle(&door, peer.ip(), request).await)
                }
            });
            // A client that breaks off ends its connection and nothing else.
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// One request on its way, with all that its deliveries share.
struct Journey<'a> {
    edge: &'a Edge,
    door: &'a Door,
    request_id: &'a str,
    head: Head,
    body: Recorded<Incoming>,
    hops: usize,
}

/// Headers that tell a machine why a request comes to it.
type Marks = Vec<(&'static str, String)>;

impl Edge {
    pub(crate) fn new(platform: Arc<Platform>, strips_forged: bool) -> Self {
        Self {
            platform,
            cache: Mutex::default(),
            strips_forged,
        }
    }

    async fn handle(
        &self,
        door: &Door,
        client: IpAddr,
        mut request: Request<Incoming>,
    ) -> Response<AnswerBody> {
        let request_id = format!(
            "01K{}-{}",
            super::fresh_id().to_ascii_uppercase(),
            self.platform.region
        );
        let wants_upgrade = request.headers().contains_key(http::header::UPGRADE);
        let upgrade = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let arrival = Arrival {
            client,
            public_port: door.public_port,
            region: &self.platform.region,
            request_id: &request_id,
            strips_forged: self.strips_forged,
        };
        let journey = Journey {
            edge: self,
            door,
            request_id: &request_id,
            head: delivered(&parts, &arrival),
            body: Recorded::new(body),
            hops: 0,
        };
        let mut answer = journey.run(upgrade).await.unwrap_or_else(|error| {
            let text = Full::from(format!("{}: {}\n", error.code, error.text));
            let mut answer = Response::new(text.map_err(|never| match never {}).boxed_unsync());
            *answer.status_mut() = error
                .status
                .try_into()
                .expect("errors carry valid statuses");
            answer
                .headers_mut()
                .insert("fly-emulated-error", HeaderValue::from_static(error.code));
            answer
        });
        answer
            .headers_mut()
            .append(http::header::VIA, HeaderValue::from_static("1.1 fly.io"));
        let id = HeaderValue::from_str(&request_id).expect("made of letters and digits");
        answer.headers_mut().insert("fly-request-id", id);
        answer
    }
}

impl Journey<'_> {
    async fn run(mut self, upgrade: Option<OnUpgrade>) -> Result<Response<AnswerBody>, EdgeError> {
        let platform = &self.edge.platform;
        let (mut aim, mut cache_status) = self.first_aim();
        let mut answering: Option<Arc<Machine>> = None;
        let mut failed: Option<String> = None;
        loop {
            let began = Instant::now();
            let (stream, machine) = match aim.reach(platform, self.door.public_port).await {
                Ok(reached) => reached,
                Err(error) => match (aim.fallback, error.unreached, &answering) {
                    (Some(fallback), Some(reason), Some(answering)) => {
                        failed = Some(failure(&aim, platform, answering, reason, began.elapsed()));
                        aim = Aim::fallback(fallback, answering);
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let load = machine.under_load();
            lock(&platform.deliveries).push(Delivery {
                request_id: self.request_id.to_owned(),
                app: machine.app.clone(),
                machine: machine.id.clone(),
                kind: aim.kind,
                hops: self.hops,
            });
            let head = self.marked(
                &aim,
                &machine,
                answering.as_deref(),
                failed.as_deref(),
                cache_status,
            );
            let replayed = self.hops > 0;
            let (answer, running) = exchange(stream, head, self.body.reader(replayed))
                .await
                .map_err(|error| {
                    let outgrown = replayed && !self.body.replayable();
                    let code = if outgrown { "PA01" } else { "PU02" };
                    EdgeError::new(code, 502, format!("{} broke off: {error}", machine.id))
                })?;
            if !is_replay(answer.headers()) {
                return Ok(relay(answer, load, upgrade));
            }
            let instruction = read_instruction(answer).await?;
            running.abort();
            if aim.kind == Kind::Fallback {
                // fly-platform 1.5: that delivery cannot be answered with a replay again.
                return Err(EdgeError::new(
                    "PA03",
                    502,
                    "a replay in answer to a replay that failed",
                ));
            }
            self.hops += 1;
            self.may_be_replayed()?;
            self.order_cache(&instruction, &machine.app);
            cache_status.get_or_insert("miss");
            aim = Aim::replay(instruction, &machine.app, Some(&machine.id), Kind::Replay);
            answering = Some(machine);
        }
    }

    /// By the replay cache, or else as the client's headers wish (fly-platform 1.11, 1.12).
    fn first_aim(&self) -> (Aim, Option<&'static str>) {
        let text = |name| {
            self.head
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let host = hostname(&self.head.headers);
        let now = self.edge.platform.now();
        let hit = lock(&self.edge.cache).find(&self.door.app, &host, self.head.target.path(), now);
        let mut status = None;
        if let Some(hit) = hit {
            if !(hit.allow_bypass && text("fly-replay-cache-control") == Some("skip")) {
                return (
                    Aim::replay(hit.replay, &self.door.app, None, Kind::CacheHit),
                    Some("hit"),
                );
            }
            status = Some("bypass");
        }
        let mut aim = Aim::at(&self.door.app, Kind::First);
        aim.instance = text("fly-force-instance-id").map(str::to_owned);
        aim.prefer_instance = text("fly-prefer-instance-id").map(str::to_owned);
        let list = |text: &str| {
            text.split(',')
                .map(|region| region.trim().to_owned())
                .collect()
        };
        if let Some(regions) = text("fly-force-region") {
            aim.regions = list(regions);
        } else if let Some(regions) = text("fly-prefer-region") {
            (aim.regions, aim.soft_regions) = (list(regions), true);
        }
        (aim, status)
    }

    /// The head for one delivery: transformed, and marked with why it comes.
    fn marked(
        &self,
        aim: &Aim,
        machine: &Machine,
        answering: Option<&Machine>,
        failed: Option<&str>,
        cache_status: Option<&str>,
    ) -> Head {
        let mut head = self.head.clone();
        if let Some(transform) = &aim.transform {
            for name in &transform.delete_headers {
                head.headers.remove(name);
            }
            for (name, value) in &transform.set_headers {
                head.headers.insert(name, value.clone());
            }
            head.target = transform.path.clone().unwrap_or(head.target);
        }
        let mut marks = Marks::new();
        match (aim.kind, answering, failed) {
            (Kind::Replay, Some(answering), _) => {
                marks.push(("fly-replay-src", source(answering, aim.state.as_deref())))
            }
            (Kind::Fallback, _, Some(failed)) => {
                marks.push(("fly-replay-failed", failed.to_owned()))
            }
            // fly-platform 1.4: a cache hit has no fly-replay-src.
            (Kind::First | Kind::CacheHit | Kind::Replay | Kind::Fallback, _, _) => {}
        }
        if let (Kind::Replay | Kind::CacheHit, Some(status)) = (aim.kind, cache_status) {
            marks.push(("fly-replay-cache-status", status.to_owned()));
        }
        if let Some(preferred) = aim.prefer_instance.as_ref().filter(|id| **id != machine.id) {
            marks.push(("fly-preferred-instance-unavailable", preferred.clone()));
        }
        mark(&mut head.headers, marks);
        head
    }

    /// fly-platform 1.1 and 1.7.
    fn may_be_replayed(&self) -> Result<(), EdgeError> {
        if self.hops > REPLAYS_MAX {
            return Err(EdgeError::new(
                "PA02",
                502,
                format!("more than {REPLAYS_MAX} replays"),
            ));
        }
        if !self.body.replayable() {
            let limit = body::REPLAY_MAX_BYTES;
            return Err(EdgeError::new(
                "PA01",
                502,
                format!("the body is over {limit} bytes, or broke off"),
            ));
        }
        Ok(())
    }

    fn order_cache(&self, instruction: &Instruction, app: &str) {
        let Some(order) = &instruction.cache else {
            return;
        };
        let host = hostname(&self.head.headers);
        let at = (host.as_str(), self.head.target.path());
        // Remembered for the entry app: that is the one that is skipped.
        let instruction = &Instruction {
            app: Some(instruction.app.clone().unwrap_or_else(|| app.to_owned())),
            ..instruction.clone()
        };
        let applied = lock(&self.edge.cache).apply(
            order,
            instruction,
            &self.door.app,
            at,
            self.edge.platform.now(),
        );
        if let Err(why) = applied {
            self.edge.platform.violation(why);
        }
    }
}

/// Value of `fly-replay-src`: who replayed, when, and what it wanted echoed (fly-platform 1.10).
fn source(answering: &Machine, state: Option<&str>) -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut text = format!(
        "instance={};region={};t={}",
        answering.id,
        answering.region,
        since.as_micros()
    );
    if let Some(state) = state {
        text.push_str(";state=");
        text.push_str(state);
    }
    text
}

/// Value of `fly-replay-failed` (fly-platform 1.5).
fn failure(
    aim: &Aim,
    platform: &Platform,
    answering: &Machine,
    reason: FailureReason,
    elapsed: Duration,
) -> String {
    let instance = aim
        .instance
        .as_deref()
        .or(aim.prefer_instance.as_deref())
        .unwrap_or_default();
    let region = platform
        .machine(instance)
        .map(|machine| machine.region.clone())
        .unwrap_or_default();
    format!(
        "instance={instance};app={};region={region};replay_source={};reason={};elapsed_ms={}",
        aim.app,
        answering.id,
        reason.name(),
        elapsed.as_millis()
    )
}

fn mark(headers: &mut HeaderMap, marks: Marks) {
    for (name, text) in marks {
        // Ids and apps come from machines that exist, a state from a header: both are header values.
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}

async fn read_instruction(answer: Response<Incoming>) -> Result<Instruction, EdgeError> {
    let (parts, body) = answer.into_parts();
    let invalid = |why: String| EdgeError::new("PA03", 502, why);
    let body = if instruction::is_json(&parts.headers) {
        let read = Limited::new(body, INSTRUCTION_MAX_BYTES).collect().await;
        read.map_err(|error| invalid(error.to_string()))?.to_bytes()
    } else {
        bytes::Bytes::new()
    };
    Instruction::read(&parts.headers, &body).map_err(|bad| invalid(bad.0))
}
