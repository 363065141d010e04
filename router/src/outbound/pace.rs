//! The Machines API's rate limits, kept by the one who calls. Told the time.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

/// How many machines' pasts are remembered before those are forgotten that have no more to say.
const REMEMBERED: usize = 1024;

/// What the API is asked, as far as it counts for limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// To start a machine.
    Start,
    /// To stop a machine.
    Stop,
    /// To say when a machine has started.
    Wait,
    /// How a machine is.
    Get,
}

impl Action {
    /// Calls follow one another at this interval, and so many may come at once. The platform takes one a second for
    /// each action and machine, with a burst of 3; of "get", five with a burst of 10 (Fly docs, Machines API: rate
    /// limits). The bursts here are smaller, because calls do not arrive as evenly as they are sent.
    fn limit(self) -> (Duration, u32) {
        match self {
            Self::Start | Self::Stop | Self::Wait => (Duration::from_secs(1), 2),
            Self::Get => (Duration::from_millis(200), 8),
        }
    }
}

/// When each machine was asked what: for each, the time at which its limit is whole again.
#[derive(Debug, Default)]
pub struct Pace {
    whole_at: HashMap<(Action, Box<str>), Instant>,
}

impl Pace {
    /// Takes one call on a machine.
    ///
    /// # Errors
    /// How long until it may be made; nothing is taken.
    pub fn take(&mut self, action: Action, machine: &str, now: Instant) -> Result<(), Duration> {
        if self.whole_at.len() >= REMEMBERED {
            self.whole_at.retain(|_, whole_at| *whole_at > now);
        }
        let (interval, burst) = action.limit();
        let whole_at = self.whole_at.entry((action, machine.into())).or_insert(now);
        let after = (*whole_at).max(now) + interval;
        let over = (after - now).saturating_sub(interval * burst);
        if over.is_zero() {
            *whole_at = after;
            Ok(())
        } else {
            Err(over)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        static ZERO: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *ZERO.get_or_init(Instant::now) + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_machine_is_started_twice_at_once_and_then_each_second() {
        let mut pace = Pace::default();
        let mut take = |now| pace.take(Action::Start, "m", at(now));
        assert_eq!([take(0), take(0)], [Ok(()), Ok(())]);
        assert_eq!(take(0), Err(Duration::from_secs(1)));
        assert_eq!(take(999), Err(Duration::from_millis(1)));
        assert_eq!(take(1000), Ok(()));
        assert_eq!(take(1000), Err(Duration::from_secs(1)));
    }

    #[test]
    fn each_machine_and_each_action_has_its_own_limit() {
        let mut pace = Pace::default();
        for (action, machine) in [
            (Action::Start, "m"),
            (Action::Start, "n"),
            (Action::Wait, "m"),
        ] {
            assert_eq!(pace.take(action, machine, at(0)), Ok(()));
            assert_eq!(pace.take(action, machine, at(0)), Ok(()));
        }
        let looks = (0..9).filter(|_| pace.take(Action::Get, "m", at(0)).is_ok());
        assert_eq!(looks.count(), 8);
    }

    #[test]
    fn in_any_second_there_are_fewer_calls_than_the_platform_takes() {
        let mut pace = Pace::default();
        let taken: Vec<u64> = (0..10_000)
            .filter(|now| pace.take(Action::Start, "m", at(*now)).is_ok())
            .collect();
        let most = taken.iter().map(|from| {
            taken
                .iter()
                .filter(|at| (*from..from + 1000).contains(*at))
                .count()
        });
        assert_eq!(most.max(), Some(3 - 1));
        assert_eq!(taken.len(), 11);
    }

    #[test]
    fn what_has_no_more_to_say_is_forgotten() {
        let mut pace = Pace::default();
        for machine in 0..10 * REMEMBERED as u64 {
            let now = at(machine * 10);
            assert_eq!(pace.take(Action::Get, &machine.to_string(), now), Ok(()));
        }
        assert!(pace.whole_at.len() <= REMEMBERED);
    }
}
