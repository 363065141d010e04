//! A client's socket under HTTP/2, with an eye on the frames: what h2 answers by itself would otherwise go unseen.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::budget::Budget;
use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, Frame, HEADERS, Passed, RST_STREAM, SETTINGS, Scanner,
};

/// The code of a reset for a malformed message (RFC 9113 section 7).
const PROTOCOL_ERROR: u32 = 1;
/// Bytes of the connection preface (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;
/// Frames that ask for nothing (`PING`, `SETTINGS`, `PRIORITY`, `WINDOW_UPDATE`, `RST_STREAM`, empty `DATA`, unknown
/// ones) which a client may send at once, and more of them each second.
const NOISE: u32 = 2_000;
const NOISE_PER_SECOND: u32 = 100;
/// How many of them are forgiven for a request, for a frame of its body, and for a frame of an answer's body, which
/// some clients answer with two window updates each.
const FOR_REQUEST: u32 = 8;
const FOR_UPLOAD: u32 = 2;
const FOR_DOWNLOAD: u32 = 8;

/// What a client may have taken of an answer between two looks at least: a ping lies behind what was sent before it.
const TAKEN: usize = 512 * 1024;
/// The most that lies before one, in the kernels on both sides.
const BEFORE: usize = 8 * 1024 * 1024;

/// Streams of which it is remembered that they were reset, and what it costs h2 for good if a small frame of a body comes
/// to one: it counts so many bytes for every frame that may wait, and forgets those that it ignores.
const RESETS: usize = 256;
const FRAME_COSTS: usize = 256;

/// Requests of which it is remembered that h2 has not handed them on; those before them are forgotten.
const REMEMBERED: usize = 512;

/// What a client breaks the protocol by, where h2 lets it pass or gives another reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its first frame is not its settings (RFC 9113 section 3.4).
    Preface,
    /// The length of a frame is one that its type does not have.
    FrameSize,
}

/// Why h2 has refused a request by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its message is malformed: the stream was reset.
    Malformed,
    /// Its head is too large: it was answered.
    TooLarge,
}

struct State<I> {
    io: I,
    /// What was read before h2 reads.
    ahead: Bytes,
    reads: Scanner,
    writes: Scanner,
    noise: Budget,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    flooded: bool,
    begun: bool,
    broken: Option<Broken>,
    heard: bool,
    /// A write waits for room.
    waits: bool,
    /// Bytes of bodies that were sent since this was last looked at, and those before that the client may not have taken.
    sent: usize,
    untaken: usize,
    /// Those that were sent behind the last ping.
    behind: usize,
    /// Streams that h2 has reset, the last of them.
    reset: VecDeque<u32>,
    /// What frames on them have cost.
    lost: usize,
    agreed: bool,
    head_since: Option<Instant>,
    /// The last stream that the client has opened.
    last: u32,
    /// Streams that it has opened, and that h2 has not handed on.
    opened: VecDeque<u32>,
    /// What h2 has sent on such streams.
    refused: Vec<(u32, Refused)>,
}

impl Seen {
    fn open(&mut self, stream: u32) {
        // Trailers open nothing.
        if stream > self.last {
            self.last = stream;
            if self.opened.len() == REMEMBERED {
                self.opened.pop_front();
            }
            self.opened.push_back(stream);
        }
    }

    fn reset(&mut self, stream: u32) {
        if self.reset.len() == RESETS {
            self.reset.pop_front();
        }
        self.reset.push_back(stream);
    }

    fn data(&mut self, frame: Frame) {
        if frame.length < FRAME_COSTS && self.reset.contains(&frame.stream) {
            self.lost += FRAME_COSTS - frame.length;
        }
    }

    fn break_by(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    fn refuse(&mut self, stream: u32, why: Refused) {
        if self.opened.contains(&stream) {
            self.refused.push((stream, why));
        }
    }
}

/// A socket of which frames are watched. Its clones are the same socket.
pub struct Watched<I>(Rc<RefCell<State<I>>>);

impl<I> Clone for Watched<I> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<I> fmt::Debug for Watched<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl<I> Watched<I> {
    /// Watches over `io`, from which `ahead`, which begins with the connection preface, has been read already.
    pub fn new(io: I, ahead: Bytes) -> Self {
        Self(Rc::new(RefCell::new(State {
            io,
            ahead,
            reads: Scanner::new(PREFACE_BYTES),
            writes: Scanner::new(0),
            noise: Budget::new(NOISE, NOISE_PER_SECOND, Instant::now()),
            seen: Seen::default(),
        })))
    }

    /// Whether the client has sent more frames that ask for nothing than it may.
    pub fn flooded(&self) -> bool {
        self.0.borrow().seen.flooded
    }

    /// What the client has broken the protocol by. Nothing more of what it sends is handed on.
    pub fn broken(&self) -> Option<Broken> {
        self.0.borrow().seen.broken
    }

