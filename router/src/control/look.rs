//! Whether a file has changed, told by one `stat`.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What tells one state of a file from another: every way of saving (in place, by a rename, by a link that is pointed
/// elsewhere) changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The state of a file now, links followed; `None` where there is none, as between two steps of a save.
pub(super) fn look(file: &Path) -> Option<Seen> {
    fs::metadata(file).ok().as_ref().map(Seen::of)
}

/// The bytes of a file, which is to be no larger than `most`. Whoever opens a pipe waits for somebody to write to it, so
/// only a regular file is read.
///
/// # Errors
/// Those of the system, and what is wrong with the file.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(no_file());
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// As [`read`], where it must be UTF-8.
///
/// # Errors
/// As [`read`].
pub(super) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(io::Error::other)
}

/// What is said of a pipe, a device, or a folder where a file should be.
pub(super) fn no_file() -> io::Error {
    io::Error::other("it is no regular file")
}

/// Whether an error says nothing of the file, and may be over by the next look: there was no descriptor or no memory to be
/// had, or the disk or the network did not answer.
pub(super) fn may_pass(error: &io::Error) -> bool {
    let passing = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::IO,
        Errno::STALE,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// After so many looks at a file that changes from one to the next it is read all the same: where programs edit without a
/// pause, each state of it is whole.
const RESTLESS: u32 = 5;

/// Whether a file is at rest, or is perhaps written to at this moment.
#[derive(Debug)]
pub(super) struct Rest {
    last: Option<Seen>,
    changes: u32,
}

impl Rest {
    /// Begins with a look.
    pub(super) fn since(last: Option<Seen>) -> Self {
        Self { last, changes: 0 }
    }

    /// Whether the file is to be read by the next look: two agree, or it never rests.
    pub(super) fn is_at(&mut self, now: Option<Seen>) -> bool {
        self.changes = if now == self.last {
            0
        } else {
            self.changes + 1
        };
        self.last = now;
        if self.changes < RESTLESS {
            return self.changes == 0;
        }
        self.changes = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(size: u64) -> Option<Seen> {
        Some(Seen {
            device: 1,
            inode: 1,
            size,
            modified: (0, 0),
            changed: (0, 0),
        })
    }

    #[test]
    fn a_file_is_read_if_it_is_one_and_small() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "abc").unwrap();
        assert_eq!(read(&file, 3).unwrap(), b"abc");
        let larger = read(&file, 2).unwrap_err().to_string();
        assert_eq!(larger, "it is larger than 2 bytes");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_text(&link, 3).unwrap(), "abc");
        for other in [Path::new("/dev/zero"), folder.path()] {
            let refused = read(other, 3).unwrap_err().to_string();
            assert_eq!(refused, "it is no regular file");
        }
    }

    #[test]
    fn only_what_says_nothing_of_the_file_may_pass() {
        let passes = |errno: Errno| may_pass(&errno.into());
        assert!([Errno::MFILE, Errno::NOMEM, Errno::IO].map(passes) == [true; 3]);
        assert!([Errno::NOENT, Errno::ACCESS, Errno::ISDIR].map(passes) == [false; 3]);
        assert!(!may_pass(&io::Error::other("it is larger than 3 bytes")));
    }

    #[test]
    fn a_file_is_read_once_two_looks_agree() {
        let mut rest = Rest::since(seen(0));
        let looks = [0, 1, 1, 2, 3, 3].map(|size| rest.is_at(seen(size)));
        assert_eq!(looks, [true, false, true, false, false, true]);
    }

    #[test]
    fn a_file_that_never_rests_is_read_all_the_same() {
        let mut rest = Rest::since(seen(0));
        let read = (1..=20).filter(|size| rest.is_at(seen(*size)));
        assert_eq!(read.collect::<Vec<_>>(), [5, 10, 15, 20]);
    }
}
