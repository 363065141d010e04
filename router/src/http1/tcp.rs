//! A TCP socket: how much the kernel takes for the other end ahead of it, and that whatever it takes is seen in time.

use std::io::{self, Read as _};
use std::mem;
use std::net;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendFlags, Shutdown, shutdown};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::io::{self as sockets, Io, Parting};
use super::pipe::Piped;

/// Bytes that the kernel takes beyond what the other end has room for, where that it takes them is to prove something. Without
/// a limit it takes megabytes, and who does not read looks like one who does.
pub const NEAR: u32 = 128 * 1024;
/// And where it proves nothing, but a ping comes after them (HTTP/2).
pub const FAR: u32 = 512 * 1024;
/// As many as the socket's buffer has room for: to be woken for each bit doubles what a large body costs.
pub const AHEAD: u32 = u32::MAX;
/// Linux says that there is room when a third of the buffer is free, which who is slow takes longer for than anybody waits. It
/// takes more as soon as there is any, so a write that waits is tried again so often.
const AGAIN: Duration = Duration::from_millis(500);

/// Whether the runtime says when there is something to do.
#[derive(Debug)]
enum Socket {
    /// It does.
    Watched(TcpStream),
    /// It does not, until whoever has it asks for that.
    Paused(net::TcpStream),
    /// The system could not have that changed, for want of memory, and it is closed.
    Lost,
}

impl Socket {
    /// The socket as the system knows it.
    ///
    /// # Errors
    /// `NotConnected` where it is lost.
    fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Self::Watched(io) => Ok(io.as_fd()),
            Self::Paused(io) => Ok(io.as_fd()),
            Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// Bytes that are read at most from one that is paused: the memory for them is cleared first.
const CLEARED: usize = 16 * 1024;

/// A socket of which a write that waits goes on within half a second of what the other end takes.
#[derive(Debug)]
pub struct Tcp {
    io: Socket,
    /// It is watched again, and the runtime has not said yet whether there is room.
    fresh: bool,
    /// A read waits.
    reads: bool,
    /// What the kernel takes until it may run ahead.
    limit: u32,
    /// When a write that waits is tried next.
    due: Option<Instant>,
    /// Never later than that.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Tcp {
    /// One for which the kernel takes [`NEAR`], unless it may run ahead.
    pub fn near(io: TcpStream) -> Self {
        Self::new(io, NEAR)
    }

    /// One for which it takes [`FAR`], unless it may run ahead.
    pub fn far(io: TcpStream) -> Self {
        Self::new(io, FAR)
    }

    fn new(io: TcpStream, limit: u32) -> Self {
        let socket = Self {
            io: Socket::Watched(io),
            fresh: false,
            reads: false,
            limit,
            due: None,
            timer: None,
        };
        socket.run_ahead(false);
        socket
    }

