//! One cell as the registry describes it: where it lives, what it answers at, how it is to be treated.
//!
//! Everything here compares by value, so that an edit is seen by comparing. It must never hold what changes while the
//! router runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::files::Files;
use super::host::HostRule;
use super::name::{AppName, CellName, MachineId};
use super::path::PathPrefix;
use super::sign_in::SignIn;

/// One tenant's entry in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The name, which is also the label before the domain.
    pub name: CellName,
    /// Where the cell lives.
    pub placement: Placement,
    /// The hosts it answers at besides its subdomain, in the order of the file.
    pub hosts: Box<[HostRule]>,
    /// The path prefixes it answers at, in the order of the file.
    pub paths: Box<[PathRule]>,
    /// Where the secret that it shares with the router is to be found; none means unsigned.
    pub secret: Option<Box<SecretSource>>,
    /// How it is treated; one allocation for all cells that are treated alike.
    pub policy: Arc<Policy>,
}

/// How a cell is treated, of what most cells of a registry have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Whether requests reach it.
    pub state: Admission,
    /// Whether requests may be handed back to the platform's edge.
    pub replay: Replay,
    /// Its limits.
    pub limits: Limits,
    /// Whether it proves who it is before it gets a request. Never `Challenge` without a secret.
    pub identity: Identity,
    /// How it proves by TLS who it is; none means a plain connection.
    pub tls: Option<Tls>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The path that answers with 2xx once the cell is ready.
    pub ready_path: Arc<str>,
    /// Whether the cell's own answers may carry replay instructions to the edge.
    pub may_replay: bool,
    /// The folder of its own pages, `{cell}` already replaced; none for the router's.
    pub pages: Option<Arc<str>>,
    /// How clients sign in before they reach it; none means not at all.
    pub sign_in: Option<Arc<SignIn>>,
    /// The files that the router serves itself.
    pub files: Option<Arc<Files>>,
    /// Which requests wake it.
    pub wake_for: WakeFor,
}

/// A path prefix of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// The prefix.
    pub prefix: PathPrefix,
    /// Whether the cell sees the path without the prefix.
    pub strip: bool,
}

/// Where a cell lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A Fly Machine.
    Machine {
        /// The app that the machine belongs to.
        app: AppName,
        /// The machine's id.
        machine: MachineId,
        /// The port that the cell listens on, 1 to 65535.
        port: u16,
    },
    /// Anywhere else.
    Address {
        /// A host name, an IPv4 address, or an IPv6 address without brackets.
        host: Box<str>,
        /// The port, 1 to 65535.
        port: u16,
    },
}

/// As `app/machine:port` or as `host:port`, an IPv6 address in brackets.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Machine { app, machine, port } => write!(f, "{app}/{machine}:{port}"),
            Placement::Address { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Placement::Address { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Whether requests reach a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// They do.
    Active,
    /// They are answered with 503 and a page that says so.
    Maintenance,
    /// They are answered with 403.
    Disabled,
    /// They wait: the cell is being replaced or moved.
    Paused,
}

impl Admission {
    /// Every state with its name in the file.
    pub(super) const ALL: [(&'static str, Admission); 4] = [
        ("active", Admission::Active),
        ("maintenance", Admission::Maintenance),
        ("disabled", Admission::Disabled),
        ("paused", Admission::Paused),
    ];

    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, state)| state)
    }
}

/// Whether requests may be handed back to the platform's edge, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replay {
    /// Never: the router relays every byte.
    Never,
    /// One by one, signed; a failure comes back to the router.
    Strict {
        /// How long the edge tries to reach the cell; none leaves it to the platform.
        timeout: Option<Duration>,
    },
    /// The edge remembers the answer and skips the router; unsigned, as the platform allows no state on it.
    Cached {
        /// How long the edge remembers, 10 s to a day.
        ttl: Duration,
    },
}

/// The kinds of [`Replay`] as the file names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplayKind {
    Strict,
    Cached,
    Never,
}

impl ReplayKind {
    /// Every kind with its name in the file.
    pub(super) const ALL: [(&'static str, ReplayKind); 3] = [
        ("strict", ReplayKind::Strict),
        ("cached", ReplayKind::Cached),
        ("never", ReplayKind::Never),
    ];
}

/// Whether a cell proves who it is on each new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// It answers a challenge with its secret.
    Challenge,
    /// Its address is taken for proof enough.
    None,
}

impl Identity {
    /// Both with their names in the file.
    pub(super) const ALL: [(&'static str, Identity); 2] =
        [("challenge", Identity::Challenge), ("none", Identity::None)];
}

/// Which requests wake a sleeping cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeFor {
    /// Every one.
    All,
    /// Those that say neither that they are fetched ahead, nor that a crawler or a health check sends them.
    Visitors,
}

impl WakeFor {
    /// Every choice with its name in the file.
    pub(super) const ALL: [(&'static str, WakeFor); 2] =
        [("all", WakeFor::All), ("visitors", WakeFor::Visitors)];
}

/// What a cell may take of the router, and how long the router waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Requests that run at the same time through this router, 1 or more.
    pub max_in_flight: u32,
    /// For a request that waits until one of those is over; zero does not wait.
    pub queue_timeout: Duration,
    /// The largest request body; `None` where there is no limit.
    pub max_body_bytes: Option<u64>,
    /// How fast a request body of known length must come, in bytes per second of waiting for it; 0 for no matter how
    /// slow.
    pub min_body_rate: u64,
    /// How fast an answer must be taken, in bytes per second of waiting for the client; 0 for no matter how slow.
    pub min_answer_rate: u64,
    /// For one attempt to connect.
    pub connect_timeout: Duration,
    /// From the end of the request's head until the first byte of the answer, while no body moves.
    pub first_byte_timeout: Duration,
    /// Without progress of a body in either direction.
    pub idle_timeout: Duration,
    /// Without a byte in either direction of an upgraded connection.
    pub tunnel_idle_timeout: Duration,
    /// From the call that starts the machine until the cell is ready.
    pub wake_timeout: Duration,
    /// For a browser's navigation to a sleeping cell, until it gets a page that refreshes itself.
    pub waking_page_after: Duration,
    /// For a request that waits until a paused cell is active again.
    pub hold_timeout: Duration,
    /// What `retry-after` says when the cell cannot answer now.
    pub retry_after: Duration,
    /// How often the cell posts a beat, up to an hour; zero where none is expected. Never more without a secret.
    pub beat_every: Duration,
}

/// What a cell speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// Both with their names in the file.
    pub(super) const ALL: [(&'static str, Protocol); 2] =
        [("http1", Protocol::Http1), ("http2", Protocol::Http2)];
}

/// How a cell proves by TLS who it is, `{cell}` already replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// What its certificate must be.
    pub trust: TrustSource,
    /// The name it is asked for, where that is not its address's.
    pub name: Option<Box<str>>,
}

/// What a cell's certificate must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TrustSource {
    /// Signed by an authority in the PEM file at this path.
    Authorities(String),
    /// For the public key with this SHA-256.
    Key([u8; 32]),
}

/// Where the secret of a cell is to be found, `{cell}` already replaced.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// In the environment variable of this name.
    Env(Box<str>),
    /// In the file at this path.
    File(Box<str>),
}

/// As `env NAME` or `file PATH`.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::Env(name) => write!(f, "env {name}"),
            SecretSource::File(path) => write!(f, "file {path}"),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
