//! How much a client may send before the cell has taken it (RFC 9113 section 5.2).
//!
//! A window is what one slow cell can make the router hold, so it begins small. It grows, for all of a connection, once
//! a cell has provably taken what came and has waited for it longer than it was waited for: then it is the window that
//! limits the client.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

/// The window of a stream at first, in bytes: one frame of the usual size.
pub const FIRST: u32 = 16 * 1024;
/// At last: 80 Mbit/s at 100 ms from the client.
const LAST: u32 = 1024 * 1024;
/// Bytes that a cell takes before the window doubles: more than the sockets on the way may swallow of a cell that does
/// not read at all.
const PROOF: u64 = 384 * 1024;
/// The window of a connection in windows of a stream: so many slow cells but one cannot starve another stream.
const STREAMS: u32 = 8;
/// The largest window of a connection, in bytes: what one client can make the router hold of uploads.
const MOST: u32 = 4 * LAST;

/// The window of a connection whose streams have windows of `stream` bytes.
pub fn of_connection(stream: u32) -> u32 {
    stream.saturating_mul(STREAMS).min(MOST)
}

/// The windows of one connection, shared with the bodies that are read through them.
#[derive(Debug, Clone)]
pub struct Windows(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    size: Cell<u32>,
    wish: Cell<bool>,
    server: RefCell<Option<Waker>>,
}

impl Default for Windows {
    fn default() -> Self {
        Self(Rc::new(Shared {
            size: Cell::new(FIRST),
            wish: Cell::new(false),
            server: RefCell::default(),
        }))
    }
}

impl Windows {
    /// Whoever serves the connection is woken when the windows are to grow.
    pub fn watch(&self, waker: &Waker) {
        let mut server = self.0.server.borrow_mut();
        if !server.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *server = Some(waker.clone());
        }
    }

    /// The size that streams' windows are to grow to, if they are.
    pub fn wish(&self) -> Option<u32> {
        self.0
            .wish
            .get()
            .then(|| self.0.size.get().saturating_mul(2).min(LAST))
    }

    /// The windows have grown to `size`.
    pub fn grown(&self, size: u32) {
        self.0.size.set(size);
        self.0.wish.set(false);
    }

    fn may_grow(&self) -> bool {
        self.0.size.get() < LAST
    }

    fn ask(&self) {
        self.0.wish.set(true);
        if let Some(server) = self.0.server.borrow_mut().take() {
            server.wake();
        }
    }
}

/// What one body's reader has taken since it was last judged, and who has waited for whom.
#[derive(Debug)]
pub(super) struct Reader {
    windows: Windows,
    taken: u64,
    /// How long it had what was read.
    held: Duration,
    /// How long it waited for more.
    waited: Duration,
    /// Since when it does the one or the other; the time before a first piece is not the window's affair.
    since: Option<Instant>,
}

impl Reader {
    pub(super) fn new(windows: Windows) -> Self {
        Self {
            windows,
            taken: 0,
            held: Duration::ZERO,
            waited: Duration::ZERO,
            since: None,
        }
    }

    /// It gets a piece.
    pub(super) fn gets(&mut self, now: impl FnOnce() -> Instant) {
        if self.windows.may_grow() {
            let now = now();
            self.waited += self.since.map_or(Duration::ZERO, |since| now - since);
            self.since = Some(now);
        }
    }

    /// It has taken the piece, of so many bytes, and asks for the next.
    pub(super) fn took(&mut self, bytes: usize, now: impl FnOnce() -> Instant) {
        self.taken += bytes as u64;
        if self.windows.may_grow() {
            let now = now();
            self.held += self.since.map_or(Duration::ZERO, |since| now - since);
            self.since = Some(now);
        }
    }

    /// It waits for the next.
    pub(super) fn waits(&mut self) {
        if self.taken >= PROOF && self.windows.may_grow() {
            if self.waited > self.held {
                self.windows.ask();
            }
            (self.taken, self.held, self.waited) = (0, Duration::ZERO, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);
    /// Bytes of a piece, and so many of them are proof.
    const PIECE: usize = 16 * 1024;
    const PIECES: usize = PROOF as usize / PIECE;

    /// A reader that takes pieces, holds each as long as given, and waits as long for the next.
    struct Story(Reader, Instant);

    impl Story {
        fn takes(&mut self, pieces: usize, held: Duration, waited: Duration) {
            for _ in 0..pieces {
                let Self(reader, now) = self;
                reader.gets(|| *now);
                *now += held;
                reader.took(PIECE, || *now);
                reader.waits();
                *now += waited;
            }
        }
    }

    #[test]
    fn windows_grow_for_who_takes_and_waits() {
        let windows = Windows::default();
        let mut story = Story(Reader::new(windows.clone()), Instant::now());
        story.takes(PIECES - 1, MOMENT, 2 * MOMENT);
        assert_eq!(windows.wish(), None);
        story.takes(1, MOMENT, 2 * MOMENT);
        assert_eq!(windows.wish(), Some(2 * FIRST));
        windows.grown(2 * FIRST);
        assert_eq!(windows.wish(), None);
        windows.grown(LAST);
        story.takes(4 * PIECES, MOMENT, 2 * MOMENT);
        assert_eq!(windows.wish(), None);
    }

    #[test]
    fn windows_stay_for_who_is_waited_for() {
        let windows = Windows::default();
        let mut story = Story(Reader::new(windows.clone()), Instant::now());
        // However much it takes in time.
        story.takes(100 * PIECES, 2 * MOMENT, MOMENT);
        assert_eq!(windows.wish(), None);
        // What was long ago counts no more.
        story.takes(PIECES, MOMENT, 2 * MOMENT);
        assert_eq!(windows.wish(), Some(2 * FIRST));
    }

    #[test]
    fn the_time_before_the_first_piece_does_not_count() {
        let windows = Windows::default();
        let began = Instant::now();
        let mut reader = Reader::new(windows.clone());
        reader.waits();
        let mut story = Story(reader, began + 1_000_000 * MOMENT);
        story.takes(PIECES, 2 * MOMENT, MOMENT);
        assert_eq!(windows.wish(), None);
    }

    #[test]
    fn one_stream_never_takes_the_whole_connection() {
        let sizes = std::iter::successors(Some(FIRST), |size| Some(size * 2));
        for size in sizes.take_while(|size| *size <= LAST) {
            assert!(of_connection(size) >= 4 * size);
        }
    }
}
