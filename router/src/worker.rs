//! One worker: a thread with its own runtime, listeners, connections to cells and access log.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::{Semaphore, watch};
use tokio::task::{coop, spawn_local, yield_now};
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::account::log::AccessLog;
use crate::account::output::Output;
use crate::account::sight::Questions;
use crate::account::tally::Tally;
use crate::account::trace::{Spans, Tracer};
use crate::coalesce;
use crate::config::traces::Sampling;
use crate::config::{Config, Place};
use crate::http1::tcp::Tcp;
use crate::http1::{later, pipe};
use crate::inbound::client::ClientSocket;
use crate::inbound::turn_away::turn_away;
use crate::inbound::{Terms, accept, http};
use crate::live::cells::Cells;
use crate::live::clients::Clients;
use crate::live::drain::{Signal, Stop};
use crate::live::room::Room;
use crate::live::sign_ins::SignIns;
use crate::live::snapshot::{Current, Publisher, Snapshot};
use crate::live::trust::Trust;
use crate::outbound::dial::Dialer;
use crate::outbound::pool::Pool;
use crate::outbound::sign_in::Gate;
use crate::outbound::stream::Upstream;
use crate::outbound::wake::Waker;
use crate::registry::CellName;
use crate::respond;
use crate::service::{Ids, Service};
use crate::wire::identity::Peer;

/// Refused clients that each worker lets see why, at once.
const TURNED_AWAY: usize = 128;

/// A listening socket, and whether TLS is spoken on it.
pub(crate) struct Listener {
    pub(crate) socket: std::net::TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
}

/// What all workers share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) publisher: Publisher,
    pub(crate) cells: Arc<Cells>,
    pub(crate) signal: Signal,
    pub(crate) waker: Option<Waker>,
    pub(crate) room: Room,
    pub(crate) handshakes: Arc<Semaphore>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) sign_ins: Arc<SignIns>,
    pub(crate) sign_in_trust: Arc<Trust>,
    pub(crate) log: Output,
    /// Of which requests spans go where, if any do.
    pub(crate) traces: Option<(Sampling, Spans)>,
}

/// Where a worker says whether it is ready to serve.
pub(crate) type Ready = std::sync::mpsc::Sender<Result<(), String>>;

/// What a worker is for itself.
pub(crate) struct Own {
    pub(crate) listeners: Vec<Listener>,
    /// What it counts.
    pub(crate) tally: Arc<Tally>,
    /// What operators ask it of single requests; none where there is nobody who may.
    pub(crate) questions: Option<Questions>,
}

/// Says whether it is ready, and serves from the signal's beginning to its end.
pub(crate) fn run(shared: Shared, own: Own, ready: &Ready) {
    // Who is not there any more to hear it has given up.
    let fail = |error: String| _ = ready.send(Err(error));
    pipe::share_among(shared.config.workers);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error.to_string()),
    };
    let Own {
        listeners,
        tally,
        questions,
    } = own;
    let (format, output) = (shared.config.log_format, shared.log.clone());
    let tracer = shared.traces.clone();
    let tracer = tracer.map(|(sampling, spans)| Tracer::new(sampling, spans));
    let seen = questions.is_some();
    let log = Rc::new(AccessLog::new(format, tally, output, seen, tracer));
    if let Some((questions, sight)) = questions.zip(log.sight().cloned()) {
        runtime.spawn_local(async move { sight.answer(questions).await });
    }
    let served = runtime.block_on(serve(shared, listeners, Rc::clone(&log), ready));
    runtime.block_on(coop::unconstrained(async { later::write() }));
    // Whatever still runs is over now; its records are written as it goes. What blocks a thread, to look up a name say, is
    // waited for by nobody.
    runtime.shutdown_background();
    log.flush();
    if let Err(error) = served {
        fail(error);
    }
}

/// What polls a worker's tasks, on the thread that makes it.
fn runtime() -> io::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(coalesce::wait)
        .build_local(LocalOptions::default())
}

