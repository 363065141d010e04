//! From a cell's placement to a connected socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::live::cells::Live;
use crate::registry::{Cell, Placement};

/// How long a private name's address may be remembered: addresses change when a machine moves (Fly docs, Private
/// Networking; the only time to live that they show is 5 s).
const REMEMBER: Duration = Duration::from_secs(5);
/// How long it may be remembered that a private name has none: a machine that starts gets one.
const REMEMBER_NONE: Duration = Duration::from_millis(500);
/// When a silent cell's kernel is asked whether it is still there, how often, and how often in vain.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
/// Fly's resolver on every private network, used where the system names none (Fly docs, Private Networking).
const FLY_DNS: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 3));

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// The name has no address.
    Unresolved(String),
    /// No connection was made in the time the cell's entry allows.
    TimedOut(SocketAddr, Duration),
    /// The address refused, or could not be reached.
    Refused(SocketAddr, io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(name) => write!(f, "{name} has no address"),
            Self::TimedOut(address, after) => {
                write!(f, "{address} did not accept in {} ms", after.as_millis())
            }
            Self::Refused(address, error) => write!(f, "{address}: {error}"),
        }
    }
}

impl std::error::Error for DialError {}

/// One worker's way to sockets.
pub struct Dialer {
    private: TokioResolver,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// Sets up name resolution; must be called on the worker's own runtime.
    ///
    /// # Errors
    /// Where the resolver's own set-up fails, as text.
    pub fn new(config: &Config) -> Result<Self, String> {
        let servers = match config.dns_server {
            Some(server) => {
                let mut connection = ConnectionConfig::udp();
                connection.port = server.port();
                vec![NameServerConfig::new(server.ip(), true, vec![connection])]
            }
            None => system_servers(),
        };
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv6Only;
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        options.positive_max_ttl = Some(REMEMBER);
        options.negative_max_ttl = Some(REMEMBER_NONE);
        let private = builder
            .build()
            .map_err(|error| format!("name resolution: {error}"))?;
        Ok(Self { private })
    }

    /// Connects to a cell, within the time its entry allows. Cancel safe.
    ///
    /// # Errors
    /// `DialError`; whichever it is, not a byte has been sent.
    pub async fn dial(
        &self,
        cell: &Cell,
        live: &Live,
    ) -> Result<(TcpStream, SocketAddr), DialError> {
        let began = Instant::now();
        let addresses = match live.told_address(&cell.placement) {
            Some(told) => vec![told],
            None => self.addresses(cell).await?,
        };
        let connected = connect(&addresses, cell.policy.limits.connect_timeout).await;
        if connected.is_err() {
            self.forget(cell, live, began);
        }
        connected
    }

    async fn addresses(&self, cell: &Cell) -> Result<Vec<SocketAddr>, DialError> {
        let (name, port, found) = match &cell.placement {
            Placement::Machine { port, .. } => {
                let name = private_name(cell);
                let found: Vec<IpAddr> = match self.private.lookup_ip(name.as_str()).await {
                    Ok(answer) => answer.iter().collect(),
                    Err(_) => Vec::new(),
                };
                (name, *port, found)
            }
            Placement::Address { host, port } => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let found = match bare.parse::<IpAddr>() {
                    Ok(ip) => vec![ip],
                    Err(_) => match tokio::net::lookup_host((bare, *port)).await {
                        Ok(found) => found.map(|address| address.ip()).collect(),
                        Err(_) => Vec::new(),
                    },
                };
                (host.to_string(), *port, found)
            }
        };
        if found.is_empty() {
            return Err(DialError::Unresolved(name));
        }
        Ok(found
            .into_iter()
            .map(|ip| SocketAddr::new(ip.to_canonical(), port))
            .collect())
    }

    /// Drops what was remembered at that time of where a cell is: it is not there.
    pub fn forget(&self, cell: &Cell, live: &Live, at: Instant) {
        live.forget_address(at);
        if let Placement::Machine { .. } = cell.placement {
            self.private.clear_lookup_cache(
                private_name(cell).as_str(),
                hickory_resolver::proto::rr::RecordType::AAAA,
            );
        }
    }
}

/// The name of a cell's machine on the private network, absolute. Empty for a cell at an address.
pub(super) fn private_name(cell: &Cell) -> String {
    match &cell.placement {
        Placement::Machine { app, machine, .. } => format!("{machine}.vm.{app}.internal."),
        Placement::Address { .. } => String::new(),
    }
}

/// Finds out that a machine has vanished under a connection on which nobody speaks.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES)
}

async fn connect(
    addresses: &[SocketAddr],
    patience: Duration,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut last = DialError::Unresolved(String::new());
    for &address in addresses {
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                // Hints to the kernel; without them the socket works all the same.
                let _ = socket.set_nodelay(true);
                let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive());
                return Ok((socket, address));
            }
            Ok(Err(error)) => last = DialError::Refused(address, error),
            Err(_) => last = DialError::TimedOut(address, patience),
        }
    }
    Err(last)
}

fn system_servers() -> Vec<NameServerConfig> {
    let read = hickory_resolver::system_conf::read_system_conf();
    let named: Vec<NameServerConfig> = read
        .map(|(config, _)| config.name_servers().to_vec())
        .unwrap_or_default();
    if named.is_empty() {
        vec![NameServerConfig::udp(FLY_DNS)]
    } else {
        named
    }
}
