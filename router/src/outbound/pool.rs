//! One worker's connections to cells: idle ones of HTTP/1.1, and those of HTTP/2.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};

use super::last_word::LastWord;
use super::sharing::Sharing;
use super::socket::{Heard, Socket};
use crate::account::body::Relayed;
use crate::live::trust::Trust;
use crate::registry::{Cell, CellName, Identity, Placement};

/// The largest buffer that hyper may grow for one connection, in bytes: bodies are passed on, not gathered.
const BUFFER_BYTES: usize = 16 * 1024;

/// A connection to a cell that nobody else uses. Dropping it closes it.
pub struct Connection {
    sender: SendRequest<Relayed>,
    /// Where it leads.
    pub address: SocketAddr,
    cell: CellName,
    placement: Placement,
    trust: Option<Arc<Trust>>,
    heard: Heard,
    idle_since: Instant,
    used: bool,
    /// The cell has proven on it who it is.
    proven: bool,
    task: Option<AbortHandle>,
    home: Rc<Pool>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("cell", &self.cell)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Speaks HTTP/1.1 on a fresh socket.
    ///
    /// # Errors
    /// As hyper's handshake, which sends nothing.
    pub async fn open(
        home: Rc<Pool>,
        socket: Socket,
        address: SocketAddr,
        cell: &Cell,
        trust: Option<Arc<Trust>>,
    ) -> hyper::Result<Self> {
        let heard = socket.heard();
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .handshake(TokioIo::new(LastWord::new(socket)))
            .await?;
        let task = tokio::task::spawn_local(connection.with_upgrades());
        Ok(Self {
            sender,
            address,
            cell: cell.name.clone(),
            placement: cell.placement.clone(),
            trust,
            heard,
            idle_since: Instant::now(),
            used: false,
            proven: false,
            task: Some(task.abort_handle()),
            home,
        })
    }

    /// The way to send a request.
    pub fn sender(&mut self) -> &mut SendRequest<Relayed> {
        self.used = true;
        &mut self.sender
    }

    /// Asks a question that is no request of a client's.
    ///
    /// # Errors
    /// As hyper's.
    pub async fn ask(&mut self, request: Request<Relayed>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }

    /// Waits until it can carry a request, the cell having proven who it is.
    ///
    /// # Errors
    /// Where the cell closed it.
    pub async fn proven(mut self) -> hyper::Result<Self> {
        self.sender.ready().await?;
        self.proven = true;
        Ok(self)
    }

    /// Whether it has carried a request before: such a one may be closed by the cell at any moment.
    pub fn used(&self) -> bool {
        self.used
    }

    /// How many bytes have come over it.
    pub fn heard(&self) -> u64 {
        self.heard.bytes()
    }

    /// Keeps it for the next request, if it is fit for one.
    pub fn release(mut self) {
        self.idle_since = Instant::now();
        let home = Rc::clone(&self.home);
        if !self.sender.is_closed() {
            home.put(self);
        }
    }

    /// Leaves the socket to a tunnel.
    pub fn detach(mut self) {
        self.task = None;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Idle connections by cell.
pub struct Pool {
    idle: RefCell<HashMap<CellName, Vec<Connection>>>,
    /// Those that are shared.
    pub sharing: Rc<Sharing>,
    most: usize,
    lasts: Duration,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// Keeps up to `most` idle connections for each cell, each for `lasts`.
    pub fn new(most: usize, lasts: Duration) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::default(),
            sharing: Rc::default(),
            most,
            lasts,
        })
    }

    /// The connection that was used last, if one is fit for use: open, not idle for too long, leading to where the cell
    /// is now, and known to do so. Cancel safe.
    pub async fn take(&self, cell: &Cell, trust: Option<&Arc<Trust>>) -> Option<Connection> {
        loop {
            let mut connection = self.idle.borrow_mut().get_mut(&cell.name)?.pop()?;
            let fresh = connection.idle_since.elapsed() < self.lasts
                && connection.placement == cell.placement
                && connection.trust.as_ref() == trust
                && (connection.proven || cell.identity == Identity::None);
            if fresh && connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        match idle.get_mut(&connection.cell) {
            Some(kept) if kept.len() < self.most => kept.push(connection),
            None if self.most > 0 => {
                idle.insert(connection.cell.clone(), vec![connection]);
            }
            // Dropped once the borrow is over: closing it does not touch the pool.
            Some(_) | None => drop(connection),
        }
    }

    /// Closes what has been idle for too long or was closed by the cell.
    pub fn sweep(&self) {
        let mut idle = self.idle.borrow_mut();
        for kept in idle.values_mut() {
            kept.retain(|connection| {
                !connection.sender.is_closed() && connection.idle_since.elapsed() < self.lasts
            });
        }
        idle.retain(|_, kept| !kept.is_empty());
        drop(idle);
        self.sharing.sweep(self.lasts);
    }

    /// How long an idle connection is kept.
    pub fn lasts(&self) -> Duration {
        self.lasts
    }
}
