//! A connection to a cell as bytes: plain or TLS, with what has come from the cell counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::http1::io::Io as Both;
use crate::http1::pipe::Piped;
use crate::http1::tcp::Tcp;

/// How many bytes have come from the cell: whether any has decides whether a request may be sent again.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
enum Io {
    Plain(Tcp),
    Tls(Box<TlsStream<Tcp>>),
}

/// A connected socket.
#[derive(Debug)]
pub struct Socket {
    io: Io,
    heard: Heard,
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self::new(Io::Plain(Tcp::near(socket)))
    }
}

impl From<TlsStream<Tcp>> for Socket {
    fn from(socket: TlsStream<Tcp>) -> Self {
        Self::new(Io::Tls(Box::new(socket)))
    }
}

impl Socket {
    fn new(io: Io) -> Self {
        Self {
            io,
            heard: Heard::default(),
        }
    }

    /// The count of what comes.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }
}

impl Both for Socket {
    fn reset_on_close(&self) {
        match &self.io {
            Io::Plain(io) => io.reset_on_close(),
            Io::Tls(io) => io.get_ref().0.reset_on_close(),
        }
    }

    fn pipes(&self) -> bool {
        matches!(self.io, Io::Plain(_))
    }

    fn run_ahead(&self, far: bool) {
        match &self.io {
            Io::Plain(io) => io.run_ahead(far),
            Io::Tls(io) => io.get_ref().0.run_ahead(far),
        }
    }

    fn pause(&mut self) {
        if let Io::Plain(io) = &mut self.io {
            io.pause();
        }
    }

    fn poll_read_piped(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Piped>> {
        let Io::Plain(io) = &mut self.io else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let piped = ready!(io.poll_read_piped(context, most))?;
        self.heard
            .0
            .fetch_add(piped.len() as u64, Ordering::Relaxed);
        Poll::Ready(Ok(piped))
    }

    fn poll_write_piped(
        &mut self,
        context: &mut Context<'_>,
        piped: &mut Piped,
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => io.poll_write_piped(context, piped),
            Io::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(match &mut this.io {
            Io::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_read(context, buffer),
        })?;
        let came = buffer.filled().len() - before;
        this.heard.0.fetch_add(came as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_write(context, bytes),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(context, slices),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_flush(context),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(context),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use bytes::BytesMut;
    use socket2::SockRef;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::http1::Piece;
    use crate::http1::buffered::Buffered;
    use crate::http1::pipe;
    use crate::http1::tcp::{AHEAD, NEAR};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(connecting, listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn the_kernel_takes_more_only_of_a_large_body_that_is_taken() {
        let (ours, mut cell) = pair().await;
        let ours = ours.into_std().unwrap();
        let seen = ours.try_clone().unwrap();
        let limit = || SockRef::from(&seen).tcp_notsent_lowat().unwrap();
        let socket = Socket::from(TcpStream::from_std(ours).unwrap());
        assert_eq!(limit(), NEAR);
        let mut io = Buffered::new(Box::new(socket), BytesMut::new());
        let (mut client, body) = UnixStream::pair().unwrap();
        let mut moved = 0;
        io.begin();
        while moved < 2 * 1024 * 1024 {
            client.write_all(&[0; 1024]).unwrap();
            assert!(pipe::spare());
            let piped = Piped::fill(&body, 1024).unwrap();
            let (length, was) = (piped.len(), moved);
            io.queue(b"", Piece::from(piped), b"");
            poll_fn(|context| io.poll_flush(context)).await.unwrap();
            cell.read_exact(&mut vec![0; length]).await.unwrap();
            moved += length;
            if was < 256 * 1024 {
                assert_eq!(limit(), NEAR, "after {moved}");
            }
        }
        assert_eq!(limit(), AHEAD);
        io.begin();
        assert_eq!(limit(), NEAR, "the next request is another");
    }
}
