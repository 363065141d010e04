//! The registry that is in force, with the secrets it names: swapped whole, read without a lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

use crate::registry::{CellName, Registry};
use crate::wire::signature::Keys;

/// One version of everything the operator wrote.
#[derive(Debug)]
pub struct Snapshot {
    /// The registry.
    pub registry: Registry,
    /// The keys of each cell whose entry names a secret.
    pub keys: HashMap<CellName, Arc<Keys>>,
}

/// Where new versions are put; the only writer.
#[derive(Debug, Clone)]
pub struct Publisher(watch::Sender<Arc<Snapshot>>);

impl Publisher {
    /// Begins with a first version.
    pub fn new(first: Snapshot) -> Self {
        Self(watch::Sender::new(Arc::new(first)))
    }

    /// Puts a new version in force. Every worker uses it for the next decision it takes after hearing of it.
    pub fn publish(&self, next: Snapshot) {
        self.0.send_replace(Arc::new(next));
    }

    /// For one worker.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.subscribe()
    }
}

/// One worker's view of the version in force: reading it touches nothing that another core writes.
#[derive(Debug)]
pub struct Current {
    here: RefCell<Rc<Arc<Snapshot>>>,
    source: watch::Receiver<Arc<Snapshot>>,
}

impl Current {
    /// Begins with what is in force now.
    pub fn new(mut source: watch::Receiver<Arc<Snapshot>>) -> Self {
        let first = Rc::new(source.borrow_and_update().clone());
        Self {
            here: RefCell::new(first),
            source,
        }
    }

    /// The version in force. Keep it for one decision and no longer than the request.
    pub fn read(&self) -> Rc<Arc<Snapshot>> {
        self.here.borrow().clone()
    }

    /// Follows the publisher until it is gone. Cancel safe.
    pub async fn follow(&self) {
        let mut source = self.source.clone();
        self.refresh();
        while source.changed().await.is_ok() {
            self.refresh();
        }
    }

    /// Looks at once whether there is a newer version.
    pub fn refresh(&self) {
        let next = Rc::new(self.source.borrow().clone());
        self.here.replace(next);
    }

    /// Tells of changes, for a request that waits for one.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.source.clone()
    }
}
