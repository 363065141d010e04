//! Why a command did not do what was asked, in words and as an exit code.

use std::process::ExitCode;

use cell_router::control::store::{Refused, StoreError};
use cell_router::registry::edit::EditError;

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    kind: Kind,
    message: String,
}

/// What sort of failure it is; its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not done, or a difference was found.
    Refused = 1,
    /// Somebody else has edited.
    Conflict = 3,
    /// It is to be confirmed.
    Unconfirmed = 4,
    /// There is no such cell or version.
    NotFound = 5,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Unconfirmed => "unconfirmed",
            Self::NotFound => "not_found",
        }
    }
}

impl Failure {
    /// A failure of that kind.
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A difference that was found and told already.
    pub(super) fn differs() -> Self {
        Self::new(Kind::Refused, "")
    }

    /// Tells it on standard error, to a person or a program.
    pub(super) fn tell(&self, json: bool) -> ExitCode {
        if json && !self.message.is_empty() {
            let told = serde_json::json!({ "error": self.kind.as_str(), "message": self.message });
            eprintln!("{told}");
        } else if !self.message.is_empty() {
            eprintln!("{}", self.message);
        }
        ExitCode::from(self.kind as u8)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(Kind::Refused, message)
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        let kind = match error {
            EditError::NoSuchCell(_) => Kind::NotFound,
            EditError::Unreadable(_)
            | EditError::CellExists(_)
            | EditError::NoSuchKey(_)
            | EditError::NoSuchItem(_)
            | EditError::NoObject(_)
            | EditError::BadValue(_)
            | EditError::TooDeep(_)
            | EditError::Invalid(_) => Kind::Refused,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Edit(error) => error.into(),
            Refused::Conflict { .. } => Self::new(Kind::Conflict, refused.to_string()),
            Refused::Unplugs(_) => Self::new(Kind::Unconfirmed, refused.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refused) => refused.into(),
            StoreError::NoSuchVersion(_) => Self::new(Kind::NotFound, error.to_string()),
            StoreError::NothingToUndo
            | StoreError::File(..)
            | StoreError::Bucket(_)
            | StoreError::Damaged(_) => Self::new(Kind::Refused, error.to_string()),
        }
    }
}
