//! One cell's entry in the registry: as it is written, put, patched, removed, renamed, and its state.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::View;
use super::asking::{Asked, Named, Precondition, Sent, tagged};
use super::editing::{Done, How, Who, blocking, edit};
use super::edits::Outcome;
use super::problem::{NotEdited, Problem};
use crate::registry::edit::{Operation, entry, merge};
use crate::registry::{Admission, CellName, Version};

/// A state to be in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    state: Mode,
}

/// Whether requests reach a cell.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// They do.
    Active,
    /// They wait.
    Paused,
    /// They get 503 with a page that says so.
    Maintenance,
    /// They get 403. To disable a cell, and to bring it back, needs the role `edit`.
    Disabled,
}

/// A name to have.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Called {
    /// One label of a host name in lower case.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    name: String,
}

fn now(text: &[u8], cell: &CellName) -> Option<Version> {
    entry(text, cell.as_str()).map(|entry| Version::of(entry.as_bytes()))
}

/// A cell's entry as it is written; its tag is for edits of this cell.
#[utoipa::path(get, path = "/v1/cells/{name}/entry", tag = "entries",
    params(("name" = String, Path, description = "The cell's name."), ("If-None-Match" = Option<String>, Header, description = "A tag that is known.")),
    responses(
        (status = 200, body = Object, headers(("etag" = String, description = "The entry's version."))),
        (status = 304, description = "It is the one that is known."),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn read_entry(
    State(view): State<Arc<View>>,
    Named(cell): Named,
    precondition: Precondition,
) -> Result<Response, Problem> {
    blocking(move || {
        let text = view.store.read()?;
        let found = entry(&text, cell.as_str()).ok_or_else(|| Problem::no_cell(cell.as_str()))?;
        let version = Version::of(found.as_bytes());
        Ok(tagged(found.as_bytes().to_owned(), version, &precondition))
    })
    .await
}

/// Puts an entry in place of a cell's, or adds the cell.
#[utoipa::path(put, path = "/v1/cells/{name}/entry", tag = "entries",
    params(("name" = String, Path, description = "The cell's name."), How,
        ("If-Match" = Option<String>, Header, description = "The version of the entry that the edit is based on."),
        ("If-None-Match" = Option<String>, Header, description = "`*` only adds.")),
    request_body(content = Object, description = "The entry, as in the registry."),
    responses(
        (status = 200, body = Outcome, description = "It is there now."),
        (status = 201, body = Outcome, description = "The cell is new.", headers(("location" = String, description = "Where it is."))),
        NotEdited,
    ))]
pub(super) async fn put_entry(
    State(view): State<Arc<View>>,
    Extension(who): Extension<Who>,
    Named(cell): Named,
    Asked(how): Asked<How>,
    precondition: Precondition,
    Sent(new): Sent<Box<RawValue>>,
) -> Result<Done, Problem> {
    let (location, path) = (format!("/v1/cells/{cell}"), format!("cells.{cell}"));
    let proposal = edit(&view, &who, how, None, move |_, text| {
        let there = now(text, &cell);
        precondition.judge(there)?;
        let (cell, new) = (cell.clone(), new.get().to_owned());
        Ok(vec![match there {
            None => Operation::Add { cell, entry: new },
            Some(_) => Operation::Set {
                cell,
                keys: Vec::new(),
                value: new,
            },
        }])
    })
    .await?;
    let is_new =
        |change: &crate::registry::edit::Change| change.path == path && change.before.is_none();
    let added = proposal.changes.iter().any(is_new);
    let done = Done::of(&proposal, how);
    Ok(if added {
        done.created().at(location)
    } else {
        done
    })
}

/// Changes keys of a cell's entry by a merge patch (RFC 7396): null takes a key out, so that the default holds again.
#[utoipa::path(patch, path = "/v1/cells/{name}/entry", tag = "entries",
    params(("name" = String, Path, description = "The cell's name."), How,
        ("If-Match" = Option<String>, Header, description = "The version of the entry that the edit is based on.")),
    request_body(content((Object = "application/merge-patch+json"), (Object = "application/json"))),
    responses(
        (status = 200, body = Outcome),
        NotEdited,
    ))]
