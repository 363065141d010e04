//! A socket with what was read ahead on it, and what is still to be written to it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::task::coop;
use tokio::time::{Duration, Instant};

use super::io::{Io, Parting};
use super::piece::Piece;
use super::{later, scratch};

/// Bytes that may wait to be written before more is asked of a body.
const WRITE_AHEAD: usize = 16 * 1024;
/// Data of up to so many bytes is copied to what else is written; more is written from where it is.
const COPIED: usize = 2 * 1024;

/// No more than so many bytes are left to be written later: more is written while the processor's caches still hold it.
const LEFT: usize = 4 * 1024;

/// After so many bytes of a turn that went through pipes, the kernel may take more to send: whoever takes so many is no one
/// who does not read, and to be woken for each bit doubles what a large body costs.
const RUN_AHEAD: u64 = 512 * 1024;

/// Bytes that are taken into a pipe at first, and from whoever takes them slowly on.
const FIRST: usize = 256 * 1024;
/// Within so long whoever they go to has taken them, if twice as many may be taken next.
const QUICK: Duration = Duration::from_millis(500);

/// How many bytes are taken into a pipe at once. To have taken some from one side is all the progress that is seen before they
/// have gone to the other, and who takes them slowly must not seem to stand still: so many are taken for who is quick only.
#[derive(Debug)]
struct Stride {
    bytes: usize,
    /// When the last came, until more are asked for.
    came: Option<Instant>,
}

impl Stride {
    const BEGIN: Self = Self {
        bytes: FIRST,
        came: None,
    };

    fn came(&mut self, now: Instant) {
        self.came = Some(now);
    }

    fn next(&mut self, now: impl FnOnce() -> Instant) -> usize {
        if let Some(came) = self.came.take() {
            self.bytes = if now() - came < QUICK {
                self.bytes.saturating_mul(2)
            } else {
                FIRST
            };
        }
        self.bytes
    }
}

/// What becomes of what is queued.
enum Fate {
    /// Whoever flushes writes it.
    Flushed,
    /// It is left to be written later; whom to wake where that comes to no good end.
    Left(Waker),
    /// It was left, and could not all be written then: whoever flushes writes the rest.
    Stuck,
    /// It was left, and this came of it.
    Failed(io::Error),
}

/// One side of the router: a client's socket or a cell's.
pub struct Buffered {
    io: Box<dyn Io>,
    /// What has been read, and not been taken yet.
    pub read: BytesMut,
    /// Written first, then `data`, then `after`.
    write: BytesMut,
    data: Piece,
    after: &'static [u8],
    /// Bytes that the socket has taken since the present turn began.
    written: u64,
    /// From how many bytes on what is read of a body in this turn stays in the kernel, if any of it does.
    piped: Option<u64>,
    stride: Stride,
    /// The kernel may take more to send in this turn.
    ahead: bool,
    /// A write was told how the connection broke.
    broken: bool,
    fate: Fate,
}

impl fmt::Debug for Buffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered").finish_non_exhaustive()
    }
}

impl Buffered {
    /// Over `io`, from which `ahead` has been read already.
    pub fn new(io: Box<dyn Io>, ahead: BytesMut) -> Self {
        Self {
            io,
            read: ahead,
            write: BytesMut::new(),
            data: Piece::default(),
            after: b"",
            written: 0,
            piped: None,
            stride: Stride::BEGIN,
            ahead: false,
            broken: false,
            fate: Fate::Flushed,
        }
    }

    /// Begins a turn: counts what is written from now on, and nothing of it stays in the kernel yet.
    pub fn begin(&mut self) {
        self.written = 0;
        self.piped = None;
        self.stride = Stride::BEGIN;
        if std::mem::take(&mut self.ahead) {
            self.io.run_ahead(false);
        }
    }

    /// Bytes that the socket has taken in this turn.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether the other end is silent and there, as it should be between two turns.
    pub fn is_quiet(&mut self) -> bool {
        if !self.read.is_empty() {
            return false;
        }
        let mut context = Context::from_waker(Waker::noop());
        // A task that has done much for one turn is told to wait by a socket that was not looked at.
        let look = coop::unconstrained(poll_fn(|context| self.poll_fill(context, 1)));
        pin!(look).poll(&mut context).is_pending()
    }

    /// Whether the other end has parted, without reading.
    pub fn parting(&self) -> Option<Parting> {
        self.io.parting()
    }

    /// Lets memory go that an idle connection does not need.
    pub fn rest(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        if self.write.is_empty() {
            self.write = BytesMut::new();
        }
    }

