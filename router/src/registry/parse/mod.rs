//! Text to [`Registry`], or every problem at once, each with its place.
//!
//! The file is read in one order whatever the order of its keys: domain and path hosts, defaults, then cells one by one.
//! It must never stop at the first problem, and never build what is not good as a whole.

mod beside;
mod claims;
mod entry;
mod files;
mod folder;
mod lists;
mod object;
mod placement;
mod secret;
mod sign_in;
mod syntax;
mod tls;

use std::sync::Arc;

use foldhash::HashSet;

pub(super) use self::beside::parse_beside;

use serde_json::value::RawValue;

use self::claims::{Claims, subdomain};
use self::entry::{Defaults, read_entry};
use self::lists::{Items, read_path_hosts};
use self::object::{Settings, default_flag, read_string, refuse, written_twice, wrong_shape};
use super::cell::Cell;
use super::fields::{Key, Scope, field};
use super::host::HostName;
use super::index::{ByName, Registry, shared};
use super::json::{self, Shape};
use super::name::CellName;
use super::problem::{Place, Problem, Refusal, Report};

/// Reads a registry; a cell that is as it was in `last` is that very one, so that of a million cells few are there twice.
pub(super) fn parse(text: &[u8], last: &Registry) -> Result<Registry, Vec<Problem>> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => return Err(vec![not_utf8(text, error.valid_up_to())]),
    };
    let mut report = Report::new(text);
    let registry = read_file(text, last, &mut report);
    match registry {
        Some(registry) if report.is_empty() => Ok(registry),
        _ => Err(report.finish()),
    }
}

fn not_utf8(text: &[u8], valid: usize) -> Problem {
    let before = std::str::from_utf8(&text[..valid]).unwrap_or_default();
    let mut report = Report::new(before);
    let refusal = Refusal::new("the file is not UTF-8 from here on", "save it as UTF-8");
    report.add_at(valid, Place::Root, refusal);
    let mut problems = report.finish();
    problems.remove(0)
}

fn read_file<'t>(text: &'t str, last: &Registry, report: &mut Report<'t>) -> Option<Registry> {
    let root = read_outermost(text, report)?;
    read_root(&root, last, report)
}

/// The outermost object, if the text is one.
fn read_outermost<'t>(text: &'t str, report: &mut Report<'t>) -> Option<Settings<'t>> {
    let json = match text.strip_prefix('\u{feff}') {
        Some(rest) => {
            let refusal = Refusal::new(
                "the file begins with a byte order mark",
                "save it as UTF-8 without one",
            );
            report.add(text, Place::Root, refusal);
            rest
        }
        None => text,
    };
    let json = json.trim_matches([' ', '\t', '\r', '\n']);
    if json.is_empty() {
        let refusal = Refusal::new("the file is empty", "write {\"version\": 1, \"cells\": {}}");
        report.add_at(0, Place::Root, refusal);
        return None;
    }
    let shape = Shape::of(json);
    let mut members = Vec::new();
    let read = match shape {
        Shape::Object => json::members(json, |key, value| members.push((key, value))),
        _ => serde_json::from_str::<&RawValue>(json).map(|_| ()),
    };
    if let Err(error) = read {
        syntax::add(json, &error, Place::Root, report);
        return None;
    }
    if shape != Shape::Object {
        let fix = "write {\"version\": 1, \"cells\": {}}".to_owned();
        report.add(json, Place::Root, wrong_shape(shape, "an object", fix));
        return None;
    }
    let mut root = Settings::empty();
    for (key, value) in members {
        root.read_member(key, value, Scope::Root, Place::Root, report);
    }
    for key in [Key::Version, Key::Cells] {
        if root.source(key).is_none() {
            let field = field(key);
            let refusal = Refusal::new(
                format!("the key {:?} is missing", field.name),
                format!("write {:?}: {}", field.name, field.example),
            );
            report.add(json, Place::Root, refusal);
        }
    }
    Some(root)
}

