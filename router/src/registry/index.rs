//! The snapshot and its lookup: a few hash look-ups, whatever the number of cells.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::cell::Cell;
use super::host::{HostFault, HostName, below};
use super::name::MachineId;
use super::parse;
use super::path::{self, PathFault, PathPrefix};
use super::problem::{Fault, Flag, Problem};
use crate::steps;

/// An immutable snapshot of a registry file. Share it as `Arc<Registry>`. The default has no cells.
///
/// Invariant, upheld by the parser: every index is one of `cells`.
#[derive(Default)]
pub struct Registry {
    /// In the order of the file.
    pub(super) cells: Box<[Arc<Cell>]>,
    pub(super) names: HashSet<ByName>,
    pub(super) hosts: HashMap<HostName, u32>,
    pub(super) wildcards: HashMap<HostName, u32>,
    /// The owner of each prefix, and whether it is stripped.
    pub(super) prefixes: HashMap<PathPrefix, (u32, bool)>,
    /// Those of them that lie above another one.
    pub(super) shared: HashSet<PathPrefix>,
    /// In bytes: no boundary beyond it is looked at.
    pub(super) longest_prefix: usize,
    /// Empty unless machine ids are paths.
    pub(super) machines: HashMap<MachineId, u32>,
    pub(super) domain: Option<HostName>,
    pub(super) path_hosts: HashSet<HostName>,
    pub(super) default_cell: Option<Arc<Cell>>,
    /// The folder of pages for requests that no cell has.
    pub(super) pages: Option<Arc<str>>,
}

/// What a host and a path choose.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup<'r> {
    /// A cell.
    Cell {
        /// The cell.
        cell: &'r Arc<Cell>,
        /// What chose it.
        route: Route<'r>,
    },
    /// The router itself: the host chooses no cell, and the path is reserved (`/up`, `/-`, `/.well-known` and below); or,
    /// whatever the host, it is where cells answer the router's challenge.
    Router,
    /// The path chooses the tenant here and could be read in two ways. The answer is 400.
    Ambiguous(PathFault),
    /// The host is none. The answer is 400.
    BadHost(HostFault),
    /// Nothing. The answer is 404.
    Nowhere,
}

/// What chose a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'r> {
    /// A host that the cell lists.
    Host,
    /// A wildcard that the cell lists.
    Wildcard,
    /// The cell's name before the domain.
    Subdomain,
    /// A path prefix.
    Path {
        /// The prefix as the registry has it, a prefix of the request's path, too.
        prefix: &'r str,
        /// Whether the cell sees the path without it; what then is left is empty or begins with `/`.
        strip: bool,
    },
    /// The id of the cell's machine as the first segment; it stays.
    MachinePath,
    /// Nothing else did, and the registry names a default.
    Default,
}

impl Registry {
    /// Reads a registry from the text of its file.
    ///
    /// # Errors
    /// With every problem of the text, in its order; then there is no registry.
    pub fn parse(text: &[u8]) -> Result<Registry, Vec<Problem>> {
        parse::parse(text, &<Registry as Default>::default())
    }

    /// Reads a registry of which entries may be broken: each is flagged, and its cell stays as it was in `last` if it was
    /// there, with all its hosts, prefixes and its machine; else it is left out. `faults` are broken, too, whatever
    /// their text. Of two entries that claim the same thing the one that had it in `last` is good, else the first.
    ///
    /// # Errors
    /// With every problem of the text, in its order, where it is broken outside its entries, or the last good version of
    /// an entry does not fit it any more.
    pub fn parse_beside(
        text: &[u8],
        last: &Registry,
        faults: &[Fault],
    ) -> Result<(Registry, Vec<Flag>), Vec<Problem>> {
        parse::parse_beside(text, last, faults)
    }

    /// Lets go of it: of a large one that takes a while, which whoever waits for the core does not have to wait for.
    pub fn let_go(self) {
        let Self {
            cells,
            names,
            hosts,
            wildcards,
            prefixes,
            machines,
            ..
        } = self;
        steps::let_go(names);
        steps::let_go(cells.into_vec());
        steps::let_go(hosts);
        steps::let_go(wildcards);
        steps::let_go(prefixes);
        steps::let_go(machines);
    }

