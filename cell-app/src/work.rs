//! What runs: a count that is a guard, and the signal to drain.
//!
//! The count only goes up through [`Work::begin`] and down when that guard is dropped.

use std::time::Duration;

use tokio::sync::watch;

/// The running work of this process, and whether it is asked to end. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Work {
    running: watch::Sender<usize>,
    draining: watch::Sender<bool>,
}

/// One piece of running work; it has ended when this is dropped.
pub(crate) struct Running(watch::Sender<usize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Work {
    /// Nothing runs, nothing drains.
    pub(crate) fn new() -> Self {
        Self {
            running: watch::Sender::new(0),
            draining: watch::Sender::new(false),
        }
    }

    /// Counts a piece of work until the guard is dropped.
    pub(crate) fn begin(&self) -> Running {
        self.running.send_modify(|count| *count += 1);
        Running(self.running.clone())
    }

    /// How many pieces of work run.
    pub(crate) fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Returns once nothing runs. Cancel safe.
    pub(crate) async fn ended(&self) {
        // The sender lives in `self`, so that the channel cannot be closed.
        let _ = self.running.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Returns once nothing has run for `period`; work that begins and ends meanwhile starts the clock anew. Cancel safe.
    pub(crate) async fn idle(&self, period: Duration) {
        let mut running = self.running.subscribe();
        loop {
            let _ = running.wait_for(|count| *count == 0).await;
            if tokio::time::timeout(period, running.changed())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Asks everything to end. Cannot be undone.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether [`Work::drain`] was called.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Returns once [`Work::drain`] was called. Cancel safe.
    pub(crate) async fn draining(&self) {
        let _ = self
            .draining
            .subscribe()
            .wait_for(|draining| *draining)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const PERIOD: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn idle_clock_starts_at_boot() {
        let start = Instant::now();
        Work::new().idle(PERIOD).await;
        assert_eq!(start.elapsed(), PERIOD);
    }

    #[tokio::test(start_paused = true)]
    async fn running_work_is_never_idle() {
        let work = Work::new();
        let _running = work.begin();
        let idle = tokio::time::timeout(PERIOD * 1000, work.idle(PERIOD)).await;
        assert!(idle.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_clock_starts_anew_when_the_last_work_ends() {
        let work = Work::new();
        let start = Instant::now();
        let (first, second) = (work.begin(), work.begin());
        let other = work.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PERIOD * 2).await;
            drop(first);
            tokio::time::sleep(PERIOD * 2).await;
            drop(second);
            tokio::time::sleep(PERIOD / 2).await;
            drop(other.begin());
        });
        work.idle(PERIOD).await;
        assert_eq!(start.elapsed(), PERIOD * 5 + PERIOD / 2);
    }

    #[tokio::test]
    async fn ended_waits_for_every_guard() {
        let work = Work::new();
        let running = work.begin();
        assert_eq!(work.running(), 1);
        let ended = tokio::spawn({
            let work = work.clone();
            async move { work.ended().await }
        });
        drop(running);
        ended.await.unwrap();
        assert_eq!(work.running(), 0);
    }
}