/// What stands beside the cells.
struct Head<'t> {
    path_hosts: Items<'t, HostName>,
    /// Without a claim yet.
    claims: Claims<'t>,
    defaults: Defaults<'t>,
}

fn read_head<'t>(root: &Settings<'t>, report: &mut Report<'t>) -> Head<'t> {
    let domain = read_domain(root, report);
    let path_hosts = read_path_hosts(root, report);
    let mut distinct = HashSet::default();
    for (index, host, source) in &path_hosts {
        let list = Place::Root.member("path_hosts");
        let refusal = if domain.as_ref() == Some(host) {
            Refusal::new(
                "this is the domain, whose paths choose the cell anyway",
                "take it out",
            )
        } else if !distinct.insert(host.clone()) {
            Refusal::new("this host is in the list twice", "keep one of the two")
        } else {
            continue;
        };
        report.add(source, list.item(*index), refusal);
    }
    let machine_paths = root
        .flag(Key::MachinePaths)
        .unwrap_or_else(|| default_flag(Key::MachinePaths));
    Head {
        path_hosts,
        claims: Claims::new(domain, distinct, machine_paths),
        defaults: Defaults::read(root.nested(Key::Defaults), report),
    }
}

fn read_root<'t>(
    root: &Settings<'t>,
    last: &Registry,
    report: &mut Report<'t>,
) -> Option<Registry> {
    let Head {
        path_hosts,
        claims,
        mut defaults,
    } = read_head(root, report);
    let mut cells = Cells {
        last,
        claims,
        good: Vec::new(),
        names: HashSet::default(),
        faulty: HashSet::default(),
    };
    if let Some(json) = root.nested(Key::Cells) {
        cells.read(json, &mut defaults, report);
    }
    cells.claims.finish(report);
    for (index, host, source) in &path_hosts {
        let label = subdomain(host, cells.claims.domain.as_ref());
        if let Some(label) = label.filter(|label| cells.knows(label)) {
            let refusal = Refusal::new(
                format!("this is where the cell \"{label}\" answers"),
                "choose another path host, or rename the cell",
            );
            report.add(
                source,
                Place::Root.member("path_hosts").item(*index),
                refusal,
            );
        }
    }
    let default_cell = read_default_cell(root, &cells, report);
    let pages = defaults.pages();
    Some(cells.finish(default_cell, pages))
}

fn read_domain<'t>(root: &Settings<'t>, report: &mut Report<'t>) -> Option<HostName> {
    let text = root.text(Key::Domain)?;
    let domain = HostName::parse(text).and_then(|domain| {
        if domain.is_address() {
            Err(Refusal::new(
                format!("{domain} is an address, which has no subdomains"),
                "write a host name, or leave the domain out and list the address in path_hosts",
            ))
        } else {
            Ok(domain)
        }
    });
    match domain {
        Ok(domain) => Some(domain),
        Err(refusal) => {
            let source = root.source(Key::Domain)?;
            report.add(source, Place::Root.member("domain"), refusal);
            None
        }
    }
}

fn read_default_cell<'t>(
    root: &Settings<'t>,
    cells: &Cells<'t, '_>,
    report: &mut Report<'t>,
) -> Option<Arc<Cell>> {
    let name = root.text(Key::DefaultCell)?;
    if let Some(cell) = cells.names.get(name) {
        return Some(Arc::clone(&cell.0));
    }
    if !cells.knows(name) {
        no_default_cell(root, name, report);
    }
    None
}

fn no_default_cell<'t>(root: &Settings<'t>, name: &str, report: &mut Report<'t>) {
    let refusal = Refusal::new(
        format!("there is no cell {name:?}"),
        "write the name of a cell in cells, or take it out",
    );
    refuse(root, Key::DefaultCell, Place::Root, refusal, report);
}

