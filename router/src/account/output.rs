//! What the process writes: lines for standard output and standard error, handed to a thread that may have to wait for who
//! reads them. Whoever has something to say never waits.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the end of a process waits for who reads what it wrote.
pub const LAST_LINES: Duration = Duration::from_secs(1);
/// Bytes that wait to be written, at most; what comes then is dropped.
const MOST_BYTES: usize = 16 * 1024 * 1024;

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes in them, and in what is just being written.
    bytes: usize,
    /// Lines that were dropped, in all and since that was last said.
    dropped: u64,
    unsaid: u64,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One output of the process; its clones are the same.
#[derive(Clone, Default)]
pub struct Output(Arc<Shared>);

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

impl Output {
    /// An output that a thread of its own writes to `sink`, which keeps nothing back. `dropped` is told how many lines were dropped, once others are
    /// written again.
    ///
    /// # Errors
    /// Those of the system: there is no thread to be had.
    pub fn to(
        sink: impl Write + Send + 'static,
        dropped: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let this = Self::default();
        let writer = this.clone();
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || writer.write_out(sink, dropped))?;
        Ok(this)
    }

    /// Hands whole lines over, in the order in which they come. Where too many wait already, they are dropped and counted.
    pub fn offer(&self, lines: &[u8]) {
        let mut waiting = self.0.waiting();
        if waiting.bytes + lines.len() > MOST_BYTES {
            let dropped = count(lines);
            waiting.dropped += dropped;
            waiting.unsaid += dropped;
            return;
        }
        waiting.bytes += lines.len();
        waiting.pieces.push_back(lines.to_vec());
        drop(waiting);
        self.0.changed.notify_all();
    }

    /// Lines that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.waiting().dropped
    }

    /// Waits until all is written, but no longer than `patience`.
    pub fn finish(&self, patience: Duration) {
        let began = Instant::now();
        let mut waiting = self.0.waiting();
        while waiting.bytes > 0 {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(waiting, left);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write_out(&self, mut sink: impl Write, dropped: impl Fn(u64)) {
        let mut torn = false;
        loop {
            let mut waiting = self.0.waiting();
            let piece = loop {
                match waiting.pieces.pop_front() {
                    Some(piece) => break piece,
                    None => {
                        let changed = self.0.changed.wait(waiting);
                        waiting = changed.unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(waiting);
            let lost = write(&mut sink, &piece, &mut torn);
            let mut waiting = self.0.waiting();
            waiting.bytes -= piece.len();
            waiting.dropped += lost;
            waiting.unsaid += lost;
            let unsaid = match lost {
                0 => std::mem::take(&mut waiting.unsaid),
                _ => 0,
            };
            drop(waiting);
            self.0.changed.notify_all();
            if unsaid > 0 {
                dropped(unsaid);
            }
        }
    }
}

/// Writes whole lines; how many of them could not be written as a whole. A reader that is gone, or a disk that is full, must
/// not stop the requests. `torn` is whether the last line that was written has no end: the next begins a line of its own.
fn write(sink: &mut impl Write, lines: &[u8], torn: &mut bool) -> u64 {
    let mut rest = lines;
    if *torn && write_some(sink, &mut &b"\n"[..]).is_ok() {
        *torn = false;
    }
    let written = write_some(sink, &mut rest);
    if rest.len() < lines.len() {
        *torn = lines[lines.len() - rest.len() - 1] != b'\n';
    }
    match written {
        Ok(()) => 0,
        Err(_) => count(rest),
    }
}

/// Writes until there is no `rest`.
fn write_some(sink: &mut impl Write, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// One call hands over what it is given: whole lines, as `tracing` writes them.
impl Write for Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.offer(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes what is written once it may.
    struct Slow {
        may: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            self.may
                .recv()
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            let _ = self.written.send(lines.to_vec());
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_too_much_is_dropped_and_said() {
        let (let_it, may) = channel();
        let (written, lines) = channel();
        let (say, said) = channel();
        let tell = move |lines| _ = say.send(lines);
        let output = Output::to(Slow { may, written }, tell).unwrap();
        output.offer(b"first\n");
        let mut long = vec![b'x'; MOST_BYTES - 7];
        long.push(b'\n');
        output.offer(&long);
        output.offer(b"second\nthird\n");
        assert_eq!(output.dropped(), 2);
        let_it.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), b"first\n");
        assert_eq!(said.recv(), Ok(2));
        output.offer(b"x\n");
        let_it.send(()).unwrap();
        let_it.send(()).unwrap();
        assert_eq!(lines.recv().unwrap().len(), MOST_BYTES - 6);
        assert_eq!(lines.recv().unwrap(), b"x\n");
        assert_eq!(output.dropped(), 2);
    }

    /// A disk with so much room.
    struct Disk {
        room: usize,
        holds: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let fits = lines.len().min(self.room);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= fits;
            self.holds.extend(&lines[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_that_are_counted_and_tears_no_other() {
        let (room, holds) = (0, Vec::new());
        let (mut disk, mut torn) = (Disk { room, holds }, false);
        let mut write = |room, lines: &[u8]| {
            disk.room = room;
            let lost = write(&mut disk, lines, &mut torn);
            (
                lost,
                String::from_utf8(std::mem::take(&mut disk.holds)).unwrap(),
            )
        };
        assert_eq!(write(9, b"one\ntwo\n"), (0, "one\ntwo\n".to_owned()));
        assert_eq!(write(0, b"one\ntwo\n"), (2, String::new()));
        assert_eq!(write(4, b"one\ntwo\n"), (1, "one\n".to_owned()));
        assert_eq!(write(9, b"one\n"), (0, "one\n".to_owned()));
        assert_eq!(write(6, b"one\ntwo\nthree\n"), (2, "one\ntw".to_owned()));
        assert_eq!(write(0, b"one\n"), (1, String::new()));
        assert_eq!(write(1, b"one\n"), (1, "\n".to_owned()));
        assert_eq!(write(9, b"one\n"), (0, "one\n".to_owned()));
        assert_eq!(write(2, b"one\n"), (1, "on".to_owned()));
        assert_eq!(write(9, b"one\n"), (0, "\none\n".to_owned()));
    }

    #[test]
    fn what_a_full_disk_lost_is_said_once_others_are_written() {
        let (let_it, may) = channel();
        let (written, lines) = channel();
        let (say, said) = channel();
        let mut full = 2;
        let mut slow = Slow { may, written };
        let sink = Failing(move |lines: &[u8]| {
            if full > 0 {
                full -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            slow.write(lines)
        });
        let tell = move |lines| _ = say.send(lines);
        let output = Output::to(sink, tell).unwrap();
        output.offer(b"one\ntwo\n");
        output.offer(b"three\n");
        output.offer(b"four\n");
        let_it.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), b"four\n");
        assert_eq!(said.recv(), Ok(3));
        assert_eq!(output.dropped(), 3);
    }

    /// Writes as it is told to.
    struct Failing<F>(F);

    impl<F: FnMut(&[u8]) -> io::Result<usize>> Write for Failing<F> {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            (self.0)(lines)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_end_waits_for_what_can_be_written_and_for_nothing_else() {
        let (let_it, may) = channel();
        let (written, lines) = channel();
        let output = Output::to(Slow { may, written }, |_| {}).unwrap();
        output.finish(Duration::MAX / 2);
        output.offer(b"last\n");
        output.finish(Duration::ZERO);
        let_it.send(()).unwrap();
        output.finish(Duration::from_secs(3600));
        assert_eq!(lines.try_recv().unwrap(), b"last\n");
        // A reader that is gone is waited for no longer.
        drop(let_it);
        output.offer(b"nobody reads this\n");
        output.finish(Duration::from_secs(3600));
    }
}
