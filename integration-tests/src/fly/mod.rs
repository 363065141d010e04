//! A Fly.io in one process: public edge, Machines API, private DNS, and machines that are real processes.
//!
//! Each rule names the section of the platform's facts that it rests on, as "fly-platform 1.7". Where those say that
//! nobody knows, the emulator does what is hardest for a router. It never listens beyond the loopback interface.

mod dns;
pub mod edge;
mod faults;
mod limiter;
pub mod machine;
mod machines_api;
mod platform;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

pub use edge::{Delivery, FailureReason, Kind};
pub use faults::{Faults, Gate};
pub use machine::{Guest, Machine, MachineSpec, State};
pub use platform::Action;
use platform::Platform;

use crate::process::{Echo, lock};

/// 14 hex digits that were not handed out before in this process (fly-platform 3.1).
pub(crate) fn fresh_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:014x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8)
}

/// What a [`Fly`] is made from.
#[derive(Debug)]
pub struct Options {
    /// Token that the Machines API accepts.
    pub token: String,
    /// Region of the edge, and of machines that name none.
    pub region: String,
    /// The `cell-app` binary; built on first use when `None`.
    pub cell_binary: Option<PathBuf>,
    /// Folder for volumes; a temporary one, removed on drop, when `None`.
    pub data: Option<PathBuf>,
    /// Shows the output of machines as it comes.
    pub echo: Option<Echo>,
    /// Whether the edge removes `fly-replay-src`, `fly-replay-failed` and other names of its own from what clients
    /// send. Nobody documents that it does (fly-platform 1.10 and 6), so the default is no.
    pub strips_forged: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: "fm2_test".to_owned(),
            region: "ams".to_owned(),
            cell_binary: None,
            data: None,
            echo: None,
            strips_forged: false,
        }
    }
}

/// A Fly.io in one process. Dropping it closes its listeners and kills and reaps its machines.
pub struct Fly {
    platform: Arc<Platform>,
    edge: Arc<edge::Edge>,
    api: SocketAddr,
    dns: SocketAddr,
    tasks: JoinSet<()>,
    _data: Option<tempfile::TempDir>,
}

impl Fly {
    /// Starts API and DNS with the default options.
    ///
    /// # Errors
    /// The loopback interface has no free port, or there is no room for temporary files.
    pub async fn start() -> std::io::Result<Self> {
        Self::with(Options::default()).await
    }

    /// Starts API and DNS.
    ///
    /// # Errors
    /// As [`Fly::start`].
    pub async fn with(options: Options) -> std::io::Result<Self> {
        let (data, folder) = match options.data {
            Some(folder) => (None, folder),
            None => {
                let made = tempfile::tempdir()?;
                let folder = made.path().to_owned();
                (Some(made), folder)
            }
        };
        let platform = Arc::new(Platform::new(
            options.token,
            options.region,
            options.cell_binary,
            folder,
            options.echo,
        ));
        let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let dns = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (api_address, dns_address) = (api.local_addr()?, dns.local_addr()?);
        let mut tasks = JoinSet::new();
        tasks.spawn(machines_api::serve(Arc::clone(&platform), api));
        tasks.spawn(dns::serve(Arc::clone(&platform), dns));
        Ok(Self {
            edge: Arc::new(edge::Edge::new(
                Arc::clone(&platform),
                options.strips_forged,
            )),
            platform,
            api: api_address,
            dns: dns_address,
            tasks,
            _data: data,
        })
    }

    /// Creates an app without machines; nothing happens if there is one.
    pub fn app(&self, app: &str) {
        self.platform.add_app(app);
    }

    /// Creates a machine, stopped, and its app if need be.
    ///
    /// # Errors
    /// The loopback interface has no free port.
    pub fn machine(&self, spec: MachineSpec) -> std::io::Result<Arc<Machine>> {
        if spec.program.is_none() && self.platform.cell_binary.is_none() {
            // Here and not at its first start, which would count the build as the cell's slowness.
            crate::Binaries::built();
        }
        let machine = Arc::new(Machine::new(spec, &self.platform.region, None)?);
        self.platform.add_machine(Arc::clone(&machine));
        Ok(machine)
    }

    /// Creates a machine, stopped, in which a part of this process runs.
    pub fn guest(&self, spec: MachineSpec, guest: Arc<dyn Guest>) -> Arc<Machine> {
        let machine = Arc::new(Machine::with_guest(spec, &self.platform.region, guest));
        self.platform.add_machine(Arc::clone(&machine));
        machine
    }

    /// Adds a machine that someone else runs at `address`; it is always started.
    ///
    /// # Errors
    /// None today; an address needs no resources.
    pub fn attach(
        &self,
        app: &str,
        id: &str,
        address: SocketAddr,
    ) -> std::io::Result<Arc<Machine>> {
        let spec = MachineSpec::cell(app, id).id(id);
        let machine = Arc::new(Machine::new(spec, &self.platform.region, Some(address))?);
        self.platform.add_machine(Arc::clone(&machine));
        Ok(machine)
    }

    /// The machine of this id, also when it was destroyed.
    pub fn find(&self, id: &str) -> Option<Arc<Machine>> {
        self.platform.machine(id)
    }

    /// The port of a machine on the loopback interface.
    pub fn port(&self, id: &str) -> Option<u16> {
        self.find(id).map(|machine| machine.address().port())
    }

