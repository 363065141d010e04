//! Edits and their outcome as they are sent: by the admin API, and by the commands that ask it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::access::Role;
use crate::control::store::Proposal;
use crate::control::store::history::Record;
use crate::registry::edit::{Change, Operation};
use crate::registry::{Admission, CellName};

/// Several steps, of which all are done or none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    /// The steps, one after the other.
    #[schema(min_items = 1)]
    pub steps: Vec<Step>,
}

/// One step of an edit.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// The cell; all but `format` need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// The new name, for `rename`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The way to a key of the entry, for `set`, `unset`, `append` and `discard`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The entry (`add`), the value (`set`), the list of items (`append`, `discard`), or the state (`state`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub value: Option<Box<RawValue>>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Adds a cell.
    Add,
    /// Sets a key.
    Set,
    /// Takes a key out.
    Unset,
    /// Puts items at the end of a list.
    Append,
    /// Takes items out of a list.
    Discard,
    /// Sets the state: active, paused, maintenance, disabled.
    State,
    /// Renames a cell.
    Rename,
    /// Removes a cell.
    Remove,
    /// Writes the whole in one style.
    Format,
}

fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

impl Step {
    fn new(op: Op, cell: &CellName) -> Self {
        Self {
            op,
            cell: Some(cell.to_string()),
            to: None,
            keys: Vec::new(),
            value: None,
        }
    }

    /// The step that an operation is; none for one that puts another text in place of the whole, or that has a value which
    /// is no JSON.
    pub fn of(operation: &Operation) -> Option<Self> {
        let at = |op, cell: &CellName, keys: &[String], value: &str| {
            Some(Self {
                keys: keys.to_owned(),
                value: Some(raw(value)?),
                ..Self::new(op, cell)
            })
        };
        match operation {
            Operation::Add { cell, entry } => at(Op::Add, cell, &[], entry),
            Operation::Set { cell, keys, value } => at(Op::Set, cell, keys, value),
            Operation::Append { cell, keys, items } => at(Op::Append, cell, keys, items),
            Operation::Discard { cell, keys, items } => at(Op::Discard, cell, keys, items),
            Operation::State { cell, state } => {
                at(Op::State, cell, &[], &format!("\"{}\"", state.as_str()))
            }
            Operation::Unset { cell, keys } => Some(Self {
                keys: keys.clone(),
                ..Self::new(Op::Unset, cell)
            }),
            Operation::Rename { from, to } => Some(Self {
                to: Some(to.to_string()),
                ..Self::new(Op::Rename, from)
            }),
            Operation::Remove { cell } => Some(Self::new(Op::Remove, cell)),
            Operation::Format => Some(Self {
                op: Op::Format,
                cell: None,
                to: None,
                keys: Vec::new(),
                value: None,
            }),
            Operation::Replace { .. } => None,
        }
    }

    /// The operation that it means.
    ///
    /// # Errors
    /// What is missing, or is not what it should be.
    pub fn operation(self) -> Result<Operation, String> {
        let Self {
            op,
            cell,
            to,
            keys,
            value,
        } = self;
        if op == Op::Format {
            return Ok(Operation::Format);
        }
        let name = |what: &str, name: Option<String>| {
            let name = name.ok_or_else(|| format!("{op:?} needs {what:?}"))?;
            CellName::parse(&name).map_err(|refusal| refusal.to_string())
        };
        let cell = name("cell", cell)?;
        let needs_keys = matches!(op, Op::Set | Op::Unset | Op::Append | Op::Discard);
        if needs_keys && keys.is_empty() {
            return Err(format!(
                "{op:?} needs \"keys\", the way to a key of the entry"
            ));
        }
        let value = || {
            value
                .map(|value| value.get().to_owned())
                .ok_or_else(|| format!("{op:?} needs \"value\""))
        };
        Ok(match op {
            Op::Add => Operation::Add {
                cell,
                entry: value()?,
            },
            Op::Set => Operation::Set {
                cell,
                keys,
                value: value()?,
            },
            Op::Append => Operation::Append {
                cell,
                keys,
                items: value()?,
            },
            Op::Discard => Operation::Discard {
                cell,
                keys,
                items: value()?,
            },
            Op::State => Operation::State {
                cell,
                state: state(&value()?)?,
            },
            Op::Unset => Operation::Unset { cell, keys },
            Op::Rename => Operation::Rename {
                from: cell,
                to: name("to", to)?,
            },
            Op::Remove => Operation::Remove { cell },
            Op::Format => Operation::Format,
        })
    }
}

fn state(json: &str) -> Result<Admission, String> {
    let name: String = serde_json::from_str(json).unwrap_or_default();
    Admission::parse(&name).ok_or_else(|| {
        format!("{json} is no state; write \"active\", \"paused\", \"maintenance\" or \"disabled\"")
    })
}

/// The role that an operation needs: to pause, resume and put into maintenance is to operate, all else is to edit.
pub(super) fn role(operation: &Operation) -> Role {
    match operation {
        Operation::State {
            state: Admission::Active | Admission::Paused | Admission::Maintenance,
            ..
        } => Role::Operate,
        Operation::State {
            state: Admission::Disabled,
            ..
        }
        | Operation::Add { .. }
        | Operation::Set { .. }
        | Operation::Unset { .. }
        | Operation::Append { .. }
        | Operation::Discard { .. }
        | Operation::Rename { .. }
        | Operation::Remove { .. }
        | Operation::Replace { .. }
        | Operation::Format => Role::Edit,
    }
}

