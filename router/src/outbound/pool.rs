//! One worker's connections to cells: idle ones of HTTP/1.1, and those of HTTP/2.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use foldhash::fast::RandomState;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use indexmap::IndexMap;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Duration, Instant, Sleep};

use super::channel::{ChannelError, Failed, Message};
use super::sharing::Sharing;
use super::socket::{Heard, Socket};
use crate::account::body::{Incoming, Relayed};
use crate::http1::Switched;
use crate::http1::buffered::Buffered;
use crate::http1::exchange::{Exchange, ExchangeError, is_interim};
use crate::http1::head::Framing;
use crate::live::trust::Trust;
use crate::registry::{Cell, CellName, Identity, Placement};
use crate::steps::AT_ONCE;

/// A connection to a cell that nobody else uses. Dropping it closes it.
pub struct Connection {
    io: Io,
    /// Where it leads.
    pub address: SocketAddr,
    cell: CellName,
    placement: Placement,
    trust: Option<Arc<Trust>>,
    heard: Heard,
    idle_since: Instant,
    /// Of whoever waits for its answers.
    pub timer: Option<Pin<Box<Sleep>>>,
    used: bool,
    /// The cell has proven on it who it is.
    proven: bool,
    home: Rc<Pool>,
}

/// What a connection is doing.
#[expect(
    clippy::large_enum_variant,
    reason = "it is in a box already, and becomes the one and the other with each request"
)]
enum Io {
    Idle(Buffered),
    /// It carries a request; the rest of its body is sent by a task of its own.
    Busy(Exchange<Relayed>, Option<AbortOnDrop>),
}

/// A task that ends with its owner.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
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
    pub fn open(
        home: Rc<Pool>,
        socket: Socket,
        address: SocketAddr,
        cell: &Cell,
        trust: Option<Arc<Trust>>,
    ) -> Box<Self> {
        Box::new(Self {
            heard: socket.heard(),
            io: Io::Idle(Buffered::new(Box::new(socket), BytesMut::new())),
            address,
            cell: cell.name.clone(),
            placement: cell.placement.clone(),
            trust,
            idle_since: Instant::now(),
            timer: None,
            used: false,
            proven: false,
            home,
        })
    }

    /// Sends a request, and returns its final answer, whose body is read as it is asked. `herald` gets those that come
    /// before it. Cancelling leaves a connection behind that is fit for nothing.
    ///
    /// # Errors
    /// `Failed`.
    pub async fn send(
        &mut self,
        message: &mut Message<'_>,
        mut herald: impl FnMut(StatusCode, HeaderMap),
    ) -> Result<Response<Incoming>, Failed> {
        let Message {
            head,
            lines,
            as_is,
            body,
        } = message;
        let framing = body
            .as_ref()
            .map_or(Framing::None, |body| frame(head, body));
        let sent = match framing {
            Framing::None => None,
            Framing::Length(_) | Framing::Chunked | Framing::ToEnd => body.take(),
        };
        let fresh = !std::mem::replace(&mut self.used, true);
        let io = match &mut self.io {
            Io::Idle(io) => io.take(),
            Io::Busy(..) => Buffered::gone(),
        };
        let exchange = Exchange::begin(io, fresh, head, lines.as_bytes(), framing, sent);
        if *as_is {
            exchange.leave_lines();
        }
        self.io = Io::Busy(exchange.clone(), None);
        let answer = loop {
            match exchange.head().await {
                Ok(answer) if is_interim(answer.status) => herald(answer.status, answer.headers),
                Ok(answer) => break answer,
                Err(error) => {
                    let untouched = matches!(error, ExchangeError::Unsent(_));
                    if untouched && body.is_none() {
                        *body = exchange.take_body();
                    }
                    return Err(Failed {
                        error: ChannelError::Http1(error),
                        unsent: untouched && body.is_some(),
                    });
                }
            }
        };
        if answer.status.is_redirection()
            || answer.status.is_client_error()
            || answer.status.is_server_error()
        {
            // A cell that has refused an upload is sent no more of it.
            exchange.stop();
        }
        if !exchange.is_sent() {
            let sending = exchange.clone();
            let task = spawn_local(async move { sending.send().await });
            self.io = Io::Busy(exchange.clone(), Some(AbortOnDrop(task.abort_handle())));
        }
        let mut response = Response::new(Incoming::Cell(exchange.answer()));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        if let Some(Ok(reason)) = answer.reason.map(ReasonPhrase::try_from) {
            response.extensions_mut().insert(reason);
        }
        Ok(response)
    }

    /// Whether the cell may be sent what is in pipes of the kernel.
    pub fn takes_pipes(&self) -> bool {
        match &self.io {
            Io::Idle(io) => io.pipes(),
            Io::Busy(exchange, _) => exchange.takes_pipes(),
        }
    }

    /// What it was lent to an exchange for is over: idle again, if it is fit for another.
    fn restored(mut self: Box<Self>) -> Option<Box<Self>> {
        if let Io::Busy(exchange, sending) = &mut self.io {
            drop(sending.take());
            let io = exchange.finish()?;
            self.io = Io::Idle(io);
        }
        Some(self)
    }

    /// The cell has proven on it who it is, and it has carried no request yet; none if it can carry none.
    pub fn proven(self: Box<Self>) -> Option<Box<Self>> {
        let mut connection = self.restored()?;
        connection.proven = true;
        connection.used = false;
        Some(connection)
    }

    /// Whether it has carried a request before: such a one may be closed by the cell at any moment.
    pub fn used(&self) -> bool {
        self.used
    }

    /// How many bytes have come over it.
    pub fn heard(&self) -> u64 {
        self.heard.bytes()
    }

    /// Keeps it for the next request, if it is fit for one: idle from `now` on.
    pub fn release(self: Box<Self>, now: Instant) {
        let Some(mut connection) = self.restored() else {
            return;
        };
        connection.idle_since = now;
        if let Io::Idle(io) = &mut connection.io {
            io.rest();
        }
        let home = Rc::clone(&connection.home);
        home.put(connection);
    }

    /// The socket, for a tunnel: an upgrade begins where the request ends.
    pub fn switch(self) -> Option<Switched> {
        match self.io {
            Io::Busy(exchange, _) if exchange.is_sent() => Some(exchange.switch()),
            Io::Busy(..) | Io::Idle(_) => None,
        }
    }

    /// Whether the cell has neither closed it nor said anything.
    fn is_quiet(&mut self) -> bool {
        match &mut self.io {
            Io::Idle(io) => io.is_quiet(),
            Io::Busy(..) => false,
        }
    }
}

