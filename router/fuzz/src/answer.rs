//! A cell's answer to one request: however its bytes come, it is read as one thing or refused, with no more of a body
//! than it framed; and what was read can be written, and is read again as the same.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use cell_router::http1::answer::without_body;
use cell_router::http1::buffered::Buffered;
use cell_router::http1::encode;
use cell_router::http1::exchange::{Exchange, ExchangeError, is_interim};
use cell_router::http1::head::Framing;
use cell_router::http1::io::Io;
use cell_router::http1::{AsIs, BodyError, Fault, HasLines as _};
use cell_router::wire::forward::unsteer;
use cell_router::wire::hop_by_hop;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::choices::Choices;
use super::{chunked, pieces, strict};

/// What is asked, and how the cell behaves once it has said all.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    /// It closes the connection; else it falls silent.
    closes: bool,
    /// The answer's header lines may be left as they come.
    as_is: bool,
}

/// What a head says.
#[derive(Debug, Clone, PartialEq)]
struct Head {
    status: StatusCode,
    reason: Option<Bytes>,
    headers: HeaderMap,
    framing: Framing,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum End {
    /// It did not: more has to come.
    #[default]
    Open,
    Whole,
    /// The connection ended before it did.
    Cut,
    Malformed(Fault),
}

/// All that became of an exchange.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    interim: Vec<StatusCode>,
    head: Option<Head>,
    keep_alive: bool,
    body: Vec<u8>,
    trailers: HeaderMap,
    end: End,
    /// The connection may carry another request.
    fit: bool,
    /// What was said in another protocol.
    switched: Vec<u8>,
}

/// A cell that takes whatever it gets, and says its bytes in pieces.
struct Cell {
    pieces: Vec<Bytes>,
    next: usize,
    /// The piece has just ended: the next one is on its way.
    pause: bool,
    closes: bool,
    written: Rc<RefCell<Vec<u8>>>,
    /// Nothing more will happen.
    silent: Rc<std::cell::Cell<bool>>,
}

