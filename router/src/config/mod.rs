//! Settings as written (flags and environment variables) and as used.
//!
//! Owns every default with its unit. Reads the environment only through clap, [`Place::from_env`] and
//! [`traces::Traces::read`].

pub mod traces;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

/// The largest body, in bytes, that is answered with a replay unless the settings say otherwise. The platform says
/// "1MB" without saying which bytes it counts, so the smaller reading is used (Fly docs, Dynamic Request Routing:
/// Requirements and Limitations).
pub const REPLAY_MAX_BYTES: u64 = 1_000_000;

/// Where the router runs; it decides which lanes exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Anywhere: every request is relayed.
    Elsewhere,
    /// On a Fly Machine, behind Fly's edge.
    Fly(FlyPlace),
}

/// What the platform says of the machine that the router runs on (Fly docs, Machine Runtime Environment).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlyPlace {
    /// `FLY_APP_NAME`.
    pub app: String,
    /// `FLY_MACHINE_ID`.
    pub machine: String,
    /// `FLY_REGION`.
    pub region: String,
}

impl Place {
    /// Reads the place from the environment, given as a function so that a map serves in tests. Without a
    /// `FLY_MACHINE_ID` the router is not on Fly.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Self {
        let Some(machine) = variable("FLY_MACHINE_ID").filter(|id| !id.is_empty()) else {
            return Self::Elsewhere;
        };
        let text = |name| variable(name).unwrap_or_default();
        Self::Fly(FlyPlace {
            app: text("FLY_APP_NAME"),
            machine,
            region: text("FLY_REGION"),
        })
    }

    /// The name under which a router here enters itself in `Via`; `None` where each start makes up its own.
    pub fn pseudonym(&self) -> Option<String> {
        match self {
            Self::Fly(fly) => Some(format!("cell-router-{}", fly.machine)),
            Self::Elsewhere => None,
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Columns for a person's eye.
    Text,
}

/// Settings as written. Each has one name: the flag `--some-name` is the variable `CELL_ROUTER_SOME_NAME`.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The registry: a file, or s3://BUCKET/KEY in an S3-compatible store, which AWS_ENDPOINT_URL_S3, AWS_REGION,
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY describe. s3:///KEY takes the bucket from BUCKET_NAME.
    #[arg(long, env = "CELL_ROUTER_REGISTRY", default_value = "registry.json")]
    pub registry: PathBuf,
    /// File in which a registry in a bucket is kept as well, so that the router starts while the store is away. Relative
    /// paths in the registry are meant from its folder.
    #[arg(long, env = "CELL_ROUTER_REGISTRY_COPY")]
    pub registry_copy: Option<PathBuf>,
    /// The share of cells, in percent, that one edit of the registry may remove or disable without a confirmation; fewer
    /// than 10 cells always may. A larger edit is held back until SIGHUP confirms it.
    #[arg(long, env = "CELL_ROUTER_MAX_UNPLUG_PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub max_unplug_percent: u32,
    /// Address to listen on; may be given more than once.
    #[arg(
        long,
        env = "CELL_ROUTER_LISTEN",
        value_delimiter = ',',
        default_value = "[::]:8080"
    )]
    pub listen: Vec<SocketAddr>,
    /// Address to listen on with TLS; may be given more than once. Needs --tls-certificates.
    #[arg(
        long,
        env = "CELL_ROUTER_TLS_LISTEN",
        value_delimiter = ',',
        requires = "tls_certificates"
    )]
    pub tls_listen: Vec<SocketAddr>,
    /// Folder of certificates: NAME.pem (or .crt) with the chain, and the key in it or in NAME.key. The one for a
    /// client is chosen by name; the folder is read again when it changes.
    #[arg(long, env = "CELL_ROUTER_TLS_CERTIFICATES")]
    pub tls_certificates: Option<PathBuf>,
    /// Redirects requests that came by plain HTTP to https, except those for /.well-known/acme-challenge/TOKEN. Needs
    /// --tls-listen, or a trusted proxy that says by X-Forwarded-Proto what the client spoke.
    #[arg(long, env = "CELL_ROUTER_HTTPS_REDIRECT", value_parser = clap::builder::FalseyValueParser::new())]
    pub https_redirect: bool,
    /// Port at which clients reach https, for redirects.
    #[arg(long, env = "CELL_ROUTER_HTTPS_PORT", default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..))]
    pub https_port: u16,
    /// Unix socket by which a newer router takes the listening sockets over: one that answers there at the start hands them
    /// out and drains. Only the same user may; a path of one's own for each set of routers.
    #[arg(long, env = "CELL_ROUTER_TAKEOVER")]
    pub takeover: Option<PathBuf>,
    /// Networks of proxies in front whose word on clients counts (X-Forwarded-*; on Fly.io Fly-Client-IP, too). On Fly.io the
    /// edge's private IPv4 networks unless given.
    #[arg(long, env = "CELL_ROUTER_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// The largest body in bytes that is answered with a replay; larger ones are streamed.
    #[arg(long, env = "CELL_ROUTER_REPLAY_MAX_BYTES", default_value_t = REPLAY_MAX_BYTES)]
    pub replay_max_bytes: u64,
    /// DNS server for private names. The system's unless given.
    #[arg(long, env = "CELL_ROUTER_DNS_SERVER")]
    pub dns_server: Option<SocketAddr>,
    /// Base URL of the Machines API. On Fly.io http://_api.internal:4280 unless given.
    #[arg(long, env = "CELL_ROUTER_FLY_API_URL")]
    pub fly_api_url: Option<String>,
    /// Token for the Machines API, by which sleeping cells are started. Best given as a secret in the variable.
    #[arg(long, env = "CELL_ROUTER_FLY_API_TOKEN", hide_env_values = true)]
    pub fly_api_token: Option<String>,
    /// Worker threads, each with its own listener and connections. As many as there are cores unless given.
    #[arg(long, env = "CELL_ROUTER_WORKERS")]
    pub workers: Option<usize>,
    /// Time for a client to send a request's head, counted from its first byte, or from the connection's beginning for
    /// the first one, in milliseconds; else it gets 408.
    #[arg(long, env = "CELL_ROUTER_HEAD_TIMEOUT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub head_timeout_ms: u64,
    /// Time for which a connection is kept open without a request, in milliseconds.
    #[arg(long, env = "CELL_ROUTER_IDLE_TIMEOUT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub idle_timeout_ms: u64,
    /// Time in which a client must take something of what is sent to it, in milliseconds; else its connection ends. A second
    /// at least, and about 128 KiB in that time, are needed for it to be seen for sure: 1 KiB a second with the default.
    #[arg(long, env = "CELL_ROUTER_CLIENT_STALL_MS", default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub client_stall_ms: u64,
    /// The largest request head in bytes; larger ones get 431.
    #[arg(long, env = "CELL_ROUTER_MAX_HEAD_BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(8_192..=1_048_576))]
    pub max_head_bytes: u64,
    /// The most header lines in a request; more get 431.
    #[arg(long, env = "CELL_ROUTER_MAX_HEADERS", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub max_headers: u64,
    /// The most client connections at once, over all workers. Where there are so many, those on which nothing has been asked for
    /// a second or more end for others who come; if there are none, these wait. Fewer, which is said at the start, where the
    /// system lets the router have too few descriptors for as many connections to cells.
    #[arg(long, env = "CELL_ROUTER_MAX_CONNECTIONS", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections: u64,
    /// The most connections that one client may have at once: an IPv4 address, or a /64 network of IPv6. Further ones get
    /// 429, or are closed where TLS is spoken or there is no place for them. Trusted proxies are no clients.
    #[arg(long, env = "CELL_ROUTER_MAX_CONNECTIONS_PER_CLIENT", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections_per_client: u64,
    /// The most TLS handshakes at once, over all workers; further ones wait their turn. Who has not said hello yet takes none.
    #[arg(long, env = "CELL_ROUTER_MAX_TLS_HANDSHAKES", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_tls_handshakes: u64,
    /// Time for a TLS handshake, its turn included, in milliseconds; else the connection is closed.
    #[arg(long, env = "CELL_ROUTER_TLS_HANDSHAKE_TIMEOUT_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub tls_handshake_timeout_ms: u64,
    /// The most passwords that are checked at once, over all workers, for cells whose clients sign in; each keeps a core busy
    /// for as long as its hash is meant to. Further ones wait their turn.
    #[arg(long, env = "CELL_ROUTER_MAX_PASSWORD_CHECKS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub max_password_checks: u64,
    /// A PEM file of the authorities that sign-in servers asked by https are believed by, in place of the usual public ones.
    #[arg(long, env = "CELL_ROUTER_SIGN_IN_CA", value_name = "FILE")]
    pub sign_in_ca: Option<PathBuf>,
    /// The most requests that wait for a sleeping or paused cell at once, over all cells; further ones get 503.
    #[arg(long, env = "CELL_ROUTER_MAX_HELD", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_held: u64,
    /// Idle connections to a cell that each worker keeps for reuse.
    #[arg(long, env = "CELL_ROUTER_POOL_SIZE", default_value_t = 256)]
    pub pool_size: usize,
    /// From how many bytes on, that are to come at once, a body goes from socket to socket within the kernel instead of
    /// being copied: those of HTTP/1.1 on both sides, without TLS. The default is where it begins to pay.
    #[arg(long, env = "CELL_ROUTER_SPLICE_FROM", default_value_t = 32_768)]
    pub splice_from: u64,
    /// How long an idle connection to a cell is kept, in milliseconds.
    #[arg(long, env = "CELL_ROUTER_POOL_IDLE_MS", default_value_t = 15_000)]
    pub pool_idle_ms: u64,
    /// How long running requests and tunnels may go on after a stop signal, in milliseconds.
    #[arg(long, env = "CELL_ROUTER_DRAIN_MS", default_value_t = 50_000)]
    pub drain_ms: u64,
    /// Address of the admin listener: its page, metrics, live state and, by a token's role, operations on cells and edits of the
    /// registry; never on an address for clients. There is none unless given. One that is not loopback needs --admin-tokens.
    #[arg(long, env = "CELL_ROUTER_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
    /// File of tokens for the admin listener, a line for each as `cell-router token` prints it. Without it whoever reaches
    /// the listener may read.
    #[arg(long, env = "CELL_ROUTER_ADMIN_TOKENS", requires = "admin_listen")]
    pub admin_tokens: Option<PathBuf>,
    /// Address at which cells post their beats, of the private network. There is none unless given; then no cell is missing.
    #[arg(long, env = "CELL_ROUTER_BEAT_LISTEN")]
    pub beat_listen: Option<SocketAddr>,
    /// URL that is told when a cell is missing and when it is back, as Standard Webhooks are.
    #[arg(long, env = "CELL_ROUTER_WEBHOOK", value_name = "URL", requires_all = ["beat_listen", "webhook_secret"])]
    pub webhook: Option<String>,
    /// File of the secret that signs what the webhook is told: whsec_ and base64; one in each line while it is rotated.
    #[arg(
        long,
        env = "CELL_ROUTER_WEBHOOK_SECRET",
        value_name = "FILE",
        requires = "webhook"
    )]
    pub webhook_secret: Option<PathBuf>,
    /// A PEM file of the authorities that a webhook asked by https is believed by, in place of the usual public ones.
    #[arg(
        long,
        env = "CELL_ROUTER_WEBHOOK_CA",
        value_name = "FILE",
        requires = "webhook"
    )]
    pub webhook_ca: Option<PathBuf>,
    /// URL of an OpenTelemetry collector, to which traces of requests are exported by OTLP over HTTP, at /v1/traces below it.
    /// OTEL_EXPORTER_OTLP_ENDPOINT and the like stand for it; none are exported where nothing says where to.
    #[arg(long, env = "CELL_ROUTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// A PEM file of the authorities that a collector asked by https is believed by, in place of the usual public ones.
    #[arg(long, env = "CELL_ROUTER_OTLP_CA", value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,
    /// The share of traces that are exported, from 0 to 1, of those that begin here. Of the others those are that their
    /// `traceparent` says are sampled. All unless given, or what OTEL_TRACES_SAMPLER says.
    #[arg(long, env = "CELL_ROUTER_TRACE_RATIO", value_parser = traces::share)]
    pub trace_ratio: Option<f64>,
    /// How log lines are written. Text on a terminal, JSON elsewhere, unless given.
    #[arg(long, env = "CELL_ROUTER_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Settings as used.
