//! One request over a connection to a cell, and its answer: both ways at once, by one state machine without a task.
//!
//! What has been written and what has been heard is known exactly, for that decides whether a request may be sent again.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use http::request::Parts;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::answer::{self, AnswerHead};
use super::as_is::{AsIs, HasLines};
use super::buffered::{Buffered, Switched};
use super::encode;
use super::head::{Fault, Framing, Limits, Scanner};
use super::later::{self, Leaves};
use super::piece::Piece;
use super::pipe::Source;
use super::reading::{BodyError, Next, Reading};
use super::scratch;

/// How large the head of an answer may be.
const LIMITS: Limits = Limits {
    bytes: 64 * 1024,
    lines: 256,
};

/// Why there is no answer.
#[derive(Debug)]
pub enum ExchangeError<E> {
    /// The connection broke before a byte of the request was written, or of its body read.
    Unsent(io::Error),
    /// It broke, or ended, after that.
    Broken(io::Error),
    /// What came is no answer.
    Malformed(Fault),
    /// The request's body broke off.
    Body(E),
}

impl<E: fmt::Display> fmt::Display for ExchangeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent(error) | Self::Broken(error) => error.fmt(f),
            Self::Malformed(fault) => fault.fmt(f),
            Self::Body(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for ExchangeError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unsent(error) | Self::Broken(error) => error.source(),
            Self::Malformed(fault) => fault.source(),
            Self::Body(error) => error.source(),
        }
    }
}

struct State<B> {
    io: Buffered,
    asked: Method,
    /// The answer's header lines may be left as they come.
    as_is: bool,
    /// They, if they were.
    lines: Option<AsIs>,
    /// What is still to be asked of the request's body; none once its end is queued.
    body: Option<Pin<Box<B>>>,
    /// How the rest of it is framed.
    sending: Framing,
    /// The connection has carried nothing before, so that its cell is known to be there.
    fresh: bool,
    /// The request's body has been looked at.
    begun: bool,
    /// All of the request has been written.
    sent: bool,
    /// Why no more of it can be.
    deaf: Option<io::Error>,
    scanner: Scanner,
    reading: Reading,
    keep_alive: bool,
    /// Whoever waits for more of the answer.
    reader: Option<Waker>,
}

impl<B> State<B>
where
    B: Body<Data = Piece>,
{
    /// Sends as much of the request as can be sent now; ready once all of it is, or no more can be. `later` if what ends it
    /// may be left to be written later.
    fn poll_send(&mut self, context: &mut Context<'_>, later: bool) -> Poll<Result<(), B::Error>> {
        if self.sent || self.deaf.is_some() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut waits = false;
            while !waits && self.io.may_queue() {
                let Some(body) = &mut self.body else { break };
                if self.io.written() == 0 && !self.begun && !self.fresh {
                    // Nothing of the body is read before the cell has taken something of the head.
                    break;
                }
                self.begun = true;
                match body.as_mut().poll_frame(context) {
                    Poll::Pending => waits = true,
                    Poll::Ready(Some(Ok(frame))) => self.queue(frame),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => self.queue_end(b"0\r\n\r\n"),
                }
            }
            if later && self.body.is_none() && self.io.leave(context) {
                return Poll::Pending;
            }
            match self.io.poll_flush(context) {
                Poll::Ready(Ok(())) if self.body.is_none() && self.io.may_queue() => {
                    self.sent = self.deaf.is_none();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) if waits => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                // What it has to say is still listened to: it may have refused the request.
                Poll::Ready(Err(error)) => {
                    self.fall_deaf(error);
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn fall_deaf(&mut self, error: io::Error) {
        self.deaf = Some(error);
        if self.begun {
            self.body = None;
        }
    }

    fn queue(&mut self, frame: Frame<Piece>) {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => match &mut self.sending {
                Framing::Chunked => {
                    let size = encode::chunk_size(data.len());
                    self.io.queue(size.as_bytes(), data, b"\r\n");
                }
                Framing::Length(left) if (data.len() as u64) <= *left => {
                    *left -= data.len() as u64;
                    let whole = *left == 0;
                    self.io.queue(b"", data, b"");
                    if whole && self.body.as_ref().is_some_and(|body| body.is_end_stream()) {
                        self.body = None;
                    }
                }
                Framing::Length(_) | Framing::None | Framing::ToEnd => {
                    self.fall_deaf(io::Error::other("the body is longer than it said"));
                }
            },
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.queue_end(&encode::last_chunk(&trailers));
            }
        }
    }

    /// Queues what ends the body, if it is framed by its end. A body shorter than it said is never ended.
    fn queue_end(&mut self, last: &[u8]) {
        self.body = None;
        match self.sending {
            Framing::Chunked => self.io.queue(last, Piece::default(), b""),
            Framing::Length(left) if left > 0 => {
                self.deaf = Some(io::Error::other("the body is shorter than it said"));
            }
            Framing::Length(_) | Framing::None | Framing::ToEnd => {}
        }
    }

    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, ExchangeError<B::Error>>> {
        if let Poll::Ready(Err(error)) = self.poll_send(context, true) {
            return Poll::Ready(Err(ExchangeError::Body(error)));
        }
        loop {
            match self.scanner.scan(&mut self.io.read, LIMITS) {
                Ok(Some(length)) => {
                    let block = self.io.read.split_to(length).freeze();
                    let head = answer::parse(&block, &self.asked, LIMITS, self.as_is);
                    return Poll::Ready(head.map_err(ExchangeError::Malformed));
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(ExchangeError::Malformed(fault))),
            }
            let ended = match ready!(self.io.poll_fill(context, scratch::COPIED)) {
                Ok(true) => {
                    // It speaks before it was asked; it is asked first all the same.
                    if self.io.is_left()
                        && let Poll::Ready(Err(error)) = self.poll_send(context, false)
                    {
                        return Poll::Ready(Err(ExchangeError::Body(error)));
                    }
                    continue;
                }
                Ok(false) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) => error,
            };
            // What is left now is never written.
            let silent = self.io.withdraw() || self.deaf.is_some();
            // What went wrong first says more.
            let deaf = self.deaf.take();
            let unsent = silent && self.io.written() == 0 && !self.begun;
            let error = deaf.unwrap_or(ended);
            return Poll::Ready(Err(if unsent {
                ExchangeError::Unsent(error)
            } else {
                ExchangeError::Broken(error)
            }));
        }
    }
}

