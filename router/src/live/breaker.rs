//! One cell's breaker: after failures the cell is left alone for a while, then tried by one request.
//!
//! It goes by placement: what is known of the machine where a cell was says nothing of the one where it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::{Duration, Instant};

use super::lock;
use crate::config::chance;
use crate::registry::{Cell, Placement};

/// How often in a row no connection can be made before the breaker of a cell opens that nothing can wake.
const FAILED_CONNECTS: u32 = 5;
/// How long the breaker stays open the first time; doubled each time up to the longest.
const FIRST_BREAK: Duration = Duration::from_secs(1);
const LONGEST_BREAK: Duration = Duration::from_secs(60);
/// By which part a break is made longer or shorter at random, so that cells that failed together do not come back
/// together.
const JITTER: f64 = 0.2;

/// The breaker of one cell, closed at first.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Whether there is anything to know: a cell that is well costs one look at this.
    troubled: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// The right to try a cell whose breaker was open. One that is dropped before it is known whether the cell is well
/// passes to the next.
#[derive(Debug)]
pub struct Trial {
    breaker: Arc<Breaker>,
    number: u64,
}

impl Drop for Trial {
    fn drop(&mut self) {
        lock(&self.breaker.trouble).abandon(self.number, Instant::now());
    }
}

impl Breaker {
    /// How long the breaker still keeps requests from the cell; zero while another request tries it, `None` if it does
    /// not.
    pub fn refuses(&self, placement: &Placement) -> Option<Duration> {
        self.if_troubled(None, |trouble| {
            trouble
                .is_of(placement)
                .then(|| trouble.refuses(Instant::now()))
                .flatten()
        })
    }

    /// Whether it is open, or the cell has not been found well since it was.
    pub fn is_open(&self) -> bool {
        self.if_troubled(false, |trouble| trouble.state != State::Closed)
    }

    /// Lets a request pass, as the one that tries where the breaker was open.
    ///
    /// # Errors
    /// As [`Breaker::refuses`].
    pub fn admit(self: &Arc<Self>, placement: &Placement) -> Result<Option<Trial>, Duration> {
        let number = self.if_troubled(Ok(None), |trouble| trouble.admit(placement, Instant::now()));
        Ok(number?.map(|number| Trial {
            breaker: Arc::clone(self),
            number,
        }))
    }

    /// The cell could not be woken, or not be reached though it had just been: the breaker opens at once.
    pub fn failed(&self, cell: &Cell) {
        self.change(|trouble| trouble.failed(cell, Instant::now()));
    }

    /// No connection to the cell could be made, and nothing can wake it.
    pub fn failed_to_connect(&self, cell: &Cell) {
        self.change(|trouble| trouble.failed_to_connect(cell, Instant::now()));
    }

    /// The cell has been woken; what that is worth shows when it answers.
    pub fn woke(&self, cell: &Cell) {
        self.change(|trouble| trouble.woke(cell));
    }

    /// The cell broke off instead of answering. If it had only just been woken, it goes down as it comes up.
    pub fn broke(&self, cell: &Cell) {
        self.if_troubled((), |trouble| trouble.broke(cell, Instant::now()));
    }

    /// A connection to the cell was made.
    pub fn connected(&self, cell: &Cell) {
        self.if_troubled((), |trouble| trouble.connected(cell));
    }

    /// The cell answered.
    pub fn answered(&self, cell: &Cell) {
        self.if_troubled((), |trouble| trouble.answered(cell));
    }

    fn if_troubled<T>(&self, otherwise: T, change: impl FnOnce(&mut Trouble) -> T) -> T {
        if self.troubled.load(Ordering::Relaxed) {
            self.change(change)
        } else {
            otherwise
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Trouble) -> T) -> T {
        let mut trouble = lock(&self.trouble);
        let outcome = change(&mut trouble);
        self.troubled.store(trouble.of.is_some(), Ordering::Relaxed);
        outcome
    }
}

/// What a breaker rests on. It is told the time.
#[derive(Debug, Default)]
struct Trouble {
    /// Of which placement the rest is known; `None` where there is nothing to know.
    of: Option<Placement>,
    /// Connections that failed in a row.
    failed_connects: u32,
    /// How often it has opened since the cell last answered.
    opened: u32,
    /// Whether the cell has been woken, and has not answered since.
    woken: bool,
    state: State,
    trials: u64,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    Closed,
    /// Until then nobody tries; after it, the first who comes.
    Open(Instant),
    /// One request tries, known by its number.
    HalfOpen(u64),
}

impl Trouble {
    fn is_of(&self, placement: &Placement) -> bool {
        self.of.as_ref() == Some(placement)
    }

    /// Whether news of a placement are news of the cell; they are where nothing is known of another.
    fn concerns(&mut self, placement: &Placement) -> bool {
        self.of.get_or_insert_with(|| placement.clone()) == placement
    }

