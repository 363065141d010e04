//! From a cell's placement to a connected socket.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
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
    /// Nobody said in the time the cell's entry allows which address the name has.
    NotTold(String, Duration),
    /// No connection was made in the time the cell's entry allows.
    TimedOut(SocketAddr, Duration),
    /// The address refused, or could not be reached.
    Refused(SocketAddr, io::Error),
    /// The router has nothing left to connect with: no descriptor, no memory, or no port. That says nothing of the cell.
    Exhausted(io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(name) => write!(f, "{name} has no address"),
            Self::NotTold(name, after) => {
                let after = after.as_millis();
                write!(f, "the address of {name} was not told in {after} ms")
            }
            Self::TimedOut(address, after) => {
                write!(f, "{address} did not accept in {} ms", after.as_millis())
            }
            Self::Refused(address, error) => write!(f, "{address}: {error}"),
            Self::Exhausted(error) => write!(f, "the router has nothing left for it: {error}"),
        }
    }
}

impl std::error::Error for DialError {}

/// One worker's way to sockets.
pub struct Dialer {
    private: TokioResolver,
    public: LookUps,
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
        let public = LookUps::by(system);
        Ok(Self { private, public })
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
        let patience = cell.policy.limits.connect_timeout;
        let connected = connect(&addresses, patience, TcpStream::connect).await;
        if !matches!(connected, Ok(_) | Err(DialError::Exhausted(_))) {
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
                    Err(_) => {
                        let patience = cell.policy.limits.connect_timeout;
                        let told = timeout(patience, self.public.look_up(bare)).await;
                        told.map_err(|_| DialError::NotTold(host.to_string(), patience))?
                    }
                };
                (host.to_string(), *port, found)
            }
        };
        if found.is_empty() {
            // Who has no descriptor to ask with finds nothing, too.
            if let Some(error) = TcpSocket::new_v4().err().filter(is_exhaustion) {
                return Err(DialError::Exhausted(error));
            }
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

/// One worker's look-ups by the system's resolver, each of which keeps a thread for as long as that takes: one at a time for
/// each name, shared by all who ask meanwhile. So a name that nobody answers for takes one thread, however many ask.
struct LookUps {
    by: Arc<Resolve>,
    running: RefCell<HashMap<Box<str>, LookUp>>,
}

/// What tells the addresses of a name, and may take its time.
type Resolve = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

/// What a look-up found, once it has.
type LookUp = watch::Receiver<Option<Arc<[IpAddr]>>>;

impl LookUps {
    fn by(by: impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static) -> Self {
        Self {
            by: Arc::new(by),
            running: RefCell::default(),
        }
    }

    /// The addresses of a name, as far as there are any. Cancel safe: the look-up goes on.
    async fn look_up(&self, name: &str) -> Vec<IpAddr> {
        let mut look_up = self.running(name);
        let found = look_up.wait_for(Option::is_some).await;
        found
            .ok()
            .and_then(|found| found.as_deref().map(<[IpAddr]>::to_vec))
            .unwrap_or_default()
    }

    fn running(&self, name: &str) -> LookUp {
        let mut running = self.running.borrow_mut();
        // Whoever found something is gone.
        running.retain(|_, look_up| look_up.has_changed().is_ok());
        if let Some(look_up) = running.get(name) {
            return look_up.clone();
        }
        let (tells, look_up) = watch::channel(None);
        running.insert(name.into(), look_up.clone());
        let (by, name) = (Arc::clone(&self.by), name.to_owned());
        drop(spawn_blocking(move || {
            tells.send_replace(Some(by(&name).into()));
        }));
        look_up
    }
}

/// Asks the system's resolver.
fn system(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs();
    let found = found.map(|found| found.map(|address| address.ip()).collect());
    found.unwrap_or_default()
}

/// The name of a cell's machine on the private network, absolute. Empty for a cell at an address.
pub(super) fn private_name(cell: &Cell) -> String {
    match &cell.placement {
        Placement::Machine { app, machine, .. } => format!("{machine}.vm.{app}.internal."),
        Placement::Address { .. } => String::new(),
    }
}

/// Whether the system has nothing left for a connection, wherever that leads to.
fn is_exhaustion(error: &io::Error) -> bool {
    let lacking = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
    ];
    Errno::from_io_error(error).is_some_and(|errno| lacking.contains(&errno))
}

/// Finds out that a machine has vanished under a connection on which nobody speaks.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES)
}

