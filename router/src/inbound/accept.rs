//! Listeners: one for each worker and address, all on the same port.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::coop;
use tokio::time::{Instant, timeout_at};

use crate::live::room::{Place, Room};

/// Connections that the kernel keeps for a listener until they are accepted.
const BACKLOG: i32 = 1024;
/// Pause after an error that will not go away by trying at once, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a place is awaited, where all are taken, for those who came before the word to stop: idle connections end soon
/// after it, and so does the listener.
const LAST_PLACES: Duration = Duration::from_secs(2);
/// How often a port that is taken is tried.
const LOOKS: usize = 30;

/// Listens at `address`, once for each of `workers`. Port 0 becomes one port for all of them. With `patience`, a port
/// that is taken may get free for a while: its owner may be leaving.
///
/// # Errors
/// Those of the system, among them `AddrInUse` where any other process has the port.
pub fn listen(
    address: SocketAddr,
    workers: usize,
    patience: bool,
) -> io::Result<Vec<std::net::TcpListener>> {
    let mut looks = if patience { LOOKS } else { 1 };
    // Sockets that share a port also share it with strangers of the same user; one that does not share tells.
    let sole = loop {
        looks -= 1;
        match bind(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && looks > 0 => {
                std::thread::sleep(PAUSE);
            }
            bound => break bound?,
        }
    };
    let address = sole
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("not an IP socket"))?;
    drop(sole);
    (0..workers).map(|_| listen_once(address, true)).collect()
}

/// Listens once at `address`; with `shared`, beside a router that is to be replaced.
///
/// # Errors
/// Those of the system.
pub fn listen_once(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = bind(address, shared)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket that does not listen yet; with `shared`, others of the same user may have the port, too.
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

/// Deals `sockets` out to `workers`. Each socket is served and each worker serves: the fewer of the two take several, or
/// are shared.
///
/// # Errors
/// Those of the system.
pub fn deal(
    sockets: &[std::net::TcpListener],
    workers: usize,
) -> io::Result<Vec<Vec<std::net::TcpListener>>> {
    let mut dealt: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for turn in 0..sockets.len().max(workers) {
        let (Some(socket), Some(worker)) = (
            sockets.get(turn % sockets.len().max(1)),
            dealt.get_mut(turn % workers.max(1)),
        ) else {
            break;
        };
        worker.push(socket.try_clone()?);
    }
    Ok(dealt)
}

/// Accepts connections until `stop`, has `admit` say who they are of, and each of those that it lets in served once there is a
/// place: one waits for that, what else exceeds the limit waits in the kernel. What the kernel had taken by the stop is
/// accepted, too, for closing the listener would reset it. No error ends the loop.
pub async fn accept<C>(
    listener: TcpListener,
    room: &Room,
    stop: impl Future<Output = ()>,
    mut admit: impl FnMut(TcpStream, SocketAddr) -> Option<C>,
    mut serve: impl FnMut(C, Place),
) {
    let mut stop = pin!(stop);
    let waiting = loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break None,
            accepted = listener.accept() => accepted,
        };
        let client = match accepted {
            Ok((socket, peer)) => hinted(socket, peer, &mut admit),
            Err(error) => {
                missed(&error).await;
                None
            }
        };
        let Some(client) = client else { continue };
        let place = tokio::select! {
            biased;
            place = room.place() => place,
            () = &mut stop => break Some(client),
        };
        serve(client, place);
    };
    match listener.into_std() {
        Ok(listener) => empty(waiting, &listener, room, admit, serve).await,
        Err(error) => tracing::warn!(%error, "accept"),
    }
}

/// Has those served who came before the stop: who waits for a place, and whoever is in the kernel's queue, as the kernel says and
/// not as this process has heard. What there is no place for is closed, which its client can tell from a router that thinks.
async fn empty<C>(
    mut waiting: Option<C>,
    listener: &std::net::TcpListener,
    room: &Room,
    mut admit: impl FnMut(TcpStream, SocketAddr) -> Option<C>,
    mut serve: impl FnMut(C, Place),
) {
    let until = Instant::now() + LAST_PLACES;
    while Instant::now() < until {
        // Others on this thread are to come to their turn.
        coop::consume_budget().await;
        if let Some(client) = waiting.take() {
            match timeout_at(until, room.left_place()).await {
                Ok(place) => serve(client, place),
                Err(_) => return,
            }
        }
        let accepted = listener.accept().and_then(|(socket, peer)| {
            socket.set_nonblocking(true)?;
            Ok((TcpStream::from_std(socket)?, peer))
        });
        match accepted {
            Ok((socket, peer)) => waiting = hinted(socket, peer, &mut admit),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => missed(&error).await,
        }
    }
}

/// What follows on a connection that could not be accepted.
async fn missed(error: &io::Error) {
    if !lost(error) {
        tracing::warn!(%error, "accept");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the connection was gone before it was accepted.
fn lost(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn hinted<C>(
    socket: TcpStream,
    peer: SocketAddr,
    admit: &mut impl FnMut(TcpStream, SocketAddr) -> Option<C>,
) -> Option<C> {
    // A hint to the kernel; without it the socket works all the same.
    let _ = socket.set_nodelay(true);
    admit(socket, peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each worker, which of the sockets it serves.
    fn dealt(sockets: usize, workers: usize) -> Vec<Vec<usize>> {
        let sockets: Vec<_> = (0..sockets)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        let number = |socket: &std::net::TcpListener| {
            let address = socket.local_addr().unwrap();
            addresses.iter().position(|a| *a == address).unwrap()
        };
        deal(&sockets, workers)
            .unwrap()
            .iter()
            .map(|sockets| sockets.iter().map(number).collect())
            .collect()
    }

    #[test]
    fn every_socket_is_served_and_every_worker_serves() {
        assert_eq!(dealt(2, 2), [[0], [1]]);
        assert_eq!(dealt(3, 2), [vec![0, 2], vec![1]]);
        assert_eq!(dealt(2, 5), [[0], [1], [0], [1], [0]]);
        assert_eq!(dealt(0, 2), [[0; 0], []]);
    }
}