impl AsyncRead for Cell {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let next = self.next;
        if std::mem::take(&mut self.pause) {
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.get_mut(next) {
            let taken = piece.split_to(piece.len().min(into.remaining()));
            into.put_slice(&taken);
            if piece.is_empty() {
                self.next += 1;
                self.pause = true;
            }
        } else if !self.closes {
            self.silent.set(true);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cell {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Cell {
    fn reset_on_close(&self) {}
}

/// What must hold for a choice of what is asked, and the bytes of a cell after it.
pub fn holds(data: &[u8]) {
    let mut choices = Choices(data);
    let asked = Asked {
        method: choices.of(&[Method::GET, Method::HEAD, Method::POST]),
        closes: choices.flag(),
        as_is: false,
    };
    let data = choices.0;
    let whole = read(&[data], &asked);
    let as_is = Asked {
        as_is: true,
        ..asked.clone()
    };
    let mut passed = whole.clone();
    if let Some(head) = &mut passed.head {
        pass(head.status, &mut head.headers);
    }
    assert_eq!(read(&[data], &as_is), passed, "however its lines are read");
    for way in pieces::ways(data) {
        assert_eq!(read(&way, &asked), whole, "in pieces {way:?}");
    }
    judge(data, &asked, &whole);
    again(&asked, &whole);
}

fn read(pieces: &[&[u8]], asked: &Asked) -> Seen {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let (written, silent) = (Rc::default(), Rc::default());
    let cell = Cell {
        pieces: pieces
            .iter()
            .filter(|piece| !piece.is_empty())
            .map(|piece| Bytes::copy_from_slice(piece))
            .collect(),
        next: 0,
        pause: false,
        closes: asked.closes,
        written: Rc::clone(&written),
        silent: Rc::clone(&silent),
    };
    let mut exchanging = pin!(exchange(cell, asked, &seen));
    let mut context = Context::from_waker(Waker::noop());
    while exchanging.as_mut().poll(&mut context).is_pending() && !silent.get() {}
    let expected: &[u8] = match asked.method {
        Method::GET => b"GET /a HTTP/1.1\r\n\r\n",
        Method::HEAD => b"HEAD /a HTTP/1.1\r\n\r\n",
        _ => b"POST /a HTTP/1.1\r\n\r\n2\r\nup\r\n0\r\n\r\n",
    };
    assert_eq!(*written.borrow(), expected, "the request is sent as it is");
    seen.take()
}

async fn exchange(cell: Cell, asked: &Asked, seen: &RefCell<Seen>) {
    let io = Buffered::new(Box::new(cell), BytesMut::new());
    let request = Request::builder().method(&asked.method).uri("/a").body(());
    let (head, ()) = request.expect("a request").into_parts();
    let (framing, body) = match asked.method {
        Method::POST => (
            Framing::Chunked,
            Some(Full::new(Bytes::from_static(b"up").into())),
        ),
        _ => (Framing::None, None),
    };
    let exchange = Exchange::begin(io, true, &head, b"", framing, body);
    if asked.as_is {
        exchange.leave_lines();
    }
    let mut head = loop {
        match exchange.head().await {
            Ok(head) if is_interim(head.status) => seen.borrow_mut().interim.push(head.status),
            Ok(head) => break head,
            Err(error) => {
                seen.borrow_mut().end = why(error);
                return;
            }
        }
    };
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut body = exchange.answer();
    if let Some(lines) = body.take_lines() {
        assert!(head.headers.is_empty());
        head.headers = fields(&lines);
        let before = head.headers.clone();
        pass(head.status, &mut head.headers);
        assert_eq!(before, head.headers, "nothing of it is to be changed");
    } else if asked.as_is {
        pass(head.status, &mut head.headers);
    }
    {
        let mut seen = seen.borrow_mut();
        seen.keep_alive = head.keep_alive;
        seen.head = Some(Head {
            status: head.status,
            reason: head.reason,
            headers: head.headers,
            framing: head.framing,
        });
    }
    while let Some(frame) = body.frame().await {
        let mut seen = seen.borrow_mut();
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => seen.body.extend_from_slice(&data.into_bytes()),
            Ok(Err(frame)) => seen.trailers = frame.into_trailers().unwrap_or_default(),
            Err(error) => {
                seen.end = match error {
                    BodyError::Ended => End::Cut,
                    BodyError::Malformed(fault) => End::Malformed(fault),
                    BodyError::Io(_) | BodyError::Over => panic!("{error}"),
                };
                return;
            }
        }
    }
    seen.borrow_mut().end = End::Whole;
    drop(body);
    if switches {
        let mut switched = exchange.switch();
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = switched.read(&mut bytes).await {
            let mut seen = seen.borrow_mut();
            seen.switched.extend_from_slice(&bytes[..count]);
        }
    } else if let Some(mut io) = exchange.finish() {
        // What is still on its way is seen at the second look.
        let quiet = io.is_quiet() && io.is_quiet();
        seen.borrow_mut().fit = quiet;
    }
}

/// What the router does to an answer's fields that it passes on one by one.
fn pass(status: StatusCode, headers: &mut HeaderMap) {
    hop_by_hop::strip_answer(status, headers);
    unsteer(headers);
}

/// Lines that were left as they came, as the second reader reads them.
fn fields(lines: &AsIs) -> HeaderMap {
    let head = [b"HTTP/1.1 200 OK\r\n", &lines.lines[..], b"\r\n"].concat();
    let Ok(head) = strict::answer(&head) else {
        panic!("lines that pass are header lines: {lines:?}");
    };
    let dated = head.fields.iter().any(|(name, _)| name == b"date");
    assert_eq!(lines.dated, dated);
    let field = |(name, value): &(Vec<u8>, Vec<u8>)| {
        let name = HeaderName::from_bytes(name).expect("a name");
        (name, HeaderValue::from_bytes(value).expect("a value"))
    };
    head.fields.iter().map(field).collect()
}

fn why(error: ExchangeError<Infallible>) -> End {
    match error {
        ExchangeError::Malformed(fault) => End::Malformed(fault),
        ExchangeError::Broken(_) => End::Cut,
        ExchangeError::Unsent(error) => panic!("all was sent: {error}"),
    }
}

fn judge(data: &[u8], asked: &Asked, seen: &Seen) {
    let mut at = 0;
    let mut interim = seen.interim.iter();
    let head = loop {
        match strict::answer(&data[at..]) {
            Ok(head) if (100..200).contains(&head.status) && head.status != 101 => {
                let Some(status) = interim.next() else {
                    return refused(data, at, seen, large(data));
                };
                assert_eq!(status.as_u16(), head.status);
                at += head.bytes;
            }
            Ok(head) => break head,
            Err(_) => return refused(data, at, seen, true),
        }
    };
    assert_eq!(interim.next(), None, "the second reader finds no more");
    let Some(found) = &seen.head else {
        return refused(data, at, seen, large(data));
    };
    at += head.bytes;
    assert_eq!(found.status.as_u16(), head.status);
    let usual = found.status.canonical_reason().unwrap_or_default();
    let reason = found.reason.as_deref().unwrap_or(usual.as_bytes());
    assert_eq!(reason, head.reason);
    assert!(strict::same(&found.headers, &head.fields));
    let bodiless = asked.method == Method::HEAD || without_body(found.status);
    let framing = match head.framing {
        _ if bodiless => Framing::None,
        strict::Framing::Length(0) => Framing::None,
        strict::Framing::Length(length) => Framing::Length(length),
        strict::Framing::Chunked => Framing::Chunked,
        strict::Framing::ToEnd => Framing::ToEnd,
    };
    assert_eq!(found.framing, framing);
    let lists = |token| strict::lists(&head.fields, "connection", token);
    let stays = !lists("close") && (head.modern || lists("keep-alive"));
    let stays = stays && !head.ambiguous && framing != Framing::ToEnd;
    assert_eq!(seen.keep_alive, stays);
    let framing = match bodiless {
        true => strict::Framing::Length(0),
        false => head.framing,
    };
    match strict::body(&data[at..], framing) {
        Ok(body) if seen.end == End::Whole => {
            assert_eq!(seen.body, body.data);
            assert!(strict::same(&seen.trailers, &body.trailers));
            at += body.bytes;
        }
        Ok(body) => {
            let waits = seen.end == End::Open && framing == strict::Framing::ToEnd;
            assert!(waits || large(data), "{:?}, but it is whole", seen.end);
            assert!(body.data.starts_with(&seen.body));
        }
        Err(stop) => {
            assert_ne!(seen.end, End::Whole, "{stop:?}");
            assert!(seen.body.len() <= data.len() - at);
            if let strict::Framing::Length(_) = framing {
                assert_eq!(seen.body, data[at..], "what came of it");
            }
        }
    }
    let quiet = !asked.closes && at == data.len();
    let switches = found.status == StatusCode::SWITCHING_PROTOCOLS;
    let fit = stays && quiet && seen.end == End::Whole && !switches;
    assert_eq!(seen.fit, fit, "for another request");
    if switches {
        assert_eq!(seen.switched, data[at..]);
    }
}

/// No final head was read of what begins at `at`, which the second reader takes for one only if it is `allowed` to.
fn refused(data: &[u8], at: usize, seen: &Seen, allowed: bool) {
    assert_eq!(seen.head, None, "the second reader refuses it");
    match seen.end {
        // A fault may be seen before the line that has it is there.
        End::Malformed(fault) => {
            let completed = [&data[at..], b"\r\n\r\n"].concat();
            let second = strict::answer(&completed);
            assert!(second.is_err() || large(data), "{fault:?}");
        }
        End::Open | End::Cut => {
            let second = strict::answer(&data[at..]);
            assert!(allowed && second.is_err(), "the head is whole");
        }
        End::Whole => panic!("whole without a head"),
    }
}

/// Whether some limit of size may be what an input is refused for.
fn large(data: &[u8]) -> bool {
    data.iter().filter(|byte| **byte == b'\n').count() > 256 || chunked::large(data)
}

/// Written again from what was understood, it is understood in the same way.
fn again(asked: &Asked, seen: &Seen) {
    let Some(head) = seen.head.as_ref().filter(|_| seen.end == End::Whole) else {
        return;
    };
    let mut text = BytesMut::new();
    encode::head(
        &mut text,
        head.status,
        head.reason.as_deref(),
        &head.headers,
    );
    text.extend_from_slice(b"\r\n");
    if head.framing == Framing::Chunked {
        for data in seen.body.chunks(5) {
            text.extend_from_slice(encode::chunk_size(data.len()).as_bytes());
            text.extend_from_slice(data);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(&encode::last_chunk(&seen.trailers));
    } else {
        text.extend_from_slice(&seen.body);
    }
    let closing = Asked {
        closes: true,
        ..asked.clone()
    };
    let again = read(&[&text], &closing);
    assert_eq!(again.head.as_ref(), Some(head));
    assert_eq!(
        (again.end, &again.body, &again.trailers),
        (seen.end, &seen.body, &seen.trailers)
    );
}