pub(super) async fn patch_entry(
    State(view): State<Arc<View>>,
    Extension(who): Extension<Who>,
    Named(cell): Named,
    Asked(how): Asked<How>,
    precondition: Precondition,
    Sent(patch): Sent<Box<RawValue>>,
) -> Result<Done, Problem> {
    let proposal = edit(&view, &who, how, None, move |_, text| {
        existing(text, &cell, &precondition)?;
        Ok(merge(text, &cell, patch.get())?)
    })
    .await?;
    Ok(Done::of(&proposal, how))
}

/// Removes a cell. Its tunnels are closed politely, its requests run to their end.
#[utoipa::path(delete, path = "/v1/cells/{name}/entry", tag = "entries",
    params(("name" = String, Path, description = "The cell's name."), How,
        ("If-Match" = Option<String>, Header, description = "The version of the entry that the edit is based on.")),
    responses(
        (status = 200, body = Outcome),
        NotEdited,
    ))]
pub(super) async fn delete_entry(
    State(view): State<Arc<View>>,
    Extension(who): Extension<Who>,
    Named(cell): Named,
    Asked(how): Asked<How>,
    precondition: Precondition,
) -> Result<Done, Problem> {
    let proposal = edit(&view, &who, how, None, move |_, text| {
        existing(text, &cell, &precondition)?;
        Ok(vec![Operation::Remove { cell: cell.clone() }])
    })
    .await?;
    Ok(Done::of(&proposal, how))
}

/// Pauses a cell, resumes it, or puts it into maintenance; with the role `edit`, also disables and enables it.
#[utoipa::path(put, path = "/v1/cells/{name}/state", tag = "operations", request_body = Wanted,
    params(("name" = String, Path, description = "The cell's name."), How,
        ("If-Match" = Option<String>, Header, description = "The version of the entry that the edit is based on.")),
    responses(
        (status = 200, body = Outcome),
        NotEdited,
    ))]
pub(super) async fn put_state(
    State(view): State<Arc<View>>,
    Extension(who): Extension<Who>,
    Named(cell): Named,
    Asked(how): Asked<How>,
    precondition: Precondition,
    Sent(wanted): Sent<Wanted>,
) -> Result<Done, Problem> {
    let state = match wanted.state {
        Mode::Active => Admission::Active,
        Mode::Paused => Admission::Paused,
        Mode::Maintenance => Admission::Maintenance,
        Mode::Disabled => Admission::Disabled,
    };
    let proposal = edit(&view, &who, how, None, move |_, text| {
        existing(text, &cell, &precondition)?;
        let cell = cell.clone();
        Ok(vec![Operation::State { cell, state }])
    })
    .await?;
    Ok(Done::of(&proposal, how))
}

/// Renames a cell; `default_cell` follows.
#[utoipa::path(put, path = "/v1/cells/{name}/name", tag = "entries", request_body = Called,
    params(("name" = String, Path, description = "The cell's name so far."), How,
        ("If-Match" = Option<String>, Header, description = "The version of the entry that the edit is based on.")),
    responses(
        (status = 200, body = Outcome, headers(("location" = String, description = "Where the cell is now."))),
        NotEdited,
    ))]
pub(super) async fn put_name(
    State(view): State<Arc<View>>,
    Extension(who): Extension<Who>,
    Named(from): Named,
    Asked(how): Asked<How>,
    precondition: Precondition,
    Sent(called): Sent<Called>,
) -> Result<Done, Problem> {
    let to = CellName::parse(&called.name)
        .map_err(|refusal| Problem::unprocessable(refusal.to_string()))?;
    let location = format!("/v1/cells/{to}");
    let proposal = edit(&view, &who, how, None, move |_, text| {
        existing(text, &from, &precondition)?;
        let (from, to) = (from.clone(), to.clone());
        Ok(vec![Operation::Rename { from, to }])
    })
    .await?;
    Ok(Done::of(&proposal, how).at(location))
}

/// Whether the cell is there, at the version that the edit is based on.
fn existing(text: &[u8], cell: &CellName, precondition: &Precondition) -> Result<(), Problem> {
    let there = now(text, cell);
    if there.is_none() && !precondition.is_given() {
        return Err(Problem::no_cell(cell.as_str()));
    }
    precondition.judge(there)
}