/// How a request's body is framed on the way to its cell; the head says so.
fn frame(head: &mut Parts, body: &Relayed) -> Framing {
    if body.is_end_stream() {
        return Framing::None;
    }
    match body.size_hint().exact() {
        Some(length) => {
            let headers = &mut head.headers;
            headers
                .entry(header::CONTENT_LENGTH)
                .or_insert_with(|| length.into());
            // An earlier try may have said otherwise.
            headers.remove(header::TRANSFER_ENCODING);
            Framing::Length(length)
        }
        None => {
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(header::TRANSFER_ENCODING, chunked);
            head.headers.remove(header::CONTENT_LENGTH);
            Framing::Chunked
        }
    }
}

/// Idle connections by cell.
pub struct Pool {
    #[expect(
        clippy::vec_box,
        reason = "what is moved from the pool through a request and back is a pointer"
    )]
    idle: RefCell<IndexMap<CellName, Vec<Box<Connection>>, RandomState>>,
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
    /// is, and known to do so. It is asked for `now`.
    pub fn take(
        &self,
        cell: &Cell,
        trust: Option<&Arc<Trust>>,
        now: Instant,
    ) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.idle.borrow_mut().get_mut(&cell.name)?.pop()?;
            let fresh = now - connection.idle_since < self.lasts
                && connection.placement == cell.placement
                && connection.trust.as_ref() == trust
                && (connection.proven || cell.policy.identity == Identity::None);
            if fresh && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: Box<Connection>) {
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

    /// Closes what has been idle for too long or was closed by the cell, of some cells from a place on; where to go on, if
    /// there are more.
    pub fn sweep(&self, from: usize) -> Option<usize> {
        let mut idle = self.idle.borrow_mut();
        let (mut place, mut looked) = (from, 0);
        while looked < AT_ONCE {
            let Some((_, kept)) = idle.get_index_mut(place) else {
                self.sharing.sweep(self.lasts);
                return None;
            };
            looked += kept.len().max(1);
            kept.retain_mut(|connection| {
                connection.is_quiet() && connection.idle_since.elapsed() < self.lasts
            });
            if kept.is_empty() {
                idle.swap_remove_index(place);
            } else {
                place += 1;
            }
        }
        Some(place)
    }

    /// How long an idle connection is kept.
    pub fn lasts(&self) -> Duration {
        self.lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn what_cells_closed_goes_some_at_a_time_and_the_rest_stays() {
        const CELLS: usize = 2 * AT_ONCE + 10;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entry = |n| {
            (
                format!("c{n}"),
                serde_json::json!({ "address": address, "identity": "none" }),
            )
        };
        let cells: serde_json::Map<_, _> = (0..CELLS).map(entry).collect();
        let text = serde_json::json!({ "version": 1, "cells": cells }).to_string();
        let registry = Registry::parse(text.as_bytes()).unwrap();
        let pool = Pool::new(1, Duration::from_secs(3600));
        let (mut open, mut ends) = (Vec::new(), Vec::new());
        for n in 0..CELLS {
            let cell = registry.cell(&format!("c{n}")).unwrap();
            let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (near, (far, _)) = (near.unwrap(), far.unwrap());
            // The last ones too, which come to the places of those that go.
            if n % 3 == 0 || n > CELLS - 5 {
                drop(far);
                near.readable().await.unwrap();
            } else {
                ends.push(far);
                open.push(cell.name.clone());
            }
            let connection = Connection::open(Rc::clone(&pool), near.into(), address, cell, None);
            connection.release(Instant::now());
        }
        let (mut from, mut times) = (Some(0), 0);
        while let Some(place) = from {
            from = pool.sweep(place);
            times += 1;
        }
        assert_eq!(times, CELLS.div_ceil(AT_ONCE));
        let mut kept: Vec<_> = pool.idle.borrow().keys().cloned().collect();
        kept.sort();
        open.sort();
        assert_eq!(kept, open);
    }
}
