//! The front door: one router before many cells, each of which is one tenant's own machine.
//!
//! A request is data that flows one way:
//! [`inbound`] (accept, HTTP) → [`service`] → [`registry`] (resolve) → [`decision`] (decide) → [`outbound`] (stream) or
//! [`respond`] (replay, answer) → [`account`]. What is known and what to do are pure values; bytes, time and locks live
//! at the edges. docs/architecture.md has the map.

pub mod account;
pub mod config;
pub mod control;
pub mod decision;
pub mod http1;
pub mod inbound;
pub mod live;
pub mod outbound;
pub mod registry;
pub mod respond;
pub mod service;
pub mod wire;

mod worker;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::control::certificates::Folder;
use crate::control::reload::{LoadError, Source};
use crate::inbound::accept;
use crate::live::cells::Cells;
use crate::live::certificates::Chooser;
use crate::live::drain::{Drain, Stop};
use crate::live::snapshot::Publisher;
use crate::outbound::machines::Machines;
use crate::outbound::wake;
use crate::worker::{Listener, Shared};

/// Why the router did not start, or stopped by itself.
#[derive(Debug)]
pub enum RunError {
    /// The registry cannot be used.
    Registry(std::path::PathBuf, LoadError),
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// There is no certificate to serve with.
    Certificates(String),
    /// The TLS library cannot be set up.
    Tls(rustls::Error),
    /// The system refused something else.
    System(&'static str, io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(file, error) => f.write_str(&error.lines(file).join("\n")),
            Self::Listen(address, error) => write!(
                f,
                "cannot listen on {address}: {error}; choose another with --listen"
            ),
            Self::Certificates(why) => write!(f, "--tls-certificates: {why}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs the router until it is told to stop: SIGTERM or SIGINT lets running work finish, a second one does not.
///
/// # Errors
/// `RunError` where it cannot start.
pub fn run(config: Config) -> Result<(), RunError> {
    let (source, snapshot) = Source::open(config.registry.clone())
        .map_err(|error| RunError::Registry(config.registry.clone(), error))?;
    let cells = snapshot.registry.len();
    let chooser = Arc::new(Chooser::default());
    let folder = config
        .tls_certificates
        .clone()
        .map(|path| certificates(path, &chooser))
        .transpose()?;
    let tls = inbound::tls::acceptor(chooser.clone()).map_err(RunError::Tls)?;
    let mut listeners: Vec<Vec<Listener>> = (0..config.workers).map(|_| Vec::new()).collect();
    let plain = config.listen.iter().map(|&address| (address, None));
    let secure = config
        .tls_listen
        .iter()
        .map(|&address| (address, Some(tls.clone())));
    for (address, tls) in plain.chain(secure) {
        let bound = accept::listen(address, config.workers)
            .map_err(|error| RunError::Listen(address, error))?;
        for (worker, socket) in listeners.iter_mut().zip(bound) {
            worker.push(Listener {
                socket,
                tls: tls.clone(),
            });
        }
    }
    let addresses: Vec<(SocketAddr, bool)> = listeners[0]
        .iter()
        .filter_map(|listener| Some((listener.socket.local_addr().ok()?, listener.tls.is_some())))
        .collect();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::System("cannot start the control thread", error))?;
    let config = Arc::new(config);
    let drain = Drain::default();
    let (waker, orders) = wake::channel();
    let shared = Shared {
        permits: Arc::new(Semaphore::new(
            config.max_connections.min(Semaphore::MAX_PERMITS),
        )),
        publisher: Publisher::new(snapshot),
        cells: Arc::new(Cells::default()),
        signal: drain.signal(),
        waker: config.machines_api.is_some().then_some(waker),
        config: Arc::clone(&config),
    };
    let workers: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(number, listeners)| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker::run(shared, listeners))
        })
        .collect::<Result<_, _>>()
        .map_err(|error| RunError::System("cannot start a worker", error))?;

    runtime.block_on(async {
        // Before anybody is told that the router is there: a signal that is not listened for ends the process.
        let signals = Signals::listen().map_err(|error| RunError::System("cannot listen for signals", error))?;
        for (address, tls) in addresses {
            tracing::info!(%address, tls, cells, workers = config.workers, place = ?config.place, "listening");
        }
        if let Some(api) = &config.machines_api {
            tokio::spawn(wake::run(orders, Machines::new(api.clone())));
        } else if matches!(config.place, config::Place::Fly(_)) {
            tracing::warn!("no CELL_ROUTER_FLY_API_TOKEN: sleeping cells are woken by replays only, not for streamed requests");
        }
        let certificates = async {
            match folder {
                Some(folder) => folder.follow(&chooser).await,
                None => std::future::pending().await,
            }
        };
        let Signals { stop, hangup } = signals;
        tokio::select! {
            () = stop_when_told(stop, &drain, config.drain) => {}
            () = certificates => {}
            never = source.follow(&shared.publisher, &shared.cells, hangup) => match never {},
        }
        Ok(())
    })?;
    for worker in workers {
        // A worker that panicked has said so; the others have finished their work all the same.
        let _ = worker.join();
    }
    tracing::info!("stopped");
    Ok(())
}

/// The signals that the router acts on.
struct Signals {
    stop: Told,
    hangup: Signal,
}

/// SIGTERM and SIGINT, which mean the same.
struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let [terminate, interrupt, hangup] = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ]
        .map(signal);
        let stop = Told {
            terminate: terminate?,
            interrupt: interrupt?,
        };
        Ok(Self {
            stop,
            hangup: hangup?,
        })
    }
}

impl Told {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for the word to stop, then for running work: until it is done, its time is over, or the word comes again.
async fn stop_when_told(mut stop: Told, drain: &Drain, patience: Duration) {
    stop.told().await;
    let running = drain.running();
    drain.advance(Stop::Draining);
    tracing::info!(running, "draining: running work may finish");
    tokio::select! {
        () = drain.finished() => {}
        () = tokio::time::sleep(patience) => tracing::warn!(cut = drain.running(), "drain time is over"),
        () = stop.told() => tracing::warn!(cut = drain.running(), "told to stop at once"),
    }
    drain.advance(Stop::Now);
}

/// Reads the folder of certificates for the first time; one that cannot be used is told of.
fn certificates(path: std::path::PathBuf, chooser: &Chooser) -> Result<Folder, RunError> {
    let mut folder = Folder::new(path);
    let (certificates, problems) = folder.read().map_err(RunError::Certificates)?;
    if certificates.names() == 0 {
        let problems = if problems.is_empty() {
            "the folder holds no NAME.pem".to_owned()
        } else {
            problems.join("\n")
        };
        return Err(RunError::Certificates(problems));
    }
    problems
        .iter()
        .for_each(|problem| tracing::error!("{problem}"));
    chooser.replace(certificates);
    Ok(folder)
}