fn no_entry(shape: Shape) -> Refusal {
    let fix = format!("write, for example, {}", r#"{"machine": "3d8d9e67c2e123"}"#);
    wrong_shape(shape, "an object", fix)
}

/// The cells while they are read.
struct Cells<'t, 'l> {
    last: &'l Registry,
    claims: Claims<'t>,
    good: Vec<Arc<Cell>>,
    names: HashSet<ByName>,
    /// Names whose entries are not good.
    faulty: HashSet<Box<str>>,
}

impl<'t> Cells<'t, '_> {
    fn knows(&self, name: &str) -> bool {
        self.names.contains(name) || self.faulty.contains(name)
    }

    fn read(&mut self, json: &'t str, defaults: &mut Defaults<'t>, report: &mut Report<'t>) {
        // Counting first is cheaper than growing tables of a million names again and again; room that stays empty is
        // never touched. A fault is met below.
        let mut count = 0;
        json::members(json, |_, _| count += 1).ok();
        self.names.reserve(count);
        self.good.reserve_exact(count);
        self.claims.reserve(count);
        let read = json::members(json, |key_json, entry_json| {
            self.read_member(key_json, entry_json, defaults, report);
        });
        if let Err(error) = read {
            syntax::add(json, &error, Place::Root.member("cells"), report);
        }
    }

    fn read_member(
        &mut self,
        key_json: &'t str,
        entry_json: &'t str,
        defaults: &mut Defaults<'t>,
        report: &mut Report<'t>,
    ) {
        let cells = Place::Root.member("cells");
        let Some(key) = read_string(key_json, cells, report) else {
            return;
        };
        let place = cells.member(&key);
        self.claims.begin(key_json);
        let name = match CellName::parse(&key) {
            Ok(name) => Some(name),
            Err(refusal) => {
                report.add(key_json, place, refusal);
                None
            }
        };
        let twice = self.knows(&key);
        if twice {
            report.add(key_json, place, written_twice(&key));
        }
        let shape = Shape::of(entry_json);
        if shape != Shape::Object {
            report.add(entry_json, place, no_entry(shape));
            self.faulty.insert(key.into());
            return;
        }
        let mut entry = read_entry(name.as_ref(), key_json, entry_json, place, defaults, report);
        let cell = entry.cell.take().map(|cell| match self.last.cell(&key) {
            Some(same) if **same == cell => {
                entry.share(same);
                Arc::clone(same)
            }
            _ => Arc::new(cell),
        });
        if !twice {
            let list = place.member("hosts");
            for (index, rule, source) in &entry.hosts {
                self.claims
                    .host(name.as_ref(), rule, source, list.item(*index), report);
            }
            let list = place.member("paths");
            for (index, rule, source) in &entry.paths {
                self.claims.path(rule, source, list.item(*index), report);
            }
            if let Some((machine, source)) = &entry.machine {
                self.claims
                    .machine(machine, source, place.member("machine"), report);
            }
        }
        match cell {
            Some(cell) if !twice => {
                self.names.insert(ByName(Arc::clone(&cell)));
                self.good.push(cell);
            }
            _ => {
                self.faulty.insert(key.into());
            }
        }
    }

    fn finish(self, default_cell: Option<Arc<Cell>>, pages: Option<Arc<str>>) -> Registry {
        let longest = self
            .claims
            .prefixes
            .keys()
            .map(|prefix| prefix.as_str().len())
            .max();
        Registry {
            cells: self.good.into(),
            names: self.names,
            hosts: self.claims.hosts,
            wildcards: self.claims.wildcards,
            shared: shared(&self.claims.prefixes),
            prefixes: self.claims.prefixes,
            longest_prefix: longest.unwrap_or_default(),
            machines: self.claims.machines.unwrap_or_default(),
            domain: self.claims.domain,
            path_hosts: self.claims.path_hosts,
            default_cell,
            pages,
        }
    }
}
