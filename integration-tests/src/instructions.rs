//! How many instructions the router takes for a request on each lane, counted by valgrind's callgrind.
//!
//! Client and cell are one task that takes a step only after the router took the one before, so that the router finds
//! the same bytes at the same points in every run. What is left to chance is little: seeds of hash tables, timers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::client::TlsStream;

use crate::client::{Error, Raw};
use crate::tls::Tls;
use crate::{Router, RouterOptions, ScriptedCell};

/// A cell that requests are streamed to, and one that the edge is sent to.
const STREAMED: &str = "cell.example.org";
const REPLAYED: &str = "own.example.org";
/// What callgrind's files are called, before their numbers.
const DUMP: &str = "count";
/// Bytes of a small answer.
const SMALL: usize = 2;
/// Bytes of a body that are on their way at once: so few arrive together.
const PIECE: usize = 16 * 1024;
/// Requests before the first that counts.
const WARM_UP: usize = 30;
/// Requests that are counted together, and how often; the median counts.
const REQUESTS: u64 = 50;
const BATCHES: usize = 3;

/// The numbers by which the kernel calls waiting for events: `epoll_wait` where there is one, and `epoll_pwait`.
const EPOLL_WAIT: [&str; 2] = if cfg!(target_arch = "x86_64") {
    ["232", "281"]
} else {
    ["22", "22"]
};

/// One way that requests take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The router's own answer: a signed replay.
    Replay,
    /// A GET whose answer has so many bytes.
    Get(usize),
    /// An upload of so many pieces with its length: few are copied, many stay in the kernel.
    Put(usize),
    /// The same in chunks of one piece each.
    PutChunked(usize),
    /// A small GET by TLS.
    Tls,
    /// A small GET by HTTP/2.
    Http2,
}

/// All of them.
pub const LANES: [Lane; 8] = [
    Lane::Replay,
    Lane::Get(SMALL),
    Lane::Get(10 * 1024),
    Lane::Put(2),
    Lane::Put(16),
    Lane::PutChunked(16),
    Lane::Tls,
    Lane::Http2,
];

impl fmt::Display for Lane {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |pieces| pieces * PIECE / 1024;
        match *self {
            Self::Replay => write!(to, "own answer"),
            Self::Get(SMALL) => write!(to, "small GET"),
            Self::Get(bytes) => write!(to, "{} KiB GET", bytes / 1024),
            Self::Put(pieces @ ..4) => write!(to, "upload of {} KiB, copied", kib(pieces)),
            Self::Put(pieces) => write!(to, "upload of {} KiB, spliced", kib(pieces)),
            Self::PutChunked(pieces) => write!(to, "upload of {} KiB, chunked", kib(pieces)),
            Self::Tls => write!(to, "small GET by TLS"),
            Self::Http2 => write!(to, "small GET by HTTP/2"),
        }
    }
}

/// A router of one worker whose instructions are counted, and the cell behind it.
#[derive(Debug)]
pub struct Counted {
    router: Router,
    cell: ScriptedCell,
    tls: Tls,
    tls_address: SocketAddr,
    /// What the kernel says of the worker's thread.
    worker: PathBuf,
    folder: TempDir,
    dumps: usize,
}

