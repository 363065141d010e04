//! Whether a registry file is valid, for a person or a program.

use std::fs;
use std::path::Path;

use super::load::LoadError;
use crate::registry::Registry;

/// Reads a file without the secrets that it names: those are where the router runs.
///
/// # Errors
/// `LoadError::Unreadable`, `LoadError::Invalid`.
pub fn check(file: &Path) -> Result<Registry, LoadError> {
    let text = fs::read(file).map_err(LoadError::Unreadable)?;
    Registry::parse(&text).map_err(LoadError::Invalid)
}
