//! Pipes of the kernel, through which bytes go from one socket to another without being copied: splice(2).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use rustix::pipe::{PipeFlags, SpliceFlags};

/// What a pipe is asked to hold, in bytes; where the system gives less, it does.
const CAPACITY: usize = 256 * 1024;
/// What one is asked to hold that is opened beside those that a thread keeps: where so many bodies come at once, less of each
/// is there at a time.
const CAPACITY_OF_MANY: usize = 128 * 1024;
/// The most pipes of one thread. What they hold is memory of the kernel, and each takes two descriptors; beyond them,
/// bytes are copied.
const MOST: usize = 224;
/// Idle ones that a thread keeps.
const KEPT: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// It is one of many, and holds less.
    of_many: bool,
}

impl Pipe {
    fn open() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let of_many = OPEN.get() >= KEPT;
        let capacity = match of_many {
            true => CAPACITY_OF_MANY,
            false => CAPACITY,
        };
        // A smaller one works, too.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, capacity);
        OPEN.set(OPEN.get() + 1);
        Ok(Self {
            read,
            write,
            of_many,
        })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // At the thread's end there may be nobody left to count.
        let _ = OPEN.try_with(|open| open.set(open.get() - 1));
    }
}

/// Whether this thread has a pipe to spare: the next [`Piped::fill`] takes it.
pub fn spare() -> bool {
    SPARE.with_borrow_mut(|spare| {
        if spare.is_empty() && OPEN.get() < MOST {
            spare.extend(Pipe::open());
        }
        !spare.is_empty()
    })
}

/// Bytes in a pipe.
pub struct Piped {
    /// Taken only on drop.
    pipe: Option<Pipe>,
    left: Cell<usize>,
}

impl fmt::Debug for Piped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piped({})", self.left.get())
    }
}

impl Piped {
    /// Moves up to `most` bytes that have come over a socket into a pipe. None of them are there at the socket's end.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` where nothing has come yet; `ResourceBusy` where no pipe is to spare.
    pub fn fill(socket: impl AsFd, most: usize) -> io::Result<Self> {
        let pipe = SPARE.with_borrow_mut(Vec::pop);
        let piped = Self {
            pipe: Some(pipe.ok_or(io::ErrorKind::ResourceBusy)?),
            left: Cell::new(0),
        };
        if let Some(pipe) = &piped.pipe {
            // It is empty, so what would block is the socket.
            let moved = splice(socket, &pipe.write, most.min(CAPACITY))?;
            piped.left.set(moved);
        }
        Ok(piped)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.left.get()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves as many of them to a socket as it takes at once.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` where it takes nothing now.
    pub fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(pipe) = &self.pipe else {
            return Ok(0);
        };
        let moved = splice(&pipe.read, socket, self.left.get())?;
        self.left.set(self.left.get() - moved);
        Ok(moved)
    }

    /// Reads all of them into memory.
    pub fn lift(&self) -> Bytes {
        let mut bytes = vec![0; self.left.get()];
        let mut read = 0;
        if let Some(pipe) = &self.pipe {
            while read < bytes.len() {
                match rustix::io::read(&pipe.read, &mut bytes[read..]) {
                    Ok(count) if count > 0 => read += count,
                    Err(rustix::io::Errno::INTR) => {}
                    outcome => unreachable!("a pipe holds what was put into it: {outcome:?}"),
                }
            }
        }
        self.left.set(0);
        Bytes::from(bytes)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // One that still holds something is closed.
        if let Some(pipe) = self.pipe.take().filter(|_| self.left.get() == 0) {
            let _ = SPARE.try_with(|spare| keep(&mut spare.borrow_mut(), pipe));
        }
    }
}

/// Keeps an empty pipe, if need be in place of one that holds less.
fn keep(spare: &mut Vec<Pipe>, pipe: Pipe) {
    spare.push(pipe);
    if spare.len() > KEPT {
        let least = spare.iter().position(|pipe| pipe.of_many);
        spare.swap_remove(least.unwrap_or(KEPT));
    }
}

fn splice(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    loop {
        match rustix::pipe::splice(&from, None, &to, None, most, SpliceFlags::NONBLOCK) {
            Err(rustix::io::Errno::INTR) => {}
            moved => return Ok(moved?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::http1::Piece;

    fn filled(text: &[u8]) -> (Piped, UnixStream) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(text).unwrap();
        assert!(spare());
        (Piped::fill(&theirs, 1 << 20).unwrap(), ours)
    }

    fn open() -> usize {
        OPEN.get()
    }

    #[test]
    fn what_is_in_a_pipe_is_moved_on_or_read() {
        let (mut piped, _sender) = filled(b"0123456789");
        assert_eq!(piped.len(), 10);
        let (out, mut end) = UnixStream::pair().unwrap();
        assert_eq!(piped.drain(&out).unwrap(), 10);
        assert!(piped.is_empty());
        let mut got = [0; 10];
        end.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"0123456789");

        let (piped, _sender) = filled(b"abc");
        let mut piece = Piece::from(piped);
        assert!(piece.piped().is_some());
        assert_eq!(bytes::Buf::chunk(&piece), b"abc");
        assert!(piece.piped().is_none(), "it has been read");
        bytes::Buf::advance(&mut piece, 1);
        assert_eq!((piece.len(), &piece.into_bytes()[..]), (2, &b"bc"[..]));
    }

    #[test]
    fn a_pipe_is_used_again_only_when_it_is_empty() {
        let (piped, _sender) = filled(b"left");
        let all = open();
        drop(piped);
        assert_eq!(open(), all - 1, "it still held something");
        let (piped, _sender) = filled(b"read");
        let all = open();
        assert_eq!(piped.lift(), "read");
        drop(piped);
        assert_eq!(open(), all);
        assert_eq!(filled(b"again").0.len(), 5);
        assert_eq!(open(), all - 1);
    }

    #[test]
    fn the_end_and_nothing_yet_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        assert!(spare());
        let nothing = Piped::fill(&theirs, 10).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert!(spare());
        assert!(Piped::fill(&theirs, 10).unwrap().is_empty());
    }

    #[test]
    fn a_thread_has_so_many_and_no_more() {
        let mut kept: Vec<_> = (0..MOST).map(|_| filled(b"x")).collect();
        assert!(!spare());
        let (_, theirs) = UnixStream::pair().unwrap();
        let none = Piped::fill(&theirs, 1).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::ResourceBusy);
        kept.pop();
        assert!(spare());
    }

    #[test]
    fn of_many_those_are_kept_that_hold_most() {
        // The last ones are emptied first.
        let mut full: Vec<_> = (0..2 * KEPT).map(|_| filled(b"x")).collect();
        while let Some((piped, _sender)) = full.pop() {
            piped.lift();
        }
        assert_eq!(open(), KEPT);
        SPARE.with_borrow(|spare| assert!(spare.iter().all(|pipe| !pipe.of_many)));
    }
}
