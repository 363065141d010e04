//! Who gets what several entries claim, and which entries are broken by it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::unfit;
use crate::registry::cell::{Cell, Placement};
use crate::registry::host::HostRule;
use crate::registry::json;
use crate::registry::parse::claims::{Claims, like_machine, named};
use crate::registry::problem::{Place, Refusal, Report, quoted};

/// An entry as written, and the cell as it was.
pub(super) struct Entry<'t> {
    /// Its key, in quotes.
    pub(super) key: &'t str,
    pub(super) json: &'t str,
    /// The cell as written, if the entry is good by itself.
    pub(super) cell: Option<Arc<Cell>>,
    /// The cell as it was in force.
    pub(super) last: Option<Arc<Cell>>,
    /// What is wrong with it: numbers in the report.
    pub(super) problems: Vec<usize>,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is good.
    AsWritten,
    /// It is broken, and not yet known what becomes of it.
    Broken,
    /// The cell stays as it was.
    Kept,
    /// The cell was not there, and is not.
    Out,
}

/// What only one cell may have.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Claim<'c> {
    Host(&'c HostRule),
    Prefix(&'c str),
    Machine(&'c str),
}

impl<'t> Entry<'t> {
    /// The name as written.
    pub(super) fn name(&self) -> Cow<'t, str> {
        json::string(self.key).unwrap_or(Cow::Borrowed(self.key))
    }

    /// Adds a problem of the value of `key`, or of the item `index` in it, or of the entry where it has no such.
    pub(super) fn refuse(
        &mut self,
        key: &str,
        index: Option<usize>,
        refusal: Refusal,
        report: &mut Report<'t>,
    ) {
        let value = value_of(self.json, key);
        let item = value.and_then(|value| nth(value, index?));
        let name = self.name();
        let (cells, number) = (Place::Root.member("cells"), report.count());
        let entry = cells.member(&name);
        let list = entry.member(key);
        match (value, item, index) {
            (Some(_), Some(item), Some(index)) => report.add(item, list.item(index), refusal),
            (Some(value), ..) => report.add(value, list, refusal),
            (None, ..) => report.add(self.key, entry, refusal),
        }
        self.problems.push(number);
    }

    /// Adds a problem of the whole entry.
    pub(super) fn refuse_whole(&mut self, refusal: Refusal, report: &mut Report<'t>) {
        let (name, number) = (self.name(), report.count());
        report.add(self.key, Place::Root.member("cells").member(&name), refusal);
        self.problems.push(number);
    }
}

fn value_of<'t>(object: &'t str, wanted: &str) -> Option<&'t str> {
    let mut found = None;
    let read = json::members(object, |key, value| {
        if found.is_none() && json::string(key).is_ok_and(|key| key == wanted) {
            found = Some(value);
        }
    });
    read.ok().and(found)
}

fn nth(list: &str, index: usize) -> Option<&str> {
    let mut items = Vec::new();
    json::items(list, |item| items.push(item)).ok()?;
    items.get(index).copied()
}

/// Everything that a cell claims, with the key and the index where it does.
fn claims(
    cell: &Cell,
    machines: bool,
) -> impl Iterator<Item = (Claim<'_>, &'static str, Option<usize>)> {
    let hosts = cell.hosts.iter().enumerate();
    let hosts = hosts.map(|(index, rule)| (Claim::Host(rule), "hosts", Some(index)));
    let paths = cell.paths.iter().enumerate();
    let paths = paths.map(|(index, rule)| {
        let prefix = rule.prefix.as_str();
        (Claim::Prefix(prefix), "paths", Some(index))
    });
    let machine = match &cell.placement {
        Placement::Machine { machine, .. } if machines => Some(machine),
        Placement::Machine { .. } | Placement::Address { .. } => None,
    };
    let machine = machine.map(|machine| (Claim::Machine(machine.as_str()), "machine", None));
    hosts.chain(paths).chain(machine)
}

/// Settles what becomes of each entry, adding what is found wrong. `None` where a cell that has to stay as it was does not
/// fit the file any more; the report says which.
pub(super) fn settle<'t>(
    entries: &mut [Entry<'t>],
    head: &Claims<'t>,
    report: &mut Report<'t>,
) -> Option<Vec<Standing>> {
    let cells: Vec<_> = entries
        .iter()
        .map(|entry| (entry.cell.clone(), entry.last.clone()))
        .collect();
    let mut settling = Settling {
        cells: &cells,
        standing: vec![Standing::AsWritten; cells.len()],
        holders: HashMap::new(),
        queue: Vec::new(),
        entries,
        head,
        report,
    };
    settling.all()?;
    Some(settling.standing)
}

/// A cell as written, and as it was.
type Versions = (Option<Arc<Cell>>, Option<Arc<Cell>>);

struct Settling<'c, 'e, 't> {
    cells: &'c [Versions],
    standing: Vec<Standing>,
    holders: HashMap<Claim<'c>, usize>,
    /// Broken entries of which it is not yet known what becomes of them.
    queue: Vec<usize>,
    entries: &'e mut [Entry<'t>],
    head: &'e Claims<'t>,
    report: &'e mut Report<'t>,
}

