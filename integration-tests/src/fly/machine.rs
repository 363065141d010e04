//! Owns machines: their states, and what runs while one is started: a `cell-app` process, or a [`Guest`].
//!
//! A machine's port is its own for its whole life: a bound socket that does not listen keeps it reserved, so that a
//! stopped machine refuses connections and no other process gets the port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use super::platform::Platform;
use crate::process::{Process, lock};

/// How often a crashed process is restarted (fly-platform 3.5: `restart.max_retries`).
const MAX_RETRIES: usize = 5;

/// State of a machine (fly-platform 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as the platform names it")]
pub enum State {
    Created,
    Starting,
    Started,
    Stopping,
    Stopped,
    Suspending,
    Suspended,
    Restarting,
    Destroyed,
}

impl State {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Restarting => "restarting",
            Self::Destroyed => "destroyed",
        }
    }
}

/// What a machine is made from.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// App it belongs to.
    pub app: String,
    /// 14 hex digits; made up when `None`.
    pub id: Option<String>,
    /// Region code; the platform's own when `None`.
    pub region: Option<String>,
    /// Environment of the process, besides what the platform sets (fly-platform 4).
    pub env: BTreeMap<String, String>,
    /// Folder of the volume; a fresh one in the platform's data folder when `None`.
    pub volume: Option<PathBuf>,
    /// Program to run; the platform's `cell-app` when `None`.
    pub program: Option<(PathBuf, Vec<String>)>,
    /// Public ports of its service (fly-platform 1.8: a replay's target needs the port that the client hit).
    pub public_ports: Vec<u16>,
    /// Started by the edge on demand (fly-platform 3.3).
    pub autostart: bool,
    /// Stopped by the edge when idle (fly-platform 3.2).
    pub autostop: bool,
    /// How long a stop may take before the process is killed (fly-platform 5.1: `kill_timeout`).
    pub stop_timeout: Duration,
}

impl MachineSpec {
    /// A machine of `app` that runs the cell `cell`: ports 80 and 443, autostart, no autostop.
    pub fn cell(app: &str, cell: &str) -> Self {
        Self {
            app: app.to_owned(),
            id: None,
            region: None,
            env: BTreeMap::from([("CELL_NAME".to_owned(), cell.to_owned())]),
            volume: None,
            program: None,
            public_ports: vec![80, 443],
            autostart: true,
            autostop: false,
            stop_timeout: Duration::from_secs(5),
        }
    }

    /// With this variable in the process's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With this machine id.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// With the cell's shared secret, or two of them joined by a comma.
    pub fn secret(self, secret: &str) -> Self {
        self.env("CELL_SECRET", secret)
    }

    /// With a path prefix under which the cell finds itself.
    pub fn base_path(self, path: &str) -> Self {
        self.env("CELL_BASE_PATH", path)
    }

    /// With the idle time in seconds after which the cell stops itself.
    pub fn idle_stop_s(self, seconds: u64) -> Self {
        self.env("CELL_IDLE_STOP_S", &seconds.to_string())
    }

    /// With autostop on or off.
    pub fn autostop(mut self, on: bool) -> Self {
        self.autostop = on;
        self
    }
}

/// Why a state change was refused; the API answers with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// Switches of a machine that change after it was made.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) autostart: bool,
    pub(crate) autostop: bool,
    pub(crate) cordoned: bool,
    pub(crate) public_ports: Vec<u16>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// The config as the API got it, if it came from there.
    pub(crate) written: Option<Value>,
    pub(crate) version: u64,
    pub(crate) lease: Option<(String, Duration)>,
}

/// What runs in a machine without a process of its own. It is called within the platform's runtime.
pub trait Guest: Send + Sync {
    /// Where it listens while it runs; may be another address after each start.
    fn address(&self) -> SocketAddr;
    /// Begins to listen.
    ///
    /// # Errors
    /// The address cannot be bound.
    fn boot(&self) -> BoxFuture<'_, std::io::Result<()>>;
    /// Stops to listen and lets go of its connections.
    fn halt(&self);
    /// Freezes, or goes on: its sockets stay, and nobody answers on them.
    fn freeze(&self, frozen: bool);
}

enum Body {
    /// Someone else runs it.
    Static,
    /// A part of this process.
    Guest(Arc<dyn Guest>),
    /// A child process, present while started or suspended; `None` for good once `closed`.
    Process {
        running: Option<Process>,
        closed: bool,
    },
}

/// One machine.
pub struct Machine {
    /// App it belongs to.
    pub app: String,
    /// Its id.
    pub id: String,
    /// Region code.
    pub region: String,
    address: SocketAddr,
    _reservation: Option<Socket>,
    spec: MachineSpec,
    state: watch::Sender<State>,
    listening: watch::Sender<bool>,
    config: Mutex<Config>,
    body: Mutex<Body>,
    load: AtomicUsize,
    launches: watch::Sender<usize>,
    crashes: AtomicUsize,
}

