//! Live state of each cell that is in use, shared by all workers.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use tokio::sync::{Mutex as Turns, Notify, watch};
use tokio::time::{Duration, Instant};

use super::breaker::Breaker;
use super::lock;
use crate::decision::CellState;
use crate::registry::{Cell, CellName, Placement};

/// How long an address that the platform told after a start is dialled without asking DNS: its answers lag behind, and
/// are themselves remembered for about as long.
const TOLD_ADDRESS_LASTS: Duration = Duration::from_secs(5);

/// The live state of all cells.
#[derive(Debug, Default)]
pub struct Cells {
    cells: DashMap<CellName, Arc<Live>, foldhash::fast::RandomState>,
    held: AtomicUsize,
}

/// Sums over all cells.
#[derive(Debug, Default, Clone, Copy)]
pub struct Census {
    /// Requests that wait for a sleeping or paused cell.
    pub held: usize,
    /// Requests on their way to cells and back.
    pub in_flight: u64,
    /// Requests that wait for a place at a full cell.
    pub queued: u64,
    /// Cells that are being woken.
    pub waking: u64,
    /// Cells whose breakers keep requests from them.
    pub breakers_open: u64,
}

/// The live state of one cell.
#[derive(Debug, Default)]
pub struct Live {
    in_flight: AtomicU32,
    /// Requests that wait for anything but a place: for the cell, or for who signs its clients in.
    held: AtomicU32,
    /// Requests that wait for a place among them, one behind the other, and what tells the first of these that one is free.
    queued: AtomicU32,
    line: Turns<()>,
    freed: Notify,
    /// The wake that is under way, so that all who wait share it.
    wake: Mutex<Option<Wake>>,
    /// Where the machine was told to be after a start.
    told: Mutex<Option<(Placement, SocketAddr, Instant)>>,
    /// What keeps requests from a cell that is ill.
    pub breaker: Arc<Breaker>,
}

/// One wake.
#[derive(Debug)]
struct Wake {
    of: Placement,
    began: Instant,
    progress: watch::Sender<WakeProgress>,
    /// Lets the wake go on though nobody waits for it any more.
    kept: Option<watch::Receiver<WakeProgress>>,
}

/// What a wake is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The platform is asked to start the machine.
    Asking,
    /// The machine is starting.
    Starting,
    /// The machine runs, and the cell does not answer yet.
    Readying,
}

/// How far a wake has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WakeProgress {
    /// Under way.
    Waking(Stage),
    /// The cell answers at this address.
    Ready(SocketAddr),
    /// It could not be woken, and why, for the log.
    Failed(Arc<str>),
    /// It was not ready in the time its entry allows.
    TimedOut,
    /// Nobody waited any more.
    GivenUp,
}

impl WakeProgress {
    /// Whether its end is still to come.
    pub fn is_under_way(&self) -> bool {
        matches!(self, Self::Waking(_))
    }
}

impl Cells {
    /// The live state of a cell, made when first asked for.
    pub fn live(&self, name: &CellName) -> Arc<Live> {
        if let Some(live) = self.cells.get(name) {
            return Arc::clone(&live);
        }
        Arc::clone(&self.cells.entry(name.clone()).or_default())
    }

    /// What a decision needs to know of a cell; of one that nothing was streamed to, nothing is kept.
    pub fn state(&self, cell: &Cell) -> CellState {
        let live = self.cells.get(&cell.name);
        live.map_or_else(CellState::default, |live| live.state(&cell.placement))
    }

    /// What all cells that are in use have in common.
    pub fn census(&self) -> Census {
        let mut census = Census {
            held: self.held.load(Ordering::Relaxed),
            ..Census::default()
        };
        for live in &self.cells {
            census.in_flight += u64::from(live.in_flight.load(Ordering::Relaxed));
            census.queued += u64::from(live.queued.load(Ordering::Relaxed));
            census.waking += u64::from(live.waking().is_some());
            census.breakers_open += u64::from(live.breaker.is_open());
        }
        census
    }