    fn forget(&mut self) {
        let trials = self.trials;
        *self = Self {
            trials,
            ..Self::default()
        };
    }

    fn refuses(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open(until) => {
                let left = until.saturating_duration_since(now);
                (!left.is_zero()).then_some(left)
            }
            State::HalfOpen(_) => Some(Duration::ZERO),
        }
    }

    fn admit(&mut self, placement: &Placement, now: Instant) -> Result<Option<u64>, Duration> {
        if !self.is_of(placement) {
            self.forget();
        }
        if let Some(left) = self.refuses(now) {
            return Err(left);
        }
        if self.state == State::Closed {
            return Ok(None);
        }
        self.trials += 1;
        self.state = State::HalfOpen(self.trials);
        Ok(Some(self.trials))
    }

    fn abandon(&mut self, trial: u64, now: Instant) {
        if self.state == State::HalfOpen(trial) {
            self.state = State::Open(now);
        }
    }

    fn failed(&mut self, cell: &Cell, now: Instant) {
        if self.concerns(&cell.placement) {
            self.open(cell, now);
        }
    }

    fn failed_to_connect(&mut self, cell: &Cell, now: Instant) {
        if self.concerns(&cell.placement) {
            self.failed_connects += 1;
            if self.state != State::Closed || self.failed_connects >= FAILED_CONNECTS {
                self.open(cell, now);
            }
        }
    }

    fn woke(&mut self, cell: &Cell) {
        if self.concerns(&cell.placement) {
            self.woken = true;
        }
    }

    fn broke(&mut self, cell: &Cell, now: Instant) {
        if self.woken && self.is_of(&cell.placement) {
            self.open(cell, now);
        }
    }

    fn connected(&mut self, cell: &Cell) {
        if self.is_of(&cell.placement) {
            self.close(cell);
            self.failed_connects = 0;
            if self.opened == 0 && !self.woken {
                self.forget();
            }
        }
    }

    fn answered(&mut self, cell: &Cell) {
        if self.is_of(&cell.placement) {
            self.close(cell);
            self.forget();
        }
    }

    fn close(&mut self, cell: &Cell) {
        if self.state != State::Closed {
            self.state = State::Closed;
            tracing::info!(cell = cell.name.as_str(), "breaker closes");
        }
    }

    fn open(&mut self, cell: &Cell, now: Instant) {
        if matches!(self.state, State::Open(until) if until > now) {
            // Whoever set out before it opened says nothing new.
            return;
        }
        let pause = pause(self.opened, chance());
        self.opened = self.opened.saturating_add(1);
        (self.failed_connects, self.woken) = (0, false);
        self.state = State::Open(now + pause);
        let (cell, times, for_ms) = (cell.name.as_str(), self.opened, pause.as_millis());
        tracing::warn!(cell, times, for_ms, "breaker opens");
    }
}

