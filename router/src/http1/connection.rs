//! One client connection: what was read ahead, what is still to be written, and the body that is being read.

use std::cell::RefCell;
use std::fmt;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use http::header::HeaderMap;
use http::{StatusCode, Version};
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, Sleep, sleep};

use super::buffered::{Buffered, Switched};
use super::encode;
use super::head::Framing;
use super::io::{Io, Parting};
use super::later::{self, Leaves};
use super::piece::Piece;
use super::pipe::Source;
use super::reading::{BodyError, Next, Reading};
use super::scratch;

/// Bytes of later requests that are read ahead of their turn.
const PIPELINED: usize = 16 * 1024;
/// How often it is looked whether a client has left of which nothing is read for now.
const LOOKS: Duration = Duration::from_secs(1);

struct State {
    io: Buffered,
    reading: Reading,
    /// Counts requests, so that the body of an earlier one reads nothing of a later one.
    turn: u64,
    /// Somebody still holds the body of this turn.
    held: bool,
    /// And has begun to read it: from then on nobody else may.
    begun: bool,
    /// Whoever reads it waits for more, and so sees the client leave.
    waits: bool,
    /// It is read by another task than the one that serves the connection, which does not learn of each step.
    apart: bool,
    /// When it is looked next whether the client has left, once nobody has waited for what it sends.
    look: Option<Pin<Box<Sleep>>>,
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
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Next, BodyError>> {
        let read = self.reading.poll(&mut self.io, context);
        self.waits = read.is_pending();
        read
    }

    /// Looks now and then whether the client has left, whose end is not read before what it has sent.
    fn poll_parted(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOKS)));
        while look.as_mut().poll(context).is_ready() {
            let gone = match self.io.parting() {
                None => false,
                Some(Parting::Broken) => true,
                // It may have sent all of its body before that: the cell gets it then.
                Some(Parting::Ended(unread))
                    if self.reading.is_open() && (self.begun || !self.held) =>
                {
                    let there = unread.saturating_add(self.io.read.len() as u64);
                    self.reading.left().is_some_and(|left| left > there)
                }
                Some(Parting::Ended(_)) => true,
            };
            if gone {
                return Poll::Ready(());
            }
            look.as_mut().reset(Instant::now() + LOOKS);
        }
        Poll::Pending
    }

    fn wake_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.wake();
        }
    }
}

impl Leaves for RefCell<State> {
    fn write_left(&self) -> bool {
        let state = self.try_borrow_mut();
        state.map(|mut state| state.io.write_left()).is_ok()
    }
}

