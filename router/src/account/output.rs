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
    /// An output that a thread of its own writes to `sink`. `dropped` is told how many lines were dropped, once others are
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
            let dropped = memchr::memchr_iter(b'\n', lines).count() as u64;
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
            // A reader that is gone must not stop the requests.
            let _ = sink.write_all(&piece).and_then(|()| sink.flush());
            let mut waiting = self.0.waiting();
            waiting.bytes -= piece.len();
            let unsaid = std::mem::take(&mut waiting.unsaid);
            drop(waiting);
            self.0.changed.notify_all();
            if unsaid > 0 {
                dropped(unsaid);
            }
        }
    }
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
        output.offer(&vec![b'x'; MOST_BYTES - 6]);
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
