//! A client's HTTP/2 connection: whatever frames come, no request is handed on with a body that was not sent, none is
//! larger or more at once than the limits say, and what is written back stays in proportion.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::thread;

use bytes::Bytes;
use cell_router::account::body::Told;
use cell_router::http1::Piece;
use cell_router::http1::io::Io;
use cell_router::http2::{Body, BodyError};
use cell_router::inbound::Terms;
use cell_router::inbound::http2::serve;
use cell_router::live::drain::Drain;
use cell_router::live::room::Room;
use cell_router::wire::strict::Fault;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::LocalSet;

use super::choices::Choices;
use super::connection::{CONFIG, RUNTIME};

/// The preface, and settings that change nothing.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type beyond which bytes are sent as they are, and the bit beside it that has a frame sent with the one before.
const LAST_TYPE: u8 = 0x20;
const AT_ONCE: u8 = 0x80;
/// Requests at once.
const MAX_STREAMS: usize = 256;
/// Bytes that a frame of nine may be answered with, and what is said however little comes.
const ANSWER_BYTES: usize = 512;
const HELLO_BYTES: usize = 1024;

/// What has been seen of requests, while they run and after.
#[derive(Default)]
struct Seen {
    running: Cell<usize>,
    /// Bodies that were read to their ends.
    whole: RefCell<Vec<Vec<u8>>>,
    written: Cell<usize>,
    /// Something did not hold while one ran; a task keeps its panic to itself.
    broken: Cell<bool>,
}

/// Counts a request while it runs.
struct Running(Rc<Seen>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0
            .broken
            .set(self.0.broken.get() || thread::panicking());
    }
}

