//! The stop signal, and the count of what still runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How far the router has gone from its start to its stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Nobody is served yet.
    Starting,
    /// No stop was asked for.
    Running,
    /// New work is refused, running work goes on.
    Draining,
    /// The time for running work is over: tunnels take their leave.
    Closing,
    /// Whatever still runs is cut.
    Now,
}

/// How long after the word to stop a connection on which nothing is asked stays open: what its client is just sending is
/// answered, as the last thing on it.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long tunnels may take to say goodbye.
pub const GOODBYE: Duration = Duration::from_secs(6);

/// Tells every worker to stop, and waits for what runs.
#[derive(Debug)]
pub struct Drain {
    stop: watch::Sender<Stop>,
    accepting: Arc<Running>,
    running: Arc<Running>,
}

#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    none: Notify,
}

impl Running {
    fn enter(self: &Arc<Self>) -> Guard {
        self.count.fetch_add(1, Ordering::AcqRel);
        Guard(Arc::clone(self))
    }

    /// Waits until nothing runs. Cancel safe.
    async fn none(&self) {
        loop {
            let none = self.none.notified();
            tokio::pin!(none);
            none.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

/// A worker's end of the signal.
#[derive(Debug, Clone)]
pub struct Signal {
    stop: watch::Receiver<Stop>,
    accepting: Arc<Running>,
    running: Arc<Running>,
}

/// One listener, connection or tunnel that runs; counted out on drop.
#[derive(Debug)]
pub struct Guard(Arc<Running>);

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            stop: watch::Sender::new(Stop::Starting),
            accepting: Arc::default(),
            running: Arc::default(),
        }
    }
}

impl Drain {
    /// For one worker.
    pub fn signal(&self) -> Signal {
        Signal {
            stop: self.stop.subscribe(),
            accepting: Arc::clone(&self.accepting),
            running: Arc::clone(&self.running),
        }
    }

    /// Goes on to a later step; never back.
    pub fn advance(&self, to: Stop) {
        self.stop.send_if_modified(|stop| {
            let later = to > *stop;
            *stop = (*stop).max(to);
            later
        });
    }

    /// Waits until no listener accepts any more, and nothing that they accepted runs. Cancel safe.
    pub async fn finished(&self) {
        self.accepting.none().await;
        self.running.none().await;
    }

    /// How many connections and tunnels run.
    pub fn running(&self) -> usize {
        self.running.count.load(Ordering::Acquire)
    }
}

impl Signal {
    /// Counts a listener in: what it has accepted by its end is waited for, even where nothing runs before.
    pub fn accept(&self) -> Guard {
        self.accepting.enter()
    }

    /// Counts a connection or tunnel in.
    pub fn enter(&self) -> Guard {
        self.running.enter()
    }

    /// Whether the stop has gone at least so far.
    pub fn has(&self, step: Stop) -> bool {
        *self.stop.borrow() >= step
    }

    /// Waits until a connection on which nothing is asked is to be closed: a second after the word to stop, or after
    /// this call where that came before. Cancel safe.
    pub async fn last_words(&self) {
        self.reached(Stop::Draining).await;
        tokio::time::sleep(LAST_WORDS).await;
    }

    /// Waits until the stop has gone at least so far. Cancel safe.
    pub async fn reached(&self, step: Stop) {
        let mut stop = self.stop.clone();
        // An error means that the process is past its end: the step is reached.
        let _ = stop.wait_for(|now| *now >= step).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn what_a_listener_may_still_accept_is_waited_for() {
        let drain = Drain::default();
        let signal = drain.signal();
        let accepting = signal.accept();
        let mut finished = pin!(drain.finished());
        let mut is_finished = || {
            let mut context = Context::from_waker(Waker::noop());
            finished.as_mut().poll(&mut context).is_ready()
        };
        assert!(!is_finished());
        assert_eq!(drain.running(), 0);
        let running = signal.enter();
        drop(accepting);
        assert!(!is_finished());
        drop(running);
        assert!(is_finished());
    }
}