impl Settling<'_, '_, '_> {
    fn all(&mut self) -> Option<()> {
        for index in 0..self.cells.len() {
            let unfit = match &self.cells[index].0 {
                Some(cell) => unfit(cell, self.head),
                None => None,
            };
            if let Some((key, item, refusal)) = unfit {
                self.fault(index, key, item, refusal);
            } else if !self.entries[index].problems.is_empty() {
                self.broken(index);
            }
        }
        self.drain()?;
        // First what each had before, so that nobody new can take it.
        for held_before in [true, false] {
            for index in 0..self.cells.len() {
                self.claim(index, held_before);
                self.drain()?;
            }
        }
        while self.hides_machines()? {
            self.drain()?;
        }
        Some(())
    }

    fn machines(&self) -> bool {
        self.head.machines.is_some()
    }

    fn fault(&mut self, index: usize, key: &str, item: Option<usize>, refusal: Refusal) {
        self.entries[index].refuse(key, item, refusal, self.report);
        self.broken(index);
    }

    fn broken(&mut self, index: usize) {
        if self.standing[index] == Standing::AsWritten {
            self.standing[index] = Standing::Broken;
            self.queue.push(index);
        }
    }

    /// Claims what an entry had before, or all else that it names.
    fn claim(&mut self, index: usize, held_before: bool) {
        let cells = self.cells;
        let (Some(cell), last) = &cells[index] else {
            return;
        };
        for (claim, key, item) in claims(cell, self.machines()) {
            if self.standing[index] != Standing::AsWritten {
                return;
            }
            let had = last
                .as_ref()
                .is_some_and(|last| claims(last, self.machines()).any(|(held, ..)| held == claim));
            if had != held_before {
                continue;
            }
            match self.holders.get(&claim) {
                Some(holder) => {
                    let refusal = self.taken(claim, *holder, index);
                    self.fault(index, key, item, refusal);
                }
                None => _ = self.holders.insert(claim, index),
            }
        }
    }

    /// Gives what broken entries claim back, and their cells what they had before.
    fn drain(&mut self) -> Option<()> {
        let (cells, machines) = (self.cells, self.machines());
        while let Some(index) = self.queue.pop() {
            let (cell, last) = &cells[index];
            for (claim, ..) in cell.iter().flat_map(|cell| claims(cell, machines)) {
                if self.holders.get(&claim) == Some(&index) {
                    self.holders.remove(&claim);
                }
            }
            let Some(last) = last else {
                self.standing[index] = Standing::Out;
                continue;
            };
            self.standing[index] = Standing::Kept;
            if unfit(last, self.head).is_some() {
                return self.stuck(index);
            }
            for (claim, ..) in claims(last, machines) {
                let holder = self.holders.insert(claim, index);
                match holder.filter(|holder| *holder != index) {
                    Some(holder) if self.standing[holder] == Standing::Kept => {
                        return self.stuck(index);
                    }
                    Some(holder) => self.displace(holder, claim, index),
                    None => {}
                }
            }
        }
        Some(())
    }

    /// Breaks the entry that took what another, whose entry is broken, has.
    fn displace(&mut self, holder: usize, claim: Claim<'_>, index: usize) {
        let cells = self.cells;
        let Some(cell) = &cells[holder].0 else {
            return;
        };
        let refusal = self.taken(claim, index, holder);
        let place = claims(cell, self.machines()).find(|(held, ..)| *held == claim);
        if let Some((_, key, item)) = place {
            self.fault(holder, key, item, refusal);
        }
    }

    /// Breaks entries with a prefix that would hide the path of a machine; whether there were any.
    fn hides_machines(&mut self) -> Option<bool> {
        let mut any = false;
        if !self.machines() {
            return Some(any);
        }
        for (index, (written, last)) in self.cells.iter().enumerate() {
            let kept = self.standing[index] == Standing::Kept;
            let cell = match self.standing[index] {
                Standing::AsWritten => written,
                Standing::Kept => last,
                Standing::Broken | Standing::Out => continue,
            };
            let paths = cell.iter().flat_map(|cell| cell.paths.iter().enumerate());
            for (item, rule) in paths {
                let segment = rule.prefix.first_segment();
                if self.holders.contains_key(&Claim::Machine(segment)) {
                    if kept {
                        self.stuck(index)?;
                    }
                    self.fault(index, "paths", Some(item), like_machine(segment));
                    any = true;
                    break;
                }
            }
        }
        Some(any)
    }

    /// Says that a cell can neither be as written nor stay as it was.
    fn stuck<T>(&mut self, index: usize) -> Option<T> {
        let refusal = Refusal::new(
            "the entry is broken, and the cell as it was does not fit this file any more",
            "mend this entry",
        );
        self.entries[index].refuse_whole(refusal, self.report);
        None
    }

    fn taken(&self, claim: Claim<'_>, holder: usize, index: usize) -> Refusal {
        let what = match claim {
            Claim::Host(rule) => quoted(&rule.to_string()),
            Claim::Prefix(prefix) => quoted(prefix),
            Claim::Machine(machine) => format!("machine {machine}"),
        };
        if holder == index {
            return Refusal::new(
                format!("{what} is in this list twice"),
                "keep one of the two",
            );
        }
        let name = named(self.entries[holder].key);
        let why = match self.standing[holder] {
            Standing::Kept => ", whose own entry is broken and which stays as it was",
            Standing::AsWritten | Standing::Broken | Standing::Out => "",
        };
        Refusal::new(
            format!("{what} belongs to cell {name} already{why}"),
            "take it out of one of the two cells",
        )
    }
}