#[derive(Debug, Clone)]
pub struct Config {
    /// The registry: a file, or `s3://BUCKET/KEY`.
    pub registry: PathBuf,
    /// The file in which a registry in a bucket is kept as well.
    pub registry_copy: Option<PathBuf>,
    /// The share of cells that an edit may unplug without a confirmation, in percent.
    pub max_unplug_percent: u32,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Where to listen with TLS.
    pub tls_listen: Vec<SocketAddr>,
    /// The folder of certificates.
    pub tls_certificates: Option<PathBuf>,
    /// Where requests that came by plain HTTP are redirected: the port of https; `None` if they are served.
    pub https_redirect: Option<u16>,
    /// The Unix socket by which listening sockets are taken over.
    pub takeover: Option<PathBuf>,
    /// Where the admin listener listens; `None` for no such listener.
    pub admin_listen: Option<SocketAddr>,
    /// The file of its tokens.
    pub admin_tokens: Option<PathBuf>,
    /// Where cells post their beats; `None` for nowhere.
    pub beat_listen: Option<SocketAddr>,
    /// The URL that is told of missing cells, and the file of the secret that signs it.
    pub webhook: Option<(String, PathBuf)>,
    /// The file of authorities that it is believed by; `None` for the usual public ones.
    pub webhook_ca: Option<PathBuf>,
    /// What flags say of the export of traces.
    pub traces: traces::Flags,
    /// Where the router runs.
    pub place: Place,
    /// Proxies whose word on clients counts.
    pub trusted: Vec<IpNet>,
    /// The largest body that is replayed, in bytes.
    pub replay_max_bytes: u64,
    /// DNS server for private names; `None` is the system's.
    pub dns_server: Option<SocketAddr>,
    /// How cells are started; `None` where no token is known.
    pub machines_api: Option<MachinesApi>,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Time for a request's head.
    pub head_timeout: Duration,
    /// Time for which a connection is kept open without a request.
    pub idle_timeout: Duration,
    /// Time in which a client must take something of what is sent to it.
    pub client_stall: Duration,
    /// The largest head, in bytes.
    pub max_head_bytes: usize,
    /// The most header lines.
    pub max_headers: usize,
    /// The most client connections.
    pub max_connections: usize,
    /// The most connections of one client.
    pub max_connections_per_client: usize,
    /// The most TLS handshakes at once.
    pub max_tls_handshakes: usize,
    /// The most passwords that are checked at once.
    pub max_password_checks: usize,
    /// The file of authorities that sign-in servers are believed by; `None` for the usual public ones.
    pub sign_in_ca: Option<PathBuf>,
    /// Time for a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// The most waiting requests.
    pub max_held: usize,
    /// From how many bytes on, that are to come at once, a body stays in the kernel between two plain sockets.
    pub splice_from: u64,
    /// Idle connections kept for each cell and worker.
    pub pool_size: usize,
    /// For how long.
    pub pool_idle: Duration,
    /// Time for running work after a stop signal.
    pub drain: Duration,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// The name under which this router enters itself in `Via`: visible ASCII, no comma.
    pub pseudonym: String,
}

