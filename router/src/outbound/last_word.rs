//! A cell's socket: what the cell said is heard to the end, also where it takes no more of what is sent to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket that a failed write does not end. A cell that answers early and closes resets the connection under a running
/// upload, while its answer lies here unread. So a write that failed counts as waiting until the reader has come to the
/// end, and fails then.
#[derive(Debug)]
pub struct LastWord<I> {
    io: I,
    /// What a write failed with.
    lost: Option<io::ErrorKind>,
    /// The reader has come to the end.
    heard_out: bool,
    writer: Option<Waker>,
}

impl<I> LastWord<I> {
    /// Listens to `io` to its end.
    pub fn new(io: I) -> Self {
        Self {
            io,
            lost: None,
            heard_out: false,
            writer: None,
        }
    }

    /// What a write comes to, given what the socket made of it.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>>
    where
        I: Unpin,
    {
        if self.lost.is_none() {
            match write(Pin::new(&mut self.io), context) {
                Poll::Ready(Err(error)) => self.lost = Some(error.kind()),
                written => return written,
            }
        }
        match self.lost {
            Some(lost) if self.heard_out => Poll::Ready(Err(lost.into())),
            _ => {
                self.writer = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for LastWord<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let room = buffer.remaining() > 0;
        let read = ready!(Pin::new(&mut this.io).poll_read(context, buffer));
        if read.is_ok() && (buffer.filled().len() > before || !room) {
            return Poll::Ready(read);
        }
        this.heard_out = true;
        if let Some(writer) = this.writer.take() {
            writer.wake();
        }
        match this.lost {
            // The write took the news of the reset with it: without that, a cut answer would seem to have ended.
            Some(io::ErrorKind::ConnectionReset) => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            _ => Poll::Ready(read),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for LastWord<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .written(context, |io, context| io.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().written(context, |io, context| {
            io.poll_write_vectored(context, bytes)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .written(context, |io, context| io.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Our side of a connection, and the cell's.
    async fn pair() -> (LastWord<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, cells) = tokio::join!(TcpStream::connect(address), listener.accept());
        (LastWord::new(ours.unwrap()), cells.unwrap().0)
    }

    /// Writes until the socket knows that the cell is gone.
    async fn write_until_lost(socket: &mut LastWord<TcpStream>) {
        std::future::poll_fn(|context| {
            while socket.lost.is_none() {
                match Pin::new(&mut *socket).poll_write(context, &[0; 1000]) {
                    Poll::Ready(written) => assert!(written.is_ok(), "{written:?}"),
                    Poll::Pending if socket.lost.is_some() => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn an_answer_is_heard_though_the_upload_under_it_failed() {
        let (mut socket, mut cell) = pair().await;
        socket.write_all(b"upload").await.unwrap();
        cell.readable().await.unwrap();
        cell.write_all(b"answer").await.unwrap();
        cell.shutdown().await.unwrap();
        // With bytes unread, this resets the connection.
        drop(cell);
        write_until_lost(&mut socket).await;
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");
        let failed = socket.write_all(b"more").await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_a_reset_ends_does_not_end_well() {
        let (mut socket, mut cell) = pair().await;
        cell.write_all(b"half an ans").await.unwrap();
        #[allow(deprecated, reason = "a reset is what is wanted, and does not block")]
        cell.set_linger(Some(Duration::ZERO)).unwrap();
        drop(cell);
        write_until_lost(&mut socket).await;
        let mut heard = Vec::new();
        let end = socket.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(heard, b"half an ans");
    }

    #[tokio::test]
    async fn who_waits_to_write_is_told_when_all_is_heard() {
        let (mut socket, mut cell) = pair().await;
        socket.write_all(b"upload").await.unwrap();
        cell.readable().await.unwrap();
        cell.shutdown().await.unwrap();
        drop(cell);
        write_until_lost(&mut socket).await;
        let (mut from, mut to) = tokio::io::split(socket);
        let mut heard = Vec::new();
        let (written, read) = tokio::join!(to.write_all(b"more"), from.read_to_end(&mut heard));
        assert!(written.is_err());
        assert_eq!(read.unwrap(), 0);
    }
}
