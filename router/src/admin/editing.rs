//! How every edit goes that comes through the API: judged on the text that is there, stored by `control/store`, told of.

use std::sync::Arc;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::View;
use super::access::{Bearer, Denied, Role};
use super::asking::etag;
use super::edits::{self, Outcome};
use super::problem::Problem;
use crate::control::store::{By, Edit, Proposal, Refused, Store, StoreError, propose};
use crate::registry::edit::Operation;
use crate::registry::{Admission, Registry, Version};

/// How often an edit is tried again that others overtook.
const TRIES: usize = 100;

/// How to edit.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// Whether only to say what would change.
    #[serde(default)]
    #[param(required = false)]
    pub(super) dry_run: bool,
    /// Whether it is meant that many cells are removed or disabled.
    #[serde(default)]
    #[param(required = false)]
    pub(super) confirm_unplug: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub(super) bearer: Bearer,
    /// With what, as it says itself: `api`, `cli` or `page`.
    pub(super) with: &'static str,
}

/// What stands in the log of an operation that was done.
#[derive(Debug, Clone)]
pub(super) struct Audit(pub(super) String);

/// An edit that was made, or was only asked for.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    status: StatusCode,
    location: Option<String>,
    tag: Option<Version>,
}

impl Done {
    pub(super) fn of(proposal: &Proposal, how: How) -> Self {
        Self {
            outcome: Outcome::of(proposal, how.dry_run),
            status: StatusCode::OK,
            location: None,
            tag: None,
        }
    }

    /// Something is there that was not.
    pub(super) fn created(mut self) -> Self {
        if !self.outcome.dry_run {
            self.status = StatusCode::CREATED;
        }
        self
    }

    /// Where it is now.
    pub(super) fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    /// What was sent is there as it was sent, at that version.
    pub(super) fn tagged(mut self, version: Version) -> Self {
        self.tag = Some(version).filter(|_| !self.outcome.dry_run);
        self
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let Outcome {
            before,
            version,
            changes,
            dry_run,
            ..
        } = &self.outcome;
        let what: Vec<_> = changes.iter().take(5).map(ToString::to_string).collect();
        let more = match changes.len().saturating_sub(what.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let asked = if *dry_run { "asked only: " } else { "" };
        let told = format!("{asked}{before} -> {version}: {}{more}", what.join(", "));
        let mut response = (self.status, Json(&self.outcome)).into_response();
        let headers = response.headers_mut();
        for (name, value) in [
            (header::LOCATION, self.location),
            (header::ETAG, self.tag.map(etag)),
        ] {
            if let Some(value) = value.and_then(|value| value.parse().ok()) {
                headers.insert(name, value);
            }
        }
        response.extensions_mut().insert(Audit(told));
        response
    }
}

/// Does what may wait for a disk or a lock away from the thread that answers.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => Err(Problem::failed(panicked.to_string())),
    }
}

/// Edits what is there by what `plan` makes of it, or says what would change. Where others edit meanwhile it begins anew.
/// In the history it is called `called`, or by the names of its operations.
///
/// Not cancel safe: the edit is made though nobody waits for it.
pub(super) async fn edit(
    view: &Arc<View>,
    who: &Who,
    how: How,
    called: Option<&'static str>,
    plan: impl Fn(&Store, &[u8]) -> Result<Vec<Operation>, Problem> + Send + 'static,
) -> Result<Proposal, Problem> {
    let (view, who) = (Arc::clone(view), who.clone());
    blocking(move || {
        let mut tries = 0..TRIES;
        loop {
            let (text, operations) = view.store.planned(|text| plan(&view.store, text))?;
            allow(&who.bearer, &operations, &text)?;
            let called = called.unwrap_or_else(|| edits::words(&operations));
            let by = By {
                who: who.bearer.name.clone(),
                through: format!("{}, {called}", who.with),
            };
            let edit = Edit {
                operations,
                based_on: Some(Version::of(&text)),
                confirmed: how.confirm_unplug,
                max_unplug_percent: view.config.max_unplug_percent,
            };
            if how.dry_run {
                return Ok(propose(&text, &edit)?);
            }
            match view.store.edit(&edit, &by) {
                Err(StoreError::Refused(Refused::Conflict { .. })) if tries.next().is_some() => {}
                done => return Ok(done?),
            }
        }
    })
    .await
}

/// Whether the bearer may do that to the text as it is. To operate is not to bring back a cell that somebody disabled, nor
/// one of which that cannot be told, for its entry is broken.
fn allow(bearer: &Bearer, operations: &[Operation], text: &[u8]) -> Result<(), Problem> {
    if bearer.role == Role::Edit {
        return Ok(());
    }
    let denied = || Problem::from(Denied::Role(bearer.role, bearer.name.clone()));
    let registry = Registry::parse_beside(text, &Registry::default(), &[]);
    let is_disabled = |name: &str| match &registry {
        Ok((registry, flags)) => match registry.cell(name) {
            Some(cell) => cell.policy.state == Admission::Disabled,
            None => flags.iter().any(|flag| flag.cell == name),
        },
        Err(_) => true,
    };
    for operation in operations {
        let disabled = match operation {
            Operation::State { cell, .. } => is_disabled(cell.as_str()),
            _ => false,
        };
        if disabled || edits::role(operation) > bearer.role {
            return Err(denied());
        }
    }
    Ok(())
}
