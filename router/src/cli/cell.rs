//! `cell-router cell`.

use cell_router::registry::edit::{Operation, value_for};
use cell_router::registry::{Admission, CellName};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::backend::Backend;
use super::editing::{Editing, Which};
use super::failure::{Failure, Kind};
use super::listing::{self, List, Show};
use super::output::{print, print_json};
use super::remote;

/// What can be done with cells.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List cells.
    List(List),
    /// Show one cell with all that holds for it.
    Show(Show),
    /// Add a cell.
    Add(Add),
    /// Set keys of a cell's entry.
    Set(Set),
    /// Rename a cell. Where its secret is looked for may depend on its name.
    Rename(Rename),
    /// Remove cells; their tunnels are closed politely.
    Remove(Cells),
    /// Let requests wait, while the cell is replaced or moved.
    Pause(Cells),
    /// Serve again, after pause.
    Resume(Cells),
    /// Answer 503 with a page that says so.
    Maintenance(Cells),
    /// Answer 403.
    Disable(Cells),
    /// Serve again, after disable or maintenance.
    Enable(Cells),
    /// Start a cell's machine and wait until the cell answers. Needs --url.
    Wake(Machine),
    /// Stop a cell's machine, unless the router has a request for it; the next one wakes it. Needs --url.
    Sleep(Machine),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    #[command(flatten)]
    editing: Editing,
    /// Its name.
    #[arg(value_parser = cell_name)]
    cell: CellName,
    /// Keys of its entry, as in machine=3d8d9e67c2e123 or hosts=www.alice.org,alice.org.
    #[arg(value_name = "KEY=VALUE", value_parser = assignment)]
    keys: Vec<Assignment>,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    #[command(flatten)]
    editing: Editing,
    /// The cell.
    #[arg(value_parser = cell_name)]
    cell: CellName,
    /// KEY=VALUE, KEY+=ITEM and KEY-=ITEM for lists. A dot reaches into objects, as in secret.env=ALICE; a value may be
    /// JSON.
    #[arg(value_name = "KEY=VALUE", value_parser = assignment, required_unless_present = "unset")]
    keys: Vec<Assignment>,
    /// A key to take out, so that the default holds again; may be given more than once.
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Rename {
    #[command(flatten)]
    editing: Editing,
    /// Its name so far.
    #[arg(value_parser = cell_name)]
    from: CellName,
    /// Its new name.
    #[arg(value_parser = cell_name)]
    to: CellName,
}

#[derive(Debug, Args)]
pub(super) struct Cells {
    #[command(flatten)]
    editing: Editing,
    /// The cells; all or none of them change.
    #[arg(required = true, value_parser = cell_name)]
    cells: Vec<CellName>,
}

#[derive(Debug, Args)]
pub(super) struct Machine {
    #[command(flatten)]
    which: Which,
    /// The cell.
    #[arg(value_parser = cell_name)]
    cell: CellName,
}

/// `KEY=VALUE`, `KEY+=VALUE` or `KEY-=VALUE`.
#[derive(Debug, Clone)]
struct Assignment {
    keys: Vec<String>,
    how: How,
    value: String,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Set,
    Append,
    Discard,
}

pub(super) fn cell_name(text: &str) -> Result<CellName, String> {
    CellName::parse(text).map_err(|refusal| refusal.to_string())
}

fn assignment(text: &str) -> Result<Assignment, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| "write KEY=VALUE".to_owned())?;
    let (key, how) = match (key.strip_suffix('+'), key.strip_suffix('-')) {
        (Some(key), _) => (key, How::Append),
        (None, Some(key)) => (key, How::Discard),
        (None, None) => (key, How::Set),
    };
    let keys = keys(key)?;
    let value = value_for(&keys, value);
    Ok(Assignment { keys, how, value })
}

fn keys(key: &str) -> Result<Vec<String>, String> {
    let keys: Vec<_> = key.split('.').map(str::to_owned).collect();
    if keys.iter().any(String::is_empty) {
        return Err(format!("{key:?} is no key"));
    }
    Ok(keys)
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::List(list) => list.which.json,
            Self::Show(show) => show.which.json,
            Self::Wake(machine) | Self::Sleep(machine) => machine.which.json,
            Self::Add(Add { editing, .. })
            | Self::Set(Set { editing, .. })
            | Self::Rename(Rename { editing, .. })
            | Self::Remove(Cells { editing, .. })
            | Self::Pause(Cells { editing, .. })
            | Self::Resume(Cells { editing, .. })
            | Self::Maintenance(Cells { editing, .. })
            | Self::Disable(Cells { editing, .. })
            | Self::Enable(Cells { editing, .. }) => editing.which.json,
        }
    }
}