    /// Finds the cell for a raw `Host` or `:authority` value and a path without query.
    ///
    /// The cost does not depend on the number of cells. Allocates only if the host has upper-case letters.
    pub fn lookup(&self, host: &str, path: &str) -> Lookup<'_> {
        let host = match HostName::normalise(host) {
            Ok(host) => host,
            Err(fault) => return Lookup::BadHost(fault),
        };
        let host = &*host;
        if path::asks_identity(path) {
            return Lookup::Router;
        }
        if let Some(index) = self.hosts.get(host) {
            return self.found(*index, Route::Host);
        }
        if self.is_path_host(host) {
            return self.by_path(path);
        }
        if let Some(label) = self.domain.as_ref().and_then(|domain| below(host, domain))
            && let Some(ByName(cell)) = self.names.get(label)
        {
            return Lookup::Cell {
                cell,
                route: Route::Subdomain,
            };
        }
        if let Some((_, parent)) = host.split_once('.')
            && let Some(index) = self.wildcards.get(parent)
        {
            return self.found(*index, Route::Wildcard);
        }
        if path::is_reserved(path) {
            return Lookup::Router;
        }
        self.default()
    }

    /// The cell of this name.
    pub fn cell(&self, name: &str) -> Option<&Arc<Cell>> {
        self.names.get(name).map(|ByName(cell)| cell)
    }

    /// All cells, in the order of the file.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = &Arc<Cell>> {
        self.cells.iter()
    }

    /// The number of cells.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are no cells.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The domain below which every cell answers at its name.
    pub fn domain(&self) -> Option<&HostName> {
        self.domain.as_ref()
    }

    /// The cell that gets what nothing else chooses.
    pub fn default_cell(&self) -> Option<&Arc<Cell>> {
        self.default_cell.as_ref()
    }

    /// The folder of pages for requests that no cell has.
    pub fn pages(&self) -> Option<&Arc<str>> {
        self.pages.as_ref()
    }

    /// Whether every path at or below a cell's prefix is chosen by that prefix.
    pub fn is_exclusive(&self, prefix: &str) -> bool {
        !self.shared.contains(prefix)
    }

    fn is_path_host(&self, host: &str) -> bool {
        self.domain
            .as_ref()
            .is_some_and(|domain| domain.as_str() == host)
            || self.path_hosts.contains(host)
    }

    fn by_path(&self, path: &str) -> Lookup<'_> {
        if let Some(fault) = path::fault(path) {
            return Lookup::Ambiguous(fault);
        }
        if path::is_reserved(path) {
            return Lookup::Router;
        }
        if let Some((prefix, (index, strip))) = self.longest_match(path) {
            let prefix = prefix.as_str();
            let strip = *strip;
            return self.found(*index, Route::Path { prefix, strip });
        }
        let machine = path::first_segment(path).and_then(|segment| self.machines.get(segment));
        match machine {
            Some(index) => self.found(*index, Route::MachinePath),
            None => self.default(),
        }
    }

    fn longest_match(&self, path: &str) -> Option<(&PathPrefix, &(u32, bool))> {
        let mut end = path.len();
        loop {
            if end <= self.longest_prefix
                && let Some(entry) = self.prefixes.get_key_value(&path[..end])
            {
                return Some(entry);
            }
            // The next boundary to the left; none beyond the longest prefix can matter.
            let within = end.min(self.longest_prefix + 1);
            end = path.as_bytes()[..within]
                .iter()
                .rposition(|byte| *byte == b'/')?;
        }
    }

    fn found<'r>(&'r self, index: u32, route: Route<'r>) -> Lookup<'r> {
        match self.cells.get(index as usize) {
            Some(cell) => Lookup::Cell { cell, route },
            None => Lookup::Nowhere,
        }
    }

    fn default(&self) -> Lookup<'_> {
        match &self.default_cell {
            Some(cell) => Lookup::Cell {
                cell,
                route: Route::Default,
            },
            None => Lookup::Nowhere,
        }
    }
}

/// The prefixes that lie above another one.
pub(super) fn shared(prefixes: &HashMap<PathPrefix, (u32, bool)>) -> HashSet<PathPrefix> {
    let above = prefixes.keys().flat_map(|prefix| {
        let text = prefix.as_str();
        let ends = text.match_indices('/').skip(1);
        ends.filter_map(|(end, _)| prefixes.get_key_value(&text[..end]))
    });
    above.map(|(prefix, _)| prefix.clone()).collect()
}

/// Says how much it holds, not all of it: a registry may have a million cells.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("domain", &self.domain)
            .field("cells", &self.cells.len())
            .finish_non_exhaustive()
    }
}

/// A cell that is found by its name; the name is not stored a second time.
pub(super) struct ByName(pub(super) Arc<Cell>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name.as_str()
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.as_str().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}
