//! Errors of the admin API as problem details (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, ToSchema};

use super::access::Denied;
use crate::control::store::{Refused, StoreError};
use crate::registry::Version;
use crate::registry::edit::EditError;

/// What went wrong.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The status.
    pub status: u16,
    /// What is wrong, in general.
    pub title: String,
    /// What is wrong here, and what to do.
    pub detail: String,
    /// What is wrong, for programs.
    pub error: Sort,
    /// Each thing that is wrong with a text, at its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Place>,
    /// The version of the registry, or of the entry, that there is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Why an edit is not made, as the document tells it.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is there to be described")]
pub(super) enum NotEdited {
    /// What is to be edited is not there.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// It cannot be done as things are, or has to be confirmed.
    #[response(status = 409, content_type = "application/problem+json")]
    Refused(Problem),
    /// Somebody else has edited.
    #[response(status = 412, content_type = "application/problem+json")]
    Moved(Problem),
    /// What is asked for is wrong, or the registry would be broken by it.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(Problem),
}

/// What sort of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// There is no token, or none that allows it.
    Denied,
    /// The request is none that is understood.
    Malformed,
    /// There is no such thing.
    NotFound,
    /// It cannot be done, or not now.
    Refused,
    /// Somebody else has edited.
    Conflict,
    /// It takes many cells out of service: confirm it with `confirm_unplug`.
    Unconfirmed,
    /// The router could not do it.
    Failed,
}

/// One thing that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, counted in characters.
    pub column: usize,
    /// The JSON path, such as `$.cells.alice.hosts[1]`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub fix: String,
}

impl From<&crate::registry::Problem> for Place {
    fn from(problem: &crate::registry::Problem) -> Self {
        let crate::registry::Problem {
            line,
            column,
            path,
            what,
            fix,
        } = problem.clone();
        Self {
            line,
            column,
            path,
            what,
            fix,
        }
    }
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: Sort, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            detail: detail.into(),
            error,
            problems: Vec::new(),
            version: None,
        }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Sort::Malformed, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Sort::NotFound, detail)
    }

    pub(super) fn no_cell(name: &str) -> Self {
        Self::not_found(format!("There is no cell {name:?}."))
    }

    /// It cannot be done as things are.
    pub(super) fn refused(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, Sort::Refused, detail)
    }

    /// What is asked for is understood, and is wrong.
    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Sort::Refused, detail)
    }

    pub(super) fn failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Sort::Failed, detail)
    }

    /// The edit was based on another version than there is.
    pub(super) fn moved(now: Option<Version>) -> Self {
        let detail = match now {
            Some(now) => format!("Somebody else has edited: it is at version {now} now."),
            None => "Somebody else has edited: it is not there any more.".to_owned(),
        };
        Self {
            version: now.map(|now| now.to_string()),
            ..Self::new(StatusCode::PRECONDITION_FAILED, Sort::Conflict, detail)
        }
    }

    fn at(mut self, problems: &[crate::registry::Problem]) -> Self {
        self.problems = problems.iter().map(Place::from).collect();
        self
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unknown => Self::new(
                StatusCode::UNAUTHORIZED,
                Sort::Denied,
                "Send a token that the router knows: Authorization: Bearer TOKEN.",
            ),
            Denied::Role(role, _) => Self::new(
                StatusCode::FORBIDDEN,
                Sort::Denied,
                format!("A token of the role {} does not allow this.", role.name()),
            ),
            Denied::TooMany => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                Sort::Denied,
                "Too many tokens that do not fit were tried; wait a moment.",
            ),
            Denied::LedHere => Self::new(
                StatusCode::FORBIDDEN,
                Sort::Denied,
                "Without --admin-tokens the router answers only at an IP address or localhost, and no other website's page.",
            ),
            Denied::NoFile => {
                Self::failed("The file of tokens cannot be read; the router's log says why.")
            }
        }
    }
}

impl From<EditError> for Problem {
    fn from(error: EditError) -> Self {
        let detail = error.to_string();
        match error {
            EditError::NoSuchCell(_) => Self::not_found(detail),
            EditError::CellExists(_) => Self::refused(detail),
            EditError::Unreadable(problems) => Self::refused(
                "The registry cannot be edited as it is: mend it, or undo the last edit.",
            )
            .at(&problems),
            EditError::Invalid(problems) => Self::unprocessable(
                "The registry would be broken by it, at these places of the edited text.",
            )
            .at(&problems),
            EditError::NoSuchKey(_)
            | EditError::NoSuchItem(_)
            | EditError::NoObject(_)
            | EditError::BadValue(_)
            | EditError::TooDeep(_) => Self::unprocessable(detail),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Edit(error) => error.into(),
            Refused::Conflict { now, .. } => Self {
                version: Some(now.to_string()),
                ..Self::new(
                    StatusCode::CONFLICT,
                    Sort::Conflict,
                    "Others edit all the time; try again.",
                )
            },
            Refused::Unplugs(unplugged) => Self::new(
                StatusCode::CONFLICT,
                Sort::Unconfirmed,
                format!(
                    "This edit unplugs {unplugged}; if that is meant, say so with confirm_unplug=true."
                ),
            ),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refused) => refused.into(),
            StoreError::NoSuchVersion(version) => {
                Self::not_found(format!("The history has no version {version}."))
            }
            StoreError::NothingToUndo => {
                Self::refused("The history has nothing before this version.")
            }
            StoreError::Bucket(error) if error.may_pass() => {
                tracing::warn!("admin: {error}");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Sort::Failed,
                    error.to_string(),
                )
            }
            StoreError::Damaged(_) | StoreError::File(..) | StoreError::Bucket(_) => {
                tracing::error!("admin: {error}");
                Self::failed(error.to_string())
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"cell-router\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