/// Reserves a port of the loopback interface without listening on it.
pub(crate) fn reserve_port() -> std::io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket
        .local_addr()?
        .as_socket()
        .expect("an IPv4 socket has an IPv4 address");
    Ok((socket, address))
}

/// An address of the loopback interface as one of the private network, which answers with AAAA records only
/// (fly-platform 2).
fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

impl Machine {
    /// A new machine, stopped; with `address`, one that someone else runs.
    pub(crate) fn new(
        spec: MachineSpec,
        region: &str,
        address: Option<SocketAddr>,
    ) -> std::io::Result<Self> {
        let (reservation, bound, state, body) = match address {
            Some(address) => (None, address, State::Started, Body::Static),
            None => {
                let (socket, bound) = reserve_port()?;
                (
                    Some(socket),
                    bound,
                    State::Stopped,
                    Body::Process {
                        running: None,
                        closed: false,
                    },
                )
            }
        };
        Ok(Self::made(spec, region, reservation, bound, state, body))
    }

    /// A new machine in which `guest` runs, stopped.
    pub(crate) fn with_guest(spec: MachineSpec, region: &str, guest: Arc<dyn Guest>) -> Self {
        let address = guest.address();
        let body = Body::Guest(guest);
        Self::made(spec, region, None, address, State::Stopped, body)
    }

    fn made(
        spec: MachineSpec,
        region: &str,
        reservation: Option<Socket>,
        bound: SocketAddr,
        state: State,
        body: Body,
    ) -> Self {
        Self {
            app: spec.app.clone(),
            id: spec.id.clone().unwrap_or_else(super::fresh_id),
            region: spec.region.clone().unwrap_or_else(|| region.to_owned()),
            address: bound,
            _reservation: reservation,
            state: watch::Sender::new(state),
            listening: watch::Sender::new(state == State::Started),
            config: Mutex::new(Config {
                env: spec.env.clone(),
                autostart: spec.autostart,
                autostop: spec.autostop,
                cordoned: false,
                public_ports: spec.public_ports.clone(),
                metadata: BTreeMap::new(),
                written: None,
                version: 1,
                lease: None,
            }),
            spec,
            body: Mutex::new(body),
            load: AtomicUsize::new(0),
            launches: watch::Sender::new(0),
            crashes: AtomicUsize::new(0),
        }
    }

    /// Where it listens while it is started.
    pub fn address(&self) -> SocketAddr {
        match &*lock(&self.body) {
            Body::Guest(guest) => guest.address(),
            Body::Static | Body::Process { .. } => self.address,
        }
    }

    /// Its address on the private network.
    pub(crate) fn private_ip(&self) -> Ipv6Addr {
        mapped(self.address().ip())
    }

    fn guest(&self) -> Option<Arc<dyn Guest>> {
        match &*lock(&self.body) {
            Body::Guest(guest) => Some(Arc::clone(guest)),
            Body::Static | Body::Process { .. } => None,
        }
    }

    /// Its state now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Waits until it is in one of `states`. Cancel safe.
    pub async fn reached(&self, states: &[State]) -> State {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(|state| states.contains(state)).await;
        *reached.expect("the sender lives in self")
    }

    /// Waits until its process says that it listens. Cancel safe.
    pub async fn listens(&self) {
        let mut listening = self.listening.subscribe();
        // The sender lives in self.
        let _ = listening.wait_for(|listening| *listening).await;
    }

    /// How often its process was launched.
    pub fn launches(&self) -> usize {
        *self.launches.borrow()
    }

    /// Waits until its process was launched this often. Cancel safe.
    pub async fn launched(&self, times: usize) {
        let mut launches = self.launches.subscribe();
        // The sender lives in self.
        let _ = launches.wait_for(|launches| *launches >= times).await;
    }

    /// Requests and tunnels through the edge now (fly-platform 3.2: the only load that autostop sees).
    pub fn load(&self) -> usize {
        self.load.load(Ordering::SeqCst)
    }

    /// Counts one request until the guard is dropped.
    pub(crate) fn under_load(self: &Arc<Self>) -> Load {
        self.load.fetch_add(1, Ordering::SeqCst);
        Load(Arc::clone(self))
    }

    pub(crate) fn with_config<T>(&self, change: impl FnOnce(&mut Config) -> T) -> T {
        change(&mut lock(&self.config))
    }

    /// Runs `look` on the process, if one runs.
    pub fn with_process<T>(&self, look: impl FnOnce(&Process) -> T) -> Option<T> {
        match &*lock(&self.body) {
            Body::Process {
                running: Some(process),
                ..
            } => Some(look(process)),
            Body::Process { running: None, .. } | Body::Static | Body::Guest(_) => None,
        }
    }

