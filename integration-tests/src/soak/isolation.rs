//! Whether ill cells are felt by others: the same questions at the same pace, in turns with and without ill cells.
//!
//! A turn with and a turn without make a pair; what else goes on in the machine changes more slowly than that.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::cell::{Cell, Weather, name};
use super::client::connect_as;
use super::dice::{Dice, For};
use super::ledger::Ledger;
use super::report::median;
use super::rules::Rule;
use crate::client::Raw;
use crate::process::lock;

/// How long a turn lasts, and how much of its beginning does not count.
const TURN: Duration = Duration::from_millis(1500);
const SETTLING: Duration = Duration::from_millis(300);
/// Those who ask, at cells that are well and at cells that fall ill, and the pause between two questions.
const ASKERS: usize = 16;
const PACE: Duration = Duration::from_millis(20);
/// Who asks an ill cell gives up after this.
const PATIENCE: Duration = Duration::from_millis(400);
/// How much higher the p99 may be beside ill cells, and how many pairs it takes to say so.
const RATIO_MAX: f64 = 1.1;
const PAIRS_MIN: usize = 12;

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Isolation {
    pub(crate) pairs: usize,
    pub(crate) questions: usize,
    /// Medians over all turns.
    pub(crate) p50_well: Duration,
    pub(crate) p50_ill: Duration,
    pub(crate) p99_well: Duration,
    pub(crate) p99_ill: Duration,
    /// Median over all pairs of the p99 beside ill cells by the p99 without.
    pub(crate) ratio: f64,
}

/// Latencies that were measured, in the turn that runs.
type Measured = Arc<Mutex<Vec<Duration>>>;

/// Measures for `lasts`. All cells run when it begins, and again when it is over.
pub(crate) async fn measure(
    cells: &[Arc<Cell>],
    ledger: &Ledger,
    router: SocketAddr,
    lasts: Duration,
) -> Isolation {
    let world = ledger.world;
    let (well, ill) = cells.split_at(world.undisturbed);
    let ill = &ill[..ill.len().min(30)];
    let stop = Arc::new(AtomicBool::new(false));
    let measured = Measured::default();
    let mut asking = JoinSet::new();
    for asker in 0..ASKERS {
        let cell = well[asker % well.len()].number;
        let measured = Some(Arc::clone(&measured));
        asking.spawn(ask(router, cell, asker, measured, Arc::clone(&stop)));
        let cell = ill[asker % ill.len()].number;
        asking.spawn(ask(router, cell, ASKERS + asker, None, Arc::clone(&stop)));
    }
    let began = Instant::now();
    let mut dice = Dice::new(world.seed, For::Fault, u64::MAX);
    let mut pairs = Vec::new();
    while began.elapsed() < lasts {
        let first_ill = dice.percent(50);
        let mut pair = [Turn::default(); 2];
        for with_ill in [first_ill, !first_ill] {
            fall_ill(ill, with_ill).await;
            sleep(SETTLING).await;
            lock(&measured).clear();
            sleep(TURN).await;
            pair[usize::from(with_ill)] = Turn::of(std::mem::take(&mut *lock(&measured)));
        }
        pairs.push(pair);
    }
    fall_ill(ill, false).await;
    stop.store(true, Ordering::SeqCst);
    while asking.join_next().await.is_some() {}
    judge(&pairs, ledger)
}

/// One turn's questions, and how long their answers took.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    questions: usize,
    p50: Duration,
    p99: Duration,
}

impl Turn {
    fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |percent: usize| {
            let place = latencies.len() * percent / 100;
            latencies.get(place).copied().unwrap_or_default()
        };
        Self {
            questions: latencies.len(),
            p50: at(50),
            p99: at(99),
        }
    }
}

