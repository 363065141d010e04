//! The front door: one router before many cells, each of which is one tenant's own machine.
//!
//! A request is data that flows one way:
//! [`inbound`] (accept, HTTP) → [`service`] → [`registry`] (resolve) → [`decision`] (decide) → [`outbound`] (stream) or
//! [`respond`] (replay, answer) → [`account`]. What is known and what to do are pure values; bytes, time and locks live
//! at the edges. docs/architecture.md has the map.

pub mod account;
pub mod admin;
pub mod coalesce;
pub mod config;
pub mod control;
pub mod decision;
pub mod http1;
pub mod http2;
pub mod inbound;
pub mod live;
pub mod outbound;
pub mod registry;
pub mod respond;
pub mod service;
pub mod steps;
pub mod wire;

mod worker;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::account::output::{LAST_LINES, Output};
use crate::account::sight::{self, Questions};
use crate::account::tally::Tally;
use crate::account::trace::Spans;
use crate::admin::View;
use crate::admin::access::Access;
use crate::config::Config;
use crate::config::traces::{Sampling, Traces};
use crate::control::certificates::Folder;
use crate::control::load::LoadError;
use crate::control::reload::Source;
use crate::control::stop::{self, Signals};
use crate::control::store::Store;
use crate::inbound::accept;
use crate::inbound::takeover::{Offer, Taken, TakeoverError, take};
use crate::live::beats::Beats;
use crate::live::cells::Cells;
use crate::live::certificates::Chooser;
use crate::live::clients::Clients;
use crate::live::drain::{Drain, Stop};
use crate::live::room::Room;
use crate::live::sign_ins::SignIns;
use crate::live::snapshot::Publisher;
use crate::live::trust::Trust;
use crate::outbound::absence::Absence;
use crate::outbound::machines::Machines;
use crate::outbound::traces::{Exporter, Exporting};
use crate::outbound::wake;
use crate::outbound::webhook::{Notices, Receiver, Webhook};
use crate::worker::{Listener, Own, Shared};

/// Descriptors that are for no request: listeners, runtimes, files, the API, operators.
const DESCRIPTORS_OF_OWN: u64 = 128;

/// How long the end waits for what the control thread reads and writes.
const LAST_READS: Duration = Duration::from_secs(1);

