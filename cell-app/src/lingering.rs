//! A connection whose end the peer can read.
//!
//! A socket closed with unread bytes in it is reset, and the reset may overtake the answer (RFC 9112 section 9.6). So a
//! refused upload would look like a broken network. Closing here means: send our end, read on for a while what the peer
//! still sends, throw it away, then close.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a peer may go on sending what nobody reads.
const LINGER: Duration = Duration::from_secs(2);
/// Thrown away at a time.
const SCRAP_BYTES: usize = 16 * 1024;

/// Whether a request body was left unread on this connection.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// `body`, noting here if it is dropped before its end.
    pub(crate) fn watch<B>(&self, body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
    {
        Body::new(Watched {
            body,
            ended: false,
            unread: self.clone(),
        })
    }
}

struct Watched<B: HttpBody> {
    body: B,
    ended: bool,
    unread: Unread,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: HttpBody> Drop for Watched<B> {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.unread.0.store(true, Ordering::Release);
        }
    }
}

/// `io`, closed as the module says if `unread` was set, and at once if not.
pub(crate) struct Lingering<T> {
    io: T,
    unread: Unread,
    closing: Option<Pin<Box<Sleep>>>,
}

impl<T> Lingering<T> {
    /// Wraps `io`.
    pub(crate) fn new(io: T, unread: Unread) -> Self {
        Self {
            io,
            unread,
            closing: None,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lingering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.unread.0.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
        }
        let deadline = this
            .closing
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scrap = [0; SCRAP_BYTES];
        loop {
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    fn unread() -> Unread {
        let unread = Unread::default();
        drop(unread.watch(Body::from("never read")));
        unread
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_left_unread_is_read_until_the_peer_ends() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Lingering::new(ours, unread());
        let closing = tokio::spawn(async move { ours.shutdown().await });
        theirs.write_all(&[0; 1000]).await.unwrap();
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        drop(theirs);
        closing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_end_is_left_after_a_while() {
        let (ours, _theirs) = duplex(64);
        let start = Instant::now();
        Lingering::new(ours, unread()).shutdown().await.unwrap();
        assert_eq!(start.elapsed(), LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_bodies_were_read_closes_at_once() {
        let (ours, _theirs) = duplex(64);
        let (start, read) = (Instant::now(), Unread::default());
        let body = axum::body::to_bytes(read.watch(Body::from("read")), 100).await;
        assert_eq!(body.unwrap(), "read");
        drop(read.watch(Body::empty()));
        Lingering::new(ours, read).shutdown().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
