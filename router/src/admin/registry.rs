//! The registry as a whole: its text, edits of several cells at once, and its history.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::View;
use super::asking::{Asked, Draft, Precondition, Sent, Versioned, tagged};
use super::editing::{Done, How, Who, blocking, edit};
use super::edits::{Edits, Outcome, Past, Pasts, Step};
use super::problem::{NotEdited, Place, Problem, Sort};
use crate::control::unplug::unplugged;
use crate::registry::edit::{Change, Operation, changes};
use crate::registry::{Registry, Version};

/// Versions on a page unless asked otherwise, and at most.
const PAGE: usize = 20;
const LARGEST_PAGE: usize = 1000;
/// The largest integer that every reader of JSON has.
const LARGEST_NUMBER: usize = 9_007_199_254_740_991;

/// The registry's text.
#[utoipa::path(get, path = "/v1/registry", tag = "registry",
    params(("If-None-Match" = Option<String>, Header, description = "A tag that is known.")),
    responses(
        (status = 200, body = Object, headers(("etag" = String, description = "Its version."))),
        (status = 304, description = "It is the one that is known."),
    ))]
pub(super) async fn read_registry(
    State(view): State<Arc<View>>,
    precondition: Precondition,
) -> Result<Response, Problem> {
    blocking(move || {
        let text = view.store.read()?;
        let version = Version::of(&text);
        Ok(tagged(text, version, &precondition))
    })
    .await
}

/// Puts another text in place of the whole. It has to say which version it is based on.
#[utoipa::path(put, path = "/v1/registry", tag = "registry",
    params(How, ("If-Match" = String, Header, description = "The version that the edit is based on.")),
    request_body(content = Object, description = "The text, which is stored as it comes."),
    responses(
        (status = 200, body = Outcome, headers(("etag" = String, description = "The version now."))),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 428, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn put_registry(
    State(view): State<Arc<View>>,
    Extension(who): Extension<Who>,
    Asked(how): Asked<How>,
    precondition: Precondition,
    draft: Draft,
) -> Result<Done, Problem> {
    if !precondition.is_given() {
        return Err(Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            Sort::Malformed,
            "Say which version you have seen: If-Match, with the etag of GET /v1/registry.",
        ));
    }
    let proposal = edit(&view, &who, how, None, move |_, text| {
        precondition.judge(Some(Version::of(text)))?;
        Ok(vec![Operation::Replace {
            text: draft.text.to_vec(),
        }])
    })
    .await?;
    Ok(Done::of(&proposal, how).tagged(proposal.version))
}

/// Several steps, of which all are done or none. Those that only pause, resume or put into maintenance need the role
/// `operate`, all others `edit`.
#[utoipa::path(post, path = "/v1/registry/edits", tag = "operations", request_body = Edits,
    params(How, ("If-Match" = Option<String>, Header, description = "The version of the registry that the edit is based on.")),
    responses(
        (status = 200, body = Outcome),
        NotEdited,
    ))]
pub(super) async fn post_edits(
    State(view): State<Arc<View>>,
    Extension(who): Extension<Who>,
    Asked(how): Asked<How>,
    precondition: Precondition,
    Sent(edits): Sent<Edits>,
) -> Result<Done, Problem> {
    let operations: Result<Vec<_>, _> = edits.steps.into_iter().map(Step::operation).collect();
    let operations = operations.map_err(Problem::unprocessable)?;
    if operations.is_empty() {
        return Err(Problem::malformed("There is no step."));
    }
    let proposal = edit(&view, &who, how, None, move |_, text| {
        precondition.judge(Some(Version::of(text)))?;
        Ok(operations.clone())
    })
    .await?;
    Ok(Done::of(&proposal, how))
}

/// A draft that was looked at.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checked {
    /// Whether it could be put in place of the registry.
    valid: bool,
    /// What is wrong with it, each at its place.
    problems: Vec<Place>,
    /// What would change.
    #[schema(value_type = Vec<Object>)]
    changes: Vec<Change>,
    /// Which cells it would take out of service, if they are so many that it has to be confirmed.
    unplugs: Option<String>,
    /// The version of the registry that it was compared with.
    version: String,
}

/// Looks at a draft of the registry: what is wrong with it, and what it would change. Nothing is written.
#[utoipa::path(post, path = "/v1/registry/check", tag = "registry",
    request_body(content = serde_json::Value, description = "The draft, whatever it is."),
    responses((status = 200, body = Checked)))]
pub(super) async fn check(
    State(view): State<Arc<View>>,
    draft: Draft,
) -> Result<Json<Checked>, Problem> {
    if draft.text.is_empty() {
        return Err(Problem::malformed("Send the draft."));
    }
    blocking(move || {
        let text = view.store.read()?;
        let none = Registry::default();
        let now = Registry::parse_beside(&text, &none, &[]);
        let (problems, unplugs) = match (Registry::parse(&draft.text), now) {
            (Ok(then), Ok((now, _))) => (Vec::new(), Some(unplugged(&now, &then))),
            (Ok(_), Err(_)) => (Vec::new(), None),
            (Err(problems), _) => (problems, None),
        };
        let most = view.config.max_unplug_percent;
        Ok(Json(Checked {
            valid: problems.is_empty(),
            problems: problems.iter().map(Place::from).collect(),
            changes: changes(&text, &draft.text),
            unplugs: unplugs
                .filter(|them| them.is_over(most))
                .map(|them| them.to_string()),
            version: Version::of(&text).to_string(),
        }))
    })
    .await
}

