//! The operators' door: metrics, live state, edits of the registry and operations on cells, on a listener of its own.
//!
//! It runs on a thread of its own, reads what workers count and asks them what they see: nothing that is asked here connects to a cell or holds up a
//! request, but for a wake that may find two looks at machines before it, and only the operation of that name wakes one. Who may do what is said by role; docs/admin.md has the table.

pub mod access;
mod api;
mod asking;
pub mod beats;
mod cells;
mod document;
mod editing;
pub mod edits;
mod entry;
mod events;
mod metrics;
mod page;
pub mod problem;
mod questions;
mod reading_on;
mod registry;
mod requests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use self::access::Access;
use self::events::Feed;
use crate::account::output::Output;
use crate::account::sight::Asker;
use crate::account::tally::Tally;
use crate::account::trace::Spans;
use crate::config::Config;
use crate::control::store::Store;
use crate::live::beats::Beats;
use crate::live::cells::Cells;
use crate::live::drain::{Signal, Stop};
use crate::live::room::Room;
use crate::live::snapshot::Publisher;
use crate::outbound::wake::Waker;

pub use document::document;

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
    /// Where each worker is asked for what can be seen of single requests.
    pub workers: Vec<Asker>,
    /// Places for client connections.
    pub room: Room,
    /// Where access-log lines go.
    pub log: Output,
    /// Where spans of traces go, if they are exported.
    pub spans: Option<Spans>,
    /// The registry as it is kept.
    pub store: Store,
    /// The way to wake cells and to put them to sleep, where there is one.
    pub waker: Option<Waker>,
    /// What is heard of cells that beat.
    pub beats: Arc<Beats>,
    /// When the router began to serve.
    pub began: SystemTime,
}

/// Serves from a thread of its own until the router's end, or until another router may have taken its place: operators
/// speak to that one then.
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
    let view = Arc::new(view);
    let feed = Arc::new(Feed::new(&view));
    let app = api::app(Arc::clone(&view), Arc::new(access), Arc::clone(&feed));
    let replaced = signal.clone();
    let replaced = async move { replaced.reached(Stop::Draining).await };
    let may_be_replaced = view.config.takeover.is_some();
    let served = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, app);
        match may_be_replaced {
            true => serving.with_graceful_shutdown(replaced).await,
            false => serving.await,
        }
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!(%error, "the admin listener ended");
        },
        never = events::follow(view, feed) => match never {},
        () = signal.reached(Stop::Now) => {}
    }
}
