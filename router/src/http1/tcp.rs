//! A TCP socket: how much the kernel takes for the other end ahead of it, and that whatever it takes is seen in time.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::io::{Io, Parting};
use super::pipe::Piped;

/// Bytes that the kernel takes beyond what the other end has room for, where that it takes them is to prove something. Without
/// a limit it takes megabytes, and who does not read looks like one who does.
pub const NEAR: u32 = 128 * 1024;
/// And where many are to go fast: to be woken for each bit doubles what a large body costs.
pub const FAR: u32 = 512 * 1024;
/// Linux says that there is room when half of that is free, which who is slow takes long for. Who has kept a write waiting for
/// so long is looked at more closely: the write goes on as soon as anything has been taken.
const LOOK: Duration = Duration::from_millis(500);

/// A socket of which a write that waits goes on within half a second of what the other end takes.
#[derive(Debug)]
pub struct Tcp {
    io: TcpStream,
    limit: Cell<u32>,
    /// Since when a write has been waiting.
    waits: Option<Instant>,
    /// Never later than what is next due.
    timer: Option<Pin<Box<Sleep>>>,
    closely: bool,
}

impl Tcp {
    /// One for which the kernel takes [`NEAR`], unless it may run ahead.
    pub fn near(io: TcpStream) -> Self {
        Self::new(io, NEAR)
    }

    /// One for which the kernel takes [`FAR`].
    pub fn far(io: TcpStream) -> Self {
        Self::new(io, FAR)
    }

    fn new(io: TcpStream, limit: u32) -> Self {
        let socket = Self {
            io,
            limit: Cell::new(limit),
            waits: None,
            timer: None,
            closely: false,
        };
        socket.take(limit);
        socket
    }

    fn take(&self, most: u32) {
        // A hint to the kernel; without it the socket works all the same.
        let _ = SockRef::from(&self.io).set_tcp_notsent_lowat(most);
    }

    /// Before a write: no more is taken than else.
    fn begin(&self) {
        if self.closely {
            self.take(self.limit.get());
        }
    }

    /// After it.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            (self.waits, self.closely) = (None, false);
            return written;
        }
        if !self.closely {
            let now = Instant::now();
            let due = *self.waits.get_or_insert(now) + LOOK;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            ready!(timer.as_mut().poll(context));
            if now < due {
                timer.as_mut().reset(due);
                ready!(timer.as_mut().poll(context));
            }
            self.closely = true;
        }
        // Half of it is what it takes.
        self.take(2 * self.limit.get());
        Poll::Pending
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin();
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        this.watch(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin();
        let written = Pin::new(&mut this.io).poll_write_vectored(context, parts);
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

impl Io for Tcp {
    fn parting(&self) -> Option<Parting> {
        self.io.parting()
    }

    fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    fn run_ahead(&self, far: bool) {
        let limit = if far { FAR } else { NEAR };
        self.limit.set(limit);
        self.take(limit);
    }

    fn pipes(&self) -> bool {
        true
    }

    fn poll_read_piped(&self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<Piped>> {
        self.io.poll_read_piped(context, most)
    }

    fn poll_write_piped(
        &mut self,
        context: &mut Context<'_>,
        piped: &mut Piped,
    ) -> Poll<io::Result<usize>> {
        self.begin();
        let written = self.io.poll_write_piped(context, piped);
        self.watch(context, written)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Writes until nothing more is taken at once; how many bytes were.
    async fn fill(socket: &mut Tcp) -> usize {
        let mut written = 0;
        poll_fn(|context| {
            loop {
                match Pin::new(&mut *socket).poll_write(context, &[0; 16 * 1024]) {
                    Poll::Ready(count) => written += count.unwrap(),
                    Poll::Pending => return Poll::Ready(written),
                }
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_write_goes_on_when_a_little_has_been_taken() {
        // Little room, and no more however much is read.
        let listening = TcpSocket::new_v4().unwrap();
        listening.set_recv_buffer_size(64 * 1024).unwrap();
        listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listening.listen(1).unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(connecting, listener.accept());
        let (mut socket, mut other) = (Tcp::far(ours.unwrap()), theirs.unwrap().0);
        for _ in 0..3 {
            let took = fill(&mut socket).await;
            assert!(took < 2 * FAR as usize, "{took}");
            // Less than half of what waits.
            other.read_exact(&mut [0; 192 * 1024]).await.unwrap();
            socket.write_all(b"more").await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_is_quick_is_not_looked_at_closely() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(connecting, listener.accept());
        let (mut socket, mut other) = (Tcp::near(ours.unwrap()), theirs.unwrap().0);
        let limit = |socket: &Tcp| SockRef::from(&socket.io).tcp_notsent_lowat().unwrap();
        assert_eq!(limit(&socket), NEAR);
        let took = fill(&mut socket).await;
        other.read_exact(&mut vec![0; took]).await.unwrap();
        socket.write_all(b"more").await.unwrap();
        assert_eq!(limit(&socket), NEAR);
        socket.run_ahead(true);
        assert_eq!(limit(&socket), FAR);
        socket.run_ahead(false);
        assert_eq!(limit(&socket), NEAR);
    }
}
