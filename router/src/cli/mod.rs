//! The commands. Exit codes: 0 done, 1 not done or a difference found, 2 a command line that is none, 3 a conflict with
//! somebody else's edit, 4 a confirmation is wanted, 5 no such cell or version.

mod backend;
mod cell;
mod check;
mod editing;
mod explain;
mod failure;
mod listing;
mod output;
mod registry;
mod remote;
mod serve;
mod simulate;
mod token;

use std::process::ExitCode;

use cell_router::config::Settings;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use self::failure::Failure;
use self::output::print;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 not done or a difference found, 2 wrong command line, 3 somebody else has \
                          edited, 4 confirm it, 5 no such cell or version.";

/// The front door for applications that give every tenant a machine of its own.
#[derive(Debug, Parser)]
#[command(name = "cell-router", version, about, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    which: remote::Which,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests.
    Serve(Box<Settings>),
    /// List, show and edit cells.
    #[command(subcommand)]
    Cell(cell::Command),
    /// Edit the registry as a whole, and its history.
    #[command(subcommand)]
    Registry(registry::Command),
    /// Check a registry file: all problems of its text at once, each at its place; secrets and files that it names are not looked
    /// at. Exit code 1 if there is any.
    Check(check::Check),
    /// Say where a request would go and why, by the same decision that the router takes.
    Explain(Box<explain::Explain>),
    /// Say which requests of an access log would go elsewhere by a draft of the registry. Exit code 1 if any would.
    Simulate(simulate::Simulate),
    /// Print the registry's JSON Schema.
    Schema,
    /// Print the admin API's OpenAPI document.
    Openapi,
    /// Make a token for the admin listener: the token to standard error, its line for the file to standard output.
    Token(token::Token),
    /// Print a script that completes commands in a shell.
    Completions(Completions),
}

#[derive(Debug, Args)]
struct Completions {
    /// The shell.
    shell: Shell,
}

impl Command {
    /// Whether programs read what is said.
    fn json(&self) -> bool {
        match self {
            Self::Cell(command) => command.json(),
            Self::Registry(command) => command.json(),
            Self::Explain(arguments) => arguments.json,
            Self::Simulate(arguments) => arguments.json,
            Self::Serve(_)
            | Self::Check(_)
            | Self::Schema
            | Self::Openapi
            | Self::Token(_)
            | Self::Completions(_) => false,
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let Cli { which, command } = Cli::parse();
    let json = command.json();
    let outcome = match command {
        Command::Serve(settings) => serve::serve(*settings),
        Command::Cell(command) => cell::run(command, &which),
        Command::Registry(command) => registry::run(command, &which),
        Command::Check(arguments) => check::check(&arguments),
        Command::Explain(arguments) => explain::explain(*arguments, &which),
        Command::Simulate(arguments) => simulate::simulate(&arguments, &which),
        Command::Schema => print(&cell_router::registry::schema()),
        Command::Openapi => print(&cell_router::admin::document()),
        Command::Token(arguments) => token::token(&arguments),
        Command::Completions(arguments) => completions(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(json),
    }
}

fn completions(arguments: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "cell-router",
        &mut script,
    );
    print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_in_the_documents_is_one() {
        let mut commands = 0;
        for document in [
            include_str!("../../../docs/operating.md"),
            include_str!("../../../README.md"),
        ] {
            let lines = document.lines().filter_map(|line| {
                let line = line.split(" &").next()?;
                line.strip_prefix("cargo run --bin cell-router -- ")
                    .or_else(|| line.strip_prefix("cell-router "))
            });
            for line in lines {
                let words = line.split_whitespace().map(|word| word.trim_matches('\''));
                let parsed = Cli::try_parse_from(["cell-router"].into_iter().chain(words));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                commands += 1;
            }
        }
        assert!(commands > 30, "the commands were not found");
    }
}
