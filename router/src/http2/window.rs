//! How much a client may send before the cell has taken it (RFC 9113 section 5.2).
//!
//! A window is what one slow cell can make the router hold, so it begins small. It grows, for all of a connection, once
//! a cell has provably taken what came and still waits for more: then it is the window that limits the client.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// The window of a stream at first, in bytes: two frames of the usual size.
pub const FIRST: u32 = 32 * 1024;
/// At last: 80 Mbit/s at 100 ms from the client.
const LAST: u32 = 1024 * 1024;
/// Bytes that a cell takes before the window doubles: more than the sockets on the way may swallow of a cell that does
/// not read at all.
const PROOF: u64 = 512 * 1024;
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

    fn ask(&self) {
        self.0.wish.set(true);
        if let Some(server) = self.0.server.borrow_mut().take() {
            server.wake();
        }
    }
}

/// What one body's reader has taken since the windows last grew on its account.
#[derive(Debug)]
pub(super) struct Reader {
    windows: Windows,
    taken: u64,
}

impl Reader {
    pub(super) fn new(windows: Windows) -> Self {
        Self { windows, taken: 0 }
    }

    /// It took so many bytes.
    pub(super) fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
    }

    /// It waits for more.
    pub(super) fn waits(&mut self) {
        let size = self.windows.0.size.get();
        if size < LAST && self.taken >= PROOF {
            self.taken = 0;
            self.windows.ask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_for_who_takes_and_waits() {
        let windows = Windows::default();
        let mut reader = Reader::new(windows.clone());
        reader.took(512 * 1024 - 1);
        reader.waits();
        assert_eq!(windows.wish(), None);
        reader.took(1);
        assert_eq!(windows.wish(), None);
        reader.waits();
        assert_eq!(windows.wish(), Some(2 * FIRST));
        windows.grown(2 * FIRST);
        assert_eq!(windows.wish(), None);
        windows.grown(LAST);
        reader.took(usize::MAX / 2);
        reader.waits();
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