/// Why the router did not start, or stopped by itself.
#[derive(Debug)]
pub enum RunError {
    /// The registry cannot be used.
    Registry(PathBuf, LoadError),
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The listening sockets cannot be taken over, or not be offered.
    Takeover(PathBuf, TakeoverError),
    /// Every request would be redirected for ever: nothing here is https.
    HttpsRedirect,
    /// There is no certificate to serve with.
    Certificates(String),
    /// The TLS library cannot be set up.
    Tls(rustls::Error),
    /// The authorities of sign-in servers cannot be had.
    SignInCa(String),
    /// The admin listener cannot be opened to those who may use it.
    Admin(String),
    /// Beats cannot be taken, or their absence not be told.
    Beats(String),
    /// Traces cannot be exported.
    Traces(String),
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
            Self::Takeover(path, error) => write!(f, "--takeover {}: {error}", path.display()),
            Self::HttpsRedirect => f.write_str(
                "--https-redirect: no client could ever come by https; give --tls-listen, or name the proxy that \
                 speaks TLS with --trusted-proxies",
            ),
            Self::Certificates(why) => write!(f, "--tls-certificates: {why}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::SignInCa(why) | Self::Admin(why) | Self::Beats(why) | Self::Traces(why) => {
                f.write_str(why)
            }
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs the router until it is told to stop: SIGTERM or SIGINT lets running work finish, a second one does not. It stops,
/// too, when another router has taken its listening sockets over.
///
/// # Errors
/// `RunError` where it cannot start; then nothing was taken from a router that it was to replace.
pub fn run(mut config: Config) -> Result<(), RunError> {
    let descriptors = take_descriptors();
    let connections = affordable(config.max_connections, descriptors);
    if connections < config.max_connections {
        let configured = config.max_connections;
        tracing::warn!(
            connections,
            configured,
            descriptors,
            "fewer connections are taken than --max-connections says: the system lets the router have too few descriptors (ulimit -n)"
        );
        config.max_connections = connections;
    }
    let (source, snapshot) = Source::open(
        config.registry.clone(),
        config.registry_copy.clone(),
        config.max_unplug_percent,
    )
    .map_err(|error| RunError::Registry(config.registry.clone(), error))?;
    if config.https_redirect.is_some() && config.tls_listen.is_empty() && config.trusted.is_empty()
    {
        return Err(RunError::HttpsRedirect);
    }
    let cells = snapshot.registry.len();
    let chooser = Arc::new(Chooser::default());
    let folder = config
        .tls_certificates
        .clone()
        .map(|path| certificates(path, &chooser))
        .transpose()?;
    let tls = inbound::tls::acceptor(chooser.clone()).map_err(RunError::Tls)?;
    let runtime = control::runtime::runtime()
        .map_err(|error| RunError::System("cannot start the control thread", error))?;
    let mut taken = match &config.takeover {
        Some(path) => take(path).map_err(|error| RunError::Takeover(path.clone(), error))?,
        None => Taken::default(),
    };
    let Listening {
        sockets,
        workers: listeners,
        addresses,
    } = listen(&config, &tls, &mut taken)?;

    let admin = admin(&config)?;
    let beats: Arc<Beats> = Arc::default();
    let desk = beats_desk(&config, &beats)?;

    let exporting = exporting(&config)?;
    let config = Arc::new(config);
    let drain = Drain::default();
    let log = stdout().and_then(|stdout| {
        Output::to(stdout, |lines| {
            tracing::warn!(
                lines,
                "access log: dropped, for whoever reads it is too slow, or cannot take it"
            );
        })
    });
    let log = log.map_err(|error| RunError::System("cannot start the log's thread", error))?;
    let (waker, orders) = wake::channel();
    let shared = Shared {
        room: Room::new(config.max_connections, config.workers),
        handshakes: Arc::new(Semaphore::new(
            config.max_tls_handshakes.min(Semaphore::MAX_PERMITS),
        )),
        clients: Arc::new(Clients::new(config.max_connections_per_client)),
        sign_ins: Arc::new(sign_ins(&config)?),
        sign_in_trust: Arc::new(
            trust("--sign-in-ca", config.sign_in_ca.as_deref()).map_err(RunError::SignInCa)?,
        ),
        publisher: Publisher::new(snapshot),
        cells: Arc::new(Cells::default()),
        signal: drain.signal(),
        log: log.clone(),
        traces: exporting
            .as_ref()
            .map(|(sampling, exporting)| (*sampling, exporting.spans.clone())),
        waker: config.machines_api.is_some().then_some(waker),
        config: Arc::clone(&config),
    };
    let tallies: Vec<Arc<Tally>> = (0..config.workers).map(|_| Arc::default()).collect();
    let (askers, questions): (Vec<_>, Vec<_>) = tallies
        .iter()
        .filter(|_| admin.is_some())
        .map(|_| sight::channel())
        .unzip();
    let own = own(listeners, &tallies, questions);
    let workers = start(own, &shared)?;
    let wakes: Arc<Tally> = Arc::default();
    if let Some((listener, access)) = admin {
        let address = listener.local_addr().ok();
        let view = View {
            config: Arc::clone(&config),
            publisher: shared.publisher.clone(),
            cells: Arc::clone(&shared.cells),
            tallies: tallies.into_iter().chain([Arc::clone(&wakes)]).collect(),
            workers: askers,
            room: shared.room.clone(),
            log: log.clone(),
            spans: shared.traces.as_ref().map(|(_, spans)| spans.clone()),
            store: Store::new(&config.registry),
            waker: shared.waker.clone(),
            beats: Arc::clone(&beats),
            began: SystemTime::now(),
        };
        admin::start(listener, view, access, drain.signal())
            .map_err(|error| RunError::System("cannot start the admin thread", error))?;
        tracing::info!(
            address = address.map(tracing::field::display),
            "admin listener open"
        );
    }
    if let Some((listener, webhook)) = desk {
        let address = listener.local_addr().ok();
        let (webhook, notices) = webhook.unzip();
        let absence = Absence {
            publisher: shared.publisher.clone(),
            cells: Arc::clone(&shared.cells),
            beats,
            waker: shared.waker.clone(),
            notices,
        };
        admin::beats::start(listener, absence, webhook, drain.signal())
            .map_err(|error| RunError::System("cannot start the thread for beats", error))?;
        tracing::info!(
            address = address.map(tracing::field::display),
            "listener for beats open"
        );
    }

    let (mut told, left) = runtime.block_on(async {
        // Before anybody is told that the router is there: a signal that is not listened for ends the process.
        let signals = Signals::listen().map_err(|error| RunError::System("cannot listen for signals", error))?;
        let offer = match config.takeover.clone() {
            Some(path) => Some(Offer::open(path.clone(), sockets).map_err(|error| RunError::Takeover(path, error))?),
            None => None,
        };
        drain.advance(Stop::Running);
        taken.serves();
        for (address, tls) in addresses {
            tracing::info!(%address, tls, cells, workers = config.workers, place = ?config.place, "listening");
        }
        if let Some(api) = &config.machines_api {
            tokio::spawn(wake::run(orders, Machines::new(api.clone()), wakes));
        } else if matches!(config.place, config::Place::Fly(_)) {
            tracing::warn!("no CELL_ROUTER_FLY_API_TOKEN: sleeping cells are woken by replays only, not for streamed requests");
        }
        let certificates = async {
            match folder {
                Some(folder) => folder.follow(&chooser).await,
                None => std::future::pending().await,
            }
        };
        let taken_over = async {
            match offer {
                Some(offer) => offer.taken().await,
                None => std::future::pending().await,
            }
        };
        let Signals { mut stop, hangup } = signals;
        let left = tokio::select! {
            left = stop::when_told(&mut stop, taken_over, &drain, config.drain) => left,
            () = certificates => Duration::ZERO,
            never = source.follow(&shared.publisher, &shared.cells, hangup) => match never {},
        };
        Ok((stop, left))
    })?;
    for worker in workers {
        // A worker that panicked has said so; the others have finished their work all the same.
        let _ = worker.join();
    }
    if let Some((_, exporting)) = exporting {
        runtime.block_on(exporting.finish(left, told.told()));
    }
    // What it reads and writes now is done in a moment, or hangs.
    runtime.shutdown_timeout(LAST_READS);
    log.finish(LAST_LINES);
    tracing::info!("stopped");
    Ok(())
}

/// Standard output, without what the standard library keeps back of it: whether a line is written is to be known.
fn stdout() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

/// The checks of passwords, with a key that nobody knows.
fn sign_ins(config: &Config) -> Result<SignIns, RunError> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| {
        let none = io::Error::other("the system has none");
        RunError::System("cannot draw random bytes", none)
    })?;
    Ok(SignIns::new(config.max_password_checks, &key))
}

