//! HTTP/2 to a cell: one connection of a worker's that many requests share.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use h2::Reason;
use http::{Request, Response};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet, spawn_local};
use tokio::time::{Duration, Instant};

use super::channel::{ChannelError, Failed, Message};
use super::loan::Loan;
use super::socket::{Heard, Socket};
use crate::account::body::Incoming;
use crate::live::trust::Trust;
use crate::registry::{self, Identity, Placement};
use crate::wire::forward;

/// The most requests on one connection, whatever more a cell allows: they share one socket, and what one of them has to
/// wait for, a lost packet, all wait for.
const MOST_STREAMS: usize = 100;
/// What of an answer may be on its way before its client has taken it, in bytes: so much memory can a slow reader cost,
/// and so much can be sent to it in one round trip.
const STREAM_WINDOW: u32 = 256 * 1024;
/// More than all streams together, so that clients who do not read never keep the answers of others waiting: the windows of
/// streams are the limit. Half of it is what h2 lets small frames that wait cost, at 256 bytes each, before it gives the
/// connection up with all who share it; so it is a limit of memory, too.
const CONNECTION_WINDOW: u32 = 256 * 1024 * 1024;
/// What of a request's body may wait to be sent, in bytes: bodies are passed on, not gathered.
const SEND_BUFFER: usize = 16 * 1024;
/// After how long without a byte a connection is of no use to others, once somebody has waited so long in vain.
const SILENCE: Duration = Duration::from_secs(1);
/// So long a cell may take nothing of a body that nobody wants any more, and its connection carries other requests. It may wait
/// itself, for its answer to be taken: of that it learns only by the end of the connection.
const STUCK: Duration = Duration::from_secs(5);
/// The largest head of an answer, in bytes.
const HEAD_BYTES: u32 = 64 * 1024;

/// Runs what hyper spawns for one connection on this thread, and knows what of it still runs.
#[derive(Debug, Clone, Default)]
struct Here(Rc<RefCell<JoinSet<()>>>);

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, task: F) {
        let mut tasks = self.0.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(async move { drop(task.await) });
    }
}

type Driver = Rc<RefCell<Option<http2::Connection<TokioIo<Socket>, Loan, Here>>>>;

/// A connection. It closes once neither the pool nor a stream holds it.
pub struct Shared {
    sender: SendRequest<Loan>,
    driver: Driver,
    task: AbortHandle,
    here: Here,
    address: SocketAddr,
    placement: Placement,
    trust: Option<Arc<Trust>>,
    heard: Heard,
    secure: bool,
    /// The cell has proven on it who it is.
    proven: Cell<bool>,
    /// It has carried a request.
    carried: Cell<bool>,
    /// The cell wants no more of it.
    retired: Cell<bool>,
    /// Bodies of which something waits on it that nobody wants any more, and since when.
    cut: RefCell<Vec<(Loan, Instant)>>,
    streams: Cell<usize>,
    idle_since: Cell<Instant>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("address", &self.address)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
        let mut tasks = std::mem::take(&mut *self.here.0.borrow_mut());
        // What waits for a cell that waits itself never ends, and its stream is never reset; all else has last words.
        if self.oldest_cut().is_none() {
            tasks.detach_all();
        }
    }
}

impl Shared {
    /// Speaks HTTP/2 on a fresh socket (RFC 9113 section 3.3).
    ///
    /// # Errors
    /// As hyper's handshake, which sends nothing of a request.
    pub async fn open(
        socket: Socket,
        address: SocketAddr,
        cell: &registry::Cell,
        trust: Option<Arc<Trust>>,
    ) -> hyper::Result<Rc<Self>> {
        let heard = socket.heard();
        let here = Here::default();
        let (sender, connection) = http2::Builder::new(here.clone())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEAD_BYTES)
            .handshake(TokioIo::new(socket))
            .await?;
        let driver: Driver = Rc::new(RefCell::new(Some(connection)));
        let driven = Rc::clone(&driver);
        let task = spawn_local(poll_fn(move |context| {
            let mut slot = driven.borrow_mut();
            if let Some(connection) = slot.as_mut() {
                // Its error is told to each of its requests.
                let _ = ready!(Pin::new(connection).poll(context));
            }
            // Whoever sends on it from now on is told that it is over.
            *slot = None;
            Poll::Ready(())
        }));
        Ok(Rc::new(Self {
            sender,
            driver,
            task: task.abort_handle(),
            here,
            address,
            placement: cell.placement.clone(),
            secure: trust.is_some(),
            trust,
            heard,
            proven: Cell::new(false),
            carried: Cell::new(false),
            retired: Cell::new(false),
            cut: RefCell::default(),
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
        }))
    }

    /// Whether it leads to where the cell is now, and is known to.
    pub fn leads_to(&self, cell: &registry::Cell, trust: Option<&Arc<Trust>>) -> bool {
        self.placement == cell.placement
            && self.trust.as_ref() == trust
            && (self.proven.get() || cell.policy.identity == Identity::None)
    }

    /// Whether it is of no use to another request: closed, given up by the cell, or idle for as long as `lasts`.
    pub fn is_over(&self, lasts: Duration) -> bool {
        let idle = self.streams.get() == 0 && self.idle_since.get().elapsed() >= lasts;
        let stuck = || self.oldest_cut().is_some_and(|cut| cut.elapsed() >= STUCK);
        idle || self.retired.get() || self.sender.is_closed() || stuck()
    }

    /// Since when the first of them waits that still does.
    fn oldest_cut(&self) -> Option<Instant> {
        let mut cut = self.cut.borrow_mut();
        cut.retain(|(body, _)| body.is_lent());
        cut.first().map(|(_, since)| *since)
    }

    /// Whether the cell takes another request on it now.
    pub fn has_room(&self) -> bool {
        let allowed = match &*self.driver.borrow() {
            Some(connection) => connection.current_max_send_streams(),
            None => 0,
        };
        self.streams.get() < allowed.min(MOST_STREAMS)
    }
}