    /// Whether the client has taken note of the settings it was sent.
    pub fn agreed(&self) -> bool {
        self.0.borrow().seen.agreed
    }

    /// Since when the client has been sending a head that has not ended yet.
    pub fn head_since(&self) -> Option<Instant> {
        self.0.borrow().seen.head_since
    }

    /// Whether nothing has come from the client since this was last asked, and nothing that it was sent before explains
    /// that; `answered`: the last ping was, so all that was sent before it was taken.
    pub fn silent(&self, answered: bool) -> bool {
        let seen = &mut self.0.borrow_mut().seen;
        let sent = std::mem::take(&mut seen.sent);
        seen.behind += sent;
        let before = match answered {
            true => seen.behind,
            false => seen.untaken + sent,
        };
        seen.untaken = before.min(BEFORE).saturating_sub(TAKEN);
        let heard = std::mem::take(&mut seen.heard);
        !(answered || heard || seen.waits || seen.untaken > 0)
    }

    /// A ping has been sent, behind all that was.
    pub fn asked(&self) {
        self.0.borrow_mut().seen.behind = 0;
    }

    /// What small frames of bodies that nobody wanted any more have cost h2, in bytes of its budget.
    pub fn lost(&self) -> usize {
        self.0.borrow().seen.lost
    }

    /// h2 has handed a stream on.
    pub fn accepted(&self, stream: u32) {
        self.0
            .borrow_mut()
            .seen
            .opened
            .retain(|opened| *opened != stream);
    }

    /// A request that h2 has refused; each once. To be asked when h2 has handed on all that has come.
    pub fn refused(&self) -> Option<Refused> {
        let seen = &mut self.0.borrow_mut().seen;
        while let Some((stream, why)) = seen.refused.pop() {
            if let Some(at) = seen.opened.iter().position(|opened| *opened == stream) {
                seen.opened.remove(at);
                return Some(why);
            }
        }
        None
    }
}

impl<I: AsyncRead + Unpin> Watched<I> {
    /// Reads on whatever comes, up to so many bytes, and forgets it; ready at the connection's end. Cancel safe.
    pub async fn swallow(&mut self, mut most: usize) {
        let mut bytes = [0; 2048];
        while let Ok(count @ 1..) = self.read(&mut bytes).await
            && most > 0
        {
            most = most.saturating_sub(count);
        }
    }
}

impl<I> State<I> {
    fn read(&mut self, bytes: &[u8]) {
        let Self {
            reads, noise, seen, ..
        } = self;
        seen.heard = true;
        reads.scan(bytes, |passed| match passed {
            Passed::Began(frame) if frame.misfits() => seen.break_by(Broken::FrameSize),
            Passed::Began(frame)
                if !std::mem::replace(&mut seen.begun, true)
                    && (frame.kind, frame.flags & ACK) != (SETTINGS, 0) =>
            {
                seen.break_by(Broken::Preface);
            }
            Passed::Began(frame) => match frame.kind {
                HEADERS => {
                    noise.earn(FOR_REQUEST);
                    seen.head_since = Some(Instant::now());
                }
                DATA if frame.length > 0 => {
                    noise.earn(FOR_UPLOAD);
                    seen.data(frame);
                }
                // Bounded by h2, in number and in size.
                CONTINUATION => {}
                _ => {
                    seen.agreed |= (frame.kind, frame.flags & ACK) == (SETTINGS, ACK);
                    seen.flooded |= !noise.spend(Instant::now());
                }
            },
            Passed::Ended(frame, _) => {
                if matches!(frame.kind, HEADERS | CONTINUATION) && frame.flags & END_HEADERS != 0 {
                    seen.head_since = None;
                    seen.open(frame.stream);
                }
            }
        });
    }

