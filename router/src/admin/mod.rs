//! The operators' window: metrics, live state and explanations, on a listener of its own.
//!
//! It runs on a thread of its own and reads what workers count: nothing that is asked here delays a request, wakes a cell or
//! connects to one. What is said is said by role; docs/monitoring/README.md says how.

pub mod access;
mod api;
mod metrics;
mod problem;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;

use self::access::Access;
use crate::account::tally::Tally;
use crate::config::Config;
use crate::live::cells::Cells;
use crate::live::drain::{Signal, Stop};
use crate::live::snapshot::Publisher;

pub use api::document;

/// What can be seen.
#[derive(Debug)]
pub struct View {
    /// The settings.
    pub config: Arc<Config>,
    /// The registry in force.
    pub publisher: Publisher,
    /// The live state of all cells.
    pub cells: Arc<Cells>,
    /// What each worker has counted, and what was counted beside them.
    pub tallies: Vec<Arc<Tally>>,
    /// Places for client connections that are free.
    pub permits: Arc<Semaphore>,
    /// When the router began to serve.
    pub began: SystemTime,
}

/// Listens at `address`.
///
/// # Errors
/// Those of the system.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves from a thread of its own until the router's end.
///
/// # Errors
/// Those of the system, where no thread can be had.
pub fn start(
    listener: TcpListener,
    view: View,
    access: Access,
    signal: Signal,
) -> io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve(listener, view, access, signal)))
}

async fn serve(listener: TcpListener, view: View, access: Access, signal: Signal) {
    let app = api::app(Arc::new(view), Arc::new(access));
    let served = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(
            listener,
            app.into_make_service_with_connect_info::<SocketAddr>(),
        )
        .await
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!(%error, "the admin listener ended");
        },
        () = signal.reached(Stop::Now) => {}
    }
}
