//! The requests that run on one connection, and those that were taken back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use tokio::time::Instant;

use crate::http2::Budget;

/// Requests that a client may take back at once before they were answered, and more of them each second. Each may have
/// made a cell work (CVE-2023-44487).
const TAKEN_BACK: u32 = 256;
const TAKEN_BACK_PER_SECOND: u32 = 20;

/// Counts them.
#[derive(Debug, Clone)]
pub(super) struct Streams(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    running: Cell<usize>,
    any_begun: Cell<bool>,
    idle_since: Cell<Instant>,
    any_ended: Cell<bool>,
    taken_back: RefCell<Budget>,
    too_many: Cell<bool>,
    server: RefCell<Option<Waker>>,
}

impl Default for Streams {
    fn default() -> Self {
        let now = Instant::now();
        Self(Rc::new(Shared {
            running: Cell::default(),
            any_begun: Cell::new(false),
            idle_since: Cell::new(now),
            any_ended: Cell::new(false),
            taken_back: RefCell::new(Budget::new(TAKEN_BACK, TAKEN_BACK_PER_SECOND, now)),
            too_many: Cell::new(false),
            server: RefCell::default(),
        }))
    }
}

impl Streams {
    /// Counts one in, until its place is dropped.
    pub(super) fn enter(&self) -> Place {
        self.0.running.set(self.0.running.get() + 1);
        self.0.any_begun.set(true);
        Place(self.clone())
    }

    /// Since when none runs.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = self.0.running.get() == 0;
        idle.then(|| self.0.idle_since.get())
    }

    /// Whether there ever was one.
    pub(super) fn any_begun(&self) -> bool {
        self.0.any_begun.get()
    }

    /// Whether there ever was one that has ended.
    pub(super) fn any_ended(&self) -> bool {
        self.0.any_ended.get()
    }

    /// Whether the client has taken more back than it may.
    pub(super) fn too_many_taken_back(&self) -> bool {
        self.0.too_many.get()
    }

    /// Whoever serves the connection is woken when its last stream ends, or too many were taken back.
    pub(super) fn watch(&self, waker: &Waker) {
        let mut server = self.0.server.borrow_mut();
        if !server.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *server = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(server) = self.0.server.borrow_mut().take() {
            server.wake();
        }
    }
}

/// One stream's place among them.
#[derive(Debug)]
pub(super) struct Place(Streams);

impl Place {
    /// The client did not wait for the answer.
    pub(super) fn taken_back(&self) {
        let shared = &self.0.0;
        if !shared.taken_back.borrow_mut().spend(Instant::now()) {
            shared.too_many.set(true);
            self.0.wake();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let left = shared.running.get() - 1;
        shared.running.set(left);
        shared.any_ended.set(true);
        if left == 0 {
            shared.idle_since.set(Instant::now());
            self.0.wake();
        }
    }
}