/// The platform's API as used for waking.
#[derive(Clone)]
pub struct MachinesApi {
    /// Base URL without a slash at its end.
    pub url: String,
    /// Value of the `Authorization` header.
    pub authorization: String,
}

impl std::fmt::Debug for MachinesApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachinesApi")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The private networks from which Fly's edge connects to a machine: it uses private IPv4, while machines reach each
/// other over IPv6 only (Fly docs, App services).
const FLY_EDGE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

/// Where the Machines API is on the private network (Fly docs, Working with the Machines API).
const FLY_API_INTERNAL: &str = "http://_api.internal:4280";

impl Settings {
    /// What follows from these settings at `place`, with logs to a terminal or not.
    pub fn into_config(self, place: Place, terminal: bool) -> Config {
        let on_fly = place != Place::Elsewhere;
        let edge = || {
            FLY_EDGE
                .iter()
                .map(|net| net.parse().expect("the constants are networks"))
                .collect()
        };
        let trusted = self
            .trusted_proxies
            .unwrap_or_else(|| if on_fly { edge() } else { Vec::new() });
        let machines_api = self
            .fly_api_token
            .filter(|token| !token.trim().is_empty())
            .and_then(|token| {
                let url = self
                    .fly_api_url
                    .or_else(|| on_fly.then(|| FLY_API_INTERNAL.to_owned()))?;
                Some(MachinesApi {
                    url: url.trim_end_matches('/').to_owned(),
                    authorization: authorization(token.trim()),
                })
            });
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let terminal_format = if terminal {
            LogFormat::Text
        } else {
            LogFormat::Json
        };
        let pseudonym = place
            .pseudonym()
            .unwrap_or_else(|| format!("cell-router-{:08x}", seed() & 0xffff_ffff));
        Config {
            registry: self.registry,
            registry_copy: self.registry_copy,
            max_unplug_percent: self.max_unplug_percent,
            listen: self.listen,
            tls_listen: self.tls_listen,
            tls_certificates: self.tls_certificates,
            https_redirect: self.https_redirect.then_some(self.https_port),
            takeover: self.takeover,
            admin_listen: self.admin_listen,
            admin_tokens: self.admin_tokens,
            beat_listen: self.beat_listen,
            webhook: self.webhook.zip(self.webhook_secret),
            webhook_ca: self.webhook_ca,
            traces: traces::Flags {
                endpoint: self.otlp_endpoint,
                ca: self.otlp_ca,
                ratio: self.trace_ratio,
            },
            place,
            trusted,
            replay_max_bytes: self.replay_max_bytes,
            dns_server: self.dns_server,
            machines_api,
            workers: self.workers.unwrap_or(cores).max(1),
            head_timeout: Duration::from_millis(self.head_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            client_stall: Duration::from_millis(self.client_stall_ms),
            max_head_bytes: usize::try_from(self.max_head_bytes).unwrap_or(usize::MAX),
            max_headers: usize::try_from(self.max_headers).unwrap_or(usize::MAX),
            max_connections: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            max_connections_per_client: usize::try_from(self.max_connections_per_client)
                .unwrap_or(usize::MAX),
            max_tls_handshakes: usize::try_from(self.max_tls_handshakes).unwrap_or(usize::MAX),
            max_password_checks: usize::try_from(self.max_password_checks).unwrap_or(usize::MAX),
            sign_in_ca: self.sign_in_ca,
            tls_handshake_timeout: Duration::from_millis(self.tls_handshake_timeout_ms),
            max_held: usize::try_from(self.max_held).unwrap_or(usize::MAX),
            splice_from: self.splice_from,
            pool_size: self.pool_size,
            pool_idle: Duration::from_millis(self.pool_idle_ms),
            drain: Duration::from_millis(self.drain_ms),
            log_format: self.log_format.unwrap_or(terminal_format),
            pseudonym,
        }
    }
}

impl Config {
    /// Whether an address is one of the trusted proxies.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted.iter().any(|net| net.contains(&ip))
    }
}