    /// The socket as one that is watched.
    ///
    /// # Errors
    /// That of the system where it could not be, and from then on `NotConnected`.
    fn watched(&mut self) -> io::Result<&mut TcpStream> {
        if let Socket::Paused(_) = self.io
            && let Socket::Paused(io) = mem::replace(&mut self.io, Socket::Lost)
        {
            self.io = Socket::Watched(TcpStream::from_std(io)?);
            self.fresh = true;
        }
        match &mut self.io {
            Socket::Watched(io) => Ok(io),
            Socket::Paused(_) | Socket::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// After a write: where it waits, has it tried again in time, and at once where nobody has asked the kernel yet.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        mut written: Poll<io::Result<usize>>,
        mut again: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() && mem::take(&mut self.fresh) {
            written = tried(self.io.as_fd().and_then(&mut again));
        }
        if written.is_ready() {
            self.due = None;
            return written;
        }
        let now = Instant::now();
        let due = *self.due.get_or_insert(now + AGAIN);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        ready!(timer.as_mut().poll(context));
        let due = if now < due {
            due
        } else {
            if let Poll::Ready(written) = tried(self.io.as_fd().and_then(&mut again)) {
                self.due = None;
                return Poll::Ready(written);
            }
            *self.due.insert(now + AGAIN)
        };
        timer.as_mut().reset(due);
        ready!(timer.as_mut().poll(context));
        // It was due at once: whoever polls next tries.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What an attempt came to: pending where it would block.
fn tried<T>(outcome: io::Result<T>) -> Poll<io::Result<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}

/// Sends what the kernel takes at once, whatever it said last of there being room.
fn send(io: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::send(io, bytes, flags)?)
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Socket::Paused(io) = &mut this.io {
            let turn = ready!(coop::poll_proceed(context));
            let most = buffer.remaining().min(CLEARED);
            if let Poll::Ready(read) = tried(io.read(buffer.initialize_unfilled_to(most))) {
                turn.made_progress();
                return Poll::Ready(read.map(|count| buffer.advance(count)));
            }
        }
        let read = Pin::new(this.watched()?).poll_read(context, buffer);
        this.reads = read.is_pending();
        read
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(this.watched()?).poll_write(context, bytes);
        this.watch(context, written, |io| send(io, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(this.watched()?).poll_write_vectored(context, parts);
        this.watch(context, written, |io| {
            let first = parts.iter().find(|part| !part.is_empty());
            send(io, first.map_or(&[], |part| part))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.io.as_fd();
        let shut = socket.and_then(|socket| Ok(shutdown(socket, Shutdown::Write)?));
        // Who has broken it off hears no more anyway.
        Poll::Ready(shut.or_else(|error| match error.kind() {
            io::ErrorKind::NotConnected => Ok(()),
            _ => Err(error),
        }))
    }
}

impl Io for Tcp {
    fn parting(&self) -> Option<Parting> {
        let socket = self.io.as_fd();
        socket.map_or(Some(Parting::Broken), sockets::parting)
    }

    fn reset_on_close(&self) {
        if let Ok(socket) = self.io.as_fd() {
            sockets::reset_on_close(&socket);
        }
    }

    fn run_ahead(&self, far: bool) {
        let most = if far { AHEAD } else { self.limit };
        if let Ok(socket) = self.io.as_fd() {
            // A hint to the kernel; without it the socket works all the same.
            let _ = SockRef::from(&socket).set_tcp_notsent_lowat(most);
        }
    }

    fn pause(&mut self) {
        // Whoever waits for it would wait for ever.
        if !self.reads
            && self.due.is_none()
            && let Socket::Watched(_) = self.io
            && let Socket::Watched(io) = mem::replace(&mut self.io, Socket::Lost)
            && let Ok(io) = io.into_std()
        {
            self.io = Socket::Paused(io);
        }
    }

    fn pipes(&self) -> bool {
        true
    }

    fn poll_read_piped(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Piped>> {
        if let Socket::Paused(io) = &self.io {
            let turn = ready!(coop::poll_proceed(context));
            if let Poll::Ready(filled) = tried(Piped::fill(io, most)) {
                turn.made_progress();
                return Poll::Ready(filled);
            }
        }
        let read = self.watched()?.poll_read_piped(context, most);
        self.reads = read.is_pending();
        read
    }

    fn poll_write_piped(
        &mut self,
        context: &mut Context<'_>,
        piped: &mut Piped,
    ) -> Poll<io::Result<usize>> {
        let written = self.watched()?.poll_write_piped(context, piped);
        self.watch(context, written, |io| piped.drain(io))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Waker;

    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;
    use crate::http1::pipe;

    /// Writes until nothing more is taken at once; how many bytes were.
    async fn fill(socket: &mut Tcp) -> usize {
        let mut written = 0;
        coop::unconstrained(poll_fn(|context| {
            loop {
                match Pin::new(&mut *socket).poll_write(context, &[0; 16 * 1024]) {
                    Poll::Ready(count) => written += count.unwrap(),
                    Poll::Pending => return Poll::Ready(written),
                }
            }
        }))
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
        socket.run_ahead(true);
        assert!(fill(&mut socket).await > 0);
        let writing = async {
            for _ in 0..3 {
                fill(&mut socket).await;
                // Less than a third of what waits.
                other.read_exact(&mut [0; 192 * 1024]).await.unwrap();
                socket.write_all(b"more").await.unwrap();
            }
        };
        timeout(Duration::from_secs(60), writing).await.unwrap();
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(connecting, listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    /// Pauses one of which nobody waits.
    fn pause(socket: &mut Tcp) {
        socket.pause();
        assert!(matches!(socket.io, Socket::Paused(_)));
    }

    #[tokio::test]
    async fn what_comes_while_it_is_paused_is_there() {
        let (ours, mut theirs) = pair().await;
        let mut socket = Tcp::near(ours);
        pause(&mut socket);
        theirs.write_all(b"first").await.unwrap();
        let mut read = [0; 5];
        socket.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"first");
        // Now it has to be watched again.
        let again = async {
            yield_now().await;
            theirs.write_all(b"again").await.unwrap();
        };
        tokio::join!(socket.read_exact(&mut read), again).0.unwrap();
        assert_eq!(&read, b"again");
    }

    #[tokio::test]
    async fn one_that_is_paused_can_do_all_that_it_could() {
        let (ours, mut theirs) = pair().await;
        let mut socket = Tcp::near(ours);
        for piped in [true, false] {
            pause(&mut socket);
            assert_eq!(socket.parting(), None);
            theirs.write_all(b"come").await.unwrap();
            if piped {
                assert!(pipe::spare());
                let come = poll_fn(|context| socket.poll_read_piped(context, 100)).await;
                assert_eq!(come.unwrap().lift(), "come");
                // It is paused still, and there is nothing.
                assert!(pipe::spare());
                let nothing = poll_fn(|context| socket.poll_read_piped(context, 100));
                let more = async {
                    yield_now().await;
                    theirs.write_all(b"more").await.unwrap();
                };
                let (more, ()) = tokio::join!(nothing, more);
                assert_eq!(more.unwrap().lift(), "more");
            } else {
                socket.read_exact(&mut [0; 4]).await.unwrap();
            }
            pause(&mut socket);
            // There is room, and it is written at once.
            let sent = pin!(socket.write_all(b"sent"));
            let mut context = Context::from_waker(Waker::noop());
            assert!(sent.poll(&mut context).is_ready());
            theirs.read_exact(&mut [0; 4]).await.unwrap();
        }
        pause(&mut socket);
        socket.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut [0; 4]).await.unwrap(), 0);
        theirs.write_all(b"end").await.unwrap();
        assert_eq!(socket.parting(), None);
    }

    #[tokio::test]
    async fn one_for_which_somebody_waits_is_not_paused() {
        let (ours, mut theirs) = pair().await;
        let mut socket = Tcp::near(ours);
        let mut byte = [0; 1];
        let read = socket.read(&mut byte).now_or_never();
        assert!(read.is_none());
        socket.pause();
        assert!(matches!(socket.io, Socket::Watched(_)));
        theirs.write_all(b"x").await.unwrap();
        socket.read_exact(&mut byte).await.unwrap();
        pause(&mut socket);
        fill(&mut socket).await;
        socket.pause();
        assert!(matches!(socket.io, Socket::Watched(_)));
    }

    #[tokio::test]
    async fn the_other_end_is_missed_by_one_that_is_paused() {
        for (paused, broken) in [(false, false), (false, true), (true, false), (true, true)] {
            let (ours, mut theirs) = pair().await;
            let mut socket = Tcp::near(ours);
            if paused {
                pause(&mut socket);
            }
            theirs.write_all(b"left").await.unwrap();
            assert_eq!(socket.parting(), None);
            if broken {
                theirs.reset_on_close();
            }
            drop(theirs);
            let parted = match broken {
                true => Parting::Broken,
                false => Parting::Ended(4),
            };
            let seen = async {
                while socket.parting().is_none() {
                    yield_now().await;
                }
            };
            timeout(Duration::from_secs(60), seen).await.unwrap();
            assert_eq!(socket.parting(), Some(parted));
        }
    }

    #[tokio::test]
    async fn who_runs_ahead_has_no_limit() {
        let limit = |socket: &Tcp| {
            SockRef::from(&socket.io.as_fd().unwrap())
                .tcp_notsent_lowat()
                .unwrap()
        };
        let sockets = [Tcp::near(pair().await.0), Tcp::far(pair().await.0)];
        for (socket, least) in sockets.iter().zip([NEAR, FAR]) {
            assert_eq!(limit(socket), least);
            for (ahead, most) in [(true, AHEAD), (false, least)] {
                socket.run_ahead(ahead);
                assert_eq!(limit(socket), most);
            }
        }
    }
}
