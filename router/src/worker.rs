//! One worker: a thread with its own runtime, listeners, connections to cells and access log.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use crate::account::log::AccessLog;
use crate::config::Config;
use crate::inbound::{accept, http};
use crate::live::cells::Cells;
use crate::live::drain::{Signal, Stop};
use crate::live::snapshot::{Current, Publisher};
use crate::outbound::dial::Dialer;
use crate::outbound::pool::Pool;
use crate::outbound::stream::Upstream;
use crate::outbound::wake::Waker;
use crate::service::{Ids, Service};
use crate::wire::identity::Peer;

/// What is read on of a body that the cell did not want, and for how long: enough for a client to see the answer before
/// it sees its connection close.
const LEFTOVER_BYTES: usize = 16 * 1024 * 1024;
const LEFTOVER_TIME: Duration = Duration::from_secs(5);

/// What all workers share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) publisher: Publisher,
    pub(crate) cells: Arc<Cells>,
    pub(crate) signal: Signal,
    pub(crate) waker: Option<Waker>,
    pub(crate) permits: Arc<Semaphore>,
}

/// Serves until the stop signal's end.
pub(crate) fn run(shared: Shared, listeners: Vec<std::net::TcpListener>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "cannot start a worker"),
    };
    let log = Rc::new(AccessLog::new(shared.config.log_format));
    let local = LocalSet::new();
    let served = local.block_on(&runtime, serve(shared, listeners, Rc::clone(&log)));
    // Whatever still runs is over now; its records are written as it goes.
    drop(local);
    log.flush();
    if let Err(error) = served {
        tracing::error!(%error, "worker");
    }
}

async fn serve(
    shared: Shared,
    listeners: Vec<std::net::TcpListener>,
    log: Rc<AccessLog>,
) -> Result<(), String> {
    let Shared {
        config,
        publisher,
        cells,
        signal,
        waker,
        permits,
    } = shared;
    let pool = Pool::new(config.pool_size, config.pool_idle);
    let (leftovers, unread) = mpsc::unbounded_channel();
    let upstream = Upstream {
        pool: Rc::clone(&pool),
        dialer: Dialer::new(&config)?,
        waker,
        cells: Arc::clone(&cells),
        max_held: config.max_held,
        leftovers,
        signal: signal.clone(),
    };
    let current = Current::new(publisher.subscribe());
    let service = Rc::new(Service {
        config: Arc::clone(&config),
        current,
        cells,
        upstream,
        log: Rc::clone(&log),
        ids: Ids::default(),
    });
    spawn_local(read_leftovers(unread));
    spawn_local(async move { log.run().await });
    spawn_local(sweep(pool));
    spawn_local({
        let service = Rc::clone(&service);
        async move { service.current.follow().await }
    });
    let mut accepting = Vec::new();
    for listener in listeners {
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
        let (service, config, signal) = (Rc::clone(&service), Arc::clone(&config), signal.clone());
        let accepts = accept::accept(
            listener,
            Arc::clone(&permits),
            move |socket, address, permit| {
                let (service, config, signal) =
                    (Rc::clone(&service), Arc::clone(&config), signal.clone());
                let ip = address.ip().to_canonical();
                let peer = Peer {
                    ip,
                    trusted: config.trusts(ip),
                    tls: false,
                };
                let running = signal.enter();
                spawn_local(async move {
                    let handle = move |request| {
                        let service = Rc::clone(&service);
                        async move { service.handle(request, peer).await }
                    };
                    http::serve(socket, &config, &signal, handle).await;
                    drop((running, permit));
                });
            },
        );
        accepting.push(spawn_local(accepts));
    }
    signal.reached(Stop::Draining).await;
    // Closes the listeners: the kernel refuses what comes from here on.
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    signal.reached(Stop::Now).await;
    Ok(())
}

async fn sweep(pool: Rc<Pool>) {
    let mut ticks = tokio::time::interval(pool.lasts().max(Duration::from_secs(1)));
    loop {
        ticks.tick().await;
        pool.sweep();
    }
}

/// Reads on what cells did not want, within bounds, so that their answers arrive.
async fn read_leftovers(mut unread: mpsc::UnboundedReceiver<Incoming>) {
    while let Some(mut body) = unread.recv().await {
        spawn_local(async move {
            let mut left = LEFTOVER_BYTES;
            let reading = async {
                while let Some(Ok(frame)) = body.frame().await {
                    left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
                    if left == 0 {
                        break;
                    }
                }
            };
            // What is not read in time is not read: the connection closes.
            let _ = timeout(LEFTOVER_TIME, reading).await;
        });
    }
}