impl<B> Leaves for RefCell<State<B>> {
    fn write_left(&self) -> bool {
        let state = self.try_borrow_mut();
        state.map(|mut state| state.io.write_left()).is_ok()
    }
}

impl<B> Source for RefCell<State<B>> {
    fn pause(&self) {
        // Whoever is at it is reading.
        if let Ok(mut state) = self.try_borrow_mut() {
            state.io.pause_reading();
        }
    }
}

/// Whether another answer follows (RFC 9110 section 15.2); none does after one that switches protocols.
pub fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// A request that has been put on a connection.
pub struct Exchange<B>(Rc<RefCell<State<B>>>);

impl<B> fmt::Debug for Exchange<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl<B> Clone for Exchange<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<B> Exchange<B>
where
    B: Body<Data = Piece> + 'static,
{
    /// Puts a request on a connection that carries nothing else; `fresh` if it never did. Its head, which `lines` are part of,
    /// says how its body is framed: `framing`, never `ToEnd`. Nothing is written before it is polled.
    pub fn begin(
        mut io: Buffered,
        fresh: bool,
        head: &Parts,
        lines: &[u8],
        framing: Framing,
        body: Option<B>,
    ) -> Self {
        io.begin();
        io.queue_with(|write| encode::request(write, head, lines));
        Self(Rc::new(RefCell::new(State {
            io,
            asked: head.method.clone(),
            as_is: false,
            lines: None,
            body: body.map(Box::pin),
            sending: framing,
            fresh,
            begun: false,
            sent: false,
            deaf: None,
            scanner: Scanner::default(),
            reading: Reading::Done,
            keep_alive: false,
            reader: None,
        })))
    }

    /// Sends on, and waits for the head of the next answer: interim ones, then the final one. Cancel safe.
    ///
    /// # Errors
    /// `ExchangeError`; the connection is of no more use.
    pub async fn head(&self) -> Result<AnswerHead, ExchangeError<B::Error>> {
        let mut head = poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            let answer = state.poll_answer(context);
            if state.io.is_left() {
                later::leave(&self.0);
            }
            answer
        })
        .await?;
        if !is_interim(head.status) {
            let mut state = self.0.borrow_mut();
            state.lines = head.as_is.take();
            state.reading = Reading::new(head.framing);
            state.keep_alive = head.keep_alive;
        }
        Ok(head)
    }

    /// Lets the answer's header lines be left as they come; then they are had from its body.
    pub fn leave_lines(&self) {
        self.0.borrow_mut().as_is = true;
    }

    /// Gives the request's body back, of which nothing has been read: after [`ExchangeError::Unsent`].
    pub fn take_body(&self) -> Option<B>
    where
        B: Unpin,
    {
        let body = self.0.borrow_mut().body.take();
        body.map(|body| *Pin::into_inner(body))
    }

    /// Whether the cell may be sent what is in pipes of the kernel.
    pub fn takes_pipes(&self) -> bool {
        self.0.borrow().io.pipes()
    }

    /// Sends no more of the request: the answer has refused it.
    pub fn stop(&self) {
        let mut state = self.0.borrow_mut();
        if !state.sent {
            state.begun = true;
            state.fall_deaf(io::Error::other("the answer came before the request's end"));
        }
    }

    /// Whether all of the request has been written.
    pub fn is_sent(&self) -> bool {
        self.0.borrow().sent
    }

    /// Sends the rest of the request while somebody else reads the answer. Cancel safe.
    pub async fn send(&self) {
        // Who reads the answer sees in it what became of the request; a body that breaks off tells its own record.
        let sent = poll_fn(|context| self.0.borrow_mut().poll_send(context, false)).await;
        if sent.is_err() {
            let mut state = self.0.borrow_mut();
            state.fall_deaf(io::Error::other("the request's body broke off"));
            // The cell must not take it for whole, and learns at once.
            state.reading = Reading::Failed;
            drop(state.io.take());
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
        }
    }

    /// Takes the connection back for another request, if it is fit for one: all of the request was written, all of
    /// the answer read, and nothing more has come.
    pub fn finish(&self) -> Option<Buffered> {
        let mut state = self.0.borrow_mut();
        let fit =
            state.sent && state.reading.is_done() && state.keep_alive && state.io.read.is_empty();
        fit.then(|| state.io.take())
    }

    /// Hands the connection over to whoever speaks another protocol on it.
    pub fn switch(self) -> Switched {
        self.0.borrow_mut().io.take().switch()
    }

    /// The answer's body.
    pub fn answer(&self) -> AnswerBody<B> {
        AnswerBody(self.clone())
    }
}

