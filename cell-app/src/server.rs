//! Bytes: the listener, its connections, and how all of it ends.
//!
//! Ends in one way, whoever asks (a signal, or the idle clock): take what the kernel has already accepted, accept no
//! more, let everything that runs finish, up to the drain time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::middleware::from_fn_with_state;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::app::{App, routes};
use crate::config::Config;
use crate::entrance::enter;
use crate::files::Folder;
use crate::lingering::{Lingering, Unread};
use crate::live::Pushes;
use crate::store::Store;
use crate::work::Work;

/// How long a request's head may take; also how long a connection may wait for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections that the kernel holds until they are taken.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection stays open for a request that its client has sent before it could know of the end.
const ON_ITS_WAY: Duration = Duration::from_millis(200);
/// When a silent peer is probed, and how often.
const PROBE: Duration = Duration::from_secs(30);

/// Serves until a signal or the idle clock ends it.
///
/// # Errors
/// The volume, the database or the address cannot be used.
pub(crate) async fn run(config: Config) -> io::Result<()> {
    let mut signals = Signals::new()?;
    std::fs::create_dir_all(&config.data)?;
    let app = App {
        folder: Folder::open(config.data.join("files"))?,
        store: Store::open(&config.data.join("cell.sqlite3")).map_err(io::Error::other)?,
        identity: config.identity.into(),
        front_door: config.front_door.into(),
        base_path: config.base_path,
        max_upload_bytes: config.max_upload_bytes,
        pushes: Pushes::new(),
        work: Work::new(),
    };
    let work = app.work.clone();
    let listener = listen(config.listen)?;
    tracing::info!(
        address = %listener.local_addr()?,
        cell = app.identity.cell,
        machine = app.identity.machine,
        signed = !app.front_door.is_open(),
        "listening"
    );
    if let Some(beat) = config.beat {
        // Goes on until the process ends: a cell that finishes its work is awake still.
        let (cell, door) = (app.identity.cell.clone(), app.front_door.clone());
        tokio::spawn(crate::beat::beat(beat, cell, door));
    }
    // An outer router, because a layer of the inner one would run after the path is matched.
    let service = Router::new()
        .fallback_service(routes(app.clone()))
        .layer(from_fn_with_state(app, enter));

    let mut connections = JoinSet::new();
    let reason = tokio::select! {
        never = accept(&listener, &mut connections, &service, &work) => match never {},
        signal = signals.next() => signal,
        () = idle(&work, config.idle_stop) => "idle",
    };
    take_waiting(&listener, &mut connections, &service, &work);
    drop(listener);
    let running = work.running();
    work.drain();
    // Said once it is so: whoever reads it may rely on it.
    tracing::info!(reason, running, "stopping");
    let ended = async {
        while connections.join_next().await.is_some() {}
        work.ended().await;
    };
    tokio::select! {
        () = ended => tracing::info!(reason, "stopped"),
        () = tokio::time::sleep(config.drain) => {
            tracing::warn!(running = work.running(), "drain time is over: work was cut");
        }
        second = signals.next() => {
            tracing::warn!(second, running = work.running(), "told twice: work was cut");
        }
    }
    Ok(())
}

async fn idle(work: &Work, period: Option<Duration>) {
    match period {
        Some(period) => work.idle(period).await,
        None => std::future::pending().await,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Fly's proxy comes over IPv4, the private network over IPv6 (fly-platform 2).
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts for ever. Cancel safe: a connection is either in `connections` or still in the kernel.
async fn accept(
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
    service: &Router,
    work: &Work,
) -> std::convert::Infallible {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, service.clone(), work.clone()));
                }
                Err(problem) => {
                    tracing::warn!(%problem, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Takes the connections that the kernel had made before the listener closes: their clients believe to be heard.
fn take_waiting(
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
    service: &Router,
    work: &Work,
) {
    while let Ok((stream, _)) = SockRef::from(listener).accept() {
        let stream: std::net::TcpStream = stream.into();
        if let Ok(stream) = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream))
        {
            connections.spawn(serve(stream, service.clone(), work.clone()));
        }
    }
}

/// Serves one connection to its end; once the cell drains, to the end of the request that it has begun, or that was on
/// its way.
async fn serve(stream: TcpStream, service: Router, work: Work) {
    let keepalive = TcpKeepalive::new().with_time(PROBE).with_interval(PROBE);
    // Best effort: a connection without them is only slower to be seen dead.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let _ = stream.set_nodelay(true);
    let unread = Unread::default();
    let router = TowerToHyperService::new(service);
    let watched = unread.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        router.call(request.map(|body| watched.watch(body)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(Lingering::new(stream, unread)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let last = async {
        work.draining().await;
        tokio::time::sleep(ON_ITS_WAY).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = last => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(problem) = ended {
        tracing::debug!(%problem, "connection ended early");
    }
}

/// The signals that end a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal's name. Cancel safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