pub(super) fn run(command: Command, which: &remote::Which) -> Result<(), Failure> {
    match command {
        Command::List(list) => listing::list(&list, which),
        Command::Show(show) => listing::show(&show, which),
        Command::Add(add) => {
            let operation = Operation::Add {
                entry: entry(&add.keys)?,
                cell: add.cell,
            };
            add.editing.run(which, "cell add", vec![operation])
        }
        Command::Set(set) => {
            let operations = sets(&set)?;
            set.editing.run(which, "cell set", operations)
        }
        Command::Rename(Rename { editing, from, to }) => {
            editing.run(which, "cell rename", vec![Operation::Rename { from, to }])
        }
        Command::Remove(Cells { editing, cells }) => {
            let remove = |cell| Operation::Remove { cell };
            editing.run(
                which,
                "cell remove",
                cells.into_iter().map(remove).collect(),
            )
        }
        Command::Pause(cells) => state(which, "cell pause", cells, Admission::Paused),
        Command::Resume(cells) => state(which, "cell resume", cells, Admission::Active),
        Command::Maintenance(cells) => {
            state(which, "cell maintenance", cells, Admission::Maintenance)
        }
        Command::Disable(cells) => state(which, "cell disable", cells, Admission::Disabled),
        Command::Enable(cells) => state(which, "cell enable", cells, Admission::Active),
        Command::Wake(machine) => wake(which, &machine),
        Command::Sleep(machine) => ask(which, &machine, "sleep").map(drop),
    }
}

fn state(
    which: &remote::Which,
    through: &str,
    Cells { editing, cells }: Cells,
    state: Admission,
) -> Result<(), Failure> {
    let operation = |cell| Operation::State { cell, state };
    editing.run(which, through, cells.into_iter().map(operation).collect())
}

/// Has a cell woken, and waits until it answers, but no longer than the router waits.
fn wake(which: &remote::Which, machine: &Machine) -> Result<(), Failure> {
    if ask(which, machine, "wake?wait_s=60")? == "ready" {
        return Ok(());
    }
    let more = "it does not answer yet, and goes on waking; ask again to wait on";
    Err(Failure::new(Kind::Refused, more))
}

/// Asks a running router to start or stop a machine, and says how far that is.
fn ask(which: &remote::Which, machine: &Machine, what: &str) -> Result<String, Failure> {
    let Machine { which: local, cell } = machine;
    let backend = Backend::new(&local.registry, which)?;
    let target = format!("/v1/cells/{cell}/{what}");
    let reply = backend.router()?.send(Method::POST, &target, None, "")?;
    let told: Value = reply.json()?;
    let stage = told["stage"].as_str().or_else(|| told["state"].as_str());
    let stage = stage.unwrap_or_default();
    if local.json {
        print_json(&serde_json::json!({ "cell": cell.as_str(), "machine": stage }))?;
    } else {
        print(&format!("{cell}: {stage}\n"))?;
    }
    Ok(stage.to_owned())
}

fn sets(set: &Set) -> Result<Vec<Operation>, Failure> {
    let assign = |one: &Assignment| {
        let (cell, keys, value) = (set.cell.clone(), one.keys.clone(), one.value.clone());
        match one.how {
            How::Set => Operation::Set { cell, keys, value },
            How::Append => Operation::Append {
                cell,
                keys,
                items: value,
            },
            How::Discard => Operation::Discard {
                cell,
                keys,
                items: value,
            },
        }
    };
    let mut operations: Vec<_> = set.keys.iter().map(assign).collect();
    for key in &set.unset {
        operations.push(Operation::Unset {
            cell: set.cell.clone(),
            keys: keys(key)?,
        });
    }
    Ok(operations)
}

/// A new entry, its keys in the order in which they were given.
fn entry(assignments: &[Assignment]) -> Result<String, Failure> {
    let mut members: Vec<(String, String)> = Vec::new();
    for assignment in assignments {
        if !matches!(assignment.how, How::Set) {
            return Err("a new cell has no lists yet: write KEY=VALUE"
                .to_owned()
                .into());
        }
        let Some((first, rest)) = assignment.keys.split_first() else {
            continue;
        };
        let key = |name: &String| Value::from(name.as_str()).to_string();
        let nest = |value: String, name: &String| format!("{{{}: {value}}}", key(name));
        let value = rest.iter().rev().fold(assignment.value.clone(), nest);
        if members.iter().any(|(name, _)| name == first) {
            let what = format!("{first} is given twice; give the whole object as JSON");
            return Err(what.into());
        }
        members.push((first.clone(), value));
    }
    let members: Vec<_> = members
        .iter()
        .map(|(name, value)| format!("{}: {value}", Value::from(name.as_str())))
        .collect();
    Ok(format!("{{{}}}", members.join(", ")))
}