fn judge(pairs: &[[Turn; 2]], ledger: &Ledger) -> Isolation {
    let over_turns =
        |of: fn(&[Turn; 2]) -> Duration| median(pairs.iter().map(of).collect()).unwrap_or_default();
    let permille = |[well, ill]: &[Turn; 2]| {
        (ill.p99.as_secs_f64() / well.p99.as_secs_f64().max(1e-6) * 1000.0) as u64
    };
    let found = Isolation {
        pairs: pairs.len(),
        questions: pairs.iter().flatten().map(|turn| turn.questions).sum(),
        p50_well: over_turns(|pair| pair[0].p50),
        p50_ill: over_turns(|pair| pair[1].p50),
        p99_well: over_turns(|pair| pair[0].p99),
        p99_ill: over_turns(|pair| pair[1].p99),
        ratio: median(pairs.iter().map(permille).collect()).unwrap_or(0) as f64 / 1000.0,
    };
    if found.pairs >= PAIRS_MIN && found.ratio > RATIO_MAX {
        ledger.breach(Rule::Isolation, format!("{found:?}"));
    }
    found
}

/// Of every three cells one dies, one is silent, one is slow; or all are well.
async fn fall_ill(cells: &[Arc<Cell>], ill: bool) {
    for (place, cell) in cells.iter().enumerate() {
        let _gate = cell.gate.lock().await;
        match place % 3 {
            0 if ill => cell.die(),
            0 => {
                if let Err(error) = cell.rise().await {
                    cell.breach(Rule::Platform, &format!("cannot listen: {error}"));
                }
            }
            1 => cell.change(|weather| weather.silent = ill),
            _ => cell.change(|weather: &mut Weather| weather.slow = ill),
        }
    }
}

/// Asks a cell over and over, at the same pace however long the answers take.
async fn ask(
    router: SocketAddr,
    cell: usize,
    asker: usize,
    measured: Option<Measured>,
    stop: Arc<AtomicBool>,
) {
    let name = name(cell);
    let question =
        format!("GET /ask HTTP/1.1\r\nhost: {name}.example.com\r\nsoak-cell: {name}\r\n\r\n");
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line: Option<Raw> = None;
    while !stop.load(Ordering::SeqCst) {
        pace.tick().await;
        let began = Instant::now();
        let asked = async {
            let mut open = match line.take() {
                Some(kept) => kept,
                None => Raw::from(connect_as(1000 + asker as u64, router).await.ok()?),
            };
            open.write(&question).await.ok()?;
            let answer = open.answer().await.ok()?;
            Some((answer, open))
        };
        // Who waits for a cell that is well waits as long as it takes.
        let patience = if measured.is_some() {
            Duration::from_secs(10)
        } else {
            PATIENCE
        };
        let answered = timeout(patience, asked).await.ok().flatten();
        if let Some(measured) = &measured {
            let served = answered.as_ref().is_some_and(|(one, _)| one.status == 200);
            // A refusal is quick, and worse than any wait.
            lock(measured).push(if served { began.elapsed() } else { patience });
        }
        // Ill cells are to make their askers no busier: who is refused asks on the same connection again.
        line = answered
            .filter(|(answer, _)| answer.header("connection") != "close")
            .map(|(_, open)| open);
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::World;
    use super::*;

    fn breaches(ill_ms: &[u64]) -> usize {
        let ledger = Ledger::new(World {
            seed: 1,
            cells: 40,
            undisturbed: 4,
        });
        let turn = |ms| Turn {
            questions: 100,
            p50: Duration::from_millis(1),
            p99: Duration::from_millis(ms),
        };
        let pairs: Vec<_> = ill_ms.iter().map(|ms| [turn(100), turn(*ms)]).collect();
        judge(&pairs, &ledger);
        ledger.with_breaches(|breaches| breaches.of(Rule::Isolation).0)
    }

    #[test]
    fn ill_cells_are_felt_if_most_turns_beside_them_are_slower_by_over_a_tenth() {
        assert_eq!(breaches(&[111; PAIRS_MIN]), 1);
        assert_eq!(breaches(&[109; PAIRS_MIN]), 0);
        // A few bad moments of the machine are not the cells'.
        let mut some = [100; PAIRS_MIN];
        some[..PAIRS_MIN / 2 - 1].fill(1000);
        assert_eq!(breaches(&some), 0);
        assert_eq!(breaches(&[500; PAIRS_MIN - 1]), 0);
    }
}
