//! `cell-router cell list` and `cell show`.

use anstyle::AnsiColor;
use cell_router::registry::{Admission, Cell, CellName, Flag, Problem, Registry, Replay, Version};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::backend::Backend;
use super::editing::Which;
use super::failure::{Failure, Kind};
use super::output::{coloured, print, print_json, table};
use super::remote;

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) which: Which,
    /// Only cells with this in their name, hosts, paths or place.
    filter: Option<String>,
    /// Only cells in this state: active, paused, maintenance, disabled or broken.
    #[arg(long)]
    state: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    pub(super) which: Which,
    /// The cell.
    #[arg(value_parser = super::cell::cell_name)]
    cell: CellName,
}

/// A cell as it is listed.
#[derive(Serialize)]
struct Listed {
    cell: String,
    state: &'static str,
    placement: String,
    hosts: Vec<String>,
    paths: Vec<String>,
    problems: Vec<String>,
}

impl Listed {
    fn good(cell: &Cell) -> Self {
        let path = |rule: &cell_router::registry::PathRule| {
            let taken_off = if rule.strip { " (taken off)" } else { "" };
            format!("{}{taken_off}", rule.prefix)
        };
        Self {
            cell: cell.name.to_string(),
            state: cell.policy.state.as_str(),
            placement: cell.placement.to_string(),
            hosts: cell.hosts.iter().map(ToString::to_string).collect(),
            paths: cell.paths.iter().map(path).collect(),
            problems: Vec::new(),
        }
    }

    fn broken(flag: &Flag) -> Self {
        Self {
            cell: flag.cell.clone(),
            state: "broken",
            placement: String::new(),
            hosts: Vec::new(),
            paths: Vec::new(),
            problems: flag.problems.iter().map(Problem::to_string).collect(),
        }
    }

    fn has(&self, part: &str) -> bool {
        let lists = self.hosts.iter().chain(&self.paths);
        let mut texts = lists.chain([&self.cell, &self.placement]);
        texts.any(|text| text.contains(part))
    }

    fn row(self) -> Vec<(String, Option<AnsiColor>)> {
        let at = [self.hosts, self.paths].concat();
        let said = if self.problems.is_empty() {
            at.join(" ")
        } else {
            self.problems.join(" | ")
        };
        vec![
            (self.cell, None),
            (self.state.to_owned(), colour(self.state)),
            (self.placement, None),
            (said, None),
        ]
    }
}

fn colour(state: &str) -> Option<AnsiColor> {
    match state {
        "active" => Some(AnsiColor::Green),
        "paused" | "maintenance" => Some(AnsiColor::Yellow),
        _ => Some(AnsiColor::Red),
    }
}

/// The registry without its broken entries, these, and its version.
fn read(which: &Which, router: &remote::Which) -> Result<(Registry, Vec<Flag>, Vec<u8>), Failure> {
    let text = Backend::new(&which.registry, router)?.read()?;
    let file = which.registry.display().to_string();
    match Registry::parse_beside(&text, &Registry::default(), &[]) {
        Ok((registry, flags)) => Ok((registry, flags, text)),
        Err(problems) => {
            let lines: Vec<_> = problems
                .iter()
                .map(|problem| problem.in_file(&file).to_string())
                .collect();
            Err(lines.join("\n").into())
        }
    }
}

pub(super) fn list(arguments: &List, router: &remote::Which) -> Result<(), Failure> {
    let (registry, flags, text) = read(&arguments.which, router)?;
    let good = registry.cells().map(|cell| Listed::good(cell));
    let listed: Vec<Listed> = good
        .chain(flags.iter().map(Listed::broken))
        .filter(|one| arguments.filter.as_ref().is_none_or(|part| one.has(part)))
        .filter(|one| {
            arguments
                .state
                .as_ref()
                .is_none_or(|state| one.state == state)
        })
        .collect();
    if arguments.which.json {
        let version = Version::of(&text).to_string();
        return print_json(&serde_json::json!({ "version": version, "cells": listed }));
    }
    let rows: Vec<_> = listed.into_iter().map(Listed::row).collect();
    print(&table(&["CELL", "STATE", "PLACE", "ANSWERS AT"], &rows))
}

