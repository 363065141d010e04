//! A text with broken entries, beside the registry in force.
//!
//! Read only where the strict reader found problems: it reads all entries again and settles between those that claim the
//! same thing. It must never let a broken entry take anything from a cell that had it.

mod settle;

use std::collections::HashMap;
use std::sync::Arc;

use self::settle::{Entry, Standing, settle};
use super::claims::{Claims, subdomain};
use super::entry::{Defaults, read_entry};
use super::object::{Settings, read_string, written_twice};
use super::{Head, no_default_cell, no_entry, parse, read_head, read_outermost};
use crate::registry::cell::{Cell, Placement};
use crate::registry::fields::Key;
use crate::registry::host::HostRule;
use crate::registry::index::{ByName, Registry, shared};
use crate::registry::json::{self, Shape};
use crate::registry::name::CellName;
use crate::registry::problem::{Fault, Flag, Place, Problem, Refusal, Report};

/// Reads a registry of which entries may be broken; see [`Registry::parse_beside`].
pub(in crate::registry) fn parse_beside(
    text: &[u8],
    last: &Registry,
    faults: &[Fault],
) -> Result<(Registry, Vec<Flag>), Vec<Problem>> {
    let problems = match parse(text, last) {
        Ok(registry) if faults.is_empty() => return Ok((registry, Vec::new())),
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return Err(problems);
    };
    let mut report = Report::new(text);
    match read(text, last, faults, &mut report) {
        Some((registry, broken)) => {
            let found = report.finish_as_added();
            let flag = |broken: Broken| {
                let mut problems: Vec<_> = broken
                    .problems
                    .iter()
                    .map(|at| found[*at].clone())
                    .collect();
                problems.sort_by_key(|problem| (problem.line, problem.column));
                Flag {
                    cell: broken.cell,
                    problems,
                    kept: broken.kept,
                }
            };
            Ok((registry, broken.into_iter().map(flag).collect()))
        }
        // What only the second look could see is told where the first saw nothing.
        None if problems.is_empty() => Err(report.finish()),
        None => Err(problems),
    }
}

/// A flag whose problems are numbers in the report.
struct Broken {
    cell: String,
    problems: Vec<usize>,
    kept: bool,
}

/// `None` where the text is broken beyond its entries.
fn read<'t>(
    text: &'t str,
    last: &Registry,
    faults: &[Fault],
    report: &mut Report<'t>,
) -> Option<(Registry, Vec<Broken>)> {
    let root = read_outermost(text, report)?;
    let mut head = read_head(&root, report);
    if !report.is_empty() {
        return None;
    }
    let mut entries = read_entries(&root, &mut head.defaults, last, faults, report)?;
    if let Some(name) = root.text(Key::DefaultCell)
        && !entries.iter().any(|entry| entry.name() == name)
    {
        no_default_cell(&root, name, report);
        return None;
    }
    let standing = settle(&mut entries, &head.claims, report)?;
    let broken = std::iter::zip(&entries, &standing)
        .filter(|(_, standing)| **standing != Standing::AsWritten)
        .map(|(entry, standing)| Broken {
            cell: entry.name().into_owned(),
            problems: entry.problems.clone(),
            kept: *standing == Standing::Kept,
        })
        .collect();
    let cells = std::iter::zip(entries, standing)
        .filter_map(|(entry, standing)| match standing {
            Standing::AsWritten => entry.cell,
            Standing::Kept => entry.last,
            Standing::Broken | Standing::Out => None,
        })
        .collect();
    Some((assemble(cells, head, root.text(Key::DefaultCell)), broken))
}

