//! A client's socket: who stops taking what is sent to it loses it, and its place is taken for as long as it lives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::http1::io::{Io, Parting};
use crate::http1::pipe::Piped;

/// A socket of which every write must make progress within `patience`. `P` is let go with it, whoever has it by then: a
/// tunnel takes it over from its connection.
#[derive(Debug)]
pub struct ClientSocket<I, P> {
    io: I,
    patience: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: P,
}

impl<I, P> ClientSocket<I, P> {
    /// Watches over writes to `io`.
    pub fn new(io: I, patience: Duration, place: P) -> Self {
        Self {
            io,
            patience,
            stalled: None,
            _place: place,
        }
    }

    /// Passes on what a write came to; an error where none has come to anything for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        stalled
            .as_mut()
            .poll(context)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin, P: Unpin> AsyncRead for ClientSocket<I, P> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin, P: Unpin> AsyncWrite for ClientSocket<I, P> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        this.watch(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(context, bytes);
        this.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

impl<I: Io, P: Unpin> Io for ClientSocket<I, P> {
    fn parting(&self) -> Option<Parting> {
        self.io.parting()
    }

    fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    fn run_ahead(&self, far: bool) {
        // Once it has, it goes on: what lies in the kernel of one answer says nothing of who waits for the next.
        if far {
            self.io.run_ahead(true);
        }
    }

    fn pipes(&self) -> bool {
        self.io.pipes()
    }

    fn pause(&mut self) {
        self.io.pause();
    }

    fn poll_read_piped(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Piped>> {
        self.io.poll_read_piped(context, most)
    }

    fn poll_write_piped(
        &mut self,
        context: &mut Context<'_>,
        piped: &mut Piped,
    ) -> Poll<io::Result<usize>> {
        let written = self.io.poll_write_piped(context, piped);
        self.watch(context, written)
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http1::tcp::{AHEAD, FAR, Tcp};

    #[tokio::test]
    async fn a_client_for_which_the_kernel_has_run_ahead_keeps_that() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let ours = connecting.await.unwrap().into_std().unwrap();
        let seen = ours.try_clone().unwrap();
        let limit = || SockRef::from(&seen).tcp_notsent_lowat().unwrap();
        let tcp = Tcp::far(TcpStream::from_std(ours).unwrap());
        let socket = ClientSocket::new(tcp, Duration::from_secs(60), ());
        assert_eq!(limit(), FAR);
        for ahead in [true, false] {
            socket.run_ahead(ahead);
            assert_eq!(limit(), AHEAD);
        }
    }
}