/// How the certificates of servers that are no cells are judged: by the file that `flag` gives, or by public authorities.
fn trust(flag: &str, file: Option<&Path>) -> Result<Trust, String> {
    let Some(file) = file else {
        return Trust::public().map_err(|why| format!("{flag}: {why}"));
    };
    let wrong = |why| format!("{flag} {}: {why}", file.display());
    let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    Trust::authorities(&pem).map_err(wrong)
}

/// Begins to export traces, if they are to be.
fn exporting(config: &Config) -> Result<Option<(Sampling, Exporting)>, RunError> {
    let traces = Traces::read(&config.traces, |name| std::env::var(name).ok());
    let Some(traces) = traces.map_err(RunError::Traces)? else {
        return Ok(None);
    };
    for ignored in &traces.ignored {
        tracing::warn!("traces: {ignored}");
    }
    let trust = trust("--otlp-ca", traces.ca.as_deref()).map_err(RunError::Traces)?;
    let exporter = Exporter::new(&traces, &trust, &config.pseudonym).map_err(RunError::Traces)?;
    let exporting = exporter
        .start(Spans::new(traces.queue))
        .map_err(|error| RunError::System("cannot start the thread for traces", error))?;
    // The rest of the URL may hold a key.
    let to = traces.url.authority().map(tracing::field::display);
    tracing::info!(to, sampling = ?traces.sampling, "traces are exported");
    Ok(Some((traces.sampling, exporting)))
}

/// Where beats are taken, and how their absence is told.
type BeatsDesk = (TcpListener, Option<(Webhook, Notices)>);

/// Opens the listener for beats, if there is to be one.
fn beats_desk(config: &Config, beats: &Arc<Beats>) -> Result<Option<BeatsDesk>, RunError> {
    let Some(address) = config.beat_listen else {
        return Ok(None);
    };
    let webhook = match &config.webhook {
        None => None,
        Some((url, secret)) => {
            let receiver = Receiver::read(url, secret).map_err(RunError::Beats)?;
            let trust = trust("--webhook-ca", config.webhook_ca.as_deref());
            let trust = trust.map_err(RunError::Beats)?;
            let router = config.pseudonym.clone();
            Some(Webhook::new(receiver, &trust, router, Arc::clone(beats)))
        }
    };
    let listener = accept::listen_once(address, config.takeover.is_some());
    let listener =
        listener.map_err(|error| RunError::Beats(format!("--beat-listen {address}: {error}")))?;
    Ok(Some((listener, webhook)))
}

/// Opens the admin listener, if there is to be one, for those who have a token.
fn admin(config: &Config) -> Result<Option<(TcpListener, Access)>, RunError> {
    let Some(address) = config.admin_listen else {
        return Ok(None);
    };
    if config.admin_tokens.is_none() && !address.ip().is_loopback() {
        let why = format!(
            "--admin-listen {address}: others can reach this address; give --admin-tokens, or listen on loopback"
        );
        return Err(RunError::Admin(why));
    }
    let access = Access::new(config.admin_tokens.clone())
        .map_err(|why| RunError::Admin(format!("--admin-tokens {why}")))?;
    let listener = accept::listen_once(address, config.takeover.is_some())
        .map_err(|error| RunError::Admin(format!("--admin-listen {address}: {error}")))?;
    Ok(Some((listener, access)))
}

