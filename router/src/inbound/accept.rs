//! Listeners: one for each worker and address, all on the same port.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that the kernel keeps for a listener until they are accepted.
const BACKLOG: i32 = 1024;
/// Pause after an error that will not go away by trying at once, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens at `address`, once for each of `workers`. Port 0 becomes one port for all of them.
///
/// # Errors
/// Those of the system, among them `AddrInUse` where any other process has the port.
pub fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // Sockets that share a port also share it with strangers of the same user; one that does not share tells.
    let sole = bind(address, false)?;
    let address = sole
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("not an IP socket"))?;
    drop(sole);
    (0..workers)
        .map(|_| {
            let socket = bind(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Fly's edge connects over IPv4, neighbours over IPv6: one socket serves both.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts connections until `stop`, each with a permit that is taken first: what exceeds the limit waits in the kernel.
/// What the kernel had taken by then is accepted, too, for closing the listener would reset it. No error ends the loop.
pub async fn accept(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    stop: impl Future<Output = ()>,
    mut serve: impl FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let mut stop = pin!(stop);
    let mut stopping = false;
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = std::future::ready(()), if stopping => return,
            () = &mut stop, if !stopping => {
                stopping = true;
                continue;
            }
        };
        match accepted {
            Ok((socket, peer)) => {
                // A hint to the kernel; without it the socket works all the same.
                let _ = socket.set_nodelay(true);
                serve(socket, peer, permit);
            }
            // The connection was gone before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
