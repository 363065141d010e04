//! Which page goes with an answer.

use super::Answer;

/// Which page it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The cell is being worked on.
    Maintenance,
    /// A sleeping cell wakes, or could not be woken.
    Waking,
    /// There is no cell, or the router has nothing at the path.
    NotFound,
    /// Everything else that goes wrong.
    Error,
}

impl Page {
    /// Every page.
    pub const ALL: [Self; 4] = [Self::Maintenance, Self::Waking, Self::NotFound, Self::Error];

    /// The name of its file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Maintenance => "maintenance.html",
            Self::Waking => "waking.html",
            Self::NotFound => "not_found.html",
            Self::Error => "error.html",
        }
    }
}

impl Answer {
    /// The page that a browser gets with it; none where nothing is wrong.
    pub fn page(self) -> Option<Page> {
        match self {
            Self::Up | Self::LastHop => None,
            Self::NoSuchCell | Self::Reserved | Self::NoSuchFile => Some(Page::NotFound),
            Self::Maintenance(_) => Some(Page::Maintenance),
            Self::Malformed(_)
            | Self::AmbiguousPath
            | Self::Loop
            | Self::UseHttps(_)
            | Self::Disabled
            | Self::FilesOnly
            | Self::TooLarge
            | Self::Full(_)
            | Self::BreakerOpen(_) => Some(Page::Error),
        }
    }
}