/// A client that sends its frames, and reads whatever it gets; before each piece everybody else has a turn.
struct Client {
    pieces: std::vec::IntoIter<Vec<u8>>,
    piece: Bytes,
    seen: Rc<Seen>,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.piece.is_empty()
            && let Some(piece) = self.pieces.next()
        {
            self.piece = piece.into();
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = self.piece.len().min(into.remaining());
        into.put_slice(&self.piece.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.seen.written.set(self.seen.written.get() + bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Client {
    fn reset_on_close(&self) {}
}

/// An answer: the request's body first, as it comes, if it was not read before.
struct Answer {
    upload: Option<Upload>,
    words: Full<Piece>,
}

impl http_body::Body for Answer {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        while let Some(upload) = &mut self.upload {
            match ready!(upload.poll_data(context)) {
                Some(data) => return Poll::Ready(Some(data.map(|data| Frame::data(data.into())))),
                None => self.upload = None,
            }
        }
        let words = Pin::new(&mut self.words);
        words.poll_frame(context).map_err(|never| match never {})
    }
}

impl Told for Answer {
    fn client_stalled(&self) {}
}

/// A request's body while it is read.
struct Upload {
    body: Body,
    promised: Option<u64>,
    data: Vec<u8>,
    seen: Rc<Seen>,
}

impl Upload {
    async fn read(mut self) {
        while let Some(Ok(_)) = poll_fn(|context| self.poll_data(context)).await {}
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(frame) = frame.transpose()? else {
            let length = self.data.len() as u64;
            assert!(self.promised.is_none_or(|promised| length == promised));
            self.ends();
            return Poll::Ready(None);
        };
        let data = frame.into_data().unwrap_or_default();
        self.data.extend_from_slice(&data);
        let length = self.data.len() as u64;
        assert!(self.promised.is_none_or(|promised| length <= promised));
        if self.promised == Some(length) {
            // A cell that was told the length takes it for whole.
            self.ends();
        }
        Poll::Ready(Some(Ok(data)))
    }

    fn ends(&self) {
        self.seen.whole.borrow_mut().push(self.data.clone());
    }
}

/// What must hold for frames, each of which is spelled by its type, flags, stream and length, and for the bytes after
/// them.
pub fn holds(data: &[u8]) {
    let frames = frames(data);
    let bodies = bodies(&frames);
    let sent: usize = frames.iter().map(Vec::len).sum();
    let seen = served(frames);
    assert!(!seen.broken.get(), "see the panic before");
    for body in &*seen.whole.borrow() {
        assert!(bodies.contains(body), "{body:?} was not sent");
    }
    let most = HELLO_BYTES + ANSWER_BYTES * (sent / 9 + 1);
    assert!(seen.written.get() <= most, "{} bytes", seen.written.get());
}

/// Each comes by itself, or at once with the one before it. A type beyond those that are known ends the frames: what
/// follows is sent as it is.
fn frames(data: &[u8]) -> Vec<Vec<u8>> {
    let mut choices = Choices(data);
    let mut pieces = vec![BEGIN.to_vec()];
    while !choices.0.is_empty() {
        let kind = choices.byte();
        let at_once = kind & AT_ONCE != 0;
        let kind = kind & !AT_ONCE;
        let frame = if kind > LAST_TYPE {
            std::mem::take(&mut choices.0).to_vec()
        } else {
            let (flags, stream, length) = (choices.byte(), choices.byte(), choices.byte());
            let (payload, rest) = choices.0.split_at(choices.0.len().min(length.into()));
            choices.0 = rest;
            let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
            let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
            frame.extend_from_slice(payload);
            frame
        };
        match pieces.last_mut() {
            Some(piece) if at_once => piece.extend_from_slice(&frame),
            Some(_) | None => pieces.push(frame),
        }
    }
    pieces
}

/// Bodies that the frames hold, to where they end: nothing that comes later is a part of them.
fn bodies(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let bytes = frames.concat();
    let mut rest = &bytes[BEGIN.len() - 9..];
    let (mut open, mut whole) = (BTreeMap::<u32, Vec<u8>>::new(), Vec::new());
    while let [a, b, c, kind, flags, d, e, f, g, after @ ..] = rest {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, after)) = after.split_at_checked(length) else {
            break;
        };
        rest = after;
        let stream = u32::from_be_bytes([d & 0x7F, *e, *f, *g]);
        if let 0 | 1 = kind {
            let body = open.entry(stream).or_default();
            if *kind == 0 {
                body.extend_from_slice(unpadded(payload, *flags));
            }
            if flags & 1 != 0 {
                whole.push(body.clone());
            }
        }
    }
    whole
}

/// The data of a frame (RFC 9113 section 6.1).
fn unpadded(payload: &[u8], flags: u8) -> &[u8] {
    match payload.split_first() {
        Some((padding, data)) if flags & 8 != 0 => {
            &data[..data.len().saturating_sub(usize::from(*padding))]
        }
        _ => payload,
    }
}

fn served(frames: Vec<Vec<u8>>) -> Rc<Seen> {
    let seen = Rc::<Seen>::default();
    let mut pieces = frames.into_iter();
    let client = Client {
        piece: pieces.next().unwrap_or_default().into(),
        pieces,
        seen: Rc::clone(&seen),
    };
    let drain = Drain::default();
    let handle = |request| hand(request, Rc::clone(&seen));
    let refuse = |fault: Fault| answer(fault.status(), None);
    let tasks = LocalSet::new();
    let terms = Terms {
        config: &CONFIG,
        signal: &drain.signal(),
        room: &Room::new(1, 1),
    };
    let serving = serve(client, Bytes::new(), terms, handle, refuse);
    RUNTIME.with(|runtime| tasks.block_on(runtime, serving));
    drop(tasks);
    assert_eq!(seen.running.get(), 0, "requests outlive their connection");
    seen
}

fn answer(status: StatusCode, upload: Option<Upload>) -> Response<Answer> {
    let words = Full::new(Bytes::from_static(b"ok").into());
    let mut response = Response::new(Answer { upload, words });
    *response.status_mut() = status;
    response
}

/// Answers a request after its body; or where the target says so with it, without it, or never.
async fn hand(request: Request<Body>, seen: Rc<Seen>) -> Response<Answer> {
    seen.running.set(seen.running.get() + 1);
    let running = Running(Rc::clone(&seen));
    assert!(seen.running.get() <= MAX_STREAMS, "at once");
    let (head, body) = request.into_parts();
    assert!(head.headers.len() <= CONFIG.max_headers);
    let bytes = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + 32
    };
    let bytes: usize = head.headers.iter().map(bytes).sum();
    assert!(bytes <= CONFIG.max_head_bytes, "{bytes} bytes of fields");
    let upload = Upload {
        promised: body.size_hint().exact(),
        data: Vec::new(),
        body,
        seen,
    };
    let target = head.uri.path();
    if target.contains("refuse") {
        return answer(StatusCode::PAYLOAD_TOO_LARGE, None);
    }
    if target.contains("never") {
        pending::<()>().await;
    }
    if target.contains("with") {
        return answer(StatusCode::OK, Some(upload));
    }
    upload.read().await;
    drop(running);
    answer(StatusCode::OK, None)
}
