//! Pipes of the kernel, through which bytes go from one socket to another without being copied: splice(2).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};

use bytes::Bytes;
use rustix::pipe::{PipeFlags, SpliceFlags};
use rustix::thread::CapabilitySet;

/// Pages that a large pipe has room for, one for each piece of up to 4 KiB: a MiB, the most that a system lets everybody have.
/// What is read at once is answered with one update of the sender's window; many small ones cost more than all the rest.
const LARGE: usize = 256;
/// Pages of the others.
const SMALL: usize = 32;
/// With room for less than that, copying is cheaper.
const LEAST: usize = 16;
/// The most pipes of one thread. What they hold is memory of the kernel, and each takes two descriptors; beyond them,
/// bytes are copied.
const MOST: usize = 224;
/// The most idle ones that a thread keeps.
const KEPT: usize = 64;
const PAGE: usize = 4096;

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static OPEN: Cell<usize> = const { Cell::new(0) };
    static LARGE_OPEN: Cell<usize> = const { Cell::new(0) };
    static ALLOTMENT: Cell<Allotment> = const { Cell::new(Allotment::of(usize::MAX)) };
}

/// What a thread may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allotment {
    most: usize,
    large: usize,
}

impl Allotment {
    /// From so many pages: many pipes before large ones.
    const fn of(pages: usize) -> Self {
        let many = pages / SMALL;
        let most = if many < MOST { many } else { MOST };
        let large = (pages - most * SMALL) / (LARGE - SMALL);
        Self {
            most,
            large: if large < most { large } else { most },
        }
    }
}

/// Has this thread take no more pages for its pipes than its part, as one of so many, of what the system and its memory allow.
pub fn share_among(threads: usize) {
    let limits = [pages_of_user(), pages_of_memory()];
    let limit = limits.into_iter().flatten().min();
    let share = limit.map_or(usize::MAX, |limit| limit / threads.max(1));
    ALLOTMENT.set(Allotment::of(share));
}

/// A user without privileges has so many pages for all pipes, empty ones included; beyond them the system gives pipes that are
/// hardly any (pipe(7), `pipe-user-pages-soft`). A quarter of them is left to the user's other programs.
fn pages_of_user() -> Option<usize> {
    let privileged = rustix::thread::capabilities(None).is_ok_and(|held| {
        held.effective
            .intersects(CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN)
    });
    let limit = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").ok();
    let limit = limit.and_then(|limit| limit.trim().parse::<usize>().ok());
    let limit = limit.filter(|limit| *limit > 0 && !privileged)?;
    Some(limit / 4 * 3)
}

/// An eighth of the memory that there is for this program: full pipes cannot be swapped out.
fn pages_of_memory() -> Option<usize> {
    let system = rustix::system::sysinfo();
    let units = usize::try_from(system.totalram).unwrap_or(usize::MAX);
    let all = units.saturating_mul(usize::try_from(system.mem_unit).unwrap_or(1));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|limit| limit.trim().parse().ok());
    Some(all.min(group.unwrap_or(usize::MAX)) / 8 / PAGE)
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    large: bool,
}

impl Pipe {
    /// None where the thread has enough, or the system gives none that is worth it.
    fn open() -> Option<Self> {
        let allotment = ALLOTMENT.get();
        if OPEN.get() >= allotment.most {
            return None;
        }
        let large = LARGE_OPEN.get() < allotment.large;
        let opened = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let pipe = opened.ok().filter(|(_, write)| {
            let pages = if large { LARGE } else { SMALL };
            let set = rustix::pipe::fcntl_setpipe_size(write, pages * PAGE);
            let size = set.or_else(|_| rustix::pipe::fcntl_getpipe_size(write));
            size.is_ok_and(|size| size >= LEAST * PAGE)
        });
        let (read, write) = pipe?;
        OPEN.set(OPEN.get() + 1);
        LARGE_OPEN.set(LARGE_OPEN.get() + usize::from(large));
        Some(Self { read, write, large })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // At the thread's end there may be nobody left to count.
        let _ = OPEN.try_with(|open| open.set(open.get() - 1));
        if self.large {
            let _ = LARGE_OPEN.try_with(|open| open.set(open.get() - 1));
        }
    }
}

