//! Who owns which host, prefix and machine: each may have one owner only.

use foldhash::{HashMap, HashSet};

use crate::registry::cell::PathRule;
use crate::registry::host::{HostName, HostRule, below};
use crate::registry::json;
use crate::registry::name::{CellName, MachineId};
use crate::registry::path::PathPrefix;
use crate::registry::problem::{Place, Refusal, Report, quoted};

/// What has been claimed so far. An owner is the index of its entry.
pub(super) struct Claims<'t> {
    pub(super) domain: Option<HostName>,
    pub(super) path_hosts: HashSet<HostName>,
    pub(super) hosts: HashMap<HostName, u32>,
    pub(super) wildcards: HashMap<HostName, u32>,
    pub(super) prefixes: HashMap<PathPrefix, (u32, bool)>,
    /// Present if machine ids are paths.
    pub(super) machines: Option<HashMap<MachineId, u32>>,
    /// The key of each entry as written, in quotes.
    owners: Vec<&'t str>,
    /// Prefixes that wait until all machines are known: the first segment could be a machine's id.
    doubtful: Vec<(PathPrefix, &'t str, String)>,
}

impl<'t> Claims<'t> {
    pub(super) fn new(
        domain: Option<HostName>,
        path_hosts: HashSet<HostName>,
        machine_paths: bool,
    ) -> Self {
        Self {
            domain,
            path_hosts,
            hosts: HashMap::default(),
            wildcards: HashMap::default(),
            prefixes: HashMap::default(),
            machines: machine_paths.then(HashMap::default),
            owners: Vec::new(),
            doubtful: Vec::new(),
        }
    }

    /// Makes room for as many cells, each with a host and a prefix.
    pub(super) fn reserve(&mut self, cells: usize) {
        self.owners.reserve_exact(cells);
        self.hosts.reserve(cells);
        self.prefixes.reserve(cells);
        if let Some(machines) = &mut self.machines {
            machines.reserve(cells);
        }
    }

    /// Begins the claims of the next entry.
    pub(super) fn begin(&mut self, key: &'t str) {
        self.owners.push(key);
    }

    fn current(&self) -> u32 {
        u32::try_from(self.owners.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn owner(&self, index: u32) -> String {
        let key = self.owners.get(index as usize).copied();
        named(key.unwrap_or_default())
    }

    /// Claims a host for the current entry, whose name is `cell` if it has a good one.
    pub(super) fn host(
        &mut self,
        cell: Option<&CellName>,
        rule: &HostRule,
        source: &'t str,
        place: Place<'_>,
        report: &mut Report<'t>,
    ) {
        if let Some(refusal) = self.foreign(cell, rule) {
            report.add(source, place, refusal);
            return;
        }
        let current = self.current();
        let claimed = match rule {
            HostRule::Exact(host) => self.hosts.insert(host.clone(), current),
            HostRule::Wildcard(parent) => self.wildcards.insert(parent.clone(), current),
        };
        if let Some(owner) = claimed {
            report.add(source, place, self.taken(&rule.to_string(), owner));
        }
    }

    /// Why a host cannot be anybody's own, or not this cell's.
    pub(super) fn foreign(&self, cell: Option<&CellName>, rule: &HostRule) -> Option<Refusal> {
        let name = rule.name();
        if let HostRule::Exact(host) = rule {
            if self.domain.as_ref() == Some(host) {
                return Some(Refusal::new(
                    format!(
                        "{} is the domain, where the path chooses the cell",
                        quoted(host.as_str())
                    ),
                    "give the cell a prefix in paths, or name it as default_cell",
                ));
            }
            if self.path_hosts.contains(host) {
                return Some(Refusal::new(
                    format!(
                        "{} is one of path_hosts, where the path chooses the cell",
                        quoted(host.as_str())
                    ),
                    "take it out here or there",
                ));
            }
        }
        let domain = self.domain.as_ref()?;
        if name == domain {
            return Some(Refusal::new(
                format!(
                    "{} would take the host of every cell",
                    quoted(&rule.to_string())
                ),
                "every cell answers below the domain already; name a default_cell for the rest",
            ));
        }
        let label = name.below(domain)?.rsplit('.').next()?;
        if cell.is_some_and(|cell| cell.as_str() == label) {
            return None;
        }
        Some(Refusal::new(
            format!("{label}.{domain} and all below it is for a cell named {label}"),
            format!("take a host outside {domain}, or give it to that cell"),
        ))
    }

    /// Claims a prefix for the current entry.
    pub(super) fn path(
        &mut self,
        rule: &PathRule,
        source: &'t str,
        place: Place<'_>,
        report: &mut Report<'t>,
    ) {
        let current = (self.current(), rule.strip);
        if let Some((owner, _)) = self.prefixes.insert(rule.prefix.clone(), current) {
            report.add(source, place, self.taken(rule.prefix.as_str(), owner));
        }
        let segment = rule.prefix.first_segment();
        if self.machines.is_some() && MachineId::parse(segment).is_ok() {
            if MachineId::resembles(segment) {
                report.add(source, place, like_machine(segment));
            } else {
                self.doubtful
                    .push((rule.prefix.clone(), source, place.to_string()));
            }
        }
    }

    /// Claims the path of a machine for the current entry, if machine ids are paths.
    pub(super) fn machine(
        &mut self,
        machine: &MachineId,
        source: &'t str,
        place: Place<'_>,
        report: &mut Report<'t>,
    ) {
        let current = self.current();
        let Some(machines) = &mut self.machines else {
            return;
        };
        if let Some(owner) = machines.insert(machine.clone(), current) {
            let refusal = Refusal::new(
                format!(
                    "machine {machine} is cell {}'s, too, so that /{machine} names neither",
                    self.owner(owner)
                ),
                "give each cell a machine of its own, or turn machine_paths off",
            );
            report.add(source, place, refusal);
        }
    }

    /// Reports the prefixes that turned out to hide a machine.
    pub(super) fn finish(&mut self, report: &mut Report<'t>) {
        let Some(machines) = &self.machines else {
            return;
        };
        for (prefix, source, path) in std::mem::take(&mut self.doubtful) {
            if machines.contains_key(prefix.first_segment()) {
                report.add_written(source, path, like_machine(prefix.first_segment()));
            }
        }
    }

    fn taken(&self, what: &str, owner: u32) -> Refusal {
        if owner == self.current() {
            return Refusal::new(
                format!("{} is in this list twice", quoted(what)),
                "keep one of the two",
            );
        }
        Refusal::new(
            format!(
                "{} belongs to cell {} already",
                quoted(what),
                self.owner(owner)
            ),
            "take it out of one of the two cells",
        )
    }
}

/// The name of an entry for a message, from its key as written, which may be no good one.
pub(super) fn named(key: &str) -> String {
    json::string(key).map_or_else(|_| quoted(key), |name| quoted(&name))
}

/// The name of the cell that answers at `host` as a subdomain, whether it exists or not.
pub(super) fn subdomain<'a>(host: &'a HostName, domain: Option<&HostName>) -> Option<&'a str> {
    below(host.as_str(), domain?).filter(|label| !label.contains('.'))
}

/// Whether a prefix with this first segment could not be told from the path of some machine.
pub(super) fn looks_like_machine(segment: &str) -> bool {
    MachineId::parse(segment).is_ok() && MachineId::resembles(segment)
}

pub(super) fn like_machine(segment: &str) -> Refusal {
    Refusal::new(
        format!("/{segment} is the path of a machine while machine_paths is on"),
        "choose another prefix, or turn machine_paths off",
    )
}