impl Source for RefCell<State> {
    fn pause(&self) {
        // Whoever is at it is reading.
        if let Ok(mut state) = self.try_borrow_mut() {
            state.io.pause_reading();
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
            io: Buffered::new(io, ahead),
            reading: Reading::Done,
            turn: 0,
            held: false,
            begun: false,
            waits: false,
            apart: false,
            look: None,
            continued: false,
            server: None,
            switch: None,
            interim: false,
            answered: false,
        })))
    }

    /// Looks at what has been read, and lets the looker take from it.
    pub fn with_read<T>(&self, look: impl FnOnce(&mut BytesMut) -> T) -> T {
        look(&mut self.0.borrow_mut().io.read)
    }

    /// Lets memory go that an idle connection does not need.
    pub fn rest(&self) {
        self.0.borrow_mut().io.rest();
    }

    /// Waits for more bytes; `false` at the connection's end. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn fill(&self) -> io::Result<bool> {
        std::future::poll_fn(|context| {
            let io = &mut self.0.borrow_mut().io;
            if io.is_unwritten()
                && let Poll::Ready(Err(error)) = io.poll_flush(context)
            {
                return Poll::Ready(Err(error));
            }
            let filled = ready!(io.poll_fill(context, scratch::COPIED));
            if !matches!(filled, Ok(true)) {
                // Who says no more may still listen.
                ready!(io.poll_flush(context))?;
            }
            Poll::Ready(filled)
        })
        .await
    }

    /// Begins a request's turn: its body comes next.
    pub fn begin(&self, framing: Framing, version: Version) -> Body {
        let mut state = self.0.borrow_mut();
        state.turn += 1;
        state.reading = Reading::new(framing);
        state.io.begin();
        state.held = true;
        state.begun = false;
        state.waits = false;
        state.apart = false;
        state.look = None;
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
        let state = &mut *self.0.borrow_mut();
        if !state.answered && matches!(state.io.poll_flush(context), Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        state.server = Some(context.waker().clone());
        let whole = state.reading.is_done();
        if !whole && (state.begun || !state.held) {
            return match state.waits && !state.apart {
                true => Poll::Pending,
                false => state.poll_parted(context),
            };
        }
        while state.io.read.len() < PIPELINED {
            match ready!(state.io.poll_fill(context, scratch::COPIED)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        state.poll_parted(context)
    }

    /// Forgets what has come of a body that nobody holds, without reading on.
    pub fn forget_body(&self) {
        let state = &mut *self.0.borrow_mut();
        if !state.held {
            state.reading.forget(&mut state.io);
        }
    }

    /// Whether the body of this turn has been read to its end.
    pub fn read_whole(&self) -> bool {
        self.0.borrow().reading.is_done()
    }

    /// Whether the client was told to go on with its body.
    pub fn continued(&self) -> bool {
        self.0.borrow().continued
    }

    /// Takes the body away from whoever holds it, and who will get nothing more of it.
    pub fn take_body_back(&self) {
        let mut state = self.0.borrow_mut();
        state.turn += 1;
        state.io.pipe_nothing();
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
            Ok(Next::Data(data)) => Poll::Ready(data.len().max(1)),
            Ok(_) | Err(_) => Poll::Ready(0),
        }
    }

    /// Queues the head of the final answer: no interim one can come after it.
    pub fn queue_head(&self, write: impl FnOnce(&mut BytesMut)) {
        let mut state = self.0.borrow_mut();
        state.answered = true;
        state.io.queue_with(write);
    }

    /// Queues `before`, `data` and `after` to be written.
    pub fn queue(&self, before: &[u8], data: Piece, after: &'static [u8]) {
        self.0.borrow_mut().io.queue(before, data, after);
    }

    /// Whether more may be queued before what is queued has been written.
    pub fn may_queue(&self) -> bool {
        self.0.borrow().io.may_queue()
    }

    /// Whether something is queued that the socket had no room for.
    pub fn is_unwritten(&self) -> bool {
        self.0.borrow().io.is_unwritten()
    }

    /// Writes what is queued. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().io.poll_flush(context)
    }

    /// The same, but what can be left to be written later is. Nothing more may be queued then before it is flushed.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush_later(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        // What is left of a request may not come before its answer.
        if state.reading.is_done() && state.io.leave(context) {
            later::leave(&self.0);
            return Poll::Ready(Ok(()));
        }
        state.io.poll_flush(context)
    }

    /// Says that no more will be written. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().io.poll_shutdown(context)
    }

    /// Reads on whatever comes, and forgets it; ready at the connection's end.
    pub fn poll_swallow(&self, context: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        while *left > 0 {
            state.io.read.clear();
            match ready!(state.io.poll_fill(context, scratch::COPIED)) {
                Ok(true) => *left = left.saturating_sub(state.io.read.len()),
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
        let switched = state.io.take().switch();
        if let Some(switch) = switch {
            // Nobody there any more: the connection closes.
            let _ = switch.send(switched);
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

    /// Whether the client may be sent what is in pipes of the kernel.
    pub fn takes_pipes(&self) -> bool {
        self.state.borrow().io.pipes()
    }

    /// Lets what is to come stay in the kernel where at least `from` bytes of it are to come at once.
    pub fn pipe(&self, from: u64) {
        let mut state = self.state.borrow_mut();
        if state.turn == self.turn {
            state.io.pipe(from);
        }
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
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let mut state = self.state.borrow_mut();
        if state.turn != self.turn {
            // Neither its end nor an error: the answer that ended its turn may still be on its way from the cell, over
            // the very connection that an error would break.
            return Poll::Pending;
        }
        state.begun = true;
        let apart = |server: &Waker| !server.will_wake(context.waker());
        if !state.apart && state.server.as_ref().is_some_and(apart) {
            state.apart = true;
            state.wake_server();
        }
        let step = ready!(state.poll_body(context));
        if !state.reading.is_open() {
            // From now on it is the server that watches the connection.
            state.wake_server();
        }
        Poll::Ready(match step {
            Ok(Next::Data(mut data)) => {
                if state.reading.is_open() {
                    data.came_from(&self.state);
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Next::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Next::End) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.turn == self.turn && state.reading.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        match state.reading.left().filter(|_| state.turn == self.turn) {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
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
        // Whoever is asked for a body may be waiting for that word: it is told whatever else there was too much of.
        let asks = status == StatusCode::CONTINUE;
        let takes = state.io.may_queue() || asks && !state.continued;
        if state.turn != self.turn || state.answered || !takes {
            return;
        }
        state.continued |= asks;
        state.io.queue_with(|write| {
            encode::head(write, status, None, headers);
            write.extend_from_slice(b"\r\n");
        });
        state.wake_server();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::HeaderValue;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{LocalSet, yield_now};
    use tokio::time::timeout;

    use super::*;
    use crate::http1::tcp::Tcp;

    /// A connection that is served, and its client's end.
    async fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
        let connection = Connection::new(Box::new(ours.unwrap().0), BytesMut::new());
        (connection, client.unwrap())
    }

    /// Runs what has a thread that writes what is left.
    async fn served<T>(test: impl Future<Output = T>) -> T {
        let tasks = LocalSet::new();
        tasks.spawn_local(later::run());
        let test = async {
            yield_now().await;
            test.await
        };
        tasks.run_until(test).await
    }

    async fn leave(connection: &Connection, byte: u8, count: usize) {
        let data = BytesMut::from(&vec![byte; count][..]).freeze();
        connection.queue_head(|write| write.extend_from_slice(b"head"));
        connection.queue(b"", data.into(), b"");
        poll_fn(|context| connection.poll_flush_later(context))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_is_left_is_written_by_another_task() {
        served(async {
            let (connection, mut client) = connected().await;
            leave(&connection, 7, 4_000).await;
            connection.rest();
            assert!(connection.0.borrow().io.is_left());
            let (filled, ()) = tokio::join!(connection.fill(), async {
                let mut answer = [0; 4_004];
                client.read_exact(&mut answer).await.unwrap();
                client.write_all(b"next").await.unwrap();
            });
            assert!(filled.unwrap());
        })
        .await;
    }

    #[tokio::test]
    async fn much_is_written_at_once() {
        served(async {
            let (connection, mut client) = connected().await;
            leave(&connection, 7, 5_000).await;
            assert!(!connection.0.borrow().io.is_left());
            let mut answer = [0; 5_004];
            client.read_exact(&mut answer).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn who_says_no_more_still_hears_what_is_left() {
        served(async {
            let (connection, mut client) = connected().await;
            client.shutdown().await.unwrap();
            leave(&connection, 7, 10).await;
            assert!(!connection.fill().await.unwrap());
            drop(connection);
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard.len(), 14);
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_left_to_a_slow_client_comes_whole_and_in_order() {
        const EACH: usize = 4_000;
        let bytes = || (0..=250).cycle().take(4_000);
        served(async {
            let (connection, mut client) = connected().await;
            let writing = async {
                for byte in bytes() {
                    poll_fn(|context| connection.poll_flush(context))
                        .await
                        .unwrap();
                    leave(&connection, byte, EACH).await;
                    assert!(connection.0.borrow().io.is_left());
                    connection.rest();
                    yield_now().await;
                }
                // What is left over is written by who waits for the next request.
                assert!(!connection.fill().await.unwrap());
            };
            let reading = async {
                while !connection.is_unwritten() {
                    yield_now().await;
                }
                let mut answer = vec![0; 4 + EACH];
                for wanted in bytes() {
                    client.read_exact(&mut answer).await.unwrap();
                    assert_eq!(&answer[..4], b"head");
                    assert!(answer[4..].iter().all(|read| *read == wanted), "{wanted}");
                }
                client.shutdown().await.unwrap();
            };
            tokio::join!(writing, reading);
        })
        .await;
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_noticed_though_nobody_waited_for_the_write() {
        served(async {
            let (connection, client) = connected().await;
            #[expect(deprecated, reason = "a reset is what is wanted, and does not block")]
            client.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(client);
            leave(&connection, 7, 10).await;
            yield_now().await;
            assert!(connection.fill().await.is_err());
        })
        .await;
    }

    #[tokio::test]
    async fn a_piece_says_where_it_came_from_if_more_comes_behind_it() {
        for (length, more) in [(100, true), (10, false)] {
            let (connection, mut client) = connected().await;
            let mut body = connection.begin(Framing::Length(length), Version::HTTP_11);
            body.pipe(1);
            client.write_all(b"0123456789").await.unwrap();
            let mut piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece.piped().unwrap().has_source(), more);
        }
    }

    #[tokio::test]
    async fn the_longest_body_is_in_a_pipe_only_where_it_may_be() {
        for may in [true, false] {
            let (connection, mut client) = connected().await;
            let mut body = connection.begin(Framing::Length(u64::MAX), Version::HTTP_11);
            if may {
                body.pipe(1);
            }
            client.write_all(b"0123456789").await.unwrap();
            let mut piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece.piped().is_some(), may);
        }
    }

    #[tokio::test]
    async fn a_client_is_asked_for_its_body_however_much_it_is_told_before() {
        let (connection, mut client) = connected().await;
        let body = connection.begin(Framing::Length(1), Version::HTTP_11);
        let interim = body.interim().unwrap();
        let mut hints = HeaderMap::new();
        hints.insert("link", HeaderValue::from_str(&"a".repeat(5_000)).unwrap());
        for _ in 0..10 {
            interim.send(StatusCode::EARLY_HINTS, &hints);
        }
        for _ in 0..2 {
            interim.send(StatusCode::CONTINUE, &HeaderMap::new());
        }
        assert!(connection.continued());
        let flushed = poll_fn(|context| connection.poll_flush(context)).await;
        flushed.unwrap();
        drop((connection, body, interim));
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        // What is queued is bounded.
        assert!(heard.len() < 25_000, "{}", heard.len());
        assert_eq!(heard.matches("HTTP/1.1 100 ").count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_parts_is_missed_while_nobody_reads_its_body() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cases = [
            (Framing::Length(100), 50, None, false),
            (Framing::Length(100), 50, Some(false), true),
            // It has sent all, and the cell gets it.
            (Framing::Length(100), 90, Some(false), false),
            (Framing::Length(100), 90, Some(true), true),
            (Framing::Length(1_000_000), 40_000, Some(false), true),
            (Framing::Chunked, 50, Some(false), false),
            (Framing::Chunked, 50, Some(true), true),
        ];
        let all = cases
            .into_iter()
            .flat_map(|case| [(case, false), (case, true)]);
        for ((framing, more, parts, missed), paused) in all {
            let (far, near) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (mut far, near) = (far.unwrap(), near.unwrap().0);
            let connection = Connection::new(Box::new(Tcp::far(near)), BytesMut::new());
            let mut body = connection.begin(framing, Version::HTTP_11);
            far.write_all(b"5\r\n1234567").await.unwrap();
            body.frame().await.unwrap().unwrap();
            if paused {
                connection.0.pause();
            }
            far.write_all(&vec![b'x'; more]).await.unwrap();
            if parts == Some(true) {
                far.reset_on_close();
            }
            let _far = parts.is_none().then_some(far);
            let gone = poll_fn(|context| connection.poll_gone(context));
            let gone = timeout(5 * LOOKS, gone).await.is_ok();
            assert_eq!(gone, missed, "{framing:?} {more} {parts:?} {paused}");
        }
    }
}
