//! The scripted upstream: records what it got byte for byte, connection by connection, and how each one ended.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::message::{Message, Role, find, messages};
use super::{Turn, cases};

/// What the runner writes to the upstream itself, to know that all before it has been seen.
const MARK: &[u8] = b"\0mark";

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side closed it.
    Closed,
    /// The other side reset it.
    Reset,
    /// This side ended it.
    Ours,
}

/// One connection from a proxy.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// All that came.
    pub got: Vec<u8>,
    /// How it ended; `None` while it is open.
    pub end: Option<End>,
}

impl Connection {
    /// The requests on it, and what is left after them.
    pub fn requests(&self) -> (Vec<Message>, &[u8]) {
        messages(&self.got, Role::Request, self.end == Some(End::Closed))
    }
}

/// What the upstream has seen so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its connections, in the order in which they came.
    pub connections: Vec<Connection>,
    /// The connection of each request, in the order in which their heads came.
    pub order: Vec<usize>,
    /// Requests whose turns were done, and connections that ended.
    pub done: usize,
    marks: usize,
}

impl Seen {
    /// All requests in the order in which their heads came, each with the number of its connection.
    pub fn requests(&self) -> Vec<(usize, Message)> {
        let mut each: Vec<_> = self
            .connections
            .iter()
            .map(|connection| connection.requests().0.into_iter())
            .collect();
        self.order
            .iter()
            .filter_map(|at| Some((*at, each.get_mut(*at)?.next()?)))
            .collect()
    }
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    script: Vec<Vec<Turn>>,
    changes: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
        changed
    }
}

/// A listener that plays one case's cell.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Upstream {
    /// Listens on the loopback interface.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn listen(script: Vec<Vec<Turn>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            script,
            changes: watch::Sender::new(0),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            _serving: serving,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.lock().clone()
    }

    /// Wakes up whenever it has seen more.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Waits until all is seen that a proxy had written before this call.
    ///
    /// # Errors
    /// The loopback interface has no room for a connection.
    pub async fn settle(&self) -> io::Result<()> {
        let mut changes = self.changes();
        let marks = self.shared.lock().marks;
        let mut mark = TcpStream::connect(self.address).await?;
        mark.write_all(MARK).await?;
        // The sender lives as long as this.
        let _ = changes.wait_for(|_| self.shared.lock().marks > marks).await;
        // What became ready together is looked at in turn.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    // An error here is the machine's, and shows as a case that is not answered.
    while let Ok((stream, _)) = listener.accept().await {
        // A hint to the kernel; without it the socket works all the same.
        let _ = stream.set_nodelay(true);
        connections.spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut first = vec![0; 16 * 1024];
    let read = stream.read(&mut first).await;
    if let Ok(count) = read
        && &first[..count] == MARK
    {
        shared.change(|seen| seen.marks += 1);
        return;
    }
    let at = shared.change(|seen| {
        seen.connections.push(Connection::default());
        seen.connections.len() - 1
    });
    let mut cell = Cell { stream, shared, at };
    let end = match cell.note(read, &first) {
        Some(end) => end,
        None => cell.play().await,
    };
    let Cell { stream, shared, .. } = cell;
    // Whoever learns of the end finds the socket closed.
    drop(stream);
    shared.change(|seen| {
        seen.connections[at].end = Some(end);
        seen.done += 1;
    });
}

struct Cell {
    stream: TcpStream,
    shared: Arc<Shared>,
    at: usize,
}

impl Cell {
    async fn play(&mut self) -> End {
        for nth in 0.. {
            while self.count() <= nth {
                if let Some(end) = self.read().await {
                    return end;
                }
            }
            let number = self.shared.change(|seen| {
                seen.order.push(self.at);
                seen.order.len() - 1
            });
            let turns = self.shared.script.get(number).cloned();
            let turns = turns.unwrap_or_else(|| vec![Turn::Whole, Turn::Write(cases::ok())]);
            for turn in turns {
                if let Some(end) = self.turn(turn, nth).await {
                    return end;
                }
            }
            self.shared.change(|seen| seen.done += 1);
        }
        End::Ours
    }

    async fn turn(&mut self, turn: Turn, nth: usize) -> Option<End> {
        match turn {
            Turn::Whole => {
                while !self.nth(nth, |message| message.whole) {
                    if let Some(end) = self.read().await {
                        return Some(end);
                    }
                }
                None
            }
            Turn::Bytes(count) => {
                while !self.nth(nth, |message| message.body.len() >= count) {
                    if let Some(end) = self.read().await {
                        return Some(end);
                    }
                }
                None
            }
            Turn::Until(bytes) => {
                while find(&self.shared.lock().connections[self.at].got, bytes).is_none() {
                    if let Some(end) = self.read().await {
                        return Some(end);
                    }
                }
                None
            }
            Turn::Write(bytes) => match self.stream.write_all(&bytes).await {
                Ok(()) => None,
                Err(error) => Some(ending(&error)),
            },
            Turn::Drain => loop {
                if let Some(end) = self.read().await {
                    return Some(end);
                }
            },
            Turn::Close => Some(End::Ours),
            Turn::Reset => {
                // It fails on a socket that has ended, which is as good.
                let _ = SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
                Some(End::Ours)
            }
        }
    }

    fn nth(&self, nth: usize, fits: impl Fn(&Message) -> bool) -> bool {
        let seen = self.shared.lock();
        let (requests, _) = seen.connections[self.at].requests();
        requests.get(nth).is_some_and(fits)
    }

    fn count(&self) -> usize {
        self.shared.lock().connections[self.at].requests().0.len()
    }

    async fn read(&mut self) -> Option<End> {
        let mut bytes = vec![0; 64 * 1024];
        let read = self.stream.read(&mut bytes).await;
        self.note(read, &bytes)
    }

    fn note(&self, read: io::Result<usize>, bytes: &[u8]) -> Option<End> {
        match read {
            Ok(0) => Some(End::Closed),
            Ok(count) => {
                self.shared.change(|seen| {
                    seen.connections[self.at]
                        .got
                        .extend_from_slice(&bytes[..count]);
                });
                None
            }
            Err(error) => Some(ending(&error)),
        }
    }
}

fn ending(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::BrokenPipe => End::Closed,
        _ => End::Reset,
    }
}
