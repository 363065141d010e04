//! Room for the connections of clients: a place for each. Where all are taken, those on which nothing is asked give theirs
//! to who comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// How long nothing must have been asked on a connection before it ends for another: a request may be on its way, and would
/// be lost.
const SETTLED: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody needs a place, and asked for one.
const LOOKS: Duration = Duration::from_millis(100);

/// One place; free again on drop.
pub type Place = OwnedSemaphorePermit;

/// The places of all workers, as one of them sees them.
#[derive(Debug, Clone)]
pub struct Room {
    most: usize,
    free: Arc<Semaphore>,
    /// Where each worker's connections wait on which nothing is asked; who waits longest is told first.
    idle: Arc<[Notify]>,
    worker: usize,
}

impl Room {
    /// Room for `most` connections (`Semaphore::MAX_PERMITS` at most) of so many workers, as the first of them sees it.
    pub fn new(most: usize, workers: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            most,
            free: Arc::new(Semaphore::new(most)),
            idle: (0..workers.max(1)).map(|_| Notify::new()).collect(),
            worker: 0,
        }
    }

    /// The same, as the worker of that number sees it.
    pub fn of(&self, worker: usize) -> Self {
        Self {
            worker: worker % self.idle.len(),
            ..self.clone()
        }
    }

    /// How many places there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many of them are taken.
    pub fn taken(&self) -> usize {
        self.most - self.free.available_permits()
    }

    /// Takes a place. Where there is none and one is needed, it asks the connection of each worker on which nothing has been
    /// asked for the longest time for its own. Cancel safe.
    pub async fn place(&self, needed: impl Fn() -> bool) -> Place {
        loop {
            if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
                return place;
            }
            if needed() {
                self.idle.iter().for_each(Notify::notify_one);
            }
            let place = timeout(LOOKS, Arc::clone(&self.free).acquire_owned());
            // The semaphore is never closed.
            if let Ok(Ok(place)) = place.await {
                return place;
            }
        }
    }

    /// Waits until a connection on which nothing has been asked since then is to end for another. Cancel safe.
    pub async fn wanted(&self, since: Instant) {
        loop {
            self.idle[self.worker].notified().await;
            // It may have been said when nobody heard it, and be long settled.
            if self.free.available_permits() == 0 && since.elapsed() >= SETTLED {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use tokio::time::advance;

    use super::*;

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_idle_longest_leaves_for_who_comes() {
        let room = Room::new(2, 1);
        let (first, _second) = (room.place(|| true).await, room.place(|| true).await);
        assert_eq!(room.taken(), 2);
        let since = Instant::now();
        let (mut longest, mut shorter) = (pin!(room.wanted(since)), pin!(room.wanted(since)));
        assert!(poll(longest.as_mut()).is_pending() && poll(shorter.as_mut()).is_pending());
        advance(SETTLED).await;
        let mut comes = pin!(room.place(|| true));
        assert!(poll(comes.as_mut()).is_pending());
        assert!(poll(shorter.as_mut()).is_pending());
        assert!(poll(longest.as_mut()).is_ready());
        drop(first);
        assert!(poll(comes.as_mut()).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_been_answered_stays_and_is_asked_later() {
        let room = Room::new(1, 1);
        let only = room.place(|| true).await;
        let mut wanted = pin!(room.wanted(Instant::now()));
        assert!(poll(wanted.as_mut()).is_pending());
        let began = Instant::now();
        let leaves = async {
            wanted.await;
            let waited = began.elapsed();
            drop(only);
            waited
        };
        let (waited, _place) = tokio::join!(leaves, room.place(|| true));
        assert!(waited >= SETTLED && waited <= SETTLED + LOOKS, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_leaves_for_one_who_has_a_place_by_now() {
        let room = Room::new(1, 1);
        let only = room.place(|| true).await;
        {
            // Nobody is idle to hear it.
            let mut comes = pin!(room.place(|| true));
            assert!(poll(comes.as_mut()).is_pending());
            drop(only);
            assert!(poll(comes.as_mut()).is_ready());
        }
        let since = Instant::now();
        advance(SETTLED).await;
        assert!(poll(pin!(room.wanted(since))).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn all_workers_are_asked() {
        let rooms = [Room::new(1, 2), Room::new(1, 2)];
        for (owner, comes) in [(0, 1), (1, 0)] {
            let rooms = [rooms[owner].of(0), rooms[owner].of(1)];
            let _only = rooms[owner].place(|| true).await;
            let mut wanted = pin!(rooms[owner].wanted(Instant::now()));
            assert!(poll(wanted.as_mut()).is_pending());
            advance(SETTLED).await;
            assert!(poll(pin!(rooms[comes].place(|| true))).is_pending());
            assert!(poll(wanted.as_mut()).is_ready());
        }
    }
}
