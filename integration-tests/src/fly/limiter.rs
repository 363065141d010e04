//! Owns the rate limits of the Machines API. Pure: it is told the time.

use std::time::Duration;

/// A token bucket: `burst` calls at once, then one every `interval`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    interval: Duration,
    burst: u32,
    /// Time at which the bucket is full again.
    full_at: Duration,
}

impl Bucket {
    /// A full bucket. fly-platform 3.5: one a second with a burst of 3; "Get Machine" five a second, burst 10.
    pub(super) const fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            burst,
            full_at: Duration::ZERO,
        }
    }

    /// Takes one token at time `now`; false if there is none.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + self.interval;
        let allowed = full_at - now <= self.interval * self.burst;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn burst_passes_and_the_next_is_refused() {
        let mut bucket = Bucket::new(SECOND, 3);
        let taken: Vec<bool> = (0..4).map(|_| bucket.take(SECOND)).collect();
        assert_eq!(taken, [true, true, true, false]);
    }

    #[test]
    fn one_token_comes_back_each_interval() {
        let mut bucket = Bucket::new(SECOND, 3);
        (0..3).for_each(|_| assert!(bucket.take(SECOND)));
        assert!(!bucket.take(SECOND * 2 - Duration::from_nanos(1)));
        assert!(bucket.take(SECOND * 2));
        assert!(!bucket.take(SECOND * 2));
    }

    #[test]
    fn a_refused_call_costs_nothing() {
        let mut bucket = Bucket::new(SECOND, 1);
        assert!(bucket.take(SECOND));
        (0..10).for_each(|_| assert!(!bucket.take(SECOND)));
        assert!(bucket.take(SECOND * 2));
    }
}
