//! The registry that is in force, with the secrets it names: swapped whole, read without a lock.

use std::cell::{Ref, RefCell};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::HashMap;
use tokio::sync::watch;

use super::pages::Pages;
use super::passwords::Passwords;
use super::trust::Trust;
use crate::registry::{Cell, Flag, Registry, SecretSource, TrustSource, Version};
use crate::wire::signature::Keys;

/// One version of everything the operator wrote.
#[derive(Debug)]
pub struct Snapshot {
    /// The registry.
    pub registry: Registry,
    /// The text that it was read from.
    pub version: Version,
    /// Entries of that text which are not in force as they are written.
    pub flags: Vec<Flag>,
    /// Whether something that an entry names could not be read, and may be by the next look.
    pub passing: bool,
    /// The keys from each place that an entry names.
    pub keys: HashMap<SecretSource, Arc<Keys>>,
    /// What is asked of certificates, by what an entry says of it.
    pub trust: HashMap<TrustSource, Arc<Trust>>,
    /// The pages from each folder that an entry names.
    pub pages: HashMap<Arc<str>, Arc<Pages>>,
    /// Where each folder of files is that an entry names.
    pub folders: HashMap<Arc<str>, Arc<PathBuf>>,
    /// The passwords from each file that an entry names.
    pub passwords: HashMap<Arc<str>, Arc<Passwords>>,
}

impl Snapshot {
    /// The keys of a cell, if its entry names a secret.
    pub fn keys(&self, cell: &Cell) -> Option<&Arc<Keys>> {
        self.keys.get(cell.secret.as_ref()?)
    }

    /// What is asked of a cell's certificate, if its entry says that it speaks TLS.
    pub fn trust(&self, cell: &Cell) -> Option<&Arc<Trust>> {
        self.trust.get(&cell.policy.tls.as_ref()?.trust)
    }

    /// The passwords of a cell, if its clients sign in with one.
    pub fn passwords(&self, cell: &Cell) -> Option<&Arc<Passwords>> {
        self.passwords.get(cell.policy.sign_in.as_ref()?.file()?)
    }

    /// Where the files of a cell are, if the router serves some.
    pub fn folder(&self, cell: &Cell) -> Option<&Arc<PathBuf>> {
        self.folders.get(&cell.policy.files.as_ref()?.folder)
    }

    /// The operator's own pages for requests of a cell; of no cell, those for all.
    pub fn pages(&self, cell: Option<&Cell>) -> Option<&Arc<Pages>> {
        let folder = match cell {
            Some(cell) => cell.policy.pages.as_ref(),
            None => self.registry.pages(),
        };
        self.pages.get(folder?)
    }
}

/// Which snapshot somebody has seen last, of which it keeps nothing. More of the same text may be in force in a later one.
#[derive(Debug, Default)]
pub struct Seen(Weak<Snapshot>);

impl Seen {
    /// That it is this one.
    pub fn of(snapshot: &Arc<Snapshot>) -> Self {
        Self(Arc::downgrade(snapshot))
    }

    /// Whether it is this one.
    pub fn is(&self, snapshot: &Arc<Snapshot>) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(snapshot))
    }
}

/// Where new versions are put; the only writer.
#[derive(Debug, Clone)]
pub struct Publisher {
    current: watch::Sender<Arc<Snapshot>>,
    /// Earlier versions that are in use, or were a moment ago: that nobody who answers requests is the last to let go of
    /// one, which takes a while where there are many cells.
    earlier: Arc<Mutex<Vec<Arc<Snapshot>>>>,
}

impl Publisher {
    /// Begins with a first version.
    pub fn new(first: Snapshot) -> Self {
        Self {
            current: watch::Sender::new(Arc::new(first)),
            earlier: Arc::default(),
        }
    }

    /// Puts a new version in force. Every worker uses it for the next decision it takes after hearing of it.
    pub fn publish(&self, next: Snapshot) {
        let last = self.current.send_replace(Arc::new(next));
        lock(&self.earlier).push(last);
    }

    /// Earlier versions that nobody uses any more, for whoever has the time to let go of them.
    pub fn unused(&self) -> Vec<Arc<Snapshot>> {
        let mut earlier = lock(&self.earlier);
        let (unused, used) = std::mem::take(&mut *earlier)
            .into_iter()
            .partition(|snapshot| Arc::strong_count(snapshot) == 1);
        *earlier = used;
        unused
    }

    /// The version in force.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.borrow())
    }

    /// For one worker.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }
}

/// One worker's view of the version in force: reading it writes nothing that another core reads.
#[derive(Debug)]
pub struct Current {
    here: RefCell<Arc<Snapshot>>,
    source: RefCell<watch::Receiver<Arc<Snapshot>>>,
}

impl Current {
    /// Begins with what is in force now.
    pub fn new(mut source: watch::Receiver<Arc<Snapshot>>) -> Self {
        let first = source.borrow_and_update().clone();
        Self {
            here: RefCell::new(first),
            source: RefCell::new(source),
        }
    }

    /// The version in force. Let go of it before waiting for anything.
    pub fn read(&self) -> Ref<'_, Arc<Snapshot>> {
        let mut source = self.source.borrow_mut();
        // An error means that the publisher is gone, and with it all change.
        if source.has_changed().unwrap_or(false) {
            self.here.replace(source.borrow_and_update().clone());
        }
        self.here.borrow()
    }

    /// Tells of changes, for a request that waits for one.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.source.borrow().clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &[u8]) -> Snapshot {
        Snapshot {
            registry: Registry::default(),
            version: Version::of(text),
            flags: Vec::new(),
            passing: false,
            keys: HashMap::default(),
            trust: HashMap::default(),
            pages: HashMap::default(),
            folders: HashMap::default(),
            passwords: HashMap::default(),
        }
    }

    #[test]
    fn who_answers_requests_is_never_the_last_to_let_go() {
        let publisher = Publisher::new(snapshot(b"one"));
        let worker = Current::new(publisher.subscribe());
        publisher.publish(snapshot(b"two"));
        assert!(publisher.unused().is_empty(), "the worker has it still");
        assert_eq!(worker.read().version, Version::of(b"two"));
        let unused = publisher.unused();
        let versions: Vec<_> = unused.iter().map(|snapshot| snapshot.version).collect();
        assert_eq!(versions, [Version::of(b"one")]);
        assert!(publisher.unused().is_empty());
    }
}
