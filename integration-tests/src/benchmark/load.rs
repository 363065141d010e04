//! Clients, each with one connection, that ask the next as soon as they are answered.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::peers::{OWN, Peer, host};
use super::upstream::{MASKED, PLAIN};

/// Bytes that are sent and read at once.
const PIECE: usize = 256 * 1024;
/// Bytes of one chunk, as common clients send them.
const CHUNK: usize = 64 * 1024;
/// Connections that clients of HTTP/2 share.
const SHARED: usize = 4;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// What clients ask.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// A path of the upstream's.
    Get(&'static str),
    /// The same by TLS.
    GetByTls(&'static str),
    /// The same by HTTP/2, on few connections.
    GetByHttp2(&'static str),
    /// What the proxy answers by itself.
    Own,
    /// An upload of so many bytes.
    Put(u64),
    /// The same without its length.
    PutChunked(u64),
    /// A message of a WebSocket, and its echo.
    Echo,
}

/// Runs clients to their ends; returns how many bytes of bodies went over their connections.
///
/// # Errors
/// Those of connections; `InvalidData` for another answer.
pub async fn run(peer: &Peer, ask: Ask, clients: usize, each: usize) -> io::Result<u64> {
    let mut shared = Vec::new();
    if let Ask::GetByHttp2(_) = ask {
        for _ in 0..SHARED {
            let (client, connection) = h2::client::handshake(connect(peer.http2()).await?)
                .await
                .map_err(io::Error::other)?;
            // Its errors come out of the requests.
            tokio::spawn(async move { drop(connection.await) });
            shared.push(client);
        }
    }
    let mut running = JoinSet::new();
    for number in 0..clients {
        // Spread over the table.
        let host = host(number * peer.cells() / clients);
        let (plain, tls) = (peer.address(), peer.tls());
        let certificate = peer.certificate().clone();
        let share = shared.get(number % SHARED).cloned();
        running.spawn(async move {
            match (ask, share) {
                (Ask::GetByHttp2(path), Some(share)) => streams(share, &host, path, each).await,
                (Ask::GetByTls(_), _) => {
                    let socket = certificate.connect(tls, &host, "http/1.1").await?;
                    client(socket, ask, &host, each).await
                }
                (Ask::Echo, _) => echoes(connect(plain).await?, &host, each).await,
                _ => client(connect(plain).await?, ask, &host, each).await,
            }
        });
    }
    let mut bytes = 0;
    while let Some(ended) = running.join_next().await {
        bytes += ended.map_err(io::Error::other)??;
    }
    Ok(bytes)
}

/// A connection that sends at once what it is given.
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn client<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    ask: Ask,
    host: &str,
    each: usize,
) -> io::Result<u64> {
    let (host, status) = match ask {
        Ask::Own => (OWN, "409"),
        _ => (host, "200"),
    };
    let usual = format!("host: {host}\r\nuser-agent: benchmark\r\naccept: */*\r\n");
    let head = match ask {
        Ask::Get(path) | Ask::GetByTls(path) | Ask::GetByHttp2(path) => {
            format!("GET {path} HTTP/1.1\r\n{usual}\r\n")
        }
        Ask::Own | Ask::Echo => format!("GET /page HTTP/1.1\r\n{usual}\r\n"),
        Ask::Put(length) => format!("PUT /0 HTTP/1.1\r\n{usual}content-length: {length}\r\n\r\n"),
        Ask::PutChunked(_) => {
            format!("PUT /0 HTTP/1.1\r\n{usual}transfer-encoding: chunked\r\n\r\n")
        }
    };
    let (mut buffer, mut bytes) = (Vec::with_capacity(PIECE), 0);
    for _ in 0..each {
        socket.write_all(head.as_bytes()).await?;
        socket.flush().await?;
        match ask {
            Ask::Put(length) => bytes += send(&mut socket, length).await?,
            Ask::PutChunked(length) => bytes += send_chunked(&mut socket, length).await?,
            _ => {}
        }
        bytes += read(&mut socket, &mut buffer, status).await?;
    }
    Ok(bytes)
}

/// One client's requests on a connection that others use too.
async fn streams(
    client: SendRequest<Bytes>,
    host: &str,
    path: &str,
    each: usize,
) -> io::Result<u64> {
    let mut bytes = 0;
    for _ in 0..each {
        let request = Request::get(format!("http://{host}{path}"))
            .header("user-agent", "benchmark")
            .header("accept", "*/*")
            .body(())
            .map_err(io::Error::other)?;
        let mut ready = client.clone().ready().await.map_err(io::Error::other)?;
        let (answered, _) = ready
            .send_request(request, true)
            .map_err(io::Error::other)?;
        let (head, mut body) = answered.await.map_err(io::Error::other)?.into_parts();
        if head.status != http::StatusCode::OK {
            let status = head.status.to_string();
            return Err(io::Error::new(io::ErrorKind::InvalidData, status));
        }
        while let Some(piece) = body.data().await {
            let length = piece.map_err(io::Error::other)?.len();
            // A stream that is over needs no room.
            let _ = body.flow_control().release_capacity(length);
            bytes += length as u64;
        }
    }
    Ok(bytes)
}

/// One client's messages.
async fn echoes(mut socket: TcpStream, host: &str, each: usize) -> io::Result<u64> {
    let head = format!(
        "GET /echo HTTP/1.1\r\nhost: {host}\r\nuser-agent: benchmark\r\nupgrade: websocket\r\n\
        connection: upgrade\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    head_of(&mut socket, &mut Vec::new(), "101").await?;
    let mut echo = PLAIN;
    for _ in 0..each {
        socket.write_all(&MASKED).await?;
        socket.read_exact(&mut echo).await?;
    }
    Ok((each * echo.len()) as u64)
}

async fn send(socket: &mut (impl AsyncWrite + Unpin), length: u64) -> io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let piece = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        socket.write_all(&ZEROS[..piece]).await?;
        left -= piece as u64;
    }
    Ok(length)
}

async fn send_chunked(socket: &mut (impl AsyncWrite + Unpin), length: u64) -> io::Result<u64> {
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

/// Reads a head, which has to have this status; returns it, and where in the buffer it ends.
async fn head_of(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    status: &str,
) -> io::Result<(String, usize)> {
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
    Ok((head, end))
}

/// Reads one answer; returns the length of its body.
pub(super) async fn read(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    status: &str,
) -> io::Result<u64> {
    let (head, end) = head_of(socket, buffer, status).await?;
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