impl Counted {
    /// Starts it. It needs valgrind.
    ///
    /// # Errors
    /// There is no room for its files.
    pub async fn start(binary: PathBuf) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let certificates = folder.path().join("certificates");
        std::fs::create_dir(&certificates)?;
        let tls = Tls::issue(&certificates, &[STREAMED])?;
        let cell = ScriptedCell::listen().await;
        let secret = json!({ "env": "CELL_SECRET" });
        let registry = json!({ "version": 1, "domain": "example.org", "cells": {
            "cell": { "address": cell.addr().to_string(), "identity": "none", "secret": secret },
            "own": { "machine": "3d8d9e67c2e123", "app": "cells", "replay": "strict", "secret": secret },
        } });
        let mut options = RouterOptions::new(registry.to_string())
            .args(["--workers", "1", "--trusted-proxies", "127.0.0.1/32"])
            .args(["--tls-listen", "127.0.0.1:0", "--tls-certificates"])
            .args(certificates.to_str())
            // Nothing ends by the clock, however slow this is.
            .args(["--pool-idle-ms", "3600000", "--idle-timeout-ms", "3600000"])
            .env(
                "CELL_SECRET",
                "a secret for counting, which is 32 bytes or more",
            )
            .env("FLY_APP_NAME", "front")
            .env("FLY_MACHINE_ID", "148e21ea7de489")
            .env("FLY_REGION", "ams");
        options.binary = Some(binary);
        let dump = folder.path().join(DUMP);
        options.under = vec![
            "valgrind".into(),
            "--tool=callgrind".into(),
            "--separate-threads=yes".into(),
            format!("--callgrind-out-file={}", dump.display()),
        ];
        let router = Router::start(options).await;
        Ok(Self {
            tls_address: router.tls_addr().await,
            worker: worker(router.process().id())?,
            router,
            cell,
            tls,
            folder,
            dumps: 0,
        })
    }

    /// Instructions for each request on a lane.
    ///
    /// # Errors
    /// The router broke a connection, or could not be counted.
    pub async fn count(&mut self, lane: Lane) -> Result<u64, Error> {
        let (mut client, mut upstream) = (self.client(lane).await?, None);
        for _ in 0..WARM_UP {
            self.request(lane, &mut client, &mut upstream).await?;
        }
        self.taken().await?;
        let mut batches = [0; BATCHES];
        for batch in &mut batches {
            for _ in 0..REQUESTS {
                self.request(lane, &mut client, &mut upstream).await?;
            }
            *batch = self.taken().await? / REQUESTS;
        }
        eprintln!("{lane}: {batches:?}");
        batches.sort_unstable();
        Ok(batches[BATCHES / 2])
    }

    async fn client(&self, lane: Lane) -> Result<Client, Error> {
        match lane {
            Lane::Tls => {
                let connecting = self.tls.connect(self.tls_address, STREAMED, "http/1.1");
                let stream = connecting.await?;
                Ok(Client::Tls(Box::new(stream.into())))
            }
            Lane::Http2 => {
                let socket = TcpStream::connect(self.router.addr()).await?;
                socket.set_nodelay(true)?;
                let (client, connection) = h2::client::handshake(socket).await?;
                // Its errors come out of the requests.
                tokio::spawn(async move { drop(connection.await) });
                Ok(Client::Http2(client))
            }
            Lane::Replay | Lane::Get(_) | Lane::Put(_) | Lane::PutChunked(_) => {
                let socket = TcpStream::connect(self.router.addr()).await?;
                socket.set_nodelay(true)?;
                Ok(Client::Plain(socket.into()))
            }
        }
    }

    async fn request(
        &self,
        lane: Lane,
        client: &mut Client,
        upstream: &mut Option<Raw>,
    ) -> Result<(), Error> {
        self.quiet().await?;
        match client {
            Client::Plain(client) => self.http1(lane, client, upstream).await?,
            Client::Tls(client) => self.http1(lane, client, upstream).await?,
            Client::Http2(client) => self.http2(client, upstream).await?,
        }
        // Lines that wait are written by the clock: one at a time, they cost the same however slow this is.
        let written = self.router.process().stdout.take(|_| Some(())).await;
        written.ok_or_else(|| "no line in the access log".into())
    }

    async fn http1<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        lane: Lane,
        client: &mut Raw<S>,
        upstream: &mut Option<Raw>,
    ) -> Result<(), Error> {
        let usual = "user-agent: benchmark\r\naccept: */*\r\n";
        let (host, method, framing) = match lane {
            Lane::Replay => (REPLAYED, "GET", String::new()),
            Lane::Get(_) | Lane::Tls | Lane::Http2 => (STREAMED, "GET", String::new()),
            Lane::Put(pieces) => {
                let length = pieces * PIECE;
                (STREAMED, "PUT", format!("content-length: {length}\r\n"))
            }
            Lane::PutChunked(_) => (STREAMED, "PUT", "transfer-encoding: chunked\r\n".into()),
        };
        let head = format!("{method} /page HTTP/1.1\r\nhost: {host}\r\n{usual}{framing}\r\n");
        client.write(head).await?;
        if lane == Lane::Replay {
            return expect(client.answer().await?.status.as_u16(), 409);
        }
        let upstream = self.reached(upstream).await?;
        match lane {
            Lane::Put(pieces) => {
                for _ in 0..pieces {
                    client.write([0; PIECE]).await?;
                    upstream.bytes(PIECE).await?;
                    self.quiet().await?;
                }
            }
            Lane::PutChunked(pieces) => {
                let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &[0; PIECE], b"\r\n"].concat();
                for _ in 0..pieces {
                    client.write(&chunk).await?;
                    let mut left = PIECE;
                    while left > 0 {
                        left -= upstream.chunk().await?.len();
                    }
                    self.quiet().await?;
                }
                client.write("0\r\n\r\n").await?;
                upstream.chunk().await?;
                upstream.line().await?;
            }
            Lane::Replay | Lane::Get(_) | Lane::Tls | Lane::Http2 => {}
        }
        let length = if let Lane::Get(length) = lane {
            length
        } else {
            2
        };
        upstream.write(answer(length)).await?;
        expect(client.answer().await?.status.as_u16(), 200)
    }

    async fn http2(
        &self,
        client: &mut SendRequest<Bytes>,
        upstream: &mut Option<Raw>,
    ) -> Result<(), Error> {
        let request = Request::get(format!("http://{STREAMED}/page"))
            .header("user-agent", "benchmark")
            .header("accept", "*/*")
            .body(())?;
        let mut ready = client.clone().ready().await?;
        let (answered, _) = ready.send_request(request, true)?;
        self.reached(upstream).await?.write(answer(SMALL)).await?;
        let (head, mut body) = answered.await?.into_parts();
        while let Some(piece) = body.data().await {
            body.flow_control().release_capacity(piece?.len())?;
        }
        expect(head.status.as_u16(), 200)
    }

    /// The connection to the cell, once it carries the next request's head.
    async fn reached<'a>(&self, upstream: &'a mut Option<Raw>) -> Result<&'a mut Raw, Error> {
        let connection = match upstream {
            Some(connection) => connection,
            None => upstream.insert(self.cell.accept().await),
        };
        connection.head().await?;
        self.quiet().await?;
        Ok(connection)
    }

    /// Waits until the worker waits for events: it has seen all that was sent, and finds what comes next alone.
    async fn quiet(&self) -> Result<(), Error> {
        loop {
            let call = std::fs::read_to_string(self.worker.join("syscall"))?;
            if EPOLL_WAIT.contains(&call.split(' ').next().unwrap_or_default()) {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Instructions since it was last asked, of all threads but the first, which is on no request's path and looks for a
    /// changed registry by the clock.
    async fn taken(&mut self) -> Result<u64, Error> {
        self.quiet().await?;
        let pid = format!("--pid={}", self.router.process().id());
        let mut vgdb = Command::new("vgdb");
        let dumped = vgdb.args([&pid, "dump"]).stdin(Stdio::null()).output();
        let dumped = dumped.await?;
        self.dumps += 1;
        let mut instructions = None;
        for thread in 2.. {
            let name = format!("{DUMP}.{}-{thread:02}", self.dumps);
            let Ok(text) = std::fs::read_to_string(self.folder.path().join(name)) else {
                break;
            };
            let total = text.lines().find_map(|line| line.strip_prefix("totals:"));
            let total: u64 = total.ok_or("callgrind gives no total")?.trim().parse()?;
            *instructions.get_or_insert(0) += total;
        }
        instructions.ok_or_else(|| {
            let said = String::from_utf8_lossy(&dumped.stderr);
            format!("vgdb had callgrind write nothing:\n{said}").into()
        })
    }
}

/// A client's connection.
enum Client {
    Plain(Raw),
    Tls(Box<Raw<TlsStream<TcpStream>>>),
    Http2(SendRequest<Bytes>),
}

/// Where the kernel tells of the worker's thread.
fn worker(process: u32) -> Result<PathBuf, Error> {
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        if std::fs::read_to_string(thread.join("comm"))?.starts_with("worker") {
            return Ok(thread);
        }
    }
    Err("the router has no thread of a worker".into())
}

fn answer(length: usize) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

fn expect(status: u16, expected: u16) -> Result<(), Error> {
    if status == expected {
        return Ok(());
    }
    Err(format!("the router answered {status} and not {expected}").into())
}
