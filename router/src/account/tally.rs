//! What requests come to, counted: by each worker for itself, and added up by whoever asks.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::record::Blame;
use crate::live::lock;
use crate::registry::CellName;
use crate::steps::AT_ONCE;

/// Upper bounds of a histogram's buckets, in seconds: from what the router needs by itself to what an upload takes.
pub const BOUNDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
    600.0,
];

/// One worker's counts. Its lock is contended only while somebody reads them.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// What has been counted since the start.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Requests by what they came to.
    pub requests: HashMap<Kind, u64>,
    /// What else is known of the requests of each lane.
    pub lanes: HashMap<&'static str, Lane>,
    /// Cells to which there were requests, while they are in the registry.
    pub cells: IndexMap<CellName, CellCounts, RandomState>,
    /// Connections to cells by what they came to: `opened`, `reused`, `failed`.
    pub connections: HashMap<&'static str, u64>,
    /// How long wakes took, by how they ended.
    pub wakes: HashMap<&'static str, Histogram>,
}

/// What a request came to. All of these are words of the program's, so there are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The lane.
    pub lane: &'static str,
    /// The reason.
    pub reason: &'static str,
    /// The first digit of the status.
    pub class: u16,
    /// Who made the error, if it is one.
    pub blame: Option<Blame>,
}

/// The requests of one lane.
#[derive(Debug, Default, Clone)]
pub struct Lane {
    /// From the request's head to the end of the answer.
    pub duration: Histogram,
    /// From the request's head to the answer's.
    pub first_byte: Histogram,
    /// How long requests waited that had to.
    pub waited: Histogram,
    /// Bytes of bodies from clients.
    pub bytes_in: u64,
    /// Bytes of bodies to clients.
    pub bytes_out: u64,
}

/// The requests of one cell.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct CellCounts {
    /// By lane.
    pub requests: HashMap<&'static str, u64>,
    /// Those that went wrong, by who made the error.
    pub errors: HashMap<&'static str, u64>,
    /// Bytes of bodies from clients.
    pub bytes_in: u64,
    /// Bytes of bodies to clients.
    pub bytes_out: u64,
    /// When the last one ended, in seconds since 1970.
    pub last_request: u64,
}

/// Durations, counted by size.
#[derive(Debug, Default, Clone)]
pub struct Histogram {
    /// How many are within each bound and not within the one before; the last are beyond all.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All of them together, in seconds.
    pub sum: f64,
}

/// One request that is over.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// What it came to.
    pub kind: Kind,
    /// The cell that it was for.
    pub cell: Option<&'a CellName>,
    /// When it was over.
    pub at: SystemTime,
    /// From its head to the end of its answer.
    pub duration: Duration,
    /// From its head to that of its answer, if there was one.
    pub first_byte: Option<Duration>,
    /// How long it waited for its cell, where it did.
    pub waited: Option<Duration>,
    /// Bytes of body from the client.
    pub bytes_in: u64,
    /// Bytes of body to the client.
    pub bytes_out: u64,
}

impl Tally {
    /// Counts a request.
    pub fn request(&self, outcome: &Outcome<'_>) {
        let mut counts = lock(&self.0);
        *counts.requests.entry(outcome.kind).or_default() += 1;
        let lane = counts.lanes.entry(outcome.kind.lane).or_default();
        lane.duration.add(outcome.duration);
        outcome
            .first_byte
            .iter()
            .for_each(|time| lane.first_byte.add(*time));
        outcome
            .waited
            .iter()
            .for_each(|time| lane.waited.add(*time));
        lane.bytes_in += outcome.bytes_in;
        lane.bytes_out += outcome.bytes_out;
        let Some(name) = outcome.cell else { return };
        match counts.cells.get_mut(name) {
            Some(cell) => cell.add(outcome),
            None => counts.cells.entry(name.clone()).or_default().add(outcome),
        }
    }

    /// Counts a connection to a cell.
    pub fn connection(&self, outcome: &'static str) {
        *lock(&self.0).connections.entry(outcome).or_default() += 1;
    }

    /// Counts a wake.
    pub fn wake(&self, outcome: &'static str, took: Duration) {
        lock(&self.0).wakes.entry(outcome).or_default().add(took);
    }

    /// Forgets the numbers of cells that `keep` does not name, of a few cells from a place on; where to go on, if there are
    /// more. Those of all cells together stay.
    pub fn retain(&self, from: usize, keep: impl Fn(&CellName) -> bool) -> Option<usize> {
        let cells = &mut lock(&self.0).cells;
        let mut place = from;
        for _ in 0..AT_ONCE {
            let (name, _) = cells.get_index(place)?;
            if keep(name) {
                place += 1;
            } else {
                cells.swap_remove_index(place);
            }
        }
        Some(place)
    }

    /// All but the numbers of single cells.
    pub fn totals(&self) -> Counts {
        let counts = lock(&self.0);
        Counts {
            requests: counts.requests.clone(),
            lanes: counts.lanes.clone(),
            cells: IndexMap::default(),
            connections: counts.connections.clone(),
            wakes: counts.wakes.clone(),
        }
    }