/// Tries the addresses one after the other. What the router lacks for one it lacks for all, but for an address to come from:
/// where the system has none for IPv6, an IPv6 address is not available.
async fn connect(
    addresses: &[SocketAddr],
    patience: Duration,
    by: impl AsyncFn(SocketAddr) -> io::Result<TcpStream>,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let (mut failed, mut exhausted) = (None, None);
    for &address in addresses {
        match timeout(patience, by(address)).await {
            Ok(Ok(socket)) => {
                // Hints to the kernel; without them the socket works all the same.
                let _ = socket.set_nodelay(true);
                let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive());
                return Ok((socket, address));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                exhausted = Some(error);
            }
            Ok(Err(error)) if is_exhaustion(&error) => return Err(DialError::Exhausted(error)),
            Ok(Err(error)) => failed = Some(DialError::Refused(address, error)),
            Err(_) => failed = Some(DialError::TimedOut(address, patience)),
        }
    }
    Err(failed
        .or_else(|| exhausted.map(DialError::Exhausted))
        .unwrap_or_else(|| DialError::Unresolved(String::new())))
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::registry::Registry;

    /// A resolver that answers for `silent` once the first sender is dropped, and says when it was asked for that.
    fn hanging() -> (LookUps, Sender<()>, std::sync::mpsc::Receiver<()>) {
        let (holds, held) = channel();
        let (asked, asks) = channel();
        let held = Mutex::new(held);
        let look_ups = LookUps::by(move |name| {
            if name == "silent" {
                let _ = asked.send(());
                let _: Result<(), _> = held.lock().unwrap().recv();
            }
            vec![IpAddr::from([127, 0, 0, 1])]
        });
        (look_ups, holds, asks)
    }

    #[test]
    fn what_the_router_lacks_says_nothing_of_the_cell() {
        let lacks = |errno: Errno| is_exhaustion(&errno.into());
        assert!([Errno::MFILE, Errno::NFILE, Errno::NOBUFS].map(lacks) == [true; 3]);
        assert!([Errno::NOMEM, Errno::ADDRNOTAVAIL].map(lacks) == [true; 2]);
        assert!(
            [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH].map(lacks) == [false; 3]
        );
    }

    #[tokio::test]
    async fn an_address_that_the_system_cannot_reach_hides_no_other() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let [lacking, down, full] =
            ["[::1]:1", "127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
        let dial = async |addresses: &[SocketAddr]| {
            let by = async |address| match address {
                _ if address == lacking => Err(Errno::ADDRNOTAVAIL.into()),
                _ if address == down => Err(Errno::CONNREFUSED.into()),
                _ if address == full => Err(Errno::MFILE.into()),
                _ => TcpStream::connect(address).await,
            };
            connect(addresses, Duration::from_secs(60), by).await
        };
        assert_eq!(dial(&[lacking, there]).await.unwrap().1, there);
        for both in [[lacking, down], [down, lacking]] {
            let refused = dial(&both).await.unwrap_err();
            assert!(matches!(refused, DialError::Refused(address, _) if address == down));
        }
        for none_left in [[lacking, lacking], [down, full]] {
            let exhausted = dial(&none_left).await.unwrap_err();
            assert!(matches!(exhausted, DialError::Exhausted(_)));
        }
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_asked_once_by_all_who_wait() {
        let (look_ups, holds, asks) = hanging();
        for _ in 0..3 {
            let told = timeout(Duration::from_millis(5), look_ups.look_up("silent")).await;
            assert!(told.is_err());
        }
        assert_eq!(look_ups.look_up("other").await.len(), 1);
        let mut running = look_ups.running("silent");
        // Who asks after the answer asks anew.
        let asked = look_ups.look_up("silent");
        let (told, ()) = tokio::join!(biased; asked, async { drop(holds) });
        assert_eq!(told.len(), 1);
        assert_eq!(asks.try_iter().count(), 1);
        // What was found is not kept for those who come later.
        while running.changed().await.is_ok() {}
        assert_eq!(look_ups.look_up("silent").await.len(), 1);
        assert_eq!(asks.try_iter().count(), 1);
    }

    #[tokio::test]
    async fn a_cell_whose_name_nobody_answers_for_is_given_up_in_its_time() {
        let text =
            br#"{"version":1,"cells":{"alice":{"address":"silent:1","connect_timeout_ms":10}}}"#;
        let registry = Registry::parse(text).unwrap();
        let private = TokioResolver::builder_with_config(
            ResolverConfig::default(),
            TokioRuntimeProvider::default(),
        );
        let (public, _holds, _asks) = hanging();
        let dialer = Dialer {
            private: private.build().unwrap(),
            public,
        };
        let cell = registry.cell("alice").unwrap();
        let dialled = dialer.dial(cell, &Live::default()).await;
        assert!(matches!(dialled, Err(DialError::NotTold(..))));
    }
}
