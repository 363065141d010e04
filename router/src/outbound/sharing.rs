//! One worker's HTTP/2 connections to cells: found by whoever has a request, opened by one for all who wait.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::watch;

use super::http2::{Shared, Stream};
use crate::live::trust::Trust;
use crate::registry::{Cell, CellName, Placement};

/// What became of a connection that others wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    Running,
    Done,
}

/// Connections by cell.
#[derive(Debug, Default)]
pub struct Sharing {
    open: RefCell<HashMap<CellName, Vec<Rc<Shared>>>>,
    opening: RefCell<HashMap<CellName, Running>>,
}

/// A connection that is being opened.
#[derive(Debug)]
struct Running {
    placement: Placement,
    trust: Option<Arc<Trust>>,
    result: watch::Receiver<Opening>,
}

impl Running {
    /// Whether it will lead to where the cell is by now.
    fn leads_to(&self, cell: &Cell, trust: Option<&Arc<Trust>>) -> bool {
        self.placement == cell.placement && self.trust.as_ref() == trust
    }
}

/// A way to send a request, or to come by one.
#[derive(Debug)]
pub enum Found {
    /// A place on a connection.
    Stream(Stream),
    /// There is none: whoever holds this opens a connection, and others wait for what comes of it.
    Turn(Turn),
}

/// The right to open a connection.
#[derive(Debug)]
pub struct Turn {
    result: watch::Sender<Opening>,
    home: Option<(Rc<Sharing>, CellName)>,
}

impl Turn {
    /// The connection is there, and [added](Sharing::add).
    pub fn done(self) {
        self.result.send_replace(Opening::Done);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((home, cell)) = &self.home {
            let mut opening = home.opening.borrow_mut();
            // Where the cell has moved meanwhile, another may have the turn for it.
            let own = self.result.subscribe();
            if opening
                .get(cell)
                .is_some_and(|it| it.result.same_channel(&own))
            {
                opening.remove(cell);
            }
        }
    }
}

impl Sharing {
    /// A place on a connection to a cell, waiting for the one that is being opened. After one that could not be, each
    /// who waited tries for itself, so that nobody waits for the failures of many. Cancel safe.
    pub async fn find(
        self: &Rc<Self>,
        cell: &Cell,
        trust: Option<&Arc<Trust>>,
        lasts: Duration,
    ) -> Found {
        loop {
            if let Some(stream) = self.place(cell, trust, lasts) {
                return Found::Stream(stream);
            }
            let running = {
                let opening = self.opening.borrow();
                let running = opening.get(&cell.name);
                let running = running.filter(|running| running.leads_to(cell, trust));
                running.map(|running| running.result.clone())
            };
            let Some(mut running) = running else {
                return Found::Turn(self.turn(cell, trust));
            };
            let ended = running.wait_for(|opening| *opening == Opening::Done);
            if ended.await.is_err() {
                let (result, _) = watch::channel(Opening::Running);
                return Found::Turn(Turn { result, home: None });
            }
        }
    }

    fn turn(self: &Rc<Self>, cell: &Cell, trust: Option<&Arc<Trust>>) -> Turn {
        let (sender, result) = watch::channel(Opening::Running);
        let running = Running {
            placement: cell.placement.clone(),
            trust: trust.cloned(),
            result,
        };
        let name = cell.name.clone();
        self.opening.borrow_mut().insert(name.clone(), running);
        Turn {
            result: sender,
            home: Some((Rc::clone(self), name)),
        }
    }

    fn place(&self, cell: &Cell, trust: Option<&Arc<Trust>>, lasts: Duration) -> Option<Stream> {
        let mut open = self.open.borrow_mut();
        let connections = open.get_mut(&cell.name)?;
        // What leads to where the cell was goes on for those who are on it.
        connections.retain(|one| !one.is_over(lasts) && one.leads_to(cell, trust));
        let found = connections.iter().find(|one| one.has_room());
        found.map(Stream::on)
    }

    /// Lets others use a connection.
    pub fn add(&self, cell: &CellName, connection: Rc<Shared>) {
        let mut open = self.open.borrow_mut();
        open.entry(cell.clone()).or_default().push(connection);
    }

    /// Closes what is of no more use.
    pub fn sweep(&self, lasts: Duration) {
        let mut open = self.open.borrow_mut();
        for connections in open.values_mut() {
            connections.retain(|one| !one.is_over(lasts));
        }
        open.retain(|_, connections| !connections.is_empty());
    }
}