    /// The live state of a cell, if it is in use.
    pub fn find(&self, name: &str) -> Option<Arc<Live>> {
        self.cells.get(name).map(|live| Arc::clone(&live))
    }

    /// Shows each cell that is in use.
    pub fn each(&self, mut show: impl FnMut(&CellName, &Live)) {
        for live in &self.cells {
            show(live.key(), live.value());
        }
    }

    /// Forgets a cell, unless it is in use; whether nothing is kept of it.
    pub fn forget(&self, name: &CellName) -> bool {
        self.cells
            .remove_if(name, |_, live| Arc::strong_count(live) == 1);
        !self.cells.contains_key(name)
    }

    /// Begins anew with a cell that has moved. What is under way to where it was keeps what is known of that, and takes no
    /// place where it is now.
    pub fn begin_anew(&self, name: &CellName) {
        self.cells.remove(name);
    }

    /// A place among the requests that wait, of which there are at most `most`, and for this cell as many as may be in
    /// flight to it: else one cell's could take all places. Given back on drop.
    ///
    /// # Errors
    /// `NoPlace`.
    pub fn hold(self: &Arc<Self>, cell: &Cell, most: usize) -> Result<Held, NoPlace> {
        let live = self.live(&cell.name);
        let share = cell.policy.limits.max_in_flight;
        let (all, own) = (&self.held, &live.held);
        all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            (held < most).then_some(held + 1)
        })
        .map_err(|_| NoPlace::AtAll)?;
        let taken = own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            (held < share).then_some(held + 1)
        });
        if taken.is_err() {
            all.fetch_sub(1, Ordering::Relaxed);
            return Err(NoPlace::OfCell);
        }
        let cells = Arc::clone(self);
        Ok(Held { cells, live })
    }
}

/// Why a request may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// As many wait for all cells as may.
    AtAll,
    /// As many wait for its cell as may.
    OfCell,
}

/// One waiting request.
#[derive(Debug)]
pub struct Held {
    cells: Arc<Cells>,
    live: Arc<Live>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.live.held.fetch_sub(1, Ordering::Relaxed);
        self.cells.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request in flight to a cell.
#[derive(Debug)]
pub struct InFlight(Arc<Live>);

impl Drop for InFlight {
    fn drop(&mut self) {
        // In one order with those who queue and then look for a place: else each could miss the other.
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.0.queued.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_one();
        }
    }
}

impl InFlight {
    /// Whether it is in flight to the cell of this name.
    pub fn is_at(&self, cells: &Cells, name: &CellName) -> bool {
        cells
            .cells
            .get(name)
            .is_some_and(|live| Arc::ptr_eq(&live, &self.0))
    }
}

