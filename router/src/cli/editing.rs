//! What all commands that edit have in common.

use std::path::PathBuf;

use cell_router::admin::edits::Outcome;
use cell_router::control::store::Edit;
use cell_router::registry::Version;
use cell_router::registry::edit::Operation;
use clap::Args;

use super::backend::Backend;
use super::failure::Failure;
use super::output::{changes, print, print_json};
use super::remote;

/// Which registry.
#[derive(Debug, Clone, Args)]
pub(super) struct Which {
    /// The registry: a file, or s3://BUCKET/KEY, as for serve.
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
    /// The share of cells, in percent, that may be removed or disabled without --confirm-unplug. A running router goes by its
    /// own.
    #[arg(long, env = "CELL_ROUTER_MAX_UNPLUG_PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100))]
    max_unplug_percent: u32,
}

impl Editing {
    /// The registry.
    pub(super) fn backend(&self, which: &remote::Which) -> Result<Backend, Failure> {
        Backend::new(&self.which.registry, which)
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
    pub(super) fn run(
        &self,
        which: &remote::Which,
        through: &str,
        operations: Vec<Operation>,
    ) -> Result<(), Failure> {
        let edit = self.edit(operations);
        self.tell(&self.backend(which)?.edit(through, &edit, self.dry_run)?)
    }

    /// Says what was done.
    pub(super) fn tell(&self, outcome: &Outcome) -> Result<(), Failure> {
        if self.which.json {
            return print_json(outcome);
        }
        let Outcome {
            before, version, ..
        } = outcome;
        let end = match (outcome.changed, self.dry_run) {
            (false, _) => format!("nothing changes; the registry is at version {version}\n"),
            (true, false) => format!("the registry was at version {before}, and is at {version}\n"),
            (true, true) => format!("nothing was changed: the registry is at version {before}\n"),
        };
        print(&(changes(&outcome.changes) + &end))
    }
}
