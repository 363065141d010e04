//! One client connection: what was read ahead, what is still to be written, and the body that is being read.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::HeaderMap;
use http::{StatusCode, Version};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::chunked::{Decoder, Step};
use super::head::{Fault, Framing};
use super::io::Io;

/// Bytes that are read at once while a head is awaited, and while a body is.
const HEAD_READ: usize = 2 * 1024;
const BODY_READ: usize = 16 * 1024;
/// Bytes of later requests that are read ahead of their turn.
const PIPELINED: usize = 16 * 1024;
/// Bytes that may wait to be written before more is asked of a body.
const WRITE_AHEAD: usize = 16 * 1024;
/// Data of up to so many bytes is copied to what else is written; more is written from where it is.
const COPIED: usize = 2 * 1024;

/// Why a body could not be read to its end.
#[derive(Debug)]
pub enum BodyError {
    /// The connection broke.
    Io(io::Error),
    /// The client closed the connection in the middle of it.
    Ended,
    /// Its framing is malformed.
    Malformed(Fault),
    /// It broke off before.
    Over,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Ended => f.write_str("the connection ended before the body"),
            Self::Malformed(fault) => write!(f, "{fault}"),
            Self::Over => f.write_str("it broke off before"),
        }
    }
}

impl std::error::Error for BodyError {}

/// What is left of the body that is being read.
#[derive(Debug)]
enum Reading {
    Length(u64),
    Chunked(Decoder),
    Done,
    Failed,
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

struct State {
    io: Box<dyn Io>,
    read: BytesMut,
    /// Written first, then `data`, then `after`.
    write: BytesMut,
    data: Bytes,
    after: &'static [u8],
    reading: Reading,
    /// Counts requests, so that the body of an earlier one reads nothing of a later one.
    turn: u64,
    /// Somebody still holds the body of this turn.
    held: bool,
    /// And has begun to read it: from then on nobody else may.
    begun: bool,
    /// The client was told to go on with a body that it had announced.
    continued: bool,
    /// Whoever serves the connection: woken when the body's holder has left it, or something is to be written.
    server: Option<Waker>,
    switch: Option<oneshot::Sender<Switched>>,
    /// Whether the client knows what an interim answer is.
    interim: bool,
    /// The head of the final answer is on its way: the time for interim ones is over.
    answered: bool,
}

impl State {
    /// Reads up to `most` bytes more; `false` at the connection's end.
    fn poll_fill(&mut self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<bool>> {
        if self.read.capacity() - self.read.len() < most / 2 {
            self.read.reserve(most);
        }
        let mut into = (&mut self.read).limit(most);
        // It keeps nothing between polls.
        let reading = pin!(self.io.read_buf(&mut into));
        reading.poll(context).map_ok(|count| count > 0)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let parts = [
                IoSlice::new(&self.write),
                IoSlice::new(&self.data),
                IoSlice::new(self.after),
            ];
            if parts.iter().all(|part| part.is_empty()) {
                return Pin::new(&mut *self.io).poll_flush(context);
            }
            let io = Pin::new(&mut *self.io);
            let mut written = ready!(if io.is_write_vectored() {
                io.poll_write_vectored(context, &parts)
            } else {
                let first = parts.iter().find(|part| !part.is_empty());
                io.poll_write(context, first.map_or(&[], |part| part))
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let step = written.min(self.write.len());
            self.write.advance(step);
            written -= step;
            let step = written.min(self.data.len());
            self.data.advance(step);
            self.after = &self.after[written - step..];
        }
    }

    fn step(&mut self) -> Result<Step, BodyError> {
        match &mut self.reading {
            Reading::Done => Ok(Step::End),
            Reading::Failed => Err(BodyError::Over),
            Reading::Length(_) if self.read.is_empty() => Ok(Step::More),
            Reading::Length(left) => {
                let take = usize::try_from(*left)
                    .map_or(self.read.len(), |left| left.min(self.read.len()));
                *left -= take as u64;
                if *left == 0 {
                    self.reading = Reading::Done;
                }
                Ok(Step::Data(self.read.split_to(take).freeze()))
            }
            Reading::Chunked(decoder) => {
                let step = decoder.step(&mut self.read).map_err(BodyError::Malformed)?;
                if decoder.ended() {
                    self.reading = Reading::Done;
                }
                Ok(step)
            }
        }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Step, BodyError>> {
        let read = loop {
            match self.step() {
                Ok(Step::More) => {}
                other => break other,
            }
            match ready!(self.poll_fill(context, BODY_READ)) {
                Ok(true) => {}
                Ok(false) => break Err(BodyError::Ended),
                Err(error) => break Err(BodyError::Io(error)),
            }
        };
        if read.is_err() {
            self.reading = Reading::Failed;
        }
        Poll::Ready(read)
    }

    fn wake_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.wake();
        }
    }
}

/// The server's end of a connection.
#[derive(Clone)]
pub struct Connection(Rc<RefCell<State>>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection over `io`, from which `ahead` has been read already.
    pub fn new(io: Box<dyn Io>, ahead: BytesMut) -> Self {
        Self(Rc::new(RefCell::new(State {
            io,
            read: ahead,
            write: BytesMut::new(),
            data: Bytes::new(),
            after: b"",
            reading: Reading::Done,
            turn: 0,
            held: false,
            begun: false,
            continued: false,
            server: None,
            switch: None,
            interim: false,
            answered: false,
        })))
    }

    /// Looks at what has been read, and lets the looker take from it.
    pub fn with_read<T>(&self, look: impl FnOnce(&mut BytesMut) -> T) -> T {
        look(&mut self.0.borrow_mut().read)
    }

    /// Lets memory go that an idle connection does not need.
    pub fn rest(&self) {
        let mut state = self.0.borrow_mut();
        if state.read.is_empty() {
            state.read = BytesMut::new();
        }
        state.write = BytesMut::new();
        state.data = Bytes::new();
    }

    /// Waits for more bytes; `false` at the connection's end. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn fill(&self) -> io::Result<bool> {
        std::future::poll_fn(|context| self.0.borrow_mut().poll_fill(context, HEAD_READ)).await
    }