    /// Moves from one of `from` to `to`, or says why not.
    fn pass(&self, from: &[State], to: State) -> Result<State, Refused> {
        let mut before = State::Destroyed;
        let moved = self.state.send_if_modified(|state| {
            before = *state;
            let allowed = from.contains(state);
            if allowed {
                *state = to;
            }
            allowed
        });
        let name = before.name();
        moved.then_some(before).ok_or_else(|| {
            Refused(format!(
                "machine is in state `{name}`, cannot become `{}`",
                to.name()
            ))
        })
    }

    /// Begins a start; the state is `starting` when this returns, and `started` once the process runs.
    ///
    /// # Errors
    /// It is in a state from which it cannot be started.
    pub(crate) fn start(self: &Arc<Self>, platform: &Arc<Platform>) -> Result<(), Refused> {
        let before = self.pass(
            &[State::Created, State::Stopped, State::Suspended],
            State::Starting,
        )?;
        self.crashes.store(0, Ordering::SeqCst);
        let (machine, platform) = (Arc::clone(self), Arc::clone(platform));
        platform.runtime.clone().spawn(async move {
            platform.faults.before_start(&machine.id).await;
            if platform.faults.start_fails(&machine.id) {
                machine.state.send_replace(before);
            } else if before == State::Suspended {
                machine.with_process(|process| process.signal(Signal::CONT));
                if let Some(guest) = machine.guest() {
                    guest.freeze(false);
                }
                machine.state.send_replace(State::Started);
            } else {
                platform.faults.end_stale(&machine.id).await;
                match machine.guest() {
                    Some(guest) => machine.boot(&*guest, &platform).await,
                    None => machine.launch(&platform),
                }
            }
        });
        Ok(())
    }

    async fn boot(&self, guest: &dyn Guest, platform: &Platform) {
        self.launches.send_modify(|launches| *launches += 1);
        match guest.boot().await {
            Ok(()) => {
                self.listening.send_replace(true);
                self.state.send_replace(State::Started);
            }
            Err(error) => {
                platform.violation(format!("machine {} cannot be launched: {error}", self.id));
                self.state.send_replace(State::Stopped);
            }
        }
    }

    fn launch(self: &Arc<Self>, platform: &Arc<Platform>) {
        let spawned = {
            let mut body = lock(&self.body);
            let Body::Process {
                running,
                closed: false,
            } = &mut *body
            else {
                return;
            };
            match self
                .command(platform)
                .and_then(|mut c| Process::spawn(&self.name(), &mut c, platform.echo))
            {
                Ok(process) => {
                    let seen = (process.stdout.clone(), process.watch_exit());
                    *running = Some(process);
                    seen
                }
                Err(error) => {
                    platform.violation(format!("machine {} cannot be launched: {error}", self.id));
                    self.state.send_replace(State::Stopped);
                    return;
                }
            }
        };
        self.launches.send_modify(|launches| *launches += 1);
        self.state.send_replace(State::Started);
        let (stdout, mut exit) = spawned;
        let machine = Arc::clone(self);
        let platform = Arc::clone(platform);
        platform.runtime.clone().spawn(async move {
            let announced = stdout.find(|line| line.contains("\"listening\"").then_some(()));
            let listening = &machine.listening;
            let announce = async {
                if announced.await.is_some() {
                    listening.send_replace(true);
                }
                std::future::pending::<()>().await;
            };
            let status = tokio::select! {
                status = exit.wait_for(Option::is_some) => status.ok().and_then(|status| *status),
                () = announce => None,
            };
            machine.ended(status, &platform);
        });
    }

    /// The process ended: by order, by itself, or by a crash (restart policy `on-failure`, fly-platform 3.2 and 3.5).
    fn ended(self: &Arc<Self>, status: Option<ExitStatus>, platform: &Arc<Platform>) {
        self.listening.send_replace(false);
        if let Body::Process { running, .. } = &mut *lock(&self.body) {
            *running = None;
        }
        let crashed = status.is_some_and(|status| !status.success());
        let again = crashed && self.crashes.fetch_add(1, Ordering::SeqCst) < MAX_RETRIES;
        if again && self.pass(&[State::Started], State::Restarting).is_ok() {
            self.launch(platform);
        } else if self.state() != State::Destroyed {
            self.state.send_replace(State::Stopped);
        }
    }

    fn name(&self) -> String {
        self.spec.env.get("CELL_NAME").unwrap_or(&self.id).clone()
    }

