//! What the router says of itself: its access log, and its own log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::ledger::Ledger;
use super::rules::Rule;
use crate::process::lock;

/// What is read of a line of the access log.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Line {
    path: String,
    pub(crate) status: u16,
    pub(crate) lane: String,
    pub(crate) reason: String,
    pub(crate) error_by: Option<String>,
    pub(crate) request_body: Option<String>,
    pub(crate) response_body: Option<String>,
    #[allow(dead_code, reason = "shown with a breach")]
    error: Option<String>,
    pub(crate) waited_ms: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) lines: u64,
    /// By lane and reason.
    pub(crate) lanes: BTreeMap<(String, String), u64>,
    /// By reason, who made it, and how the bodies ended.
    pub(crate) failures: BTreeMap<(String, String), u64>,
    pub(crate) waited: u64,
    pub(crate) reloads: u64,
    pub(crate) refused_files: u64,
    pub(crate) wakes: u64,
}

/// Reads what all routers of a soak write.
#[derive(Clone)]
pub(crate) struct Journal {
    ledger: Ledger,
    counts: Arc<Mutex<Counts>>,
    /// How often a router has loaded the registry, for those who wait for it.
    pub(crate) reloads: tokio::sync::watch::Sender<u64>,
}

impl Journal {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            counts: Arc::default(),
            reloads: tokio::sync::watch::Sender::new(0),
        }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Counts) -> T) -> T {
        look(&mut lock(&self.counts))
    }

    pub(crate) fn breach(&self, rule: Rule, what: &str) {
        self.ledger.breach(rule, what);
    }

    /// A line of the access log.
    pub(crate) fn access(&self, text: &str) {
        let Ok(line) = serde_json::from_str::<Line>(text) else {
            self.ledger
                .breach(Rule::Panic, format!("no line of the access log: {text}"));
            return;
        };
        self.with(|counts| {
            counts.lines += 1;
            counts.waited += u64::from(line.waited_ms.is_some());
            let lane = (line.lane.clone(), line.reason.clone());
            *counts.lanes.entry(lane).or_default() += 1;
            if let Some(by) = &line.error_by {
                let ended = [&line.request_body, &line.response_body]
                    .into_iter()
                    .flatten()
                    .find(|ending| *ending != "complete");
                let what = match ended {
                    Some(ended) => format!("{}, {ended}", line.reason),
                    None => line.reason.clone(),
                };
                *counts.failures.entry((by.clone(), what)).or_default() += 1;
            }
        });
        let id = line
            .path
            .rsplit("/s/")
            .next()
            .and_then(|id| id.parse().ok());
        if let Some(id) = id {
            self.ledger.logged(id, line, text);
        }
    }

    /// A line of the router's own log.
    pub(crate) fn event(&self, text: &str) {
        if text.contains("panicked") || text.contains("RUST_BACKTRACE") {
            self.ledger.breach(Rule::Panic, text);
        }
        if text.contains("\"registry loaded\"") {
            self.with(|counts| counts.reloads += 1);
            self.reloads.send_modify(|reloads| *reloads += 1);
        }
        if text.contains("the last good one serves on") {
            self.with(|counts| counts.refused_files += 1);
        }
        if text.contains("\"message\":\"wake\"") {
            self.with(|counts| counts.wakes += 1);
        }
    }
}