    /// How many requests of one cell there were, how many of them went wrong, and when the last one ended, in seconds
    /// since 1970.
    pub fn brief(&self, name: &str) -> (u64, u64, u64) {
        let counts = lock(&self.0);
        counts.cells.get(name).map_or((0, 0, 0), |cell| {
            let sum = |numbers: &HashMap<&'static str, u64>| numbers.values().sum();
            (sum(&cell.requests), sum(&cell.errors), cell.last_request)
        })
    }

    /// The numbers of one cell.
    pub fn cell(&self, name: &str) -> Option<CellCounts> {
        lock(&self.0).cells.get(name).cloned()
    }
}

impl Counts {
    /// Adds what another has counted; single cells are not looked at.
    pub fn merge(&mut self, other: Self) {
        add_all(&mut self.requests, other.requests, |sum, count| {
            *sum += count
        });
        add_all(&mut self.connections, other.connections, |sum, count| {
            *sum += count
        });
        add_all(&mut self.wakes, other.wakes, |sum, more| sum.merge(&more));
        add_all(&mut self.lanes, other.lanes, |sum, more| {
            sum.duration.merge(&more.duration);
            sum.first_byte.merge(&more.first_byte);
            sum.waited.merge(&more.waited);
            sum.bytes_in += more.bytes_in;
            sum.bytes_out += more.bytes_out;
        });
    }
}

impl CellCounts {
    fn add(&mut self, outcome: &Outcome<'_>) {
        *self.requests.entry(outcome.kind.lane).or_default() += 1;
        if let Some(blame) = outcome.kind.blame {
            *self.errors.entry(blame.name()).or_default() += 1;
        }
        self.bytes_in += outcome.bytes_in;
        self.bytes_out += outcome.bytes_out;
        let since = outcome.at.duration_since(UNIX_EPOCH);
        self.last_request = since.unwrap_or_default().as_secs();
    }

    /// Adds what another worker has counted.
    pub fn merge(&mut self, other: Self) {
        add_all(&mut self.requests, other.requests, |sum, count| {
            *sum += count
        });
        add_all(&mut self.errors, other.errors, |sum, count| *sum += count);
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.last_request = self.last_request.max(other.last_request);
    }
}

fn add_all<K: Eq + std::hash::Hash, V: Default>(
    to: &mut HashMap<K, V>,
    from: HashMap<K, V>,
    add: impl Fn(&mut V, V),
) {
    for (key, value) in from {
        add(to.entry(key).or_default(), value);
    }
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket] += 1;
        self.sum += seconds;
    }

    fn merge(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
        self.sum += other.sum;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(cell: &CellName, blame: Option<Blame>) -> Outcome<'_> {
        Outcome {
            kind: Kind {
                lane: "stream",
                reason: "large_body",
                class: 2,
                blame,
            },
            cell: Some(cell),
            at: SystemTime::now(),
            duration: Duration::from_millis(10),
            first_byte: Some(Duration::from_micros(900)),
            waited: None,
            bytes_in: 3,
            bytes_out: 4,
        }
    }

    #[test]
    fn workers_add_up() {
        let alice = CellName::parse("alice").unwrap();
        let (one, other) = (Tally::default(), Tally::default());
        one.request(&outcome(&alice, None));
        other.request(&outcome(&alice, Some(Blame::Cell)));
        other.connection("opened");
        let mut all = one.totals();
        all.merge(other.totals());
        assert_eq!(all.requests.values().sum::<u64>(), 2);
        assert_eq!(all.requests.len(), 2);
        assert_eq!(all.connections["opened"], 1);
        let lane = &all.lanes["stream"];
        assert_eq!((lane.bytes_in, lane.bytes_out), (6, 8));
        // A time that is a bound is within it.
        assert_eq!(
            (lane.duration.buckets[3], lane.first_byte.buckets[0]),
            (2, 2)
        );
        assert_eq!((lane.duration.count(), lane.waited.count()), (2, 0));
        let mut cell = one.cell("alice").unwrap();
        cell.merge(other.cell("alice").unwrap());
        assert_eq!((cell.requests["stream"], cell.errors["cell"]), (2, 1));
        assert_eq!(one.retain(0, |_| false), None);
        assert!(one.cell("alice").is_none());
        assert_eq!(one.totals().requests.len(), 1);
    }

    #[test]
    fn cells_are_forgotten_some_at_once() {
        let tally = Tally::default();
        let names = (0..3 * AT_ONCE).map(|number| CellName::parse(&format!("c{number}")).unwrap());
        let names: Vec<_> = names.collect();
        for name in &names {
            tally.request(&outcome(name, None));
        }
        let keep = |name: &CellName| name.as_str().ends_with('1');
        let (mut place, mut turns) = (Some(0), 0);
        while let Some(from) = place {
            place = tally.retain(from, keep);
            turns += 1;
        }
        assert_eq!(turns, 4);
        for name in &names {
            assert_eq!(tally.cell(name.as_str()).is_some(), keep(name), "{name}");
        }
    }
}
