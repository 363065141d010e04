//! The operator of a soak: rewrites the registry every second, and breaks it now and then.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::interval;

use super::cell::{Cell, name};
use super::plan::{Broken, Edit, World, speaks_http2};

/// App of the cells.
pub(crate) const APP: &str = "soak-cells";

/// Every so many cells, one lives at an address; the others are machines.
pub(crate) const ADDRESS_EVERY: usize = 4;

/// Id of the machine of a cell; none for one that lives at an address.
pub(crate) fn machine(number: usize) -> Option<String> {
    (number % ADDRESS_EVERY != 1).then(|| format!("50ac{number:010x}"))
}

/// The environment variable that holds a cell's secret.
pub(crate) fn variable(number: usize) -> String {
    format!("SECRET_{}", name(number).to_uppercase())
}

/// The hosts of their own that cells have now.
pub(crate) struct Aliases(Vec<AtomicU64>);

impl Aliases {
    pub(crate) fn new(world: World) -> Self {
        Self((0..world.cells).map(|_| AtomicU64::new(0)).collect())
    }

    /// No alias is ever used again, by whichever cell.
    pub(crate) fn of(&self, cell: usize) -> String {
        let edition = self.0[cell].load(Ordering::SeqCst);
        format!("{}-{edition}.example.org", name(cell))
    }

    fn rename(&self, cell: usize) {
        self.0[cell].fetch_add(1, Ordering::SeqCst);
    }
}

/// Edits one registry file.
pub(crate) struct Editor {
    pub(crate) world: World,
    pub(crate) file: PathBuf,
    pub(crate) cells: Arc<Vec<Arc<Cell>>>,
    pub(crate) aliases: Arc<Aliases>,
    pub(crate) stop: AtomicBool,
}

impl Editor {
    /// Edits every second until told to stop; how often.
    pub(crate) async fn run(&self) -> u64 {
        let mut ticks = interval(Duration::from_secs(1));
        let mut number = 0;
        while !self.stop.load(Ordering::SeqCst) {
            ticks.tick().await;
            let edit = self.world.edit(number);
            edit.renamed
                .iter()
                .for_each(|cell| self.aliases.rename(*cell));
            let text = self.text(&edit, None);
            self.save(&broken(text, edit.broken), number);
            number += 1;
        }
        number
    }

    /// Writes the registry in which all cells are active, with `most` requests in flight for each where it is given.
    pub(crate) fn all_active(&self, most: Option<u64>) {
        self.save(&self.text(&Edit::default(), most), 0);
    }

    /// The registry after an edit.
    fn text(&self, edit: &Edit, most: Option<u64>) -> String {
        let mut cells = Map::new();
        for (number, cell) in self.cells.iter().enumerate() {
            if !edit.removed.contains(&number) {
                cells.insert(name(number), self.entry(cell, edit, most));
            }
        }
        // Every time-out is short enough for a soak of a minute, and longer than any trouble but the worst.
        let defaults = json!({
            "app": APP, "first_byte_timeout_ms": 5000, "idle_timeout_ms": 5000, "tunnel_idle_timeout_ms": 6000,
            "connect_timeout_ms": 2000, "wake_timeout_ms": 8000, "hold_timeout_ms": 4000, "retry_after_s": 1,
        });
        let registry = json!({
            "version": 1, "domain": "example.com", "path_hosts": ["apps.example.com"], "defaults": defaults,
            "cells": cells,
        });
        // Several lines, as a person would have it.
        format!("{registry:#}\n")
    }

    fn entry(&self, cell: &Cell, edit: &Edit, most: Option<u64>) -> Value {
        let (number, name) = (cell.number, name(cell.number));
        let mut entry = json!({
            "hosts": [self.aliases.of(number)],
            "paths": [format!("/{name}"), { "prefix": format!("/off-{name}"), "strip": true }],
            "secret": { "env": variable(number) },
        });
        match machine(number) {
            Some(id) => {
                entry["machine"] = id.into();
                entry["port"] = cell.place().port().into();
                entry["replay"] = ["strict", "strict", "cached", "never"][number % 4].into();
            }
            None => entry["address"] = cell.place().to_string().into(),
        }
        if speaks_http2(number) {
            entry["protocol"] = "http2".into();
        }
        if edit.paused.contains(&number) {
            entry["state"] = "paused".into();
        }
        if edit.maintained.contains(&number) {
            entry["state"] = "maintenance".into();
        }
        if number < self.world.undisturbed {
            // Where nothing goes wrong no time-out may strike, however busy the machine is.
            for limit in [
                "first_byte_timeout_ms",
                "idle_timeout_ms",
                "tunnel_idle_timeout_ms",
                "connect_timeout_ms",
            ] {
                entry[limit] = 40_000.into();
            }
        }
        if let Some(most) = most {
            entry["max_in_flight"] = most.into();
            entry["queue_timeout_ms"] = 0.into();
        }
        entry
    }

    /// Saves as editors do: by a rename, or in place.
    fn save(&self, text: &str, number: u64) {
        let saved = if number % 3 == 2 {
            std::fs::write(&self.file, text)
        } else {
            let fresh = self.file.with_extension("new");
            std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.file))
        };
        saved.expect("the registry's folder can be written");
    }
}

fn broken(text: String, how: Option<Broken>) -> String {
    match how {
        None => text,
        Some(Broken::Cut) => text[..text.len() / 2].to_owned(),
        Some(Broken::Entry) => text.replacen("\"hosts\"", "\"hots\"", 1),
        Some(Broken::Empty) => String::new(),
    }
}