    /// Reads up to `most` bytes more; `false` at the connection's end. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_fill(&mut self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<bool>> {
        if self.read.is_empty() {
            // It may be a part of a buffer that was lent.
            self.read = BytesMut::new();
        }
        let most = match self.read.is_empty() && scratch::lends() {
            true => most,
            false => most.min(scratch::COPIED),
        };
        let mut came = scratch::take();
        let mut into = (&mut came).limit(most);
        // It keeps nothing between polls.
        let read = pin!(self.io.read_buf(&mut into)).poll(context);
        scratch::keep(came, &mut self.read);
        match ready!(read) {
            Ok(0) => Poll::Ready(self.ended().map(|()| false)),
            read => Poll::Ready(read.map(|_| true)),
        }
    }

    /// What comes wakes nobody until somebody reads again.
    pub fn pause_reading(&mut self) {
        self.io.pause();
    }

    /// Whether its bytes may go through pipes of the kernel.
    pub fn pipes(&self) -> bool {
        self.io.pipes()
    }

    /// Lets what is to come in this turn stay in the kernel where at least `from` bytes of it are to come at once.
    pub fn pipe(&mut self, from: u64) {
        self.piped = self.pipes().then_some(from);
    }

    /// Lets nothing more of it stay there.
    pub fn pipe_nothing(&mut self) {
        self.piped = None;
    }

    /// Whether what is to come stays there where `bytes` of it are to come at once.
    pub fn piped(&self, bytes: u64) -> bool {
        self.piped.is_some_and(|from| bytes >= from.max(1))
    }

    /// Moves up to `most` bytes, of which none have been read ahead, into a pipe; none at the connection's end. Cancel
    /// safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_pipe(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Option<Piece>>> {
        later::write();
        let most = most.min(self.stride.next(Instant::now));
        let piped = ready!(self.io.poll_read_piped(context, most))?;
        self.stride.came(Instant::now());
        Poll::Ready(match piped.is_empty() {
            false => Ok(Some(piped.into())),
            true => self.ended().map(|()| None),
        })
    }

    /// What the end of what is read means.
    fn ended(&self) -> io::Result<()> {
        // The write took the news with it: without that, what was cut would seem to have ended.
        if self.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// Queues what `write` writes.
    pub fn queue_with(&mut self, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.write);
    }

    /// Queues `before`, `data` and `after` to be written.
    pub fn queue(&mut self, before: &[u8], mut data: Piece, after: &'static [u8]) {
        self.write.extend_from_slice(before);
        if data.len() <= COPIED && data.piped().is_none() {
            self.write.extend_from_slice(data.chunk());
            self.write.extend_from_slice(after);
        } else {
            self.data = data;
            self.after = after;
        }
    }

    /// Whether more may be queued before what is queued has been written.
    pub fn may_queue(&self) -> bool {
        self.data.is_empty() && self.after.is_empty() && self.write.len() < WRITE_AHEAD
    }

    /// Writes what is queued; the socket is given each piece from where it lies. What follows a piece in a pipe may be left
    /// for the next call: whoever has nothing to queue after it calls again. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Fate::Failed(_) = self.fate
            && let Fate::Failed(error) = std::mem::replace(&mut self.fate, Fate::Flushed)
        {
            return Poll::Ready(Err(error));
        }
        let Poll::Ready(flushed) = self.poll_write(context) else {
            // TLS may have taken all of it, and the socket not yet.
            if self.is_left() {
                self.fate = Fate::Stuck;
            }
            return Poll::Pending;
        };
        self.fate = Fate::Flushed;
        if let Err(error) = &flushed {
            // This one says only that the other end, or a write before, had said so already.
            self.broken |= error.kind() != io::ErrorKind::BrokenPipe;
        }
        Poll::Ready(flushed)
    }

    /// Leaves what is queued to be written later, if it is not much, and whoever has this connection sees to it that
    /// [`Buffered::write_left`] is called; whether it did. The task of `context` is woken if it cannot be written then, all
    /// at once: to flush it, and to learn why that fails.
    pub fn leave(&mut self, context: &Context<'_>) -> bool {
        let much = self.write.len() + self.data.len() > LEFT || self.data.piped().is_some();
        let some = !self.write.is_empty() && matches!(self.fate, Fate::Flushed);
        let leaves = some && !much && later::is_served();
        if leaves {
            self.fate = Fate::Left(context.waker().clone());
        }
        leaves
    }

    /// Whether what is queued is left to be written later.
    pub fn is_left(&self) -> bool {
        matches!(self.fate, Fate::Left(_))
    }

    /// Writes what was left.
    pub fn write_left(&mut self) {
        let Some(waker) = self.take_left() else {
            return;
        };
        match self.poll_flush(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => return self.write = BytesMut::new(),
            Poll::Ready(Err(error)) => self.fate = Fate::Failed(error),
            Poll::Pending => self.fate = Fate::Stuck,
        }
        waker.wake();
    }

    /// Writes what was left neither now nor later; whether something was.
    pub fn withdraw(&mut self) -> bool {
        self.take_left().is_some()
    }

    fn take_left(&mut self) -> Option<Waker> {
        let left = std::mem::replace(&mut self.fate, Fate::Flushed);
        match left {
            Fate::Left(waker) => Some(waker),
            other => {
                self.fate = other;
                None
            }
        }
    }

    /// Whether whoever flushes has something to write, or to learn of it.
    pub fn is_unwritten(&self) -> bool {
        match self.fate {
            Fate::Flushed => !(self.write.is_empty() && self.data.is_empty()),
            Fate::Left(_) => false,
            Fate::Stuck | Fate::Failed(_) => true,
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(piped) = self.data.piped().filter(|_| self.write.is_empty()) {
                let Poll::Ready(written) = self.io.poll_write_piped(context, piped) else {
                    piped.pause_source();
                    return Poll::Pending;
                };
                let written = written?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += written as u64;
                let emptied = piped.is_empty();
                if self.written >= RUN_AHEAD && !self.ahead {
                    self.ahead = true;
                    self.io.run_ahead(true);
                }
                if emptied {
                    self.data = Piece::default();
                    if !self.after.is_empty() {
                        // It goes with what is queued next, or, if nothing is, with the next call.
                        self.write
                            .extend_from_slice(std::mem::take(&mut self.after));
                        return Poll::Ready(Ok(()));
                    }
                }
                continue;
            }
            let (data, after) = match self.data.piped() {
                Some(_) => (&[][..], &b""[..]),
                None => (self.data.chunk(), self.after),
            };
            let parts = [
                IoSlice::new(&self.write),
                IoSlice::new(data),
                IoSlice::new(after),
            ];
            let mut full = parts.iter().filter(|part| !part.is_empty());
            let Some(first) = full.next() else {
                return Pin::new(&mut *self.io).poll_flush(context);
            };
            let several = full.next().is_some();
            let io = Pin::new(&mut *self.io);
            // One part alone costs the kernel less when it is not written as one of many.
            let mut written = ready!(if several && io.is_write_vectored() {
                io.poll_write_vectored(context, &parts)
            } else {
                io.poll_write(context, first)
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written as u64;
            let step = written.min(self.write.len());
            self.write.advance(step);
            written -= step;
            if written > 0 {
                let step = written.min(self.data.len());
                self.data.advance(step);
                self.after = &self.after[written - step..];
                if self.data.is_empty() {
                    self.data = Piece::default();
                }
            }
        }
    }

    /// Says that no more will be written. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(context)
    }

    /// Makes its closing a reset.
    pub fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    /// Takes all away, and leaves a connection behind that has ended.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::gone())
    }

    /// One that has ended.
    pub fn gone() -> Self {
        Self::new(Box::new(tokio::io::empty()), BytesMut::new())
    }

    /// The socket and what was read ahead, for who speaks another protocol on it.
    pub fn switch(self) -> Switched {
        Switched {
            io: self.io,
            ahead: self.read,
        }
    }
}

