//! The storm: cells are killed, put to sleep, slowed, cut off and moved, as the plan draws it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cell::{Cell, Weather};
use super::editor::machine;
use super::plan::{Fault, Trouble};
use crate::fly::{Fly, Guest, Machine, State};
use crate::process::lock;

/// How long a start is waited for before another is tried.
const WAKE: Duration = Duration::from_secs(5);

/// Addresses of the loopback network, one port for all: as on a private network, where the port is the same everywhere.
#[derive(Debug)]
pub(crate) struct Addresses {
    port: u16,
    next: AtomicU32,
}

impl Addresses {
    /// Beginning somewhere in the network, so that several soaks may run at once.
    pub(crate) fn new(seed: u64) -> std::io::Result<Self> {
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let begin = (u64::from(std::process::id()) ^ seed) % 90;
        Ok(Self {
            port,
            next: AtomicU32::new(u32::from_be_bytes([127, 10 + begin as u8, 0, 1])),
        })
    }

    /// One that was never given before.
    pub(crate) fn fresh(&self) -> SocketAddr {
        let ip = Ipv4Addr::from_bits(self.next.fetch_add(1, Ordering::SeqCst));
        SocketAddr::from((ip, self.port))
    }
}

/// Whether anything goes wrong now, and what has.
pub(crate) struct Storm {
    pub(crate) fly: Arc<Fly>,
    pub(crate) cells: Arc<Vec<Arc<Cell>>>,
    pub(crate) addresses: Addresses,
    stop: watch::Sender<bool>,
    /// Faults that are left out, by name.
    without: Vec<String>,
    /// One fault at a time for each cell.
    busy: Vec<AtomicBool>,
    done: Mutex<BTreeMap<Trouble, u64>>,
}