/// One request's place on a connection. Dropping it takes back what is not done.
#[derive(Debug)]
pub struct Stream {
    shared: Rc<Shared>,
    /// Whether the connection had carried a request before.
    used: bool,
    lent: Option<Loan>,
    /// When a request was sent that has no answer yet, and what had come over the connection by then.
    waits: Option<(Instant, u64)>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(lent) = &self.lent
            && !lent.cut()
        {
            // hyper looks at nothing else before the cell has taken what it has.
            let mut cut = self.shared.cut.borrow_mut();
            cut.push((lent.clone(), Instant::now()));
        }
        // The cell may be gone without a word, or stand still: the next request finds out on a fresh connection, where it
        // is safe. The kernel alone would take a quarter of an hour for it while requests go on.
        if let Some((since, heard)) = self.waits
            && since.elapsed() >= SILENCE
            && self.heard() == heard
        {
            self.shared.retired.set(true);
        }
        self.shared.streams.set(self.shared.streams.get() - 1);
        self.shared.idle_since.set(Instant::now());
    }
}

impl Stream {
    /// Takes a place.
    pub fn on(shared: &Rc<Shared>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self {
            shared: Rc::clone(shared),
            used: shared.carried.get(),
            lent: None,
            waits: None,
        }
    }

    /// The connection.
    pub fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// Where it leads.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Whether its connection has carried a request before.
    pub fn used(&self) -> bool {
        self.used
    }

    /// How many bytes have come over its connection.
    pub fn heard(&self) -> u64 {
        self.shared.heard.bytes()
    }

    /// Sends a request, and returns the head of its answer. Cancelling resets the stream.
    ///
    /// # Errors
    /// `Failed`.
    pub async fn send(&mut self, message: &mut Message<'_>) -> Result<Response<Incoming>, Failed> {
        let mut head = message.head.clone();
        message.lines.append_to(&mut head.headers);
        forward::for_http2(&mut head, self.shared.secure);
        let lent = Loan::new(message.body.take());
        self.lent = Some(lent.clone());
        let mut sender = self.shared.sender.clone();
        self.waits = Some((Instant::now(), self.heard()));
        let sent = sender.try_send_request(Request::from_parts(head, lent.clone()));
        let outcome = sent.await;
        self.waits = None;
        let mut error = match outcome {
            Ok(answer) => return Ok(answer.map(Incoming::Http2Cell)),
            Err(error) => error,
        };
        let returned = error.take_message().is_some();
        let error = error.into_error();
        let unsent = returned || is_refusal(&error);
        if unsent {
            self.shared.retired.set(true);
        }
        if unsent {
            message.body = lent.take_back();
        }
        Err(Failed {
            error: ChannelError::Http2(error),
            unsent: message.body.is_some(),
        })
    }

    /// Marks that it carries a request of a client's from now on.
    pub fn carries(&self) {
        self.shared.carried.set(true);
    }

    /// Waits until it can carry a request, the cell having proven who it is.
    ///
    /// # Errors
    /// Where the cell closed the connection.
    pub async fn proven(self) -> hyper::Result<Self> {
        self.shared.sender.clone().ready().await?;
        self.shared.proven.set(true);
        Ok(self)
    }
}

/// Whether the cell says by this that it did nothing with the request (RFC 9113 section 8.7): it refused the stream, or
/// is going away and names an earlier one as its last.
fn is_refusal(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    let mut causes = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>());
    causes.any(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
    })
}
