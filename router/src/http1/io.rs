//! The sockets that a connection can be made of.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::pipe::Piped;

/// Bytes that have been taken off a socket at most, and are kept until they are a whole record of TLS or somebody reads them.
const TLS_AHEAD: u64 = 128 * 1024;

/// What the other end of a connection has done that has been heard of behind what it sent before, and that nobody has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// It sends no more; so many bytes of it are still to be read, at most.
    Ended(u64),
    /// It has broken the connection off.
    Broken,
}

/// A socket, or what is wrapped around one.
pub trait Io: AsyncRead + AsyncWrite + Unpin {
    /// Whether the other end has parted, without reading.
    fn parting(&self) -> Option<Parting> {
        None
    }

    /// Makes its closing a reset, which no reader can take for an end.
    fn reset_on_close(&self);

    /// Lets the kernel take more to send ahead of the other end, or again as little as at first, where that is limited.
    fn run_ahead(&self, _far: bool) {}

    /// What comes wakes nobody until somebody reads again, where that can be had: for whoever cannot pass on what has come.
    fn pause(&mut self) {}

    /// Whether its bytes may go through pipes of the kernel: what is read and written is what is on the wire.
    fn pipes(&self) -> bool {
        false
    }

    /// Moves up to `most` bytes that have come into a pipe; none at the connection's end. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket; `Unsupported` unless [`Io::pipes`].
    fn poll_read_piped(&mut self, _: &mut Context<'_>, _most: usize) -> Poll<io::Result<Piped>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Writes some of what is in a pipe, and says how much. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket; `Unsupported` unless [`Io::pipes`].
    fn poll_write_piped(&mut self, _: &mut Context<'_>, _: &mut Piped) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// Whether the other end of a socket has parted, without reading.
pub fn parting(socket: impl AsFd) -> Option<Parting> {
    let mut asked = [PollFd::new(&socket, PollFlags::RDHUP)];
    poll(&mut asked, Some(&Timespec::default())).ok()?;
    let seen = asked[0].revents();
    if seen.intersects(PollFlags::HUP | PollFlags::ERR) {
        return Some(Parting::Broken);
    }
    seen.contains(PollFlags::RDHUP).then(|| {
        let unread = rustix::io::ioctl_fionread(socket);
        Parting::Ended(unread.unwrap_or(u64::MAX))
    })
}

/// Makes a socket's closing a reset.
pub fn reset_on_close(socket: &impl AsFd) {
    // Where the system refuses, the socket is broken already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

impl Io for TcpStream {
    fn parting(&self) -> Option<Parting> {
        parting(self)
    }

    fn reset_on_close(&self) {
        reset_on_close(self);
    }

    fn pipes(&self) -> bool {
        true
    }

    fn poll_read_piped(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Piped>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            match self.try_io(Interest::READABLE, || Piped::fill(&*self, most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                filled => return Poll::Ready(filled),
            }
        }
    }

    fn poll_write_piped(
        &mut self,
        context: &mut Context<'_>,
        piped: &mut Piped,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            match self.try_io(Interest::WRITABLE, || piped.drain(&*self)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                drained => return Poll::Ready(drained),
            }
        }
    }
}

impl<I: Io> Io for TlsStream<I> {
    fn parting(&self) -> Option<Parting> {
        Some(match self.get_ref().0.parting()? {
            Parting::Ended(unread) => Parting::Ended(unread.saturating_add(TLS_AHEAD)),
            Parting::Broken => Parting::Broken,
        })
    }

    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

impl Io for tokio::io::Empty {
    fn reset_on_close(&self) {}
}
