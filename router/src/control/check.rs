//! Whether a registry is valid, for a person or a program.

use std::path::Path;

use super::load::LoadError;
use super::store::Store;
use crate::registry::Registry;

/// Reads a registry, from a file or a bucket, without the secrets that it names: those are where the router runs.
///
/// # Errors
/// `LoadError::Unreadable`, `LoadError::Unavailable`, `LoadError::Invalid`.
pub fn check(name: &Path) -> Result<Registry, LoadError> {
    let text = Store::new(name).read()?;
    Registry::parse(&text).map_err(LoadError::Invalid)
}
