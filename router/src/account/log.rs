//! Where access-log lines go, and spans: each worker gathers its own and hands them on together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Duration;

use super::output::Output;
use super::sight::Sight;
use super::tally::Tally;
use super::trace::Tracer;
use crate::config::LogFormat;

/// How long a line may wait for others before all are written.
const GATHER: Duration = Duration::from_millis(10);
/// How many bytes may wait.
const GATHER_BYTES: usize = 64 * 1024;

/// One worker's access log, its counts of the same requests, and what of them can be seen.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    tally: Arc<Tally>,
    output: Output,
    sight: Option<Rc<Sight>>,
    tracer: Option<Tracer>,
    waiting: RefCell<String>,
    scheduled: Cell<bool>,
    some: Notify,
}

impl AccessLog {
    /// An empty one that counts to `tally` and writes to `output`. There is something to see only if somebody may look, and
    /// spans only where there is a tracer.
    pub fn new(
        format: LogFormat,
        tally: Arc<Tally>,
        output: Output,
        seen: bool,
        tracer: Option<Tracer>,
    ) -> Self {
        Self {
            format,
            tally,
            output,
            sight: seen.then(Rc::default),
            tracer,
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

    /// What can be seen of single requests; none where nobody may look.
    pub fn sight(&self) -> Option<&Rc<Sight>> {
        self.sight.as_ref()
    }

    /// How requests are traced; `None` where no traces are exported.
    pub(super) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
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

    /// Hands over all lines that wait, and the spans of their requests before them.
    pub fn flush(&self) {
        self.tracer.iter().for_each(Tracer::flush);
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.is_empty() {
            self.output.offer(waiting.as_bytes());
            waiting.clear();
        }
    }

    /// Hands lines over soon after they come, for as long as it is polled. Cancel safe.
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
