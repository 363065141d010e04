//! Owns what the whole emulated platform shares: apps, machines, the clock, and the records that tests read.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::edge::Delivery;
use super::faults::Faults;
use super::limiter::Bucket;
use super::machine::{Machine, State};
use crate::process::{Echo, lock};

/// What is called on the Machines API, for rate limits, counts and faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "each is named as the platform's reference names it"
)]
pub enum Action {
    List,
    Get,
    Create,
    Update,
    Delete,
    Start,
    Stop,
    Suspend,
    Wait,
    Cordon,
    Uncordon,
    Lease,
    Metadata,
    Volumes,
}

impl Action {
    /// The rate limit of this action (fly-platform 3.5).
    fn bucket(self) -> Bucket {
        match self {
            Self::Get => Bucket::new(Duration::from_millis(200), 10),
            _ => Bucket::new(Duration::from_secs(1), 3),
        }
    }
}

#[derive(Default)]
struct Calls {
    count: usize,
    bucket: Option<Bucket>,
}

/// State shared by edge, API, DNS and machines.
pub(crate) struct Platform {
    pub(crate) token: String,
    pub(crate) region: String,
    pub(crate) cell_binary: Option<PathBuf>,
    pub(crate) echo: Option<Echo>,
    pub(crate) data: PathBuf,
    pub(crate) faults: Faults,
    apps: Mutex<BTreeMap<String, Vec<Value>>>,
    machines: Mutex<BTreeMap<String, Arc<Machine>>>,
    calls: Mutex<HashMap<(Action, String), Calls>>,
    pub(crate) starts: Mutex<Vec<String>>,
    over_limit: AtomicUsize,
    pub(crate) deliveries: Mutex<Vec<Delivery>>,
    pub(crate) violations: Mutex<Vec<String>>,
    epoch: Instant,
    offset: Mutex<Duration>,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Platform {
    pub(crate) fn new(
        token: String,
        region: String,
        cell_binary: Option<PathBuf>,
        data: PathBuf,
        echo: Option<Echo>,
    ) -> Self {
        Self {
            token,
            region,
            cell_binary,
            echo,
            data,
            faults: Faults::default(),
            apps: Mutex::default(),
            machines: Mutex::default(),
            calls: Mutex::default(),
            starts: Mutex::default(),
            over_limit: AtomicUsize::new(0),
            deliveries: Mutex::default(),
            violations: Mutex::default(),
            epoch: Instant::now(),
            offset: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Time since start, plus what tests added.
    pub(crate) fn now(&self) -> Duration {
        // An hour ahead, so that a full bucket and an empty cache are never at the clock's zero.
        Duration::from_secs(3600) + self.epoch.elapsed() + *lock(&self.offset)
    }

    pub(crate) fn advance(&self, by: Duration) {
        *lock(&self.offset) += by;
    }

    pub(crate) fn add_app(&self, app: &str) {
        lock(&self.apps).entry(app.to_owned()).or_default();
    }

    pub(crate) fn has_app(&self, app: &str) -> bool {
        lock(&self.apps).contains_key(app)
    }

    pub(crate) fn add_machine(&self, machine: Arc<Machine>) {
        self.add_app(&machine.app);
        lock(&self.machines).insert(machine.id.clone(), machine);
    }

    /// The machine of this id, also when it was destroyed.
    pub(crate) fn machine(&self, id: &str) -> Option<Arc<Machine>> {
        lock(&self.machines).get(id).cloned()
    }

    /// The machines of an app that exist, by id.
    pub(crate) fn machines(&self, app: &str) -> Vec<Arc<Machine>> {
        self.all_machines()
            .into_iter()
            .filter(|machine| machine.app == app && machine.state() != State::Destroyed)
            .collect()
    }

    pub(crate) fn all_machines(&self) -> Vec<Arc<Machine>> {
        lock(&self.machines).values().cloned().collect()
    }

    /// Counts a call and takes from its rate limit; false if the limit is passed.
    pub(crate) fn call(&self, action: Action, subject: &str) -> bool {
        let now = self.now();
        let mut calls = lock(&self.calls);
        let entry = calls.entry((action, subject.to_owned())).or_default();
        entry.count += 1;
        if action == Action::Start {
            lock(&self.starts).push(subject.to_owned());
        }
        let allowed = entry
            .bucket
            .get_or_insert_with(|| action.bucket())
            .take(now);
        if !allowed {
            self.over_limit.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    pub(crate) fn over_limit(&self) -> usize {
        self.over_limit.load(Ordering::Relaxed)
    }

    pub(crate) fn call_count(&self, action: Action, subject: &str) -> usize {
        let calls = lock(&self.calls);
        calls
            .get(&(action, subject.to_owned()))
            .map_or(0, |entry| entry.count)
    }

    pub(crate) fn create_volume(&self, app: &str, request: &Value) -> Option<Value> {
        let mut apps = lock(&self.apps);
        let volumes = apps.get_mut(app)?;
        let volume = json!({
            "id": format!("vol_{}", super::fresh_id()),
            "name": request.get("name").cloned().unwrap_or_else(|| "data".into()),
            "region": request.get("region").cloned().unwrap_or_else(|| self.region.clone().into()),
            // fly-platform 3.6: the API's default is 3 GB.
            "size_gb": request.get("size_gb").cloned().unwrap_or_else(|| 3.into()),
            "encrypted": request.get("encrypted").cloned().unwrap_or_else(|| true.into()),
            "state": "created",
        });
        volumes.push(volume.clone());
        Some(volume)
    }

    pub(crate) fn volumes(&self, app: &str) -> Option<Vec<Value>> {
        lock(&self.apps).get(app).cloned()
    }

    pub(crate) fn violation(&self, text: String) {
        lock(&self.violations).push(text);
    }
}
