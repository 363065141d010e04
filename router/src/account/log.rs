//! Where access-log lines go: each worker gathers its own and writes them to standard output together.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Duration;

use super::tally::Tally;
use crate::config::LogFormat;

/// How long a line may wait for others before all are written.
const GATHER: Duration = Duration::from_millis(10);
/// How many bytes may wait.
const GATHER_BYTES: usize = 64 * 1024;

/// One worker's access log, and its counts of the same requests.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    tally: Arc<Tally>,
    waiting: RefCell<String>,
    scheduled: Cell<bool>,
    some: Notify,
}

impl AccessLog {
    /// An empty one that counts to `tally`.
    pub fn new(format: LogFormat, tally: Arc<Tally>) -> Self {
        Self {
            format,
            tally,
            waiting: RefCell::default(),
            scheduled: Cell::new(false),
            some: Notify::new(),
        }
    }

    /// How lines are written.
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Where requests are counted.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Adds what `write` adds: one line, which ends with a line feed.
    pub fn write(&self, write: impl FnOnce(&mut String)) {
        let full = {
            let mut waiting = self.waiting.borrow_mut();
            write(&mut waiting);
            waiting.len() >= GATHER_BYTES
        };
        if full {
            self.flush();
        } else if !self.scheduled.replace(true) {
            self.some.notify_one();
        }
    }

    /// Writes out all lines that wait.
    pub fn flush(&self) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.is_empty() {
            // A reader of the log that is gone must not stop the requests.
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(waiting.as_bytes()).and_then(|()| out.flush());
            waiting.clear();
        }
    }

    /// Writes lines out soon after they come, for as long as it is polled. Cancel safe.
    pub async fn run(&self) {
        loop {
            self.some.notified().await;
            tokio::time::sleep(GATHER).await;
            self.scheduled.set(false);
            self.flush();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}