/// A request that waits for a place.
#[derive(Debug)]
pub struct Queued(Arc<Live>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Queued {
    /// Waits for one of `most` places, behind those who came before. Cancel safe.
    pub async fn place(self, most: u32) -> InFlight {
        // Only the first looks. Who leaves lets the next one look, whatever the one who left was told.
        let _first = self.0.line.lock().await;
        loop {
            let mut freed = pin!(self.0.freed.notified());
            // From now on a place that gets free is not missed.
            freed.as_mut().enable();
            if let Some(place) = self.0.take(most) {
                return place;
            }
            freed.await;
        }
    }
}

impl Wake {
    fn joins(&self, placement: &Placement) -> bool {
        self.of == *placement && self.progress.borrow().is_under_way()
    }
}

impl Live {
    fn state(&self, placement: &Placement) -> CellState {
        CellState {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            refused_for: self.breaker.refuses(placement),
        }
    }

    /// Requests on their way to it and back.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that wait for a place at it.
    pub fn queued(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }

    /// How far the wake has come that is under way.
    pub fn waking(&self) -> Option<Stage> {
        match lock(&self.wake)
            .as_ref()
            .map(|wake| wake.progress.borrow().clone())
        {
            Some(WakeProgress::Waking(stage)) => Some(stage),
            _ => None,
        }
    }

    /// Counts a request in, unless the cell has `most` already or others wait; it is counted out on drop.
    pub fn enter(self: &Arc<Self>, most: u32) -> Option<InFlight> {
        (self.queued.load(Ordering::Acquire) == 0)
            .then(|| self.take(most))
            .flatten()
    }

    /// Lets a request wait for a place, unless `most` do already.
    pub fn queue(self: &Arc<Self>, most: u32) -> Option<Queued> {
        let queued = self
            .queued
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                (n < most).then_some(n + 1)
            });
        queued.ok().map(|_| Queued(Arc::clone(self)))
    }

    fn take(self: &Arc<Self>, most: u32) -> Option<InFlight> {
        let entered = self
            .in_flight
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                (n < most).then_some(n + 1)
            });
        entered.ok().map(|_| InFlight(Arc::clone(self)))
    }

    /// Joins the wake of `placement` that is under way; where there is none, begins one by giving its sender to `begin`.
    /// Tells how far it comes, and when it began.
    ///
    /// A wake of where the cell was before its entry was edited is not joined: it ends with those who wait for it.
    ///
    /// Whoever runs the wake sees by `Sender::closed` that nobody waits any more, and then says `GivenUp`, so that one
    /// who joins at that very moment begins anew.
    pub fn join_wake(
        &self,
        placement: &Placement,
        begin: impl FnOnce(watch::Sender<WakeProgress>),
    ) -> (watch::Receiver<WakeProgress>, Instant) {
        let mut wake = lock(&self.wake);
        if let Some(running) = wake.as_ref().filter(|wake| wake.joins(placement)) {
            return (running.progress.subscribe(), running.began);
        }
        let (progress, receiver) = watch::channel(WakeProgress::Waking(Stage::Asking));
        let began = Instant::now();
        *wake = Some(Wake {
            of: placement.clone(),
            began,
            progress: progress.clone(),
            kept: None,
        });
        begin(progress);
        (receiver, began)
    }

    /// Lets the wake of `placement` that is under way go on to its end, whoever waits for it.
    pub fn keep_wake(&self, placement: &Placement) {
        let mut wake = lock(&self.wake);
        if let Some(running) = wake.as_mut().filter(|wake| wake.joins(placement)) {
            let progress = &running.progress;
            running.kept.get_or_insert_with(|| progress.subscribe());
        }
    }

    /// Remembers where the platform said that `placement` is.
    pub fn tell_address(&self, placement: &Placement, address: SocketAddr) {
        *lock(&self.told) = Some((placement.clone(), address, Instant::now()));
    }

    /// Where the platform said that `placement` is, if it did so just now.
    pub fn told_address(&self, placement: &Placement) -> Option<SocketAddr> {
        lock(&self.told)
            .as_ref()
            .filter(|(of, _, at)| of == placement && at.elapsed() < TOLD_ADDRESS_LASTS)
            .map(|(_, address, _)| *address)
    }

    /// Forgets where the platform had said by that time that the cell is: it is not there.
    pub fn forget_address(&self, by: Instant) {
        lock(&self.told).take_if(|(_, _, at)| *at <= by);
    }

    /// Whether the platform has said since then where `placement` is.
    pub fn was_told_since(&self, placement: &Placement, since: Instant) -> bool {
        let told = lock(&self.told);
        told.as_ref()
            .is_some_and(|(of, _, at)| of == placement && *at > since)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::registry::{AppName, MachineId};

    fn machine(id: &str) -> Placement {
        Placement::Machine {
            app: AppName::parse("cells").unwrap(),
            machine: MachineId::parse(id).unwrap(),
            port: 8080,
        }
    }

    #[test]
    fn an_address_told_of_one_machine_is_not_anothers() {
        let (old, new) = (machine("0000000000001a"), machine("0000000000002b"));
        let live = Live::default();
        let address = SocketAddr::from(([192, 0, 2, 7], 8080));
        live.tell_address(&old, address);
        assert_eq!(live.told_address(&old), Some(address));
        assert_eq!(live.told_address(&new), None);
    }

    #[test]
    fn an_address_that_is_told_during_a_vain_dial_is_not_forgotten() {
        let placement = machine("0000000000001a");
        let live = Live::default();
        let address = SocketAddr::from(([192, 0, 2, 7], 8080));
        let (before, after) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        live.tell_address(&placement, address);
        assert!(live.was_told_since(&placement, before - Duration::from_secs(1)));
        live.forget_address(before - Duration::from_secs(1));
        assert_eq!(live.told_address(&placement), Some(address));
        live.forget_address(after);
        assert_eq!(live.told_address(&placement), None);
        assert!(!live.was_told_since(&placement, before));
    }

    #[test]
    fn those_who_wait_for_one_cell_leave_places_for_others() {
        let text = br#"{"version":1,"defaults":{"max_in_flight":2},"cells":{
            "alice":{"address":"h:1"},"bob":{"address":"h:2"}}}"#;
        let registry = crate::registry::Registry::parse(text).unwrap();
        let cell = |name| registry.cell(name).unwrap();
        let cells = Arc::<Cells>::default();
        let mut held = vec![cells.hold(cell("alice"), 3).unwrap()];
        held.push(cells.hold(cell("alice"), 3).unwrap());
        let third = cells.hold(cell("alice"), 3);
        assert_eq!(third.err(), Some(NoPlace::OfCell));
        held.push(cells.hold(cell("bob"), 3).unwrap());
        assert_eq!(cells.hold(cell("bob"), 3).err(), Some(NoPlace::AtAll));
        assert_eq!(cells.census().held, 3);
        held.remove(0);
        held.push(cells.hold(cell("alice"), 3).unwrap());
        drop(held);
        assert_eq!(cells.census().held, 0);
    }

    #[test]
    fn who_waits_for_a_place_has_it_before_all_who_came_later() {
        const PLACES: u32 = 2;
        let live = Arc::<Live>::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut running: Vec<_> = (0..PLACES).filter_map(|_| live.enter(PLACES)).collect();
        let mut line = VecDeque::new();
        for came in 0..40 {
            let mut comes = Box::pin(live.queue(20).unwrap().place(PLACES));
            assert!(comes.as_mut().poll(&mut context).is_pending());
            line.push_back((came, comes));
            if came < 10 {
                continue;
            }
            drop(running.remove(0));
            if came % 5 == 0 {
                // It was told, and leaves.
                line.pop_front();
            }
            // Who came last looks first.
            let mut placed = Vec::new();
            for (number, waits) in line.iter_mut().rev() {
                if let Poll::Ready(place) = waits.as_mut().poll(&mut context) {
                    placed.push(*number);
                    running.push(place);
                }
            }
            let first = line.pop_front().map(|(number, _)| number);
            assert_eq!((placed.len(), placed.first()), (1, first.as_ref()));
        }
        drop((line, running));
        assert_eq!((live.queued(), live.in_flight()), (0, 0));
    }

    #[test]
    fn a_cell_in_use_is_not_forgotten() {
        let (cells, alice) = (Cells::default(), CellName::parse("alice").unwrap());
        assert!(cells.forget(&alice));
        let live = cells.live(&alice);
        assert!(!cells.forget(&alice));
        assert!(cells.find("alice").is_some());
        drop(live);
        assert!(cells.forget(&alice));
        assert!(cells.find("alice").is_none());
    }

    #[test]
    fn a_wake_is_joined_for_the_same_machine_only() {
        let (old, new) = (machine("0000000000001a"), machine("0000000000002b"));
        let live = Live::default();
        let mut begun = Vec::new();
        let _first = live.join_wake(&old, |wake| begun.push(wake));
        let _joins = live.join_wake(&old, |wake| begun.push(wake));
        assert_eq!(begun.len(), 1);
        let _other = live.join_wake(&new, |wake| begun.push(wake));
        assert_eq!(begun.len(), 2);
    }
}