    fn written(&mut self, bytes: &[u8]) {
        let Self {
            writes,
            noise,
            seen,
            ..
        } = self;
        writes.scan(bytes, |passed| match passed {
            Passed::Began(frame) => match frame.kind {
                DATA if frame.length > 0 => {
                    noise.earn(FOR_DOWNLOAD);
                    seen.sent = seen.sent.saturating_add(frame.length);
                }
                HEADERS => seen.refuse(frame.stream, Refused::TooLarge),
                _ => {}
            },
            Passed::Ended(frame, code) if frame.kind == RST_STREAM => {
                seen.reset(frame.stream);
                if code == PROTOCOL_ERROR {
                    seen.refuse(frame.stream, Refused::Malformed);
                }
            }
            Passed::Ended(..) => {}
        });
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        let before = buffer.filled().len();
        loop {
            if state.ahead.is_empty() {
                ready!(Pin::new(&mut state.io).poll_read(context, buffer))?;
            } else {
                let take = state.ahead.len().min(buffer.remaining());
                buffer.put_slice(&state.ahead[..take]);
                state.ahead.advance(take);
                if state.ahead.is_empty() {
                    // Its memory is kept for as long as there is anything of it.
                    state.ahead = Bytes::new();
                }
            }
            let read = &buffer.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if state.seen.broken.is_none() {
                state.read(read);
            }
            if state.seen.broken.is_none() {
                return Poll::Ready(Ok(()));
            }
            // h2 would end the connection for a reason of its own. Whoever polls it looks here next.
            buffer.set_filled(before);
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.borrow_mut();
        let written = Pin::new(&mut state.io).poll_write(context, bytes);
        state.seen.waits = written.is_pending();
        let written = ready!(written)?;
        state.written(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.borrow_mut();
        let written = Pin::new(&mut state.io).poll_write_vectored(context, parts);
        state.seen.waits = written.is_pending();
        let written = ready!(written)?;
        let mut left = written;
        for part in parts {
            let take = left.min(part.len());
            state.written(&part[..take]);
            left -= take;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        let flushed = Pin::new(&mut state.io).poll_flush(context);
        // TLS keeps what the socket had no room for.
        state.seen.waits = flushed.is_pending();
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const HEAD: usize = 9;

    /// A frame of so many bytes.
    fn frame(kind: u8, stream: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        let head = [a, b, c, kind, 0, 0, 0, 0, stream];
        [&head[..], &vec![0; length]].concat()
    }

    fn watched(room: usize) -> (Watched<DuplexStream>, DuplexStream) {
        let (ours, client) = duplex(room);
        (Watched::new(ours, Bytes::new()), client)
    }

    async fn send(watched: &mut Watched<DuplexStream>, kind: u8, length: usize) {
        watched.write_all(&frame(kind, 1, length)).await.unwrap();
    }

    #[tokio::test]
    async fn who_says_nothing_and_was_sent_nothing_is_silent() {
        let (mut watched, mut client) = watched(1024);
        assert!(watched.silent(false));
        client.write_all(&[b'x'; 30]).await.unwrap();
        watched.read_exact(&mut [0; 30]).await.unwrap();
        assert!(!watched.silent(false));
        assert!(watched.silent(false));
        // A ping, and an event now and then, would have been taken long ago.
        send(&mut watched, super::super::frames::PING, 8).await;
        send(&mut watched, DATA, 100).await;
        assert!(watched.silent(false));
        assert!(!watched.silent(true));
    }

    #[tokio::test]
    async fn who_still_takes_what_was_sent_before_is_not_silent() {
        let (mut watched, _client) = watched(4 * TAKEN);
        send(&mut watched, DATA, 3 * TAKEN).await;
        assert!(!watched.silent(false));
        assert!(!watched.silent(false));
        assert!(watched.silent(false), "it takes nothing");
        watched.asked();
        send(&mut watched, DATA, TAKEN / 2).await;
        assert!(!watched.silent(true));
        assert!(watched.silent(false), "what came before was taken");
    }

    #[tokio::test]
    async fn a_late_answer_says_nothing_of_what_was_sent_after_the_ping() {
        let (mut watched, _client) = watched(8 * TAKEN);
        watched.asked();
        send(&mut watched, DATA, 3 * TAKEN).await;
        assert!(!watched.silent(false));
        send(&mut watched, DATA, 2 * TAKEN).await;
        assert!(!watched.silent(false));
        // All five may be there still.
        assert!(!watched.silent(true));
        watched.asked();
        for _ in 0..3 {
            assert!(!watched.silent(false));
        }
        assert!(watched.silent(false), "it takes nothing");
    }

    #[tokio::test]
    async fn who_keeps_a_write_waiting_is_not_silent() {
        let (mut watched, mut client) = watched(HEAD + 100);
        send(&mut watched, DATA, 100).await;
        let mut more = Box::pin(async { watched.clone().write_all(b"x").await });
        assert!(futures_util::poll!(&mut more).is_pending());
        assert!(!watched.silent(false) && !watched.silent(false));
        client.read_exact(&mut [0; HEAD]).await.unwrap();
        more.await.unwrap();
        assert!(watched.silent(false));
    }

    #[tokio::test]
    async fn small_frames_for_streams_that_were_reset_are_counted() {
        let (mut watched, mut client) = watched(64 * 1024);
        send(&mut watched, RST_STREAM, 4).await;
        let mut came = vec![0; PREFACE_BYTES];
        came.extend(frame(SETTINGS, 0, 0));
        for (stream, length) in [(1, 5), (3, 5), (1, FRAME_COSTS), (1, 0), (1, 255)] {
            came.extend(frame(DATA, stream, length));
        }
        client.write_all(&came).await.unwrap();
        watched.read_exact(&mut came).await.unwrap();
        assert_eq!(watched.lost(), FRAME_COSTS - 5 + 1);
    }
}
