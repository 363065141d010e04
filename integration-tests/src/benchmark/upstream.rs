//! The one cell behind all: it reads what it is sent, and answers with as many bytes as the path says, echoes messages of
//! a WebSocket, or reads nothing more.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

const PIECE: usize = 256 * 1024;
/// Bytes of one chunk of an answer.
const CHUNK: usize = 32 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Bytes that a message of a WebSocket carries.
pub const MESSAGE: usize = 64;
/// A message as a client sends it, masked with zeros, and as a server does (RFC 6455 section 5.2).
pub const MASKED: [u8; 6 + MESSAGE] = message(0x80);
/// The same as a server sends it.
pub const PLAIN: [u8; 2 + MESSAGE] = message(0);

const fn message<const LENGTH: usize>(mask: u8) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = 0x82;
    message[1] = mask | MESSAGE as u8;
    message
}

/// The cell.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    stalled: watch::Sender<usize>,
}

impl Upstream {
    /// Listens, and serves from then on.
    ///
    /// # Errors
    /// There is no port.
    pub fn start() -> io::Result<Self> {
        Self::listen(TcpSocket::new_v4()?)
    }

    /// The same, with about so many bytes of room in the kernel for what has not been read yet.
    ///
    /// # Errors
    /// There is no port.
    pub fn start_with_room(bytes: u32) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        Self::listen(socket)
    }

    fn listen(socket: TcpSocket) -> io::Result<Self> {
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener: TcpListener = socket.listen(4096)?;
        let address = listener.local_addr()?;
        let stalled = watch::Sender::new(0);
        let stalls = stalled.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, stalls.clone()));
            }
        });
        Ok(Self { address, stalled })
    }

    /// Waits until so many uploads stand still.
    ///
    /// # Errors
    /// Never: whoever tells of them lives as long.
    pub async fn stalled(&self, uploads: usize) -> io::Result<()> {
        let mut stalled = self.stalled.subscribe();
        let reached = stalled.wait_for(|stalled| *stalled >= uploads).await;
        reached.map(drop).map_err(io::Error::other)
    }

    /// Lets all of them go.
    pub fn release(&self) {
        self.stalled.send_replace(0);
    }
}

async fn serve(mut socket: TcpStream, stalled: watch::Sender<usize>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(PIECE);
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let field = |name| {
            head.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let length = field("content-length:").and_then(|length| length.parse::<u64>().ok());
        let chunked = field("transfer-encoding:").is_some();
        buffer.drain(..end);
        if path == "/stalled" {
            let mut released = stalled.subscribe();
            stalled.send_modify(|stalled| *stalled += 1);
            let _ = released.wait_for(|stalled| *stalled == 0).await;
            return Ok(());
        }
        if path == "/echo" {
            return echo(socket).await;
        }
        if let Some(length) = length {
            let mut left = length.saturating_sub(buffer.len() as u64);
            buffer.clear();
            while left > 0 {
                let count = socket.read_buf(&mut buffer).await? as u64;
                if count == 0 {
                    return Ok(());
                }
                left = left.saturating_sub(count);
                buffer.clear();
            }
        } else if chunked {
            while !buffer.ends_with(b"0\r\n\r\n") {
                let kept = buffer.len().min(4);
                buffer.drain(..buffer.len() - kept);
                if socket.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            buffer.clear();
        }
        answer(&mut socket, &path).await?;
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    // The answer to the one key that is sent (RFC 6455 section 1.3).
    let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    let mut message = MASKED;
    while socket.read_exact(&mut message).await.is_ok() {
        socket.write_all(&PLAIN).await?;
    }
    Ok(())
}

async fn answer(socket: &mut TcpStream, path: &str) -> io::Result<()> {
    if let Some(length) = path.strip_prefix("/chunked/") {
        let chunks = length.parse::<u64>().unwrap_or_default() / CHUNK as u64;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await?;
        let mut chunk = format!("{CHUNK:x}\r\n").into_bytes();
        chunk.extend_from_slice(&ZEROS[..CHUNK]);
        chunk.extend_from_slice(b"\r\n");
        for _ in 0..chunks {
            socket.write_all(&chunk).await?;
        }
        return socket.write_all(b"0\r\n\r\n").await;
    }
    let length: u64 = path.trim_start_matches('/').parse().unwrap_or_default();
    let mut head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n")
            .into_bytes();
    let first = usize::try_from(length).map_or(PIECE, |length| length.min(16 * 1024));
    head.extend_from_slice(&ZEROS[..first]);
    socket.write_all(&head).await?;
    let mut left = length - first as u64;
    while left > 0 {
        let piece = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        socket.write_all(&ZEROS[..piece]).await?;
        left -= piece as u64;
    }
    Ok(())
}
