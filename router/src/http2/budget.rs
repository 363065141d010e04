//! What a client may do without purpose: so much at once, and so much each second.

use tokio::time::Instant;

/// An allowance that fills up with time.
#[derive(Debug)]
pub struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    filled: Instant,
}

impl Budget {
    /// `most` at once, and `per_second` more each second from `now` on.
    pub fn new(most: u32, per_second: u32, now: Instant) -> Self {
        Self {
            left: most,
            most,
            per_second,
            filled: now,
        }
    }

    /// Takes one; whether there was one.
    pub fn spend(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            self.fill(now);
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }

    /// Gives `count` back.
    pub fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.most);
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs();
        if seconds > 0 {
            self.filled = now;
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.earn(self.per_second.saturating_mul(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time_and_work() {
        let begin = Instant::now();
        let after = |seconds| begin + std::time::Duration::from_secs(seconds);
        let mut budget = Budget::new(2, 1, begin);
        assert!(budget.spend(begin) && budget.spend(begin) && !budget.spend(begin));
        budget.earn(1);
        assert!(budget.spend(begin) && !budget.spend(begin));
        assert!(budget.spend(after(1)) && !budget.spend(after(1)));
        let later = after(1000);
        assert!(budget.spend(later) && budget.spend(later) && !budget.spend(later));
    }
}
