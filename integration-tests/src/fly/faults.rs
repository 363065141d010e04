//! Owns the switches for bad days: what is set here, machines, API, DNS and edge do wrong.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use super::edge::FailureReason;
use super::platform::Action;
use crate::process::lock;

/// Holds something back until it is opened or dropped.
#[derive(Debug)]
#[must_use = "dropping a gate opens it"]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// Lets go what waits.
    pub fn open(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

#[derive(Default)]
struct MachineFaults {
    start_gate: Option<watch::Receiver<bool>>,
    start_delay: Duration,
    failing_starts: usize,
    unreachable: Option<FailureReason>,
    dns_lag_queries: usize,
    dns_lag: Option<watch::Receiver<bool>>,
}

#[derive(Clone, Copy)]
pub(crate) struct ApiFault {
    pub(crate) status: u16,
    pub(crate) retry_after_s: Option<u64>,
    times: usize,
}

/// Switches for faults, by machine id. All are off at first.
#[derive(Default)]
pub struct Faults {
    machines: Mutex<HashMap<String, MachineFaults>>,
    api: Mutex<HashMap<(Action, String), ApiFault>>,
    hanging: Mutex<HashMap<(Action, String), watch::Receiver<bool>>>,
    stale: Mutex<HashMap<String, String>>,
    forwards: Mutex<HashMap<String, tokio::task::JoinHandle<()>>>,
}

fn closed() -> (Gate, watch::Receiver<bool>) {
    let (open, opened) = watch::channel(false);
    (Gate(open), opened)
}

impl Faults {
    fn with<T>(&self, id: &str, change: impl FnOnce(&mut MachineFaults) -> T) -> T {
        change(lock(&self.machines).entry(id.to_owned()).or_default())
    }

    /// Starts of this machine stay in state `starting` until the gate opens.
    pub fn hold_start(&self, id: &str) -> Gate {
        let (gate, opened) = closed();
        self.with(id, |faults| faults.start_gate = Some(opened));
        gate
    }

    /// Starts of this machine take this much longer.
    pub fn slow_start(&self, id: &str, delay: Duration) {
        self.with(id, |faults| faults.start_delay = delay);
    }

    /// The next `times` starts of this machine end in `stopped` again.
    pub fn fail_starts(&self, id: &str, times: usize) {
        self.with(id, |faults| faults.failing_starts = times);
    }

    /// The edge never reaches this machine, and gives up at once with `reason` (fly-platform 1.5); `None` ends it.
    pub fn unreachable(&self, id: &str, reason: Option<FailureReason>) {
        self.with(id, |faults| faults.unreachable = reason);
    }

    /// The next `times` calls of `action` on `subject` (a machine id, or an app) answer with `status`; with 200, in
    /// words that mean nothing.
    pub fn api_error(&self, action: Action, subject: &str, status: u16, times: usize) {
        self.api_fails(action, subject, status, None, times);
    }

    /// As [`Faults::api_error`] with 429 for the next call, which is also told when to come back.
    pub fn api_busy(&self, action: Action, subject: &str, retry_after_s: u64) {
        self.api_fails(action, subject, 429, Some(retry_after_s), 1);
    }

    fn api_fails(
        &self,
        action: Action,
        subject: &str,
        status: u16,
        retry_after_s: Option<u64>,
        times: usize,
    ) {
        let fault = ApiFault {
            status,
            retry_after_s,
            times,
        };
        lock(&self.api).insert((action, subject.to_owned()), fault);
    }

    /// Calls of `action` on `subject` are not answered until the gate opens.
    pub fn api_hangs(&self, action: Action, subject: &str) -> Gate {
        let (gate, opened) = closed();
        lock(&self.hanging).insert((action, subject.to_owned()), opened);
        gate
    }

    pub(crate) async fn before_answer(&self, action: Action, subject: &str) {
        let gate = lock(&self.hanging)
            .get(&(action, subject.to_owned()))
            .cloned();
        if let Some(mut gate) = gate {
            // An error means that the gate is gone, thus open.
            let _ = gate.wait_for(|open| *open).await;
        }
    }

    /// DNS does not know this machine for the next `queries` queries although it is started (fly-platform 3.3).
    pub fn dns_lag_queries(&self, id: &str, queries: usize) {
        self.with(id, |faults| faults.dns_lag_queries = queries);
    }

    /// DNS does not know this machine until the gate opens, although it is started.
    pub fn dns_lag(&self, id: &str) -> Gate {
        let (gate, opened) = closed();
        self.with(id, |faults| faults.dns_lag = Some(opened));
        gate
    }

    pub(crate) async fn before_start(&self, id: &str) {
        let (gate, delay) = self.with(id, |faults| (faults.start_gate.clone(), faults.start_delay));
        if let Some(mut gate) = gate {
            // An error means that the gate is gone, thus open.
            let _ = gate.wait_for(|open| *open).await;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    pub(crate) fn start_fails(&self, id: &str) -> bool {
        self.with(id, |faults| {
            let fails = faults.failing_starts > 0;
            faults.failing_starts = faults.failing_starts.saturating_sub(1);
            fails
        })
    }

    pub(crate) fn is_unreachable(&self, id: &str) -> Option<FailureReason> {
        self.with(id, |faults| faults.unreachable)
    }

    pub(crate) fn dns_hides(&self, id: &str) -> bool {
        self.with(id, |faults| {
            let counted = faults.dns_lag_queries > 0;
            faults.dns_lag_queries = faults.dns_lag_queries.saturating_sub(1);
            counted
                || faults
                    .dns_lag
                    .as_ref()
                    .is_some_and(|opened| !*opened.borrow())
        })
    }

    pub(crate) fn api_fault(&self, action: Action, subject: &str) -> Option<ApiFault> {
        let mut api = lock(&self.api);
        let fault = api.get_mut(&(action, subject.to_owned()))?;
        fault.times = fault.times.checked_sub(1)?;
        Some(*fault)
    }

    /// DNS goes on to answer for `id` although its machine is stopped.
    pub(crate) fn set_stale(
        &self,
        id: &str,
        reused_by: &str,
        forward: tokio::task::JoinHandle<()>,
    ) {
        lock(&self.stale).insert(id.to_owned(), reused_by.to_owned());
        lock(&self.forwards).insert(id.to_owned(), forward);
    }

    /// Ends the reuse of the address of `id`; nobody listens at it when this returns.
    pub(crate) async fn end_stale(&self, id: &str) {
        lock(&self.stale).remove(id);
        let forward = lock(&self.forwards).remove(id);
        if let Some(forward) = forward {
            forward.abort();
            // It ends as cancelled.
            let _ = forward.await;
        }
    }

    pub(crate) fn end_forwards(&self) {
        lock(&self.forwards)
            .values()
            .for_each(tokio::task::JoinHandle::abort);
    }

    pub(crate) fn is_stale(&self, id: &str) -> bool {
        lock(&self.stale).contains_key(id)
    }
}
