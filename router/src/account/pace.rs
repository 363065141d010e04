//! How fast a client takes its answer.

use std::time::Duration;

use tokio::time::Instant;

/// Watches how fast what was handed over is taken, which shows when more is asked for. The clock stands still while there
/// is nothing to take, so an answer that pauses is not held against its reader.
#[derive(Debug)]
pub struct Taking {
    rate: u64,
    every: Duration,
    handed: Option<Instant>,
    bytes: u64,
    waited: Duration,
}

impl Taking {
    /// At least `rate` bytes a second are to be taken on average, over each `every` that the reader was waited for.
    pub fn new(rate: u64, every: Duration) -> Self {
        Self {
            rate,
            every,
            handed: None,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// So many bytes are handed over `now`.
    pub fn hand(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        self.handed = Some(now);
    }

    /// More is asked for: what was handed over has been taken. The rate, if that was too slow.
    pub fn asked(&mut self) -> Option<u64> {
        self.waited += self.handed.take()?.elapsed();
        if self.waited < self.every {
            return None;
        }
        let due = self.waited.as_millis() * u128::from(self.rate) / 1000;
        let slow = u128::from(self.bytes) < due;
        (self.bytes, self.waited) = (0, Duration::ZERO);
        slow.then_some(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What is said when the first of so many bytes has been taken for so many seconds, again and again.
    async fn taken(bytes: u64, seconds: u32, rate: u64) -> Option<u64> {
        let mut taking = Taking::new(rate, 10 * SECOND);
        for _ in 0..50 {
            taking.hand(bytes, Instant::now());
            tokio::time::advance(SECOND * seconds).await;
            if let Some(slow) = taking.asked() {
                return Some(slow);
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn too_slow_is_below_the_rate() {
        assert_eq!(taken(64, 1, 64).await, None);
        assert_eq!(taken(63, 1, 64).await, Some(64));
        assert_eq!(taken(0, 1, 0).await, None);
        // In large steps, as a kernel with much room takes them, it is the same.
        assert_eq!(taken(6400, 100, 64).await, None);
        assert_eq!(taken(6399, 100, 64).await, Some(64));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_fast_at_first_does_not_count_for_ever() {
        let mut taking = Taking::new(64, 10 * SECOND);
        taking.hand(10_000_000, Instant::now());
        tokio::time::advance(10 * SECOND).await;
        assert_eq!(taking.asked(), None);
        taking.hand(1, Instant::now());
        tokio::time::advance(10 * SECOND).await;
        assert_eq!(taking.asked(), Some(64));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_the_sender_is_nobodys_slowness() {
        let mut taking = Taking::new(64, 10 * SECOND);
        for _ in 0..10 {
            taking.hand(1, Instant::now());
            assert_eq!(taking.asked(), None);
            // Asked for, and nothing there to be handed over.
            tokio::time::advance(3600 * SECOND).await;
            assert_eq!(taking.asked(), None);
        }
    }
}