/// The body of an answer. Reads from its connection as it is asked.
pub struct AnswerBody<B>(Exchange<B>);

impl<B> AnswerBody<B> {
    /// Lets what is to come stay in the kernel where at least `from` bytes of it are to come at once.
    pub fn pipe(&self, from: u64) {
        self.0.0.borrow_mut().io.pipe(from);
    }
}

impl<B> HasLines for AnswerBody<B> {
    fn take_lines(&mut self) -> Option<AsIs> {
        self.0.0.borrow_mut().lines.take()
    }
}

impl<B> fmt::Debug for AnswerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").finish_non_exhaustive()
    }
}

impl<B: 'static> Body for AnswerBody<B> {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let mut state = self.0.0.borrow_mut();
        let state = &mut *state;
        let Poll::Ready(step) = state.reading.poll(&mut state.io, context) else {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(match step {
            Ok(Next::Data(mut data)) => {
                if state.reading.is_open() {
                    data.came_from(&self.0.0);
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Next::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Next::End) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.0.borrow().reading.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.0.borrow().reading.left() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::{Bytes, BytesMut};
    use http::Request;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    /// A body of so many pieces of 16 KiB.
    struct Pieces(usize);

    impl Body for Pieces {
        type Data = Piece;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Piece>, Infallible>>> {
            Poll::Ready(self.0.checked_sub(1).map(|left| {
                self.0 = left;
                Ok(Frame::data(Bytes::from_static(&[0; 16 * 1024]).into()))
            }))
        }
    }

    /// A request under way on a connection that carried others before, and the cell's end of it.
    async fn begun(body: Option<Pieces>) -> (Exchange<Pieces>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, cells) = tokio::join!(TcpStream::connect(address), listener.accept());
        let io = Buffered::new(Box::new(ours.unwrap()), BytesMut::new());
        let (head, ()) = Request::post("/").body(()).unwrap().into_parts();
        let framing = match body {
            Some(_) => Framing::Chunked,
            None => Framing::None,
        };
        let exchange = Exchange::begin(io, false, &head, b"", framing, body);
        (exchange, cells.unwrap().0)
    }

    fn reset(cell: TcpStream) {
        #[expect(deprecated, reason = "a reset is what is wanted, and does not block")]
        cell.set_linger(Some(Duration::ZERO)).unwrap();
        drop(cell);
    }

    #[tokio::test]
    async fn an_answer_is_heard_though_the_upload_under_it_failed() {
        let (exchange, mut cell) = begun(Some(Pieces(usize::MAX))).await;
        let upload = exchange.clone();
        let sending = async { upload.send().await };
        let answering = async move {
            cell.readable().await.unwrap();
            let answer = b"HTTP/1.1 413 No\r\ncontent-length: 4\r\n\r\nlong";
            cell.write_all(answer).await.unwrap();
            // With bytes unread, this resets the connection.
            drop(cell);
        };
        // It ends only with a failed write.
        tokio::join!(sending, answering);
        let head = exchange.head().await.unwrap();
        assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE);
        let body = exchange.answer().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "long");
        assert!(exchange.finish().is_none());
    }

    #[tokio::test]
    async fn an_answer_that_a_reset_ends_does_not_end_well() {
        for told in [false, true] {
            let (exchange, mut cell) = begun(Some(Pieces(usize::MAX))).await;
            let answer = b"HTTP/1.1 200 OK\r\n\r\nhalf an ans";
            cell.write_all(answer).await.unwrap();
            exchange.head().await.unwrap();
            reset(cell);
            if told {
                // The write takes the news of the reset with it.
                exchange.send().await;
            }
            let mut body = exchange.answer();
            let end = loop {
                match body.frame().await.expect("no end that looks like one") {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(matches!(end, BodyError::Io(_)), "{end:?}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_again_is_known_exactly() {
        // Gone before a byte was written: the system says so at the first write.
        let (exchange, cell) = begun(Some(Pieces(1))).await;
        reset(cell);
        let error = exchange.head().await.unwrap_err();
        assert!(matches!(error, ExchangeError::Unsent(_)), "{error:?}");
        assert_eq!(exchange.take_body().map(|body| body.0), Some(1));
        // Gone after it.
        let (exchange, mut cell) = begun(None).await;
        let cutting = async move {
            let mut head = [0; 19];
            cell.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"POST / HTTP/1.1\r\n\r\n");
        };
        let (answer, ()) = tokio::join!(exchange.head(), cutting);
        let error = answer.unwrap_err();
        assert!(matches!(error, ExchangeError::Broken(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_connection_is_left_to_another_only_if_all_was_sent_and_read() {
        for (answer, fit) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore", false),
        ] {
            let (exchange, mut cell) = begun(None).await;
            cell.write_all(answer.as_bytes()).await.unwrap();
            exchange.head().await.unwrap();
            exchange.answer().collect().await.unwrap();
            assert_eq!(exchange.finish().is_some(), fit, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_piece_says_where_it_came_from_if_more_comes_behind_it() {
        for (length, more) in [(100, true), (10, false)] {
            let (exchange, mut cell) = begun(None).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            cell.write_all(head.as_bytes()).await.unwrap();
            exchange.head().await.unwrap();
            let mut body = exchange.answer();
            body.pipe(1);
            cell.write_all(b"0123456789").await.unwrap();
            let mut piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece.piped().unwrap().has_source(), more);
        }
    }

    #[tokio::test]
    async fn what_is_left_and_not_written_is_withdrawn() {
        let tasks = LocalSet::new();
        tasks.spawn_local(later::run());
        tasks
            .run_until(async {
                yield_now().await;
                let (exchange, cell) = begun(None).await;
                drop(cell);
                // The runtime looks at its sockets.
                yield_now().await;
                let error = exchange.head().await.unwrap_err();
                // It was not asked: it may be asked elsewhere.
                assert!(matches!(error, ExchangeError::Unsent(_)), "{error:?}");
            })
            .await;
    }

    #[tokio::test]
    async fn who_speaks_first_is_asked_all_the_same() {
        let tasks = LocalSet::new();
        tasks.spawn_local(later::run());
        let early = async {
            yield_now().await;
            let (exchange, mut cell) = begun(None).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            cell.write_all(answer).await.unwrap();
            yield_now().await;
            exchange.head().await.unwrap();
            exchange.answer().collect().await.unwrap();
            assert!(exchange.finish().is_some());
            let mut head = [0; 19];
            cell.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"POST / HTTP/1.1\r\n\r\n");
        };
        tasks.run_until(early).await;
    }
}