    /// Begins a request's turn: its body comes next.
    pub fn begin(&self, framing: Framing, version: Version) -> Body {
        let mut state = self.0.borrow_mut();
        state.turn += 1;
        state.reading = match framing {
            Framing::None => Reading::Done,
            Framing::Length(length) => Reading::Length(length),
            Framing::Chunked => Reading::Chunked(Decoder::default()),
        };
        state.held = true;
        state.begun = false;
        state.continued = false;
        state.switch = None;
        state.interim = version == Version::HTTP_11;
        state.answered = false;
        Body {
            turn: state.turn,
            state: Rc::clone(&self.0),
        }
    }

    /// Looks whether the client has left while its request is being served, and writes what interim answers there
    /// are. Ready only when the connection is of no more use.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if !state.answered && matches!(state.poll_flush(context), Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        state.server = Some(context.waker().clone());
        let whole = matches!(state.reading, Reading::Done);
        if !whole && (state.begun || !state.held) {
            return Poll::Pending;
        }
        while state.read.len() < PIPELINED {
            match ready!(state.poll_fill(context, HEAD_READ)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Whether the body of this turn has been read to its end.
    pub fn read_whole(&self) -> bool {
        matches!(self.0.borrow().reading, Reading::Done)
    }

    /// Whether the client was told to go on with its body.
    pub fn continued(&self) -> bool {
        self.0.borrow().continued
    }

    /// Takes the body away from whoever holds it, and who will get nothing more of it.
    pub fn take_body_back(&self) {
        let mut state = self.0.borrow_mut();
        state.turn += 1;
        state.held = false;
    }

    /// Reads on, and forgets what it reads, for as long as nobody holds the body. Returns the count of bytes; ready
    /// with none at the body's end, or where no more of it can be read.
    pub fn poll_discard(&self, context: &mut Context<'_>) -> Poll<usize> {
        let mut state = self.0.borrow_mut();
        state.server = Some(context.waker().clone());
        if state.held {
            return Poll::Pending;
        }
        match ready!(state.poll_body(context)) {
            Ok(Step::Data(data)) => Poll::Ready(data.len().max(1)),
            Ok(_) | Err(_) => Poll::Ready(0),
        }
    }

    /// Queues the head of the final answer: no interim one can come after it.
    pub fn queue_head(&self, write: impl FnOnce(&mut BytesMut)) {
        let mut state = self.0.borrow_mut();
        state.answered = true;
        write(&mut state.write);
    }

    /// Queues `before`, `data` and `after` to be written.
    pub fn queue(&self, before: &[u8], data: Bytes, after: &'static [u8]) {
        let mut state = self.0.borrow_mut();
        state.write.extend_from_slice(before);
        if data.len() <= COPIED {
            state.write.extend_from_slice(&data);
            state.write.extend_from_slice(after);
        } else {
            state.data = data;
            state.after = after;
        }
    }

    /// Whether more may be queued before what is queued has been written.
    pub fn may_queue(&self) -> bool {
        let state = self.0.borrow();
        state.data.is_empty() && state.after.is_empty() && state.write.len() < WRITE_AHEAD
    }

    /// Writes what is queued. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(context)
    }

    /// Says that no more will be written. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut().io).poll_shutdown(context)
    }