/// How long to stay open, having opened so often before; `chance` from 0 to 1 chooses within the jitter.
fn pause(opened: u32, chance: f64) -> Duration {
    let doubled = FIRST_BREAK.saturating_mul(1 << opened.min(16));
    doubled
        .min(LONGEST_BREAK)
        .mul_f64(1.0 - JITTER + 2.0 * JITTER * chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn cell(machine: &str) -> Arc<Cell> {
        let text = format!(
            r#"{{"version":1,"cells":{{"alice":{{"app":"cells","machine":"{machine}"}}}}}}"#
        );
        let registry = Registry::parse(text.as_bytes()).unwrap();
        Arc::clone(registry.cell("alice").unwrap())
    }

    fn at(milliseconds: u64) -> Instant {
        static ZERO: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *ZERO.get_or_init(Instant::now) + Duration::from_millis(milliseconds)
    }

    fn scene() -> (Trouble, Arc<Cell>) {
        (Trouble::default(), cell("0000000000001a"))
    }

    fn left(trouble: &Trouble, now: Instant) -> u128 {
        trouble.refuses(now).unwrap().as_millis()
    }

    #[test]
    fn a_break_doubles_up_to_a_minute_and_varies_by_a_fifth() {
        let middle: Vec<u64> = (0..8).map(|times| pause(times, 0.5).as_secs()).collect();
        assert_eq!(middle, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(0, 0.0), Duration::from_millis(800));
        assert_eq!(pause(u32::MAX, 1.0), Duration::from_secs(72));
    }

    #[test]
    fn a_failed_wake_opens_at_once_and_one_request_tries_later() {
        let (mut trouble, cell) = scene();
        trouble.failed(&cell, at(0));
        assert!((800..=1200).contains(&left(&trouble, at(0))));
        assert!(trouble.admit(&cell.placement, at(799)).is_err());
        assert_eq!(trouble.refuses(at(1200)), None);
        assert_eq!(trouble.admit(&cell.placement, at(1200)), Ok(Some(1)));
        assert_eq!(
            trouble.admit(&cell.placement, at(9999)),
            Err(Duration::ZERO),
            "one tries"
        );
    }

    #[test]
    fn a_trial_without_an_outcome_passes_to_the_next() {
        let (mut trouble, cell) = scene();
        trouble.failed(&cell, at(0));
        assert_eq!(trouble.admit(&cell.placement, at(2000)), Ok(Some(1)));
        trouble.abandon(1, at(3000));
        assert_eq!(trouble.admit(&cell.placement, at(3000)), Ok(Some(2)));
        trouble.abandon(1, at(3000));
        assert!(trouble.admit(&cell.placement, at(3000)).is_err());
    }

    #[test]
    fn a_trial_that_fails_opens_for_twice_as_long() {
        let (mut trouble, cell) = scene();
        trouble.failed(&cell, at(0));
        assert_eq!(trouble.admit(&cell.placement, at(2000)), Ok(Some(1)));
        trouble.failed(&cell, at(2000));
        trouble.abandon(1, at(2000));
        assert!((1600..=2400).contains(&left(&trouble, at(2000))));
    }

    #[test]
    fn a_hundred_failures_at_once_are_one() {
        let (mut trouble, cell) = scene();
        (0..100).for_each(|_| trouble.failed(&cell, at(0)));
        assert!(left(&trouble, at(0)) <= 1200);
    }

    #[test]
    fn a_connection_closes_it_and_an_answer_ends_the_doubling() {
        let (mut trouble, cell) = scene();
        trouble.failed(&cell, at(0));
        trouble.connected(&cell);
        assert_eq!(trouble.admit(&cell.placement, at(0)), Ok(None));
        trouble.failed(&cell, at(0));
        assert!(left(&trouble, at(0)) >= 1600);
        trouble.answered(&cell);
        assert_eq!(trouble.of, None);
        trouble.failed(&cell, at(0));
        assert!(left(&trouble, at(0)) <= 1200);
    }

    #[test]
    fn only_failed_connects_in_a_row_open_it() {
        let (mut trouble, cell) = scene();
        for _ in 0..3 {
            (1..FAILED_CONNECTS).for_each(|_| trouble.failed_to_connect(&cell, at(0)));
            assert_eq!(trouble.admit(&cell.placement, at(0)), Ok(None));
            trouble.connected(&cell);
        }
        (0..FAILED_CONNECTS).for_each(|_| trouble.failed_to_connect(&cell, at(0)));
        assert!(trouble.admit(&cell.placement, at(0)).is_err());
    }

    #[test]
    fn a_trial_that_cannot_connect_opens_it_again_at_once() {
        let (mut trouble, cell) = scene();
        (0..FAILED_CONNECTS).for_each(|_| trouble.failed_to_connect(&cell, at(0)));
        assert_eq!(trouble.admit(&cell.placement, at(2000)), Ok(Some(1)));
        trouble.failed_to_connect(&cell, at(2000));
        assert!(left(&trouble, at(2000)) >= 1600);
    }

    #[test]
    fn a_cell_that_breaks_off_right_after_its_wake_counts_as_failed() {
        let (mut trouble, cell) = scene();
        trouble.broke(&cell, at(0));
        assert_eq!(trouble.refuses(at(0)), None, "it ran before");
        for answers in [true, false] {
            trouble.woke(&cell);
            trouble.connected(&cell);
            if answers {
                trouble.answered(&cell);
            }
            trouble.broke(&cell, at(0));
            assert_eq!(trouble.refuses(at(0)).is_some(), !answers);
        }
    }

    #[test]
    fn a_cell_that_moved_begins_anew() {
        let (mut trouble, old) = scene();
        let new = cell("0000000000002b");
        trouble.failed(&old, at(0));
        assert_eq!(trouble.admit(&new.placement, at(0)), Ok(None));
        trouble.failed(&new, at(0));
        trouble.answered(&old);
        assert!(
            trouble.admit(&new.placement, at(0)).is_err(),
            "what was there says nothing of what is"
        );
    }

    #[test]
    fn late_news_of_where_a_cell_was_count_for_nothing() {
        let (mut trouble, old) = scene();
        let new = cell("0000000000002b");
        trouble.failed_to_connect(&new, at(0));
        trouble.failed(&old, at(0));
        assert_eq!(trouble.admit(&new.placement, at(0)), Ok(None));
    }

    #[test]
    fn a_cell_that_is_well_has_no_trouble_to_look_at() {
        let (_, cell) = scene();
        let breaker = Arc::<Breaker>::default();
        breaker.answered(&cell);
        assert!(!breaker.troubled.load(Ordering::Relaxed));
        breaker.failed(&cell);
        assert!(breaker.admit(&cell.placement).is_err());
        breaker.answered(&cell);
        assert!(!breaker.troubled.load(Ordering::Relaxed));
        assert!(matches!(breaker.admit(&cell.placement), Ok(None)));
    }
}