    /// Starts a machine as the platform itself would, without the API; returns when it listens.
    ///
    /// # Errors
    /// Its state, in words, if it cannot be started.
    pub async fn wake(&self, machine: &Arc<Machine>) -> Result<(), String> {
        machine.start(&self.platform).map_err(|refused| refused.0)?;
        machine.listens().await;
        Ok(())
    }

    /// Stops a machine as the platform itself would, without the API; returns when it has stopped.
    ///
    /// # Errors
    /// Its state, in words, if it cannot be stopped.
    pub async fn stop(&self, machine: &Machine) -> Result<(), String> {
        machine.stop().await.map_err(|refused| refused.0)
    }

    /// Suspends a machine as the platform itself would, without the API.
    ///
    /// # Errors
    /// Its state, in words, if it cannot be suspended.
    pub fn suspend(&self, machine: &Machine) -> Result<(), String> {
        machine.suspend().map_err(|refused| refused.0)
    }

    /// Base URL of the Machines API, without `/v1`.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// Address of the Machines API.
    pub fn api_addr(&self) -> SocketAddr {
        self.api
    }

    /// Token that the Machines API accepts.
    pub fn token(&self) -> &str {
        &self.platform.token
    }

    /// Region of the edge.
    pub fn region(&self) -> &str {
        &self.platform.region
    }

    /// Address of the private DNS, UDP.
    pub fn dns_addr(&self) -> SocketAddr {
        self.dns
    }

    /// Opens a public port of an app on a free local port.
    ///
    /// # Errors
    /// The loopback interface has no free port.
    pub async fn listen(&mut self, app: &str, public_port: u16) -> std::io::Result<SocketAddr> {
        self.listen_on(app, public_port, (Ipv4Addr::LOCALHOST, 0).into())
            .await
    }

    /// Opens a public port of an app at a local address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn listen_on(
        &mut self,
        app: &str,
        public_port: u16,
        address: SocketAddr,
    ) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        let door = edge::Door {
            app: app.to_owned(),
            public_port,
        };
        self.tasks
            .spawn(edge::serve(Arc::clone(&self.edge), listener, door));
        Ok(bound)
    }

    /// The switches for faults.
    pub fn faults(&self) -> &Faults {
        &self.platform.faults
    }

    /// The machine is gone: destroyed, unknown to DNS, 404 in the API.
    pub fn lose(&self, machine: &Machine) {
        machine.destroy();
    }

    /// The private address of the stopped machine `of` now belongs to machine `by`, and DNS has not noticed
    /// (fly-platform 2: addresses are not stable, and stale answers happened). Ends when `of` is started.
    ///
    /// # Errors
    /// The port of `of` is in use, as it is while that machine runs.
    pub async fn reuse_address(&self, of: &Machine, by: &Machine) -> std::io::Result<()> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(of.address())?;
        let listener = socket.listen(64)?;
        let target = by.address();
        let forward = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                running.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(target).await {
                        // Whatever ends the copy ends both connections.
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        self.platform.faults.set_stale(&of.id, &by.id, forward);
        Ok(())
    }

    /// One pass of the autostop loop over all apps: in each app and region at most one started machine with
    /// autostop whose load through the edge is 0 is stopped (fly-platform 3.2). Traffic over the private network is
    /// invisible to it. Returns the ids of the machines that it stopped, when they have.
    pub async fn autostop_pass(&self) -> Vec<String> {
        autostop_pass(&self.platform).await
    }

    /// How often the API was called with this action on this machine (for list, create and volumes: on this app).
    pub fn calls(&self, action: Action, subject: &str) -> usize {
        self.platform.call_count(action, subject)
    }

    /// How many calls of the API came faster than its rate limits allow.
    pub fn calls_over_limit(&self) -> usize {
        self.platform.over_limit()
    }

    /// The machines that the API was asked to start, in the order in which it was.
    pub fn starts(&self) -> Vec<String> {
        lock(&self.platform.starts).clone()
    }

    /// Every delivery that the edge made so far, in order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.platform.deliveries).clone()
    }

    /// As [`Fly::deliveries`], and forgets them.
    pub fn take_deliveries(&self) -> Vec<Delivery> {
        std::mem::take(&mut lock(&self.platform.deliveries))
    }

    /// What broke a rule so far without failing a request, in words: cache orders that the rules exclude.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.platform.violations).clone()
    }

    /// Moves the clock of the replay cache, leases and rate limits forward.
    pub fn advance_clock(&self, by: Duration) {
        self.platform.advance(by);
    }
}

async fn autostop_pass(platform: &Platform) -> Vec<String> {
    let mut picked: Vec<Arc<Machine>> = Vec::new();
    for machine in platform.all_machines() {
        let idle = machine.state() == State::Started
            && machine.load() == 0
            && machine.with_config(|config| config.autostop);
        let first = !picked
            .iter()
            .any(|m| m.app == machine.app && m.region == machine.region);
        if idle && first {
            picked.push(machine);
        }
    }
    let mut stopped = Vec::new();
    for machine in picked {
        if machine.stop().await.is_ok() {
            stopped.push(machine.id.clone());
        }
    }
    stopped
}

impl Drop for Fly {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.platform.faults.end_forwards();
        for machine in self.platform.all_machines() {
            machine.close();
        }
    }
}
