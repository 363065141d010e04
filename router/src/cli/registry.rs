//! `cell-router registry`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use cell_router::admin::edits::Past;
use cell_router::control::store::propose;
use cell_router::registry::edit::{Operation, changes};
use cell_router::registry::{CellName, Version};
use clap::{Args, Subcommand};

use super::backend::Backend;
use super::editing::{Editing, Which};
use super::failure::Failure;
use super::output::{self, print, print_json, table};
use super::remote;

/// What can be done with the registry as a whole.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what differs between two versions. Exit code 1 if anything does.
    Diff(Diff),
    /// List the versions: when, by whom, through what, and what changed. The newest comes last.
    History(History),
    /// Bring back an earlier version.
    Undo(Undo),
    /// Write the file in one style, in its own order.
    Format(Format),
    /// Edit the file in $VISUAL or $EDITOR, and have it checked before it counts.
    Edit(Edit),
    /// Put another file in place of the registry.
    Apply(Apply),
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    #[command(flatten)]
    which: Which,
    /// A version; the one before the newest on record unless given.
    from: Option<Version>,
    /// Another; what the file is now unless given.
    to: Option<Version>,
    /// A draft, in place of what the file is now.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    draft: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    which: Which,
    /// Only so many, the newest.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    last: usize,
    /// Only what changed this cell.
    #[arg(long, value_name = "NAME", value_parser = super::cell::cell_name)]
    cell: Option<CellName>,
}

#[derive(Debug, Args)]
pub(super) struct Undo {
    #[command(flatten)]
    editing: Editing,
    /// The version; the one before the newest unless given.
    version: Option<Version>,
}

#[derive(Debug, Args)]
pub(super) struct Format {
    #[command(flatten)]
    editing: Editing,
    /// Only say whether it is formatted: exit code 1 if not.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
pub(super) struct Edit {
    #[command(flatten)]
    editing: Editing,
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    editing: Editing,
    /// The file; - is standard input.
    file: PathBuf,
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Diff(Diff { which, .. }) | Self::History(History { which, .. }) => which.json,
            Self::Undo(Undo { editing, .. })
            | Self::Format(Format { editing, .. })
            | Self::Edit(Edit { editing })
            | Self::Apply(Apply { editing, .. }) => editing.which.json,
        }
    }
}

pub(super) fn run(command: Command, router: &remote::Which) -> Result<(), Failure> {
    match command {
        Command::Diff(arguments) => diff(&arguments, router),
        Command::History(arguments) => history(&arguments, router),
        Command::Undo(arguments) => undo(&arguments, router),
        Command::Format(arguments) => format(&arguments, router),
        Command::Edit(arguments) => edit(&arguments.editing, router),
        Command::Apply(arguments) => apply(&arguments, router),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map(|_| text)
    } else {
        fs::read(path)
    };
    read.map_err(|error| format!("{}: {error}", path.display()).into())
}

fn diff(arguments: &Diff, router: &remote::Which) -> Result<(), Failure> {
    let store = Backend::new(&arguments.which.registry, router)?;
    let to = match (arguments.to, &arguments.draft) {
        (Some(version), _) => store.text_of(version)?,
        (None, Some(draft)) => read(draft)?,
        (None, None) => store.read()?,
    };
    let from = match (arguments.from, &arguments.draft) {
        (Some(version), _) => store.text_of(version)?,
        (None, Some(_)) => store.read()?,
        (None, None) => store.before(arguments.to, &to)?,
    };
    let found = changes(&from, &to);
    if arguments.which.json {
        print_json(&serde_json::json!({
            "from": Version::of(&from).to_string(), "to": Version::of(&to).to_string(), "changes": found,
        }))?;
    } else {
        print(&output::changes(&found))?;
        if found.is_empty() && from != to {
            print("the layout only\n")?;
        }
    }
    if from == to {
        Ok(())
    } else {
        Err(Failure::differs())
    }
}

fn history(arguments: &History, router: &remote::Which) -> Result<(), Failure> {
    let store = Backend::new(&arguments.which.registry, router)?;
    let shown = store.versions(arguments.last, arguments.cell.as_ref())?;
    if arguments.which.json {
        return print_json(&shown);
    }
    let row = |record: &Past| {
        let what = record.what.join(", ");
        let texts = [
            &record.version,
            &record.at,
            &record.who,
            &record.through,
            &what,
        ];
        texts.map(|text| (text.clone(), None)).to_vec()
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    print(&table(&["VERSION", "AT", "WHO", "THROUGH", "WHAT"], &rows))
}

fn undo(arguments: &Undo, router: &remote::Which) -> Result<(), Failure> {
    let Undo { editing, version } = arguments;
    let edit = editing.edit(Vec::new());
    let backend = editing.backend(router)?;
    editing.tell(&backend.undo(*version, &edit, editing.dry_run)?)
}

fn format(arguments: &Format, router: &remote::Which) -> Result<(), Failure> {
    let Format { editing, check } = arguments;
    if *check {
        let proposal = propose(
            &editing.backend(router)?.read()?,
            &editing.edit(vec![Operation::Format]),
        )?;
        return if proposal.before == proposal.version {
            Ok(())
        } else {
            let file = editing.which.registry.display();
            Err(format!("{file}: it is not formatted; cell-router registry format does it").into())
        };
    }
    editing.run(router, "registry format", vec![Operation::Format])
}

fn apply(arguments: &Apply, router: &remote::Which) -> Result<(), Failure> {
    let text = read(&arguments.file)?;
    let operations = vec![Operation::Replace { text }];
    arguments.editing.run(router, "registry apply", operations)
}

/// Edits a copy, and puts it in place if nobody else has edited meanwhile. What is refused is kept for another try.
fn edit(editing: &Editing, router: &remote::Which) -> Result<(), Failure> {
    let text = editing.backend(router)?.read()?;
    let version = Version::of(&text);
    let name = format!("registry-{version}-{}.json", std::process::id());
    let copy = std::env::temp_dir().join(name);
    let file_failed = |error| Failure::from(format!("{}: {error}", copy.display()));
    let mut options = fs::OpenOptions::new();
    // Nobody else's file, and no link to one.
    let mut fresh = options
        .write(true)
        .create_new(true)
        .open(&copy)
        .map_err(file_failed)?;
    fresh.write_all(&text).map_err(file_failed)?;
    drop(fresh);
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "vi".to_owned());
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(&copy)
        .status()
        .map_err(|error| format!("{editor}: {error}"))?;
    if !status.success() {
        return Err(format!("{editor} ended with {status}: nothing was changed").into());
    }
    let operations = vec![Operation::Replace {
        text: fs::read(&copy).map_err(file_failed)?,
    }];
    let mut based = editing.clone();
    based.if_version = editing.if_version.or(Some(version));
    match based.run(router, "registry edit", operations) {
        Ok(()) => fs::remove_file(&copy).map_err(file_failed),
        Err(failure) => {
            eprintln!("what you wrote is in {}", copy.display());
            Err(failure)
        }
    }
}