/// What is left of a connection that speaks another protocol from now on.
pub struct Switched {
    io: Box<dyn Io>,
    ahead: BytesMut,
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switched").finish_non_exhaustive()
    }
}

impl AsyncRead for Switched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return Pin::new(&mut *this.io).poll_read(context, buffer);
        }
        let take = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead.split_to(take));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http1::pipe::{self, Piped, Source};
    use crate::http1::tcp::Tcp;

    /// Takes what is written, and has passed nothing on: TLS before a socket that is full. Or, with an error, its writes fail,
    /// and then it has ended: a socket tells only once how its connection broke.
    struct Told(Option<io::ErrorKind>);

    impl Told {
        fn over(&self) -> Poll<io::Result<()>> {
            match self.0 {
                Some(_) => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        }
    }

    impl AsyncRead for Told {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.over()
        }
    }

    impl AsyncWrite for Told {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(self.0.map_or(Ok(bytes.len()), |kind| Err(kind.into())))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.over()
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.over()
        }
    }

    impl Io for Told {
        fn reset_on_close(&self) {}
    }

    #[test]
    fn what_was_left_and_is_not_on_the_socket_is_unwritten() {
        let mut io = Buffered::new(Box::new(Told(None)), BytesMut::new());
        io.queue(b"words", Piece::default(), b"");
        io.fate = Fate::Left(Waker::noop().clone());
        let flushed = io.poll_flush(&mut Context::from_waker(Waker::noop()));
        assert!(flushed.is_pending() && io.is_unwritten());
    }

    #[test]
    fn what_broke_off_does_not_seem_to_have_ended_though_a_write_was_told() {
        for (kind, ended) in [
            (io::ErrorKind::ConnectionReset, false),
            (io::ErrorKind::TimedOut, false),
            (io::ErrorKind::HostUnreachable, false),
            (io::ErrorKind::BrokenPipe, true),
        ] {
            let mut io = Buffered::new(Box::new(Told(Some(kind))), BytesMut::new());
            let mut context = Context::from_waker(Waker::noop());
            io.queue(b"words", Piece::default(), b"");
            let Poll::Ready(Err(error)) = io.poll_flush(&mut context) else {
                panic!("{kind:?} is not told");
            };
            assert_eq!(error.kind(), kind);
            let Poll::Ready(more) = io.poll_fill(&mut context, 1) else {
                panic!("{kind:?} does not end it");
            };
            assert_eq!(more.is_ok_and(|more| !more), ended, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn who_spoke_or_left_is_not_quiet_also_for_a_task_that_has_done_much() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let others = [(false, false), (true, false), (false, true)];
        let all = others
            .into_iter()
            .flat_map(|other| [(other, false), (other, true)]);
        for ((speaks, leaves), paused) in all {
            let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (near, mut far) = (near.unwrap(), far.unwrap().0);
            if speaks {
                far.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            }
            let _far = (!leaves).then_some(far);
            if speaks || leaves {
                near.readable().await.unwrap();
            }
            let mut io = Buffered::new(Box::new(Tcp::near(near)), BytesMut::new());
            if paused {
                io.pause_reading();
            }
            let quiet = poll_fn(|context| {
                while let Poll::Ready(step) = coop::poll_proceed(context) {
                    step.made_progress();
                }
                Poll::Ready(io.is_quiet())
            });
            assert_eq!(
                quiet.await,
                !speaks && !leaves,
                "{speaks} {leaves} {paused}"
            );
        }
    }

    #[derive(Default)]
    struct Counted(Cell<usize>);

    impl Source for Counted {
        fn pause(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[tokio::test]
    async fn where_it_came_from_is_paused_only_when_nobody_takes_a_piece() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(connecting, listener.accept());
        let mut far = far.unwrap().0;
        let mut io = Buffered::new(Box::new(Tcp::near(near.unwrap())), BytesMut::new());
        let source = Rc::new(Counted::default());
        let (mut sender, ours) = UnixStream::pair().unwrap();
        let (mut passed, mut full) = (0, false);
        while !full {
            sender.write_all(&[0; 16 * 1024]).unwrap();
            assert!(pipe::spare());
            let mut piece = Piece::from(Piped::fill(&ours, 16 * 1024).unwrap());
            passed += piece.len();
            piece.came_from(&source);
            assert_eq!(source.0.get(), 0, "all of them were taken");
            io.queue(b"", piece, b"");
            let flush = poll_fn(|context| Poll::Ready(io.poll_flush(context).is_pending()));
            full = coop::unconstrained(flush).await;
        }
        assert_eq!(source.0.get(), 1);
        let mut all = vec![0; passed];
        let taken = tokio::join!(
            poll_fn(|context| io.poll_flush(context)),
            far.read_exact(&mut all)
        );
        taken.0.unwrap();
        taken.1.unwrap();
    }

    #[test]
    fn more_is_taken_at_once_for_who_is_quick_only() {
        let mut stride = Stride::BEGIN;
        let began = Instant::now();
        assert_eq!(stride.next(|| began), FIRST);
        // Nothing has come yet.
        assert_eq!(stride.next(|| began + 2 * QUICK), FIRST);
        let mut now = began;
        for (took, next) in [
            (QUICK / 2, 2 * FIRST),
            (QUICK / 2, 4 * FIRST),
            (QUICK, FIRST),
            (QUICK / 2, 2 * FIRST),
        ] {
            stride.came(now);
            now += took;
            assert_eq!(stride.next(|| now), next);
            assert_eq!(stride.next(|| now + 2 * QUICK), next, "asked once more");
        }
    }
}