pub(super) fn show(arguments: &Show, router: &remote::Which) -> Result<(), Failure> {
    let (registry, flags, text) = read(&arguments.which, router)?;
    let name = arguments.cell.as_str();
    let flag = flags.iter().find(|flag| flag.cell == name);
    let cell = registry.cell(name);
    if cell.is_none() && flag.is_none() {
        let message = format!("there is no cell \"{name}\"");
        return Err(Failure::new(Kind::NotFound, message));
    }
    let written: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let entry = &written["cells"][name];
    let version = Version::of(&text).to_string();
    let listed = flag
        .map(Listed::broken)
        .or(cell.map(|cell| Listed::good(cell)));
    let holds = cell.map(|cell| holds(cell, registry.domain().map(|domain| domain.as_str())));
    if arguments.which.json {
        let effective: serde_json::Map<_, _> = holds
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect();
        return print_json(&serde_json::json!({
            "version": version, "entry": entry, "cell": listed, "holds": effective,
        }));
    }
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        text.push_str(&format!("{name:<24}{value}\n"));
    };
    row("cell", name);
    row("version", &version);
    for problem in listed.iter().flat_map(|listed| &listed.problems) {
        row("problem", &coloured(AnsiColor::Red, problem));
    }
    for (name, value) in holds.into_iter().flatten() {
        row(name, &value);
    }
    row("entry", &entry.to_string());
    print(&text)
}

/// All that holds for a cell, from its entry or by default.
fn holds(cell: &Cell, domain: Option<&str>) -> Vec<(&'static str, String)> {
    let own = domain.map(|domain| format!("{}.{domain}", cell.name));
    let hosts = cell.hosts.iter().map(ToString::to_string);
    let paths = cell.paths.iter().map(|rule| rule.prefix.to_string());
    let at: Vec<_> = own.into_iter().chain(hosts).chain(paths).collect();
    let limits = &cell.policy.limits;
    let milliseconds = |duration: std::time::Duration| duration.as_millis().to_string();
    let replay = match cell.policy.replay {
        Replay::Never => "never".to_owned(),
        Replay::Strict { .. } => "strict".to_owned(),
        Replay::Cached { ttl } => format!("cached for {} s", ttl.as_secs()),
    };
    let secret = cell.secret.as_ref().map(ToString::to_string);
    let none = || "none".to_owned();
    vec![
        ("state", state(cell.policy.state).to_owned()),
        ("place", cell.placement.to_string()),
        ("answers at", at.join(" ")),
        ("replay", replay),
        ("secret", secret.unwrap_or_else(none)),
        ("ready_path", cell.policy.ready_path.to_string()),
        ("max_in_flight", limits.max_in_flight.to_string()),
        ("queue_timeout_ms", milliseconds(limits.queue_timeout)),
        (
            "max_body_bytes",
            limits
                .max_body_bytes
                .map_or_else(none, |bytes| bytes.to_string()),
        ),
        ("connect_timeout_ms", milliseconds(limits.connect_timeout)),
        (
            "first_byte_timeout_ms",
            milliseconds(limits.first_byte_timeout),
        ),
        ("idle_timeout_ms", milliseconds(limits.idle_timeout)),
        (
            "tunnel_idle_timeout_ms",
            milliseconds(limits.tunnel_idle_timeout),
        ),
        ("wake_timeout_ms", milliseconds(limits.wake_timeout)),
        ("hold_timeout_ms", milliseconds(limits.hold_timeout)),
        ("beat_every_s", limits.beat_every.as_secs().to_string()),
    ]
}

fn state(state: Admission) -> &'static str {
    state.as_str()
}