    fn command(&self, platform: &Platform) -> std::io::Result<Command> {
        let (program, arguments) = match (&self.spec.program, &platform.cell_binary) {
            (Some((program, arguments)), _) => (program.clone(), arguments.clone()),
            (None, Some(binary)) => (binary.clone(), Vec::new()),
            (None, None) => (crate::Binaries::built().cell_app.clone(), Vec::new()),
        };
        let volume = self
            .spec
            .volume
            .clone()
            .unwrap_or_else(|| platform.data.join(&self.id));
        std::fs::create_dir_all(&volume)?;
        let mut command = Command::new(program);
        // fly-platform 4: what the platform sets; a real one would listen on every address, port 8080.
        command
            .args(arguments)
            .env_clear()
            .envs(&lock(&self.config).env)
            .env("CELL_DATA", volume)
            .env("CELL_LISTEN", self.address.to_string())
            .env("FLY_APP_NAME", &self.app)
            .env("FLY_MACHINE_ID", &self.id)
            .env("FLY_ALLOC_ID", &self.id)
            .env("FLY_REGION", &self.region)
            .env("FLY_PRIVATE_IP", mapped(self.address.ip()).to_string());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        Ok(command)
    }

    /// Stops the process: SIGTERM, then SIGKILL after the stop timeout. Returns when the state is `stopped`.
    ///
    /// # Errors
    /// It is in a state from which it cannot be stopped.
    pub(crate) async fn stop(&self) -> Result<(), Refused> {
        let before = self.begin_stop()?;
        self.finish_stop(before).await;
        Ok(())
    }

    /// The first half of [`Machine::stop`]: the state becomes `stopping`.
    pub(crate) fn begin_stop(&self) -> Result<State, Refused> {
        if matches!(*lock(&self.body), Body::Static) {
            return Err(Refused("the machine is run by someone else".to_owned()));
        }
        if self.state() == State::Stopped {
            return Ok(State::Stopped);
        }
        self.pass(
            &[State::Started, State::Suspended, State::Created],
            State::Stopping,
        )
    }

    /// The second half of [`Machine::stop`].
    pub(crate) async fn finish_stop(&self, before: State) {
        if let Some(guest) = self.guest() {
            guest.halt();
            self.listening.send_replace(false);
        }
        let ended = self.with_process(|process| {
            // fly-platform 3.5: a stop throws the snapshot of a suspended machine away.
            let signal = if before == State::Suspended {
                Signal::KILL
            } else {
                Signal::TERM
            };
            process.signal(signal);
            process.watch_exit()
        });
        let Some(mut ended) = ended else {
            self.state.send_replace(State::Stopped);
            return;
        };
        if tokio::time::timeout(self.spec.stop_timeout, ended.wait_for(Option::is_some))
            .await
            .is_err()
        {
            self.with_process(|process| process.signal(Signal::KILL));
        }
        self.reached(&[State::Stopped, State::Destroyed]).await;
    }

    /// Freezes the process (fly-platform 3.4: a snapshot; open sockets stay and nobody answers on them).
    pub(crate) fn suspend(&self) -> Result<(), Refused> {
        self.pass(&[State::Started], State::Suspending)?;
        self.with_process(|process| process.signal(Signal::STOP));
        if let Some(guest) = self.guest() {
            guest.freeze(true);
        }
        self.state.send_replace(State::Suspended);
        Ok(())
    }

    /// Kills the process and forgets the machine; for good.
    pub(crate) fn destroy(&self) {
        self.state.send_replace(State::Destroyed);
        self.close();
    }

    /// Kills and reaps the process; none is started again.
    pub(crate) fn close(&self) {
        let running = match &mut *lock(&self.body) {
            Body::Process { running, closed } => {
                *closed = true;
                running.take()
            }
            Body::Guest(guest) => {
                guest.halt();
                None
            }
            Body::Static => None,
        };
        drop(running);
    }

    /// As the API shows it (fly-platform 3.5).
    pub(crate) fn to_json(&self) -> Value {
        let config = lock(&self.config);
        let ports: Vec<Value> = config
            .public_ports
            .iter()
            .map(|port| json!({ "port": port }))
            .collect();
        let written = config.written.clone().unwrap_or_else(|| {
            json!({
                "image": "cell-app",
                "env": {},
                "services": [{
                    "protocol": "tcp", "internal_port": self.address.port(), "ports": ports,
                    "autostart": config.autostart, "autostop": config.autostop,
                }],
                "restart": { "policy": "on-failure" },
                "metadata": config.metadata,
            })
        });
        json!({
            "id": self.id, "name": self.name(), "state": self.state().name(), "region": self.region,
            "instance_id": config.instance_id(),
            "private_ip": self.private_ip().to_string(),
            "config": written, "host_status": "ok",
            "events": [],
        })
    }
}

impl Config {
    /// The version of the machine; changes with each update (fly-platform 3.1).
    pub(crate) fn instance_id(&self) -> String {
        format!("01K{:023}", self.version)
    }
}

/// One request on a machine; see [`Machine::load`].
pub(crate) struct Load(Arc<Machine>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::SeqCst);
    }
}