/// What operations are called in the history, as the commands that do them are.
pub(super) fn words(operations: &[Operation]) -> &'static str {
    let mut names = operations.iter().map(|operation| match operation {
        Operation::Add { .. } => "cell add",
        Operation::Set { .. }
        | Operation::Unset { .. }
        | Operation::Append { .. }
        | Operation::Discard { .. } => "cell set",
        Operation::State { state, .. } => match state {
            Admission::Active => "cell resume",
            Admission::Paused => "cell pause",
            Admission::Maintenance => "cell maintenance",
            Admission::Disabled => "cell disable",
        },
        Operation::Rename { .. } => "cell rename",
        Operation::Remove { .. } => "cell remove",
        Operation::Replace { .. } => "registry apply",
        Operation::Format => "registry format",
    });
    let first = names.next().unwrap_or("nothing");
    if names.all(|name| name == first) {
        first
    } else {
        "several"
    }
}

/// What an edit came to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// Whether anything changes, the layout included.
    pub changed: bool,
    /// Whether it was only asked what would change.
    pub dry_run: bool,
    /// The version of the registry before it.
    pub before: String,
    /// The version after it.
    pub version: String,
    /// What changes, one for each key.
    #[schema(value_type = Vec<Object>)]
    pub changes: Vec<Change>,
}

impl Outcome {
    /// The outcome of an edit, or of one that was only asked for.
    pub fn of(proposal: &Proposal, dry_run: bool) -> Self {
        Self {
            changed: proposal.before != proposal.version,
            dry_run,
            before: proposal.before.to_string(),
            version: proposal.version.to_string(),
            changes: proposal.changes.clone(),
        }
    }
}

/// A line of the history.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Past {
    /// When (RFC 3339, UTC).
    pub at: String,
    /// Who.
    pub who: String,
    /// Through what.
    pub through: String,
    /// What changed, in the words of the registry.
    pub what: Vec<String>,
    /// The version after it.
    pub version: String,
    /// The version before it, where that is on record.
    pub of: Option<String>,
    /// Whether it was confirmed that many cells are unplugged.
    pub confirmed: bool,
}

impl Past {
    /// Whether it changed this cell.
    pub fn touches(&self, cell: &str) -> bool {
        let (inside, whole) = (format!(" cells.{cell}."), format!(" cells.{cell}:"));
        let mut what = self.what.iter();
        what.any(|what| what.contains(&inside) || what.contains(&whole))
    }
}

impl From<&Record> for Past {
    fn from(record: &Record) -> Self {
        Self {
            at: record.at.clone(),
            who: record.who.clone(),
            through: record.through.clone(),
            what: record.what.clone(),
            version: record.version.to_string(),
            of: record.of.map(|of| of.to_string()),
            confirmed: record.confirmed,
        }
    }
}

/// Part of the history.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Pasts {
    /// The versions, the newest first.
    pub versions: Vec<Past>,
    /// What to give as `before` for those that are older; null where there are none.
    pub next: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations() -> Vec<Operation> {
        let cell = || CellName::parse("alice").unwrap();
        let keys = || vec!["secret".to_owned(), "env".to_owned()];
        vec![
            Operation::Add {
                cell: cell(),
                entry: r#"{"port": 1, "app": "a"}"#.to_owned(),
            },
            Operation::Set {
                cell: cell(),
                keys: keys(),
                value: "\"x\"".to_owned(),
            },
            Operation::Unset {
                cell: cell(),
                keys: keys(),
            },
            Operation::Append {
                cell: cell(),
                keys: keys(),
                items: "[1]".to_owned(),
            },
            Operation::Discard {
                cell: cell(),
                keys: keys(),
                items: "[1]".to_owned(),
            },
            Operation::State {
                cell: cell(),
                state: Admission::Paused,
            },
            Operation::Rename {
                from: cell(),
                to: CellName::parse("bob").unwrap(),
            },
            Operation::Remove { cell: cell() },
            Operation::Format,
        ]
    }

    #[test]
    fn every_operation_is_sent_as_it_is() {
        for operation in operations() {
            let sent = serde_json::to_string(&Step::of(&operation).unwrap()).unwrap();
            let step: Step = serde_json::from_str(&sent).unwrap();
            assert_eq!(step.operation(), Ok(operation), "{sent}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (step, missing) in [
            (r#"{"op": "add"}"#, "cell"),
            (r#"{"op": "add", "cell": "alice"}"#, "value"),
            (r#"{"op": "set", "cell": "alice", "value": 1}"#, "keys"),
            (r#"{"op": "rename", "cell": "alice"}"#, "to"),
            (r#"{"op": "remove", "cell": "Alice"}"#, "upper-case"),
            (
                r#"{"op": "state", "cell": "alice", "value": "red"}"#,
                "no state",
            ),
        ] {
            let step: Step = serde_json::from_str(step).unwrap();
            let error = step.operation().unwrap_err();
            assert!(error.contains(missing), "{error}");
        }
    }

    #[test]
    fn operators_pause_and_editors_do_all_else() {
        for operation in operations() {
            let expected = match operation {
                Operation::State { .. } => Role::Operate,
                _ => Role::Edit,
            };
            assert_eq!(role(&operation), expected, "{operation}");
        }
    }

    #[test]
    fn one_word_stands_for_steps_of_one_kind() {
        let all = operations();
        assert_eq!(words(&all[1..4]), "cell set");
        assert_eq!(words(&all[5..6]), "cell pause");
        assert_eq!(words(&all), "several");
    }
}
