//! Clients, each with one connection, that ask the next as soon as they are answered.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::peers::{CELLS, OWN, host};

/// Bytes that are sent and read at once.
const PIECE: usize = 256 * 1024;
/// Bytes of one chunk, as common clients send them.
const CHUNK: usize = 64 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// What clients ask.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// A path of the upstream's.
    Get(&'static str),
    /// What the proxy answers by itself.
    Own,
    /// An upload of so many bytes.
    Put(u64),
    /// The same without its length.
    PutChunked(u64),
}

/// Runs clients to their ends; returns how many bytes of bodies went over their connections.
///
/// # Errors
/// Those of connections; `InvalidData` for another answer.
pub async fn run(address: SocketAddr, ask: Ask, clients: usize, each: usize) -> io::Result<u64> {
    let mut running = JoinSet::new();
    for number in 0..clients {
        running.spawn(async move {
            // Spread over the table.
            let cell = number * (CELLS / clients);
            client(address, ask, cell, each).await
        });
    }
    let mut bytes = 0;
    while let Some(ended) = running.join_next().await {
        bytes += ended.map_err(io::Error::other)??;
    }
    Ok(bytes)
}

async fn client(address: SocketAddr, ask: Ask, cell: usize, each: usize) -> io::Result<u64> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (host, status) = match ask {
        Ask::Own => (OWN.to_owned(), "409"),
        Ask::Get(_) | Ask::Put(_) | Ask::PutChunked(_) => (host(cell), "200"),
    };
    let usual = format!("host: {host}\r\nuser-agent: benchmark\r\naccept: */*\r\n");
    let head = match ask {
        Ask::Get(path) => format!("GET {path} HTTP/1.1\r\n{usual}\r\n"),
        Ask::Own => format!("GET /page HTTP/1.1\r\n{usual}\r\n"),
        Ask::Put(length) => format!("PUT /0 HTTP/1.1\r\n{usual}content-length: {length}\r\n\r\n"),
        Ask::PutChunked(_) => {
            format!("PUT /0 HTTP/1.1\r\n{usual}transfer-encoding: chunked\r\n\r\n")
        }
    };
    let (mut buffer, mut bytes) = (Vec::with_capacity(PIECE), 0);
    for _ in 0..each {
        socket.write_all(head.as_bytes()).await?;
        match ask {
            Ask::Put(length) => bytes += send(&mut socket, length).await?,
            Ask::PutChunked(length) => bytes += send_chunked(&mut socket, length).await?,
            Ask::Get(_) | Ask::Own => {}
        }
        bytes += read(&mut socket, &mut buffer, status).await?;
    }
    Ok(bytes)
}

async fn send(socket: &mut TcpStream, length: u64) -> io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let piece = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        socket.write_all(&ZEROS[..piece]).await?;
        left -= piece as u64;
    }
    Ok(length)
}

async fn send_chunked(socket: &mut TcpStream, length: u64) -> io::Result<u64> {
    let mut chunk = format!("{CHUNK:x}\r\n").into_bytes();
    chunk.extend_from_slice(&ZEROS[..CHUNK]);
    chunk.extend_from_slice(b"\r\n");
    let chunks = length / CHUNK as u64;
    for _ in 0..chunks {
        socket.write_all(&chunk).await?;
    }
    socket.write_all(b"0\r\n\r\n").await?;
    Ok(chunks * CHUNK as u64)
}

/// Reads one answer; returns the length of its body.
async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>, status: &str) -> io::Result<u64> {
    buffer.clear();
    let end = loop {
        if socket.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    if head.split(' ').nth(1) != Some(status) {
        let line = head.lines().next().unwrap_or_default();
        return Err(io::Error::new(io::ErrorKind::InvalidData, line));
    }
    let field = |name| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    if let Some(length) = field("content-length:") {
        let length: u64 = length.parse().map_err(io::Error::other)?;
        let mut left = length - (buffer.len() - end) as u64;
        while left > 0 {
            buffer.clear();
            let count = socket.read_buf(buffer).await? as u64;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count;
        }
        return Ok(length);
    }
    // The upstream's bodies are zero bytes, so that the last chunk cannot be in one.
    let mut length = (buffer.len() - end) as u64;
    buffer.drain(..end);
    while !buffer.ends_with(b"\r\n0\r\n\r\n") {
        let kept = buffer.len().min(7);
        buffer.drain(..buffer.len() - kept);
        let count = socket.read_buf(buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += count as u64;
    }
    Ok(length)
}
