//! The one cell behind all: it reads what it is sent, and answers with as many bytes as the path says.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PIECE: usize = 256 * 1024;
/// Bytes of one chunk of an answer.
const CHUNK: usize = 32 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Listens, and serves from then on.
///
/// # Errors
/// There is no port.
pub async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    Ok(address)
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
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
