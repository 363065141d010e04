//! `cell-router check`.

use std::path::PathBuf;

use cell_router::control::check;
use clap::Args;

use super::failure::Failure;
use super::output::print;

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The registry file.
    #[arg(env = "CELL_ROUTER_REGISTRY", default_value = "registry.json")]
    file: PathBuf,
}

pub(super) fn check(arguments: &Check) -> Result<(), Failure> {
    let file = &arguments.file;
    let registry = check::check(file).map_err(|error| {
        let lines = error.lines(file);
        let plural = if lines.len() == 1 {
            "problem"
        } else {
            "problems"
        };
        format!("{}\n{} {plural}", lines.join("\n"), lines.len())
    })?;
    print(&format!(
        "{}: {} cells, no problem\n",
        file.display(),
        registry.len()
    ))
}
