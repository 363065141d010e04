//! Room for the connections of clients: a place for each. Where all are taken, those on which nothing is asked give theirs
//! to who comes.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::lock;

/// How long nothing must have been asked on a connection before it ends for another: a request may be on its way, and would
/// be lost.
const SETTLED: Duration = Duration::from_secs(1);
/// How long who asks for a place of its own worker waits before it asks the others.
const PATIENCE: Duration = Duration::from_millis(250);

/// One place; free again on drop.
pub type Place = OwnedSemaphorePermit;

/// The places of all workers, as one of them sees them.
#[derive(Debug, Clone)]
pub struct Room {
    most: usize,
    free: Arc<Semaphore>,
    asked: Arc<Asked>,
    workers: Arc<[Idle]>,
    worker: usize,
}

/// Where a worker's connections wait on which nothing is asked; who waits longest is told first. Apart from the next worker's
/// in the processor's caches, for each request comes by.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Idle(Notify);

/// Those who need a place that nobody has promised to leave; gone once they do not need it any more.
#[derive(Debug, Default)]
struct Asked(Mutex<VecDeque<Weak<()>>>);

/// Who is told of it tells the next one, unless it has done with it.
struct Told<'a>(Option<&'a Notify>);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if let Some(idle) = self.0 {
            idle.notify_one();
        }
    }
}

/// Who will leave. Where it stays, another does.
struct Promise<'a> {
    to: Option<Weak<()>>,
    asked: &'a Asked,
    idle: &'a Notify,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            lock(&self.asked.0).push_front(to);
            self.idle.notify_one();
        }
    }
}

impl Asked {
    /// Asks, until what it gives is dropped.
    fn ask(&self) -> Arc<()> {
        let asking = Arc::new(());
        let mut asked = lock(&self.0);
        asked.retain(|asking| asking.strong_count() > 0);
        asked.push_back(Arc::downgrade(&asking));
        asking
    }

    /// Who asked first, and whether others ask.
    fn next(&self) -> (Option<Weak<()>>, bool) {
        let mut asked = lock(&self.0);
        asked.retain(|asking| asking.strong_count() > 0);
        (asked.pop_front(), !asked.is_empty())
    }

    fn is_some(&self) -> bool {
        let asked = lock(&self.0);
        asked.iter().any(|asking| asking.strong_count() > 0)
    }
}