    /// Reads on whatever comes, and forgets it; ready at the connection's end.
    pub fn poll_swallow(&self, context: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        while *left > 0 {
            state.read.clear();
            match ready!(state.poll_fill(context, HEAD_READ)) {
                Ok(true) => *left = left.saturating_sub(state.read.len()),
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }

    /// Makes the connection's closing a reset.
    pub fn reset_on_close(&self) {
        self.0.borrow().io.reset_on_close();
    }

    /// Hands the connection over to whoever asked for it.
    pub fn switch(self) {
        let mut state = self.0.borrow_mut();
        // Bodies that are still around read nothing any more.
        state.turn += 1;
        let switch = state.switch.take();
        let io = std::mem::replace(&mut state.io, Box::new(tokio::io::empty()));
        let ahead = std::mem::take(&mut state.read);
        if let Some(switch) = switch {
            // Nobody there any more: the connection closes.
            let _ = switch.send(Switched { io, ahead });
        }
    }
}

/// The body of one request. Reads from its connection while its turn lasts.
pub struct Body {
    turn: u64,
    state: Rc<RefCell<State>>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    /// A way to send interim answers to the client; none to one that speaks HTTP/1.0.
    pub fn interim(&self) -> Option<Interim> {
        self.state.borrow().interim.then(|| Interim {
            turn: self.turn,
            state: Rc::clone(&self.state),
        })
    }

    /// The connection, once the answer has switched it to another protocol.
    pub fn switched(&self) -> oneshot::Receiver<Switched> {
        let (sender, receiver) = oneshot::channel();
        self.state.borrow_mut().switch = Some(sender);
        receiver
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        if state.turn == self.turn {
            state.held = false;
            state.wake_server();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state.borrow_mut();
        if state.turn != self.turn {
            // Neither its end nor an error: the answer that ended its turn may still be on its way from the cell, over
            // the very connection that an error would break.
            return Poll::Pending;
        }
        state.begun = true;
        let step = ready!(state.poll_body(context));
        if !matches!(state.reading, Reading::Length(_) | Reading::Chunked(_)) {
            // From now on it is the server that watches the connection.
            state.wake_server();
        }
        Poll::Ready(match step {
            Ok(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Step::End | Step::More) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.turn == self.turn && matches!(state.reading, Reading::Done)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        match state.reading {
            _ if state.turn != self.turn => SizeHint::default(),
            Reading::Length(left) => SizeHint::with_exact(left),
            Reading::Done => SizeHint::with_exact(0),
            Reading::Chunked(_) | Reading::Failed => SizeHint::default(),
        }
    }
}

/// Sends interim answers to a client (RFC 9110 section 15.2).
#[derive(Clone)]
pub struct Interim {
    turn: u64,
    state: Rc<RefCell<State>>,
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").finish_non_exhaustive()
    }
}

impl Interim {
    /// Sends one, unless the final answer is on its way already.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut state = self.state.borrow_mut();
        if state.turn != self.turn || state.answered || state.write.len() > WRITE_AHEAD {
            return;
        }
        state.continued |= status == StatusCode::CONTINUE;
        super::encode::head(&mut state.write, status, None, headers);
        state.write.extend_from_slice(b"\r\n");
        state.wake_server();
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
