//! `token`: one more who may ask the admin listener.

use cell_router::admin::access::{NewToken, Role};
use clap::Args;

use super::failure::Failure;
use super::output::print;

#[derive(Debug, Args)]
pub(super) struct Token {
    /// Whose it is: one word, as it appears in the log.
    name: String,
    /// What it allows.
    #[arg(long, value_enum, default_value_t = Role::Read)]
    role: Role,
}

/// The file gets only the line: the token itself is shown once, to whoever runs the command.
pub(super) fn token(arguments: &Token) -> Result<(), Failure> {
    let NewToken { token, line } =
        NewToken::new(&arguments.name, arguments.role).map_err(Failure::from)?;
    eprintln!("{token}");
    print(&format!("{line}\n"))
}