async fn serve(
    shared: Shared,
    listeners: Vec<Listener>,
    log: Rc<AccessLog>,
    ready: &Ready,
) -> Result<(), String> {
    let Shared {
        config,
        publisher,
        cells,
        signal,
        waker,
        room,
        handshakes,
        clients,
        sign_ins,
        sign_in_trust,
        log: _,
        traces: _,
    } = shared;
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
    let room = Rc::new(room);
    let pool = Pool::new(config.pool_size, config.pool_idle);
    let upstream = Upstream {
        pool: Rc::clone(&pool),
        dialer: Dialer::new(&config)?,
        waker,
        cells: Arc::clone(&cells),
        max_held: config.max_held,
        splice_from: config.splice_from,
        signal: signal.clone(),
        changes: publisher.subscribe(),
        tally: Arc::clone(log.tally()),
    };
    let current = Current::new(publisher.subscribe());
    let service = Rc::new(Service {
        config: Arc::clone(&config),
        current,
        cells,
        upstream,
        gate: Gate::new(sign_ins, &sign_in_trust),
        log: Rc::clone(&log),
        ids: Ids::default(),
    });
    spawn_local(sweep(pool, Rc::clone(&log), publisher.subscribe()));
    spawn_local(async move { log.run().await });
    spawn_local(later::run());
    let accepting = listeners.into_iter().map(|Listener { socket, tls }| {
        let socket =
            tokio::net::TcpListener::from_std(socket).map_err(|error| error.to_string())?;
        let speaks_tls = tls.is_some();
        let (config_of_all, places) = (Arc::clone(&config), Rc::clone(&room));
        let (clients, turned_away) = (Arc::clone(&clients), Arc::clone(&turned_away));
        let admit = move |socket, address: SocketAddr| {
            let ip = address.ip().to_canonical();
            let trusted = config_of_all.trusts(ip);
            let peer = Peer {
                ip,
                trusted,
                edge: trusted && config_of_all.place != Place::Elsewhere,
                tls: speaks_tls,
            };
            if trusted {
                return Some((socket, peer, None));
            }
            if let Some(connected) = clients.enter(ip) {
                return Some((socket, peer, Some(connected)));
            }
            if let Some(refused) = clients.refuse() {
                tracing::warn!(client = %ip, refused, "too many connections of one client: refused");
            }
            let words = if speaks_tls { b"" } else { respond::TOO_MANY_CONNECTIONS };
            // Beyond so many at once, and where there is no place, they are just closed.
            if let Ok(turn) = Arc::clone(&turned_away).try_acquire_owned()
                && let Some(place) = places.free_place()
            {
                spawn_local(async move {
                    let _places = (turn, place);
                    turn_away(socket, words).await;
                });
            }
            None
        };
        let (service, config, stop) = (Rc::clone(&service), Arc::clone(&config), signal.clone());
        let (handshakes, places) = (Arc::clone(&handshakes), Rc::clone(&room));
        let serve = move |(socket, peer, connected), place| {
            let (service, config, signal) =
                (Rc::clone(&service), Arc::clone(&config), stop.clone());
            let (running, tls) = (signal.enter(), tls.clone());
            let handshakes = Arc::clone(&handshakes);
            let room = Rc::clone(&places);
            let socket = Tcp::far(socket);
            let socket = ClientSocket::new(socket, config.client_stall, (place, connected));
            spawn_local(async move {
                let terms = Terms {
                    config: &config,
                    signal: &signal,
                    room: &room,
                };
                let refuse = |fault, version| service.refuse(fault, version, peer);
                let handle = |request| Rc::clone(&service).handle(request, peer);
                match tls {
                    None => http::serve(socket, terms, handle, refuse).await,
                    // A handshake that fails or takes too long is the client's affair.
                    Some(tls) => {
                        Box::pin(async {
                            let handshake = async {
                                // Who has not said hello yet costs nobody a turn.
                                let hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
                                let hello = hello.await?;
                                // The semaphore is never closed.
                                let _turn = handshakes.acquire().await;
                                hello.into_stream(Arc::clone(tls.config())).await
                            };
                            if let Ok(Ok(socket)) =
                                timeout(config.tls_handshake_timeout, handshake).await
                            {
                                http::serve(socket, terms, handle, refuse).await;
                            }
                        })
                        .await
                    }
                }
                drop(running);
            });
        };
        let (room, stop) = (Rc::clone(&room), signal.clone());
        let accepting = stop.accept();
        Ok(spawn_local(async move {
            stop.reached(Stop::Running).await;
            accept::accept(socket, &room, stop.reached(Stop::Draining), admit, serve).await;
            drop(accepting);
        }))
    });
    let _accepting = accepting.collect::<Result<Vec<_>, String>>()?;
    let _ = ready.send(Ok(()));
    signal.reached(Stop::Now).await;
    Ok(())
}

async fn sweep(pool: Rc<Pool>, log: Rc<AccessLog>, registry: watch::Receiver<Arc<Snapshot>>) {
    let mut ticks = tokio::time::interval(pool.lasts().max(Duration::from_secs(1)));
    loop {
        ticks.tick().await;
        in_turns(|from| pool.sweep(from)).await;
        let snapshot = Arc::clone(&registry.borrow());
        let is_there = |name: &CellName| snapshot.registry.cell(name.as_str()).is_some();
        in_turns(|from| log.tally().retain(from, is_there)).await;
        if let Some(sight) = log.sight() {
            in_turns(|from| sight.retain(from, is_there)).await;
        }
    }
}

/// Has `look` look at some things from each place on that it names, with requests in between.
async fn in_turns(mut look: impl FnMut(usize) -> Option<usize>) {
    let mut place = Some(0);
    while let Some(from) = place {
        place = look(from);
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_worker_that_waits_first_lets_large_bodies_come() {
        let runtime = runtime().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.write_all(b"a").unwrap();
        coalesce::moved(1);
        runtime.block_on(async {
            // That it is readable is heard of by waiting for events only.
            let near = tokio::net::UnixStream::from_std(near).unwrap();
            near.readable().await.unwrap();
        });
        assert_eq!(coalesce::take_moved(), 0);
    }
}
