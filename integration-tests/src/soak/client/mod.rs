//! Clients: sessions one after the other, each as the plan draws it.

mod http1;
mod http2;
mod tunnel;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::cell::name;
use super::editor::Aliases;
use super::ledger::{End, Ledger};
use super::plan::{Dialect, Method, Naming, Request, SESSION_REQUESTS, Session, Way};
use super::rules::Rule;

/// After so long a request has outlived every time-out that it can meet.
const STUCK: Duration = Duration::from_secs(60);
/// Pause between two pieces of a slow client.
const SLOW: Duration = Duration::from_millis(40);
/// The piece of a body that is sent at once, in bytes.
const PIECE: u64 = 16 * 1024;

/// Where clients go, and where they write down what comes of it.
pub(crate) struct Clients {
    pub(crate) ledger: Ledger,
    pub(crate) edge: SocketAddr,
    pub(crate) router: SocketAddr,
    pub(crate) aliases: Arc<Aliases>,
    pub(crate) next: AtomicU64,
    pub(crate) stop: AtomicBool,
    pub(crate) running: AtomicUsize,
}

impl Clients {
    /// Runs sessions until told to stop.
    pub(crate) async fn run(self: Arc<Self>) {
        self.running.fetch_add(1, Ordering::SeqCst);
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let session = self.ledger.world.session(number);
            match session.dialect {
                Dialect::KeepAlive | Dialect::Close => http1::in_turn(&self, session).await,
                Dialect::Pipelined => http1::at_once(&self, session).await,
                Dialect::Http2 => http2::session(&self, session).await,
                Dialect::Tunnel => tunnel::session(&self, session).await,
            }
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    fn requests(&self, session: Session) -> impl Iterator<Item = Request> {
        let world = self.ledger.world;
        let first = session.number * SESSION_REQUESTS;
        (first..first + session.requests).map(move |id| world.request(id))
    }

    async fn connect(&self, session: Session) -> Result<TcpStream, End> {
        let connected = match session.way {
            Way::Edge => TcpStream::connect(self.edge).await,
            Way::Direct => from(session.number, self.router).await,
        };
        let stream = connected.map_err(|error| {
            let what = format!("{:?}: {error}", session.way);
            self.ledger.breach(Rule::Refused, what);
            End::Broke("no connection")
        })?;
        // A hint to the kernel; without it the socket works all the same.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Host and path of a request, as the registry has them now.
    fn address(&self, request: &Request) -> (String, String) {
        let (cell, id) = (name(request.cell), request.id);
        match request.naming {
            Naming::Subdomain => (format!("{cell}.example.com"), format!("/s/{id}")),
            Naming::Alias => (self.aliases.of(request.cell), format!("/s/{id}")),
            Naming::Path => ("apps.example.com".to_owned(), format!("/{cell}/s/{id}")),
            Naming::Stripped => ("example.com".to_owned(), format!("/off-{cell}/s/{id}")),
        }
    }

    /// Enters a request in the books, and how it ended.
    async fn book(&self, request: Request, sending: impl Future<Output = End>) -> End {
        self.ledger.open(request);
        let end = timeout(STUCK, sending).await.unwrap_or(End::Stuck);
        self.ledger.close(request.id, end.clone());
        end
    }
}

/// Connects from an address that is the client's own, and not one of a proxy that the router trusts.
async fn from(client: u64, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let [.., high, low] = client.to_be_bytes();
    socket.bind((Ipv4Addr::new(127, 200, high, low.max(1)), 0).into())?;
    socket.connect(to).await
}

/// As [`from`], for questions outside of the plan.
pub(crate) async fn connect_as(client: u64, to: SocketAddr) -> std::io::Result<TcpStream> {
    from(client, to).await
}

/// The lines of a request's head that say how its body is framed.
fn framing(request: &Request) -> String {
    match request.upload {
        _ if request.tunnel => String::new(),
        Some(upload) if upload.chunked => "transfer-encoding: chunked\r\n".to_owned(),
        Some(upload) => format!("content-length: {}\r\n", upload.bytes),
        None if request.method == Method::POST => "content-length: 0\r\n".to_owned(),
        None => String::new(),
    }
}
