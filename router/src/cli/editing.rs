//! What all commands that edit have in common.

use std::path::PathBuf;

use cell_router::control::store::{By, Edit, Proposal, Store, propose, who};
use cell_router::registry::Version;
use cell_router::registry::edit::{Change, Operation};
use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::output::{changes, print, print_json};

/// Which registry.
#[derive(Debug, Clone, Args)]
pub(super) struct Which {
    /// The registry file.
    #[arg(long, env = "CELL_ROUTER_REGISTRY", default_value = "registry.json")]
    pub(super) registry: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// How to edit.
#[derive(Debug, Clone, Args)]
pub(super) struct Editing {
    #[command(flatten)]
    pub(super) which: Which,
    /// Edit only if the registry is at this version still, as `cell show` and `registry history` print it.
    #[arg(long, value_name = "VERSION")]
    pub(super) if_version: Option<Version>,
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Yes, so many cells are to be removed or disabled.
    #[arg(long)]
    confirm_unplug: bool,
    /// The share of cells, in percent, that may be removed or disabled without --confirm-unplug.
    #[arg(long, env = "CELL_ROUTER_MAX_UNPLUG_PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100))]
    max_unplug_percent: u32,
}

/// What was done, for programs.
#[derive(Serialize)]
struct Done<'a> {
    changed: bool,
    dry_run: bool,
    before: String,
    version: String,
    changes: &'a [Change],
}

impl Editing {
    /// The registry.
    pub(super) fn store(&self) -> Store {
        Store::new(&self.which.registry)
    }

    /// The edit that these operations are.
    pub(super) fn edit(&self, operations: Vec<Operation>) -> Edit {
        Edit {
            operations,
            based_on: self.if_version,
            confirmed: self.confirm_unplug,
            max_unplug_percent: self.max_unplug_percent,
        }
    }

    /// Edits, and says what changed.
    pub(super) fn run(&self, through: &str, operations: Vec<Operation>) -> Result<(), Failure> {
        let (store, edit) = (self.store(), self.edit(operations));
        let proposal = if self.dry_run {
            propose(&store.read()?, &edit)?
        } else {
            store.edit(&edit, &by(through))?
        };
        self.tell(&proposal)
    }

    /// Says what was done.
    pub(super) fn tell(&self, proposal: &Proposal) -> Result<(), Failure> {
        let changed = proposal.before != proposal.version;
        if self.which.json {
            return print_json(&Done {
                changed,
                dry_run: self.dry_run,
                before: proposal.before.to_string(),
                version: proposal.version.to_string(),
                changes: &proposal.changes,
            });
        }
        let Proposal {
            before, version, ..
        } = proposal;
        let end = match (changed, self.dry_run) {
            (false, _) => format!("nothing changes; the registry is at version {version}\n"),
            (true, false) => format!("the registry was at version {before}, and is at {version}\n"),
            (true, true) => format!("nothing was changed: the registry is at version {before}\n"),
        };
        print(&(changes(&proposal.changes) + &end))
    }
}

/// Who runs this command.
pub(super) fn by(through: &str) -> By {
    By {
        who: who(|name| std::env::var(name).ok()),
        through: through.to_owned(),
    }
}