/// Which versions are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only what changed this cell.
    cell: Option<String>,
    /// Only older ones: `next` of the page before.
    #[param(maximum = 9_007_199_254_740_991_u64)]
    before: Option<usize>,
    /// How many, 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 20)]
    limit: Option<usize>,
}

/// The history: when, by whom, through what, and what changed, the newest first.
#[utoipa::path(get, path = "/v1/registry/versions", tag = "registry", params(Which), responses(
    (status = 200, body = Pasts),
))]
pub(super) async fn versions(
    State(view): State<Arc<View>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Pasts>, Problem> {
    let limit = which.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let detail = format!("limit is {limit}; write 1 to {LARGEST_PAGE}.");
        return Err(Problem::malformed(detail));
    }
    if which.before.is_some_and(|before| before > LARGEST_NUMBER) {
        let detail = "before is no number of a version; give the \"next\" of a page.";
        return Err(Problem::malformed(detail));
    }
    blocking(move || {
        let (mut versions, mut last, mut next) = (Vec::new(), None, None);
        let below = which.before.map(|before| before as u64);
        view.store.walk(below, limit + 1, |number, record| {
            let past = Past::from(&record);
            if !which.cell.as_ref().is_none_or(|cell| past.touches(cell)) {
                return ControlFlow::Continue(());
            }
            if versions.len() == limit {
                next = last;
                return ControlFlow::Break(());
            }
            versions.push(past);
            last = usize::try_from(number).ok();
            ControlFlow::Continue(())
        })?;
        Ok(Json(Pasts { versions, next }))
    })
    .await
}

/// The text of a version.
#[utoipa::path(get, path = "/v1/registry/versions/{version}", tag = "registry",
    params(("version" = String, Path, description = "The version: 16 hexadecimal digits."),
        ("If-None-Match" = Option<String>, Header, description = "A tag that is known.")),
    responses(
        (status = 200, body = Object, headers(("etag" = String, description = "The version."))),
        (status = 304, description = "It is the one that is known."),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn read_version(
    State(view): State<Arc<View>>,
    Versioned(version): Versioned,
    precondition: Precondition,
) -> Result<Response, Problem> {
    blocking(move || {
        let text = view.store.text_of(version)?;
        // A version never changes.
        let lasting = [(header::CACHE_CONTROL, "private, max-age=86400, immutable")];
        Ok((lasting, tagged(text, version, &precondition)).into_response())
    })
    .await
}

/// Which versions are compared.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Between {
    /// A version; the one before `to` unless given.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    from: Option<String>,
    /// Another; what there is now unless given.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    to: Option<String>,
}

/// What differs between two versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Difference {
    /// A version.
    from: String,
    /// The other.
    to: String,
    /// What differs, one for each key; nothing where only the layout does.
    #[schema(value_type = Vec<Object>)]
    changes: Vec<Change>,
}

fn version(text: Option<&String>) -> Result<Option<Version>, Problem> {
    let read = text.map(|text| text.parse()).transpose();
    read.map_err(|none: crate::registry::NoVersion| Problem::malformed(format!("{none}.")))
}

/// What differs between two versions.
#[utoipa::path(get, path = "/v1/registry/diff", tag = "registry", params(Between), responses(
    (status = 200, body = Difference),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn diff(
    State(view): State<Arc<View>>,
    Asked(between): Asked<Between>,
) -> Result<Json<Difference>, Problem> {
    let (from, to) = (
        version(between.from.as_ref())?,
        version(between.to.as_ref())?,
    );
    blocking(move || {
        let to_text = match to {
            Some(to) => view.store.text_of(to)?,
            None => view.store.read()?,
        };
        let to = Version::of(&to_text);
        let from_text = view.store.then(from, to)?;
        Ok(Json(Difference {
            from: Version::of(&from_text).to_string(),
            to: to.to_string(),
            changes: changes(&from_text, &to_text),
        }))
    })
    .await
}

/// What to bring back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Undo {
    /// The version; the one before the current one unless given.
    #[schema(pattern = "^[0-9a-fA-F]{16}$")]
    to: Option<String>,
}

/// Brings back the text of an earlier version. That is an edit, too, and can be undone.
#[utoipa::path(post, path = "/v1/registry/undo", tag = "registry", request_body = Undo,
    params(How, ("If-Match" = Option<String>, Header, description = "The version of the registry that the edit is based on.")),
    responses(
        (status = 200, body = Outcome, headers(("etag" = String, description = "The version now."))),
        NotEdited,
    ))]
pub(super) async fn undo(
    State(view): State<Arc<View>>,
    Extension(who): Extension<Who>,
    Asked(how): Asked<How>,
    precondition: Precondition,
    Sent(undo): Sent<Undo>,
) -> Result<Done, Problem> {
    let to = version(undo.to.as_ref())?;
    let proposal = edit(
        &view,
        &who,
        how,
        Some("registry undo"),
        move |store, text| {
            let now = Version::of(text);
            precondition.judge(Some(now))?;
            let text = store.then(to, now)?;
            Ok(vec![Operation::Replace { text }])
        },
    )
    .await?;
    Ok(Done::of(&proposal, how).tagged(proposal.version))
}