/// The right to trouble a cell.
struct Busy<'a>(&'a AtomicBool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Storm {
    pub(crate) fn new(
        fly: Arc<Fly>,
        cells: Arc<Vec<Arc<Cell>>>,
        addresses: Addresses,
        without: Vec<String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            busy: cells.iter().map(|_| AtomicBool::default()).collect(),
            fly,
            cells,
            addresses,
            without,
            stop: watch::Sender::new(false),
            done: Mutex::default(),
        })
    }

    pub(crate) fn done(&self) -> BTreeMap<Trouble, u64> {
        lock(&self.done).clone()
    }

    /// Tells it to make no more faults, and to end those that last until somebody comes.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives in self.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Makes faults until told to stop, then waits until all are over and every cell runs.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut running = JoinSet::new();
        let world = self.cells[0].ledger.world;
        for number in 0.. {
            if *self.stop.borrow() {
                break;
            }
            let fault = world.fault(number);
            let storm = Arc::clone(&self);
            running.spawn(async move { storm.trouble(fault).await });
            while running.try_join_next().is_some() {}
            sleep(fault.pause).await;
        }
        while running.join_next().await.is_some() {}
        for cell in self.cells.iter() {
            self.rouse(cell).await;
        }
    }

    fn take(&self, cell: usize) -> Option<Busy<'_>> {
        let was = self.busy[cell].swap(true, Ordering::SeqCst);
        (!was).then(|| Busy(&self.busy[cell]))
    }

    fn machine(&self, cell: &Cell) -> Option<Arc<Machine>> {
        self.fly.find(&machine(cell.number)?)
    }

    /// Makes a cell run that does not, whatever it is.
    pub(crate) async fn rouse(&self, cell: &Cell) {
        cell.change(|weather| *weather = Weather::default());
        match self.machine(cell) {
            Some(machine) => {
                while machine.state() != State::Started {
                    // Refused while it is on its way, and without an end where the start fails: its state tells.
                    let _ = timeout(WAKE, self.fly.wake(&machine)).await;
                    sleep(Duration::from_millis(5)).await;
                }
            }
            None => drop(cell.boot().await),
        }
    }

    async fn trouble(&self, fault: Fault) {
        let named = format!("{:?}", fault.trouble);
        let Some(_busy) = self
            .take(fault.cell)
            .filter(|_| !self.without.contains(&named))
        else {
            return;
        };
        let cell = &self.cells[fault.cell];
        let machine = self.machine(cell);
        let happened = match (fault.trouble, machine) {
            (Trouble::Kill, machine) => {
                // A machine whose process crashed stays started while it is started again.
                let sleeps = machine.is_some_and(|machine| machine.state() != State::Started);
                if !sleeps {
                    let _gate = cell.gate.lock().await;
                    cell.die();
                    sleep(fault.lasts / 3).await;
                    rise(cell).await;
                }
                !sleeps
            }
            (Trouble::Slow, _) => self.weather(cell, fault, |weather| &mut weather.slow).await,
            (Trouble::Silent, _) => {
                self.weather(cell, fault, |weather| &mut weather.silent)
                    .await
            }
            (Trouble::CutUploads, _) => {
                self.weather(cell, fault, |weather| &mut weather.cuts_uploads)
                    .await
            }
            (Trouble::CutAnswers, _) => {
                self.weather(cell, fault, |weather| &mut weather.cuts_answers)
                    .await
            }
            (Trouble::Move, machine) => {
                self.relocate(cell, machine, self.addresses.fresh()).await;
                true
            }
            (Trouble::Replaced, _) => self.replace(fault).await,
            (_, None) => false,
            (Trouble::Sleep, Some(machine)) => self.fly.stop(&machine).await.is_ok(),
            (Trouble::SleepLong, Some(machine)) => {
                self.fly.faults().slow_start(&machine.id, fault.lasts);
                let stopped = self.fly.stop(&machine).await.is_ok();
                // Nobody may want it any more.
                tokio::select! {
                    _ = machine.reached(&[State::Started]) => {}
                    () = self.stopped() => {}
                }
                self.fly.faults().slow_start(&machine.id, Duration::ZERO);
                stopped
            }
            (Trouble::SleepDeep, Some(machine)) => {
                self.fly.faults().fail_starts(&machine.id, 4);
                let stopped = self.fly.stop(&machine).await.is_ok();
                sleep(fault.lasts).await;
                self.fly.faults().fail_starts(&machine.id, 0);
                stopped
            }
            (Trouble::Freeze, Some(machine)) => self.fly.suspend(&machine).is_ok(),
            (Trouble::Unreachable, Some(machine)) => {
                let reason = crate::fly::FailureReason::RetriesExhausted;
                self.fly.faults().unreachable(&machine.id, Some(reason));
                sleep(fault.lasts).await;
                self.fly.faults().unreachable(&machine.id, None);
                true
            }
            (Trouble::Unknown, Some(machine)) => {
                let gate = self.fly.faults().dns_lag(&machine.id);
                sleep(fault.lasts).await;
                gate.open();
                true
            }
        };
        if happened {
            *lock(&self.done).entry(fault.trouble).or_default() += 1;
        }
    }

    async fn weather(
        &self,
        cell: &Cell,
        fault: Fault,
        which: impl Fn(&mut Weather) -> &mut bool,
    ) -> bool {
        cell.change(|weather| *which(weather) = true);
        sleep(fault.lasts).await;
        cell.change(|weather| *which(weather) = false);
        true
    }

    /// Gives a cell another address. One that sleeps has it when it wakes.
    async fn relocate(&self, cell: &Cell, machine: Option<Arc<Machine>>, to: SocketAddr) {
        let _gate = cell.gate.lock().await;
        let runs = machine.is_none_or(|machine| machine.state() != State::Stopped);
        cell.die();
        cell.gone().await;
        cell.place_at(to);
        if runs {
            rise(cell).await;
        }
    }

    /// Gives a cell another address, and its old one to another cell.
    async fn replace(&self, fault: Fault) -> bool {
        let Some(_other) = self.take(fault.other) else {
            // Also where both are the same.
            return false;
        };
        let (cell, other) = (&self.cells[fault.cell], &self.cells[fault.other]);
        let old = cell.place();
        self.relocate(cell, self.machine(cell), self.addresses.fresh())
            .await;
        self.relocate(other, self.machine(other), old).await;
        self.rouse(other).await;
        true
    }
}

/// Listens again; nobody else has its address.
async fn rise(cell: &Cell) {
    cell.gone().await;
    if let Err(error) = cell.rise().await {
        cell.breach(
            super::rules::Rule::Platform,
            &format!("cannot listen: {error}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::name;
    use super::super::editor::APP;
    use super::super::ledger::Ledger;
    use super::super::plan::World;
    use super::*;
    use crate::fly::{MachineSpec, Options};

    #[tokio::test]
    async fn a_cell_that_nobody_wakes_holds_nothing_up() {
        let world = World {
            seed: 1,
            cells: 1,
            undisturbed: 0,
        };
        let addresses = Addresses::new(world.seed).unwrap();
        let cell = Cell::new(0, addresses.fresh(), Ledger::new(world));
        let fly = Fly::with(Options::default()).await.unwrap();
        let spec = MachineSpec::cell(APP, &name(0)).id(&machine(0).unwrap());
        fly.guest(spec, Arc::clone(&cell) as _);
        let storm = Storm::new(Arc::new(fly), Arc::new(vec![cell]), addresses, Vec::new());
        let fault = Fault {
            trouble: Trouble::SleepLong,
            cell: 0,
            other: 0,
            lasts: Duration::from_millis(1),
            pause: Duration::ZERO,
        };
        let sleeping = storm.trouble(fault);
        storm.stop();
        timeout(WAKE, sleeping)
            .await
            .expect("it ends with the storm");
    }
}
