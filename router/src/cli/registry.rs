//! `cell-router registry`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use cell_router::control::store::history::Record;
use cell_router::control::store::{Store, propose};
use cell_router::registry::Version;
use cell_router::registry::edit::{Operation, changes};
use clap::{Args, Subcommand};

use super::editing::{Editing, Which, by};
use super::failure::{Failure, Kind};
use super::output::{self, print, print_json, table};

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
    #[arg(long, value_name = "NAME")]
    cell: Option<String>,
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

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Diff(arguments) => diff(&arguments),
        Command::History(arguments) => history(&arguments),
        Command::Undo(arguments) => undo(&arguments),
        Command::Format(arguments) => format(&arguments),
        Command::Edit(arguments) => edit(&arguments.editing),
        Command::Apply(arguments) => apply(&arguments),
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

fn diff(arguments: &Diff) -> Result<(), Failure> {
    let store = Store::new(&arguments.which.registry);
    let to = match (arguments.to, &arguments.draft) {
        (Some(version), _) => store.text_of(version)?,
        (None, Some(draft)) => read(draft)?,
        (None, None) => store.read()?,
    };
    let from = match (arguments.from, &arguments.draft) {
        (Some(version), _) => store.text_of(version)?,
        (None, Some(_)) => store.read()?,
        (None, None) => before(&store, Version::of(&to))?,
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

/// The newest text on record that is not this one.
fn before(store: &Store, now: Version) -> Result<Vec<u8>, Failure> {
    let records = store.records()?;
    let before = records.iter().rev().find(|record| record.version != now);
    match before {
        Some(before) => Ok(store.text_of(before.version)?),
        None => Err(Failure::new(
            Kind::NotFound,
            "the history has nothing before this version",
        )),
    }
}

fn history(arguments: &History) -> Result<(), Failure> {
    let store = Store::new(&arguments.which.registry);
    let records = store.records()?;
    let touches = |record: &&Record| {
        arguments.cell.as_ref().is_none_or(|cell| {
            let (inside, whole) = (format!(" cells.{cell}."), format!(" cells.{cell}:"));
            let mut what = record.what.iter();
            what.any(|what| what.contains(&inside) || what.contains(&whole))
        })
    };
    let found: Vec<_> = records.iter().filter(touches).collect();
    let shown = &found[found.len().saturating_sub(arguments.last)..];
    if arguments.which.json {
        let lines: Vec<_> = shown
            .iter()
            .map(|record| {
                serde_json::json!({
                    "at": record.at, "who": record.who, "through": record.through, "what": record.what,
                    "version": record.version.to_string(), "of": record.of.map(|of| of.to_string()),
                    "confirmed": record.confirmed,
                })
            })
            .collect();
        return print_json(&lines);
    }
    let row = |record: &&Record| {
        let what = record.what.join(", ");
        let texts = [
            &record.version.to_string(),
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

fn undo(arguments: &Undo) -> Result<(), Failure> {
    let Undo { editing, version } = arguments;
    let (store, edit) = (editing.store(), editing.edit(Vec::new()));
    if editing.dry_run {
        let text = store.read()?;
        let then = match version {
            Some(version) => store.text_of(*version)?,
            None => before(&store, Version::of(&text))?,
        };
        let edit = editing.edit(vec![Operation::Replace { text: then }]);
        return editing.tell(&propose(&text, &edit)?);
    }
    editing.tell(&store.undo(*version, &edit, &by("registry undo"))?)
}

fn format(arguments: &Format) -> Result<(), Failure> {
    let Format { editing, check } = arguments;
    if *check {
        let proposal = propose(
            &editing.store().read()?,
            &editing.edit(vec![Operation::Format]),
        )?;
        return if proposal.before == proposal.version {
            Ok(())
        } else {
            let file = editing.which.registry.display();
            Err(format!("{file}: it is not formatted; cell-router registry format does it").into())
        };
    }
    editing.run("registry format", vec![Operation::Format])
}

fn apply(arguments: &Apply) -> Result<(), Failure> {
    let text = read(&arguments.file)?;
    let operations = vec![Operation::Replace { text }];
    arguments.editing.run("registry apply", operations)
}

/// Edits a copy, and puts it in place if nobody else has edited meanwhile. What is refused is kept for another try.
fn edit(editing: &Editing) -> Result<(), Failure> {
    let text = editing.store().read()?;
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
    match based.run("registry edit", operations) {
        Ok(()) => fs::remove_file(&copy).map_err(file_failed),
        Err(failure) => {
            eprintln!("what you wrote is in {}", copy.display());
            Err(failure)
        }
    }
}