impl Room {
    /// Room for `most` connections (`Semaphore::MAX_PERMITS` at most) of so many workers, as the first of them sees it.
    pub fn new(most: usize, workers: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            most,
            free: Arc::new(Semaphore::new(most)),
            asked: Arc::default(),
            workers: (0..workers.max(1)).map(|_| Idle::default()).collect(),
            worker: 0,
        }
    }

    /// The same, as the worker of that number sees it.
    pub fn of(&self, worker: usize) -> Self {
        Self {
            worker: worker % self.workers.len(),
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

    /// Takes a place. Where there is none, it asks for that of a connection on which nothing is asked: of the one of this
    /// worker that has been so for the longest time, then of those of the others. Cancel safe.
    pub async fn place(&self) -> Place {
        if let Some(place) = self.free_place() {
            return place;
        }
        let mut left = pin!(self.left_place());
        loop {
            let _asking = self.asked.ask();
            self.idle().notify_one();
            if let Ok(place) = timeout(PATIENCE, left.as_mut()).await {
                return place;
            }
            let others = self.workers.iter().enumerate();
            others
                .filter(|(worker, _)| *worker != self.worker)
                .for_each(|(_, Idle(idle))| idle.notify_one());
            // Whoever has promised to leave may take longer than that.
            if let Ok(place) = timeout(SETTLED + PATIENCE, left.as_mut()).await {
                return place;
            }
        }
    }

    /// A place, where one is free.
    pub fn free_place(&self) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Takes a place that is free, or that somebody leaves for their own reasons. Cancel safe.
    pub async fn left_place(&self) -> Place {
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(place) => place,
            // The semaphore is never closed.
            Err(_) => pending().await,
        }
    }

    /// Waits until a connection on which nothing has been asked since then is to end for another. Who polls this looks for
    /// requests before, at each poll. Cancel safe.
    pub async fn wanted(&self, since: Instant) {
        let (idle, asked) = (self.idle(), &*self.asked);
        loop {
            idle.notified().await;
            let mut told = Told(Some(idle));
            let settled = since + SETTLED;
            if Instant::now() < settled {
                if !asked.is_some() {
                    // It was said when nobody heard it, and is long done.
                    told.0 = None;
                    continue;
                }
                Box::pin(sleep_until(settled)).await;
            }
            let (to, more) = asked.next();
            if to.is_none() || !more {
                told.0 = None;
            }
            drop(told);
            if to.is_some() {
                let mut promise = Promise { to, asked, idle };
                // A request that the kernel has is heard of until then.
                yield_now().await;
                promise.to = None;
                return;
            }
        }
    }

    fn idle(&self) -> &Notify {
        &self.workers[self.worker].0
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use tokio::time::advance;

    use super::*;

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Whether who waits like this leaves, after it has looked once more for a request.
    fn leaves(mut wanted: Pin<&mut impl Future<Output = ()>>) -> bool {
        poll(wanted.as_mut()).is_ready() || poll(wanted).is_ready()
    }

    /// A room that is full, and its places.
    async fn full(most: usize, workers: usize) -> (Room, Vec<Place>) {
        let room = Room::new(most, workers);
        let mut places = Vec::new();
        for taken in 0..most {
            assert_eq!(room.taken(), taken);
            places.push(room.place().await);
        }
        (room, places)
    }

    #[tokio::test(start_paused = true)]
    async fn of_those_who_ask_nothing_as_many_leave_as_come_and_who_waits_longest_first() {
        let (room, mut places) = full(3, 1).await;
        let since = Instant::now();
        let mut idle = [(); 3].map(|()| Box::pin(room.wanted(since)));
        assert!(!idle.iter_mut().any(|idle| leaves(idle.as_mut())));
        advance(SETTLED).await;
        let (mut one, mut other) = (pin!(room.place()), pin!(room.place()));
        assert!(poll(one.as_mut()).is_pending() && poll(other.as_mut()).is_pending());
        let [first, second, third] = &mut idle;
        assert!(!leaves(third.as_mut()));
        assert!(leaves(first.as_mut()) && leaves(second.as_mut()));
        assert!(!leaves(third.as_mut()));
        places.truncate(1);
        assert!(poll(one.as_mut()).is_ready() && poll(other.as_mut()).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn two_who_came_while_nobody_was_idle_have_two_leave() {
        let (room, _places) = full(2, 1).await;
        let (mut one, mut other) = (pin!(room.place()), pin!(room.place()));
        assert!(poll(one.as_mut()).is_pending() && poll(other.as_mut()).is_pending());
        let since = Instant::now();
        let mut idle = [(); 2].map(|()| Box::pin(room.wanted(since)));
        assert!(!idle.iter_mut().any(|idle| leaves(idle.as_mut())));
        advance(SETTLED).await;
        assert!(idle.iter_mut().all(|idle| leaves(idle.as_mut())));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_been_answered_stays_until_it_has_asked_nothing_for_a_while() {
        let (room, places) = full(1, 1).await;
        let since = Instant::now();
        let leaves = async {
            room.wanted(since).await;
            drop(places);
            since.elapsed()
        };
        let (waited, _place) = tokio::join!(leaves, room.place());
        assert!(waited >= SETTLED && waited < SETTLED * 2, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_something_meanwhile_leaves_it_to_the_next() {
        let (room, _places) = full(2, 1).await;
        let since = Instant::now();
        let mut first = Box::pin(room.wanted(since));
        let mut second = pin!(room.wanted(since));
        assert!(!leaves(first.as_mut()) && !leaves(second.as_mut()));
        let mut comes = pin!(room.place());
        assert!(poll(comes.as_mut()).is_pending());
        assert!(!leaves(first.as_mut()));
        drop(first);
        assert!(!leaves(second.as_mut()));
        advance(SETTLED).await;
        assert!(leaves(second));
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_of_a_request_at_the_last_moment_leaves_it_to_the_next() {
        let (room, _places) = full(2, 1).await;
        let since = Instant::now();
        let mut first = Box::pin(room.wanted(since));
        let mut second = pin!(room.wanted(since));
        assert!(!leaves(first.as_mut()) && !leaves(second.as_mut()));
        advance(SETTLED).await;
        let mut comes = pin!(room.place());
        assert!(poll(comes.as_mut()).is_pending());
        assert!(poll(first.as_mut()).is_pending());
        assert!(!leaves(second.as_mut()));
        drop(first);
        assert!(leaves(second));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_leaves_for_one_who_has_a_place_by_now() {
        let (room, places) = full(1, 1).await;
        {
            // Nobody is idle to hear it.
            let mut comes = pin!(room.place());
            assert!(poll(comes.as_mut()).is_pending());
            drop(places);
            assert!(poll(comes.as_mut()).is_ready());
        }
        let since = Instant::now();
        advance(SETTLED).await;
        assert!(!leaves(pin!(room.wanted(since))));
    }

    #[tokio::test(start_paused = true)]
    async fn all_workers_are_asked_and_the_own_first() {
        for (owner, comes) in [(0, 1), (1, 0), (1, 1)] {
            let (room, _places) = full(1, 2).await;
            let (owners, of) = (room.of(owner), room.of(comes));
            let mut wanted = pin!(owners.wanted(Instant::now()));
            assert!(!leaves(wanted.as_mut()));
            advance(SETTLED).await;
            let mut comes_now = pin!(of.place());
            assert!(poll(comes_now.as_mut()).is_pending());
            assert_eq!(leaves(wanted.as_mut()), owner == comes);
            if owner != comes {
                advance(PATIENCE + Duration::from_millis(1)).await;
                assert!(poll(comes_now.as_mut()).is_pending());
                assert!(leaves(wanted));
            }
        }
    }
}