/// From 0 to 1, another one each time; no secret.
pub fn chance() -> f64 {
    seed() as f64 / u64::MAX as f64
}

/// A number that differs from process to process; no secret.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// The scheme that the platform's own client uses for each kind of token: `FlyV1` for macaroons, `Bearer` for others.
fn authorization(token: &str) -> String {
    let schemed = ["FlyV1 ", "Bearer "]
        .iter()
        .any(|scheme| token.starts_with(scheme));
    let scheme = if token.starts_with("fm1") || token.starts_with("fm2_") {
        "FlyV1 "
    } else {
        "Bearer "
    };
    if schemed {
        token.to_owned()
    } else {
        format!("{scheme}{token}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    fn config(flags: &[&str], place: Place) -> Config {
        let flags = std::iter::once(&"router").chain(flags);
        Cli::try_parse_from(flags)
            .unwrap()
            .settings
            .into_config(place, false)
    }

    fn fly() -> Place {
        let variables = |name: &str| (name != "FLY_REGION").then(|| name.to_lowercase());
        Place::from_env(variables)
    }

    #[test]
    fn no_machine_id_is_not_fly() {
        assert_eq!(Place::from_env(|_| None), Place::Elsewhere);
        assert_eq!(Place::from_env(|_| Some(String::new())), Place::Elsewhere);
        assert!(matches!(fly(), Place::Fly(FlyPlace { app, .. }) if app == "fly_app_name"));
    }

    #[test]
    fn nobody_is_trusted_elsewhere_and_private_ipv4_on_fly() {
        let edge: IpAddr = "::ffff:172.16.3.4".parse().unwrap();
        let neighbour: IpAddr = "fdaa:7:1b2c::2".parse().unwrap();
        assert!(!config(&[], Place::Elsewhere).trusts(edge));
        assert!(config(&[], fly()).trusts(edge));
        assert!(!config(&[], fly()).trusts(neighbour));
        assert!(!config(&["--trusted-proxies", "127.0.0.0/8"], fly()).trusts(edge));
    }

    #[test]
    fn waking_needs_a_token_and_a_url() {
        assert!(config(&[], fly()).machines_api.is_none());
        assert!(
            config(&["--fly-api-token", "x"], Place::Elsewhere)
                .machines_api
                .is_none()
        );
        assert_eq!(
            config(&["--fly-api-token", "x"], fly())
                .machines_api
                .unwrap()
                .url,
            FLY_API_INTERNAL
        );
        let api = config(
            &[
                "--fly-api-token",
                "fm2_x",
                "--fly-api-url",
                "http://127.0.0.1:1/",
            ],
            fly(),
        )
        .machines_api
        .unwrap();
        assert_eq!(
            (api.url.as_str(), api.authorization.as_str()),
            ("http://127.0.0.1:1", "FlyV1 fm2_x")
        );
    }

    #[test]
    fn every_flag_is_a_variable_of_the_same_name() {
        use clap::CommandFactory as _;
        let command = Cli::command();
        let settings: Vec<_> = command
            .get_arguments()
            .filter(|flag| flag.get_long().is_some_and(|name| name != "help"))
            .collect();
        assert!(settings.len() > 15);
        for flag in settings {
            let name = flag.get_long().unwrap().to_uppercase().replace('-', "_");
            assert_eq!(
                flag.get_env().unwrap().to_str().unwrap(),
                format!("CELL_ROUTER_{name}")
            );
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?}", config(&["--fly-api-token", "hush"], fly()));
        assert!(!shown.contains("hush"));
    }
}
