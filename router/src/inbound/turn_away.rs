//! Connections that are refused before anything is read from them.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a refused client may take to see that it is, before its connection is gone altogether.
const TIME: Duration = Duration::from_secs(1);

/// Says `words`, and that nothing follows. What the client has sent meanwhile is passed over, for closing with something
/// unread would be a reset, and might overtake the words.
pub async fn turn_away(mut socket: TcpStream, words: &[u8]) {
    let saying = async {
        socket.write_all(words).await?;
        socket.shutdown().await?;
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
    };
    // Whoever takes longer, or has gone, is not waited for.
    let _ = timeout(TIME, saying).await;
}
