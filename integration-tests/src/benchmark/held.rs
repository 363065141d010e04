//! What connections cost in memory: idle ones, and uploads to a cell that reads nothing.

use std::fs;
use std::io;
use std::path::Path;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::load::{connect, read};
use super::peers::{Given, Peer, host};
use super::upstream::Upstream;
use super::{median, trio};

/// Room in the kernel for each end of an upload, in bytes: what all sockets take together is bounded.
const KERNEL_BYTES: u32 = 32 * 1024;
/// Connections before those that count: what the first ones take is not what a connection costs.
const FIRST: usize = 100;
/// Bytes of a page of memory.
const PAGE: u64 = 4096;
/// Hosts in the table, of which each has a few of the connections.
const CELLS: usize = 1_000;

/// What is held.
#[derive(Debug, Clone, Copy)]
pub enum Held {
    /// Connections that had one answer, and wait.
    Idle(usize),
    /// Uploads that stand still.
    Stalled(usize),
}

/// Memory for each connection, in KiB, and how many there are.
#[derive(Debug, Clone, Copy)]
struct Memory {
    process: f64,
    kernel: f64,
    connections: f64,
}

/// The memory of each proxy, and of the kernel for all its sockets, client and cell included, for each connection. Each
/// round takes fresh proxies, since memory that was used once is used again.
///
/// # Errors
/// A peer breaks a connection, or answers something else.
pub async fn run(
    given: &Given,
    held: Held,
    router: &Path,
    args: &[String],
    rounds: usize,
) -> io::Result<String> {
    let cell = Upstream::start_with_room(KERNEL_BYTES)?;
    let given = Given {
        cells: CELLS,
        upstream: cell.address,
        ..given.clone()
    };
    let mut costs: Vec<Vec<Memory>> = Vec::new();
    let mut names = Vec::new();
    for _ in 0..rounds {
        let peers = trio(&given, router, args).await?;
        costs.resize(peers.len(), Vec::new());
        names = peers.iter().map(|peer| peer.name.clone()).collect();
        for (peer, costs) in peers.iter().zip(&mut costs) {
            costs.push(match held {
                Held::Idle(count) => idle(peer, count).await?,
                Held::Stalled(count) => stalled(peer, &cell, count).await?,
            });
        }
    }
    let what = match held {
        Held::Idle(count) => format!("{count} idle connections"),
        Held::Stalled(count) => format!("{count} stalled uploads"),
    };
    let mut text =
        format!("| {what}, each | process | kernel's sockets | held |\n|---|---|---|---|\n");
    for (name, costs) in names.iter().zip(&costs) {
        let process = median(costs.iter().map(|memory| memory.process).collect());
        let kernel = median(costs.iter().map(|memory| memory.kernel).collect());
        let held = median(costs.iter().map(|memory| memory.connections).collect());
        text.push_str(&format!(
            "| {name} | {process:.2} KiB | {kernel:.2} KiB | {held} |\n"
        ));
    }
    Ok(text)
}

/// What the kernel holds for all sockets of TCP, in bytes.
fn kernel() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(pages.unwrap_or(0) * PAGE)
}

/// Takes the memory before and after something that says how many connections hold it.
async fn measure(peer: &Peer, held: impl Future<Output = io::Result<usize>>) -> io::Result<Memory> {
    let before = (peer.resident()?, kernel()?);
    let count = held.await?;
    peer.settle(peer.busy()?).await?;
    let now = (peer.resident()?, kernel()?);
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1024.0 / count as f64;
    Ok(Memory {
        process: each(now.0, before.0),
        kernel: each(now.1, before.1),
        connections: count as f64,
    })
}

async fn idle(peer: &Peer, count: usize) -> io::Result<Memory> {
    let mut kept = Vec::with_capacity(FIRST + count);
    asked(peer, FIRST, &mut kept).await?;
    measure(peer, async {
        asked(peer, count, &mut kept).await?;
        // Who has descriptors for fewer may have closed some.
        Ok(kept
            .iter()
            .filter(|socket| is_open(socket))
            .count()
            .saturating_sub(FIRST))
    })
    .await
}

/// Whether the other side has not closed.
fn is_open(socket: &TcpStream) -> bool {
    let read = socket.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Adds so many connections that had one answer.
async fn asked(peer: &Peer, count: usize, kept: &mut Vec<TcpStream>) -> io::Result<()> {
    let mut buffer = Vec::new();
    for number in 0..count {
        let host = host(number % peer.cells());
        let mut socket = connect(peer.address()).await?;
        let head = format!("GET /0 HTTP/1.1\r\nhost: {host}\r\n\r\n");
        socket.write_all(head.as_bytes()).await?;
        read(&mut socket, &mut buffer, "200").await?;
        kept.push(socket);
    }
    Ok(())
}

async fn stalled(peer: &Peer, cell: &Upstream, count: usize) -> io::Result<Memory> {
    let mut kept = Vec::new();
    asked(peer, FIRST, &mut kept).await?;
    let mut sending = JoinSet::new();
    let memory = measure(peer, async {
        for number in 0..count {
            let (address, host) = (peer.address(), host(number % peer.cells()));
            sending.spawn(upload(address, host));
        }
        // Those that end do so for a reason.
        tokio::select! {
            reached = cell.stalled(count) => reached.map(|()| count),
            Some(ended) = sending.join_next() => Err(ended.map_err(io::Error::other)?.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        }
    })
    .await;
    sending.shutdown().await;
    cell.release();
    memory
}

/// An upload that sends as much as it can, without an end.
async fn upload(address: std::net::SocketAddr, host: String) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(KERNEL_BYTES)?;
    let mut socket = socket.connect(address).await?;
    let head =
        format!("PUT /stalled HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000000000\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let piece = [b'x'; 16 * 1024];
    loop {
        socket.write_all(&piece).await?;
    }
}