/// Whether this thread has a pipe to spare: the next [`Piped::fill`] takes it.
pub fn spare() -> bool {
    SPARE.with_borrow_mut(|spare| {
        if spare.is_empty() {
            spare.extend(Pipe::open());
        }
        !spare.is_empty()
    })
}

/// Where what is in a pipe came from.
pub trait Source {
    /// What comes next wakes nobody until somebody reads it: what came before cannot be passed on.
    fn pause(&self);
}

/// Bytes in a pipe.
pub struct Piped {
    /// Taken only on drop.
    pipe: Option<Pipe>,
    left: Cell<usize>,
    source: Option<Weak<dyn Source>>,
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
            source: None,
        };
        if let Some(pipe) = &piped.pipe {
            // It is empty, so what would block is the socket.
            let moved = splice(socket, &pipe.write, most.min(LARGE * PAGE))?;
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

    /// Says where they came from.
    pub fn came_from(&mut self, source: &Rc<impl Source + 'static>) {
        // It may be long gone when they are passed on.
        self.source = Some(Rc::downgrade(source) as _);
    }

    /// Whether it is known where they came from.
    #[cfg(test)]
    pub fn has_source(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|source| source.strong_count() > 0)
    }

    /// Pauses where they came from: they cannot be passed on now.
    pub fn pause_source(&mut self) {
        if let Some(source) = self.source.take().and_then(|source| source.upgrade()) {
            source.pause();
        }
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

/// Keeps an empty pipe; of many, the large ones.
fn keep(spare: &mut Vec<Pipe>, pipe: Pipe) {
    spare.push(pipe);
    if spare.len() > KEPT {
        let least = spare.iter().position(|pipe| !pipe.large);
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

    #[derive(Default)]
    struct Paused(Cell<usize>);

    impl Source for Paused {
        fn pause(&self) {
            self.0.set(self.0.get() + 1);
        }
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
        ALLOTMENT.set(Allotment { most: 10, large: 1 });
        let mut kept: Vec<_> = (0..10).map(|_| filled(b"x")).collect();
        assert!(!spare());
        let (_, theirs) = UnixStream::pair().unwrap();
        let none = Piped::fill(&theirs, 1).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::ResourceBusy);
        kept.pop();
        assert!(spare());
    }

    #[test]
    fn where_they_came_from_is_paused_once_and_only_if_it_is_there() {
        let paused = Rc::new(Paused::default());
        let (mut piped, _sender) = filled(b"x");
        piped.pause_source();
        piped.came_from(&paused);
        for _ in 0..2 {
            piped.pause_source();
            assert_eq!(paused.0.get(), 1);
        }
        piped.came_from(&paused);
        drop(paused);
        piped.pause_source();
    }

    #[test]
    fn of_many_the_large_ones_are_kept() {
        ALLOTMENT.set(Allotment {
            most: MOST,
            large: 4,
        });
        // Those that were opened last are emptied first.
        let mut full: Vec<_> = (0..KEPT + 10).map(|_| filled(b"x")).collect();
        while let Some((piped, _sender)) = full.pop() {
            piped.lift();
        }
        assert_eq!((open(), LARGE_OPEN.get()), (KEPT, 4));
    }

    #[test]
    fn few_pages_are_many_pipes_before_they_are_large_ones() {
        for (pages, most, large) in [
            (usize::MAX, MOST, MOST),
            (MOST * LARGE, MOST, MOST),
            (MOST * SMALL + 10 * (LARGE - SMALL), MOST, 10),
            (MOST * SMALL, MOST, 0),
            (100 * SMALL + 1, 100, 0),
            (SMALL - 1, 0, 0),
        ] {
            assert_eq!(Allotment::of(pages), Allotment { most, large }, "{pages}");
        }
    }
}