/// Every entry once, a name that is written twice as one that is broken.
fn read_entries<'t>(
    root: &Settings<'t>,
    defaults: &mut Defaults<'t>,
    last: &Registry,
    faults: &[Fault],
    report: &mut Report<'t>,
) -> Option<Vec<Entry<'t>>> {
    let mut entries: Vec<Entry<'t>> = Vec::new();
    let mut names = HashMap::new();
    let mut faults_of = HashMap::<&str, Vec<&Fault>>::default();
    for fault in faults {
        faults_of
            .entry(fault.cell.as_str())
            .or_default()
            .push(fault);
    }
    let read = json::members(root.nested(Key::Cells)?, |key, json| {
        let before = report.count();
        let mut entry = read_member(key, json, defaults, report);
        let name = entry.name().into_owned();
        entry.last = last.cell(&name).cloned();
        entry.problems = (before..report.count()).collect();
        for fault in faults_of.get(&*name).into_iter().flatten() {
            entry.refuse(fault.key, None, fault.refusal.clone(), report);
        }
        let first = *names.entry(name).or_insert(entries.len());
        match entries.get_mut(first) {
            Some(first) => {
                first.problems.append(&mut entry.problems);
                first.key = key;
                let name = first.name().into_owned();
                first.refuse_whole(written_twice(&name), report);
            }
            None => entries.push(entry),
        }
    });
    read.ok()?;
    Some(entries)
}

fn read_member<'t>(
    key: &'t str,
    json: &'t str,
    defaults: &mut Defaults<'t>,
    report: &mut Report<'t>,
) -> Entry<'t> {
    let cells = Place::Root.member("cells");
    let cell = read_string(key, cells, report).and_then(|text| {
        let place = cells.member(&text);
        let name = CellName::parse(&text)
            .map_err(|refusal| report.add(key, place, refusal))
            .ok();
        let shape = Shape::of(json);
        if shape != Shape::Object {
            report.add(json, place, no_entry(shape));
            return None;
        }
        read_entry(name.as_ref(), key, json, place, defaults, report).cell
    });
    Entry {
        key,
        json,
        cell: cell.map(Arc::new),
        last: None,
        problems: Vec::new(),
    }
}

/// Why a cell cannot be in this file whatever the others are, with the key and the index that it is about.
fn unfit(cell: &Cell, claims: &Claims<'_>) -> Option<(&'static str, Option<usize>, Refusal)> {
    for (index, rule) in cell.hosts.iter().enumerate() {
        if let Some(refusal) = claims.foreign(Some(&cell.name), rule) {
            return Some(("hosts", Some(index), refusal));
        }
    }
    for (index, rule) in cell.paths.iter().enumerate() {
        let segment = rule.prefix.first_segment();
        if claims.machines.is_some() && super::claims::looks_like_machine(segment) {
            return Some(("paths", Some(index), super::claims::like_machine(segment)));
        }
    }
    let mut own = claims
        .path_hosts
        .iter()
        .filter_map(|host| subdomain(host, claims.domain.as_ref()));
    own.any(|label| label == cell.name.as_str()).then(|| {
        let refusal = Refusal::new(
            "the host where it would answer is one of path_hosts",
            "choose another path host, or rename the cell",
        );
        ("", None, refusal)
    })
}

/// The registry of cells that claim nothing twice.
fn assemble(cells: Vec<Arc<Cell>>, head: Head<'_>, default_cell: Option<&str>) -> Registry {
    let pages = head.defaults.pages();
    let mut claims = head.claims;
    let mut longest_prefix = 0;
    for (index, cell) in (0..).zip(&cells) {
        for rule in &cell.hosts {
            match rule {
                HostRule::Exact(host) => claims.hosts.insert(host.clone(), index),
                HostRule::Wildcard(parent) => claims.wildcards.insert(parent.clone(), index),
            };
        }
        for rule in &cell.paths {
            longest_prefix = longest_prefix.max(rule.prefix.as_str().len());
            claims
                .prefixes
                .insert(rule.prefix.clone(), (index, rule.strip));
        }
        if let (Some(machines), Placement::Machine { machine, .. }) =
            (&mut claims.machines, &cell.placement)
        {
            machines.insert(machine.clone(), index);
        }
    }
    let default_cell = default_cell.and_then(|name| {
        let cell = cells.iter().find(|cell| cell.name.as_str() == name);
        cell.cloned()
    });
    Registry {
        names: cells.iter().cloned().map(ByName).collect(),
        cells: cells.into(),
        hosts: claims.hosts,
        wildcards: claims.wildcards,
        shared: shared(&claims.prefixes),
        prefixes: claims.prefixes,
        longest_prefix,
        machines: claims.machines.unwrap_or_default(),
        domain: claims.domain,
        path_hosts: claims.path_hosts,
        default_cell,
        pages,
    }
}
