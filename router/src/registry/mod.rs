//! What we know: the cells, and which of them a host and a path choose.
//!
//! Owns the file format, its problems, and one immutable snapshot of it. It must never do I/O, read a clock or an
//! environment, or know what becomes of a request once its cell is found.
//!
//! # Which cell
//! 1. A host that a cell lists exactly.
//! 2. `<cell>.<domain>`.
//! 3. On the domain itself and on the path hosts, the path: the longest prefix that matches whole segments, then, where
//!    the registry turns it on, the machine id that is the first segment.
//! 4. A wildcard `*.x.y`, for exactly one label before `x.y`. As in DNS, every exact name goes before it.
//! 5. The default cell, if there is one.
//!
//! Below the domain, a label and all that is below it is for the cell of that name only, whether it exists yet or not:
//! otherwise a host in one entry would take the place, and the cookies, of a tenant who comes later.

mod cell;
pub mod edit;
mod fields;
mod files;
mod host;
mod index;
mod json;
mod name;
mod parse;
mod path;
mod problem;
mod schema;
mod sign_in;
mod table;
#[cfg(test)]
mod tests;
mod version;

pub use self::cell::{
    Admission, Cell, Identity, Limits, PathRule, Placement, Policy, Protocol, Replay, SecretSource,
    Tls, TrustSource, WakeFor,
};
pub use self::files::{Files, Missing};
pub use self::host::{HostFault, HostName, HostRule};
pub use self::index::{Lookup, Registry, Route};
pub use self::name::{AppName, CellName, MachineId};
pub use self::path::{PathFault, PathPrefix};
pub use self::problem::{Fault, Flag, Problem, Refusal};
pub use self::schema::schema;
pub use self::sign_in::{PlainPath, SignIn, SignInBy};
pub use self::version::{NoVersion, Version};
