//! The names that a registry gives: cells, Fly apps, Fly Machines. A value that exists is right.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::problem::{Refusal, quoted};

/// The longest label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;
/// The pattern of a cell's name: one DNS label in lower case (RFC 1123 section 2.1).
pub(super) const LABEL_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// The pattern of a Fly app's name.
pub(super) const APP_PATTERN: &str = "^[a-z0-9-]{1,63}$";
/// The pattern of a Fly Machine's id.
pub(super) const MACHINE_PATTERN: &str = "^[0-9a-z]{6,32}$";

/// The name of a cell: one DNS label in lower case, so that it can stand before the domain.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellName(Arc<str>);

/// The name of a Fly app: 1 to 63 of `a-z`, `0-9` and `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppName(Arc<str>);

/// The id of a Fly Machine: 6 to 32 of `0-9` and `a-z`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId(Box<str>);

impl CellName {
    /// Reads a cell's name.
    ///
    /// # Errors
    /// If `text` is not one DNS label in lower case.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if is_label(text) {
            return Ok(Self(text.into()));
        }
        let lower = text.to_ascii_lowercase();
        Err(if text.is_empty() {
            Refusal::new(
                "the name of a cell is empty",
                "write a name such as \"alice\"",
            )
        } else if is_label(&lower) {
            Refusal::new(
                format!(
                    "{} has upper-case letters, which no host name keeps apart",
                    quoted(text)
                ),
                format!("write it in lower case: {}", quoted(&lower)),
            )
        } else if text.len() > LABEL_MAX {
            Refusal::new(
                format!("{} is {} bytes long", quoted(text), text.len()),
                format!("a cell's name has at most {LABEL_MAX}"),
            )
        } else {
            Refusal::new(
                format!("{} cannot stand before a domain", quoted(text)),
                "use a-z, 0-9 and hyphens, with no hyphen at either end",
            )
        })
    }
}

impl AppName {
    /// Reads a Fly app's name.
    ///
    /// # Errors
    /// If `text` is not 1 to 63 of `a-z`, `0-9` and `-`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text.into()));
        }
        Err(Refusal::new(
            format!("{} is no Fly app name", quoted(text)),
            "use 1 to 63 of a-z, 0-9 and hyphens",
        ))
    }
}

impl MachineId {
    /// Reads a Fly Machine's id.
    ///
    /// # Errors
    /// If `text` is not 6 to 32 of `0-9` and `a-z`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
        if (6..=32).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text.into()));
        }
        Err(Refusal::new(
            format!("{} is no machine id", quoted(text)),
            "use 6 to 32 of 0-9 and a-z, as `fly machine list` prints it",
        ))
    }

    /// Whether `text` has the form that Fly.io gives its ids today: 14 hexadecimal digits in lower case.
    pub(super) fn resembles(text: &str) -> bool {
        text.len() == 14
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

/// Whether `text` is one label of a host name in lower case (RFC 1123 section 2.1).
pub(super) fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=LABEL_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! text_type {
    ($($name:ident),+) => {$(
        impl $name {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    )+};
}
pub(super) use text_type;

text_type!(CellName, AppName, MachineId);
