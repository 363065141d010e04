//! Cells that record what they get. Each answers one request on a connection, says that it closes, and reads on: what
//! else a proxy may have sent is recorded, too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::process::HUNG;

use super::strict::{self, Stop};

/// What the runner says to know that all connections before its own have been seen.
const MARK: &[u8] = b"\0mark";

#[derive(Debug, Default)]
struct Seen {
    connections: Vec<Vec<u8>>,
    marks: usize,
}

/// One cell.
#[derive(Debug)]
pub struct Recorder {
    seen: Arc<Mutex<Seen>>,
    /// How many connections are open, and how many marks have come.
    open: watch::Sender<(usize, usize)>,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Recorder {
    /// Listens on the loopback interface.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let open = watch::Sender::new((0, 0));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&seen), open.clone()));
        Ok(Self {
            seen,
            open,
            address,
            _serving: serving,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// All that came over each connection since it was asked last, once they have ended.
    ///
    /// # Errors
    /// A connection stays open, or there is no room for another one.
    pub async fn take(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut open = self.open.subscribe();
        let marks = open.borrow_and_update().1;
        let mut mark = TcpStream::connect(self.address).await?;
        mark.write_all(MARK).await?;
        let ended = open.wait_for(|(open, now)| *open == 0 && *now > marks);
        match timeout(HUNG, ended).await {
            Ok(_) => Ok(std::mem::take(&mut lock(&self.seen).connections)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a connection to a cell stays open",
            )),
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    seen: Arc<Mutex<Seen>>,
    open: watch::Sender<(usize, usize)>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        open.send_modify(|(open, _)| *open += 1);
        let at = {
            let mut seen = lock(&seen);
            seen.connections.push(Vec::new());
            seen.connections.len() - 1
        };
        let (seen, open) = (Arc::clone(&seen), open.clone());
        connections.spawn(async move {
            serve(stream, at, &seen).await;
            let mark = lock(&seen)
                .connections
                .get(at)
                .is_some_and(|got| got == MARK);
            if mark {
                lock(&seen).connections[at].clear();
                lock(&seen).marks += 1;
            }
            let marks = lock(&seen).marks;
            open.send_modify(|now| *now = (now.0 - 1, marks));
        });
    }
}

async fn serve(mut stream: TcpStream, at: usize, seen: &Mutex<Seen>) {
    let mut buffer = vec![0; 16 * 1024];
    let (mut continued, mut answered) = (false, false);
    loop {
        let count = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let got = {
            let mut seen = lock(seen);
            let got = &mut seen.connections[at];
            got.extend_from_slice(&buffer[..count]);
            got.clone()
        };
        if got == MARK {
            return;
        }
        if answered {
            continue;
        }
        let written = match strict::head(&got) {
            Err(Stop::More) => continue,
            Err(Stop::Malformed) => return,
            Ok(head) => match strict::body(&got[head.bytes..], head.framing) {
                Ok(_) => {
                    answered = true;
                    let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n";
                    let body = if head.method == b"HEAD" { "" } else { "ok" };
                    stream.write_all(format!("{text}{body}").as_bytes()).await
                }
                Err(Stop::More) if head.values("expect").next().is_some() && !continued => {
                    continued = true;
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await
                }
                Err(Stop::More) => continue,
                Err(Stop::Malformed) => return,
            },
        };
        if written.is_err() || (answered && stream.shutdown().await.is_err()) {
            return;
        }
    }
}