/// What is listened on.
struct Listening {
    /// Each socket once, to be handed over; none where nobody may ask for them.
    sockets: Vec<TcpListener>,
    /// For each worker.
    workers: Vec<Vec<Listener>>,
    /// Each address, and whether TLS is spoken there.
    addresses: Vec<(SocketAddr, bool)>,
}

/// Listens on every address: by the sockets that were taken for it, or by new ones. Taken ones for other addresses are let
/// go; the old router serves what has come to them.
fn listen(config: &Config, tls: &TlsAcceptor, taken: &mut Taken) -> Result<Listening, RunError> {
    let mut listening = Listening {
        sockets: Vec::new(),
        workers: (0..config.workers).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
    };
    let plain = config.listen.iter().map(|&address| (address, None));
    let secure = config
        .tls_listen
        .iter()
        .map(|&address| (address, Some(tls)));
    for (address, tls) in plain.chain(secure) {
        let fail = |error| RunError::Listen(address, error);
        let mut sockets: Vec<_> = taken
            .sockets
            .extract_if(.., |socket| {
                socket.local_addr().is_ok_and(|taken| taken == address)
            })
            .collect();
        if sockets.is_empty() {
            sockets =
                accept::listen(address, config.workers, config.takeover.is_some()).map_err(fail)?;
        }
        let dealt = accept::deal(&sockets, config.workers).map_err(fail)?;
        for (worker, sockets) in listening.workers.iter_mut().zip(dealt) {
            worker.extend(sockets.into_iter().map(|socket| Listener {
                socket,
                tls: tls.cloned(),
            }));
        }
        let bound = sockets.first().and_then(|socket| socket.local_addr().ok());
        listening
            .addresses
            .push((bound.unwrap_or(address), tls.is_some()));
        if config.takeover.is_some() {
            listening.sockets.extend(sockets);
        }
    }
    taken.sockets.clear();
    Ok(listening)
}

/// What each worker is for itself; without questions, nobody may ask.
fn own(
    listeners: Vec<Vec<Listener>>,
    tallies: &[Arc<Tally>],
    questions: Vec<Questions>,
) -> Vec<Own> {
    let mut questions = questions.into_iter();
    let each = listeners.into_iter().zip(tallies);
    each.map(|(listeners, tally)| Own {
        listeners,
        tally: Arc::clone(tally),
        questions: questions.next(),
    })
    .collect()
}

/// Takes as many descriptors as the system lets a process have. Few systems give more than 1,024 to one that does not ask,
/// for the sake of programs that use select(2); here two stand for each request. How many there are, if that has an end.
fn take_descriptors() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where this is refused, there are as many as before.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

/// How many of so many connections of clients can be taken: each leaves a descriptor for one to a cell, and all of them some
/// for files, the API and the rest. A client that finds none waits; a request that finds none is lost.
fn affordable(connections: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else {
        return connections;
    };
    let rest = DESCRIPTORS_OF_OWN.min(descriptors / 4);
    let most = usize::try_from((descriptors - rest) / 2).unwrap_or(usize::MAX);
    connections.min(most.max(1))
}

/// Starts the workers and waits until all are ready to serve.
fn start(own: Vec<Own>, shared: &Shared) -> Result<Vec<JoinHandle<()>>, RunError> {
    let (ready, told) = std::sync::mpsc::channel();
    let workers = own.into_iter().enumerate().map(|(number, own)| {
        let (mut shared, ready) = (shared.clone(), ready.clone());
        shared.room = shared.room.of(number);
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || worker::run(shared, own, &ready))
    });
    let workers = workers
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| RunError::System("cannot start a worker", error))?;
    for _ in &workers {
        let ready = told.recv().unwrap_or_else(|_| Err("it ended".to_owned()));
        ready
            .map_err(|error| RunError::System("cannot start a worker", io::Error::other(error)))?;
    }
    Ok(workers)
}

/// Reads the folder of certificates for the first time; one that cannot be used is told of.
fn certificates(path: PathBuf, chooser: &Chooser) -> Result<Folder, RunError> {
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

#[cfg(test)]
mod tests {
    use super::affordable;

    #[test]
    fn every_connection_leaves_a_descriptor_for_one_to_a_cell() {
        for (connections, descriptors, taken) in [
            (50_000, None, 50_000),
            (50_000, Some(1 << 20), 50_000),
            (50_000, Some(100_128), 50_000),
            (50_000, Some(100_126), 49_999),
            (50_000, Some(1024), 448),
            (50_000, Some(64), 24),
            (50_000, Some(1), 1),
            (10, Some(1024), 10),
        ] {
            let affordable = affordable(connections, descriptors);
            assert_eq!(affordable, taken, "{connections} of {descriptors:?}");
        }
    }
}
