//! The name under which a file is kept.

use std::fmt;

/// Longest name in bytes; file systems take 255, and the temporary name must fit too.
const MAX_BYTES: usize = 200;

/// A name that is one visible entry of a folder: no path, no hidden file, no control character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName(String);

impl FileName {
    /// Reads a name, already percent-decoded.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn parse(name: String) -> Result<Self, &'static str> {
        if name.is_empty() || name.starts_with('.') {
            return Err("a file's name must not be empty or begin with a dot");
        }
        if name.len() > MAX_BYTES {
            return Err("a file's name may have at most 200 bytes");
        }
        if name
            .chars()
            .any(|c| matches!(c, '/' | '\\') || c.is_control())
        {
            return Err("a file's name must not hold slashes or control characters");
        }
        Ok(Self(name))
    }

    /// The name as it is on disk.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_hide_or_break_lines_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "/a",
            ".hidden",
            "a\\b",
            "a\0",
            "a\nb",
            "a\u{7f}",
            "a\u{85}b",
            &"a".repeat(201),
            &"é".repeat(101),
        ] {
            assert!(FileName::parse(name.to_owned()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn ordinary_names_are_taken_as_they_are() {
        for name in [
            "a",
            "a b.bin",
            "a..b",
            "50%.txt",
            "größe.pdf",
            &"a".repeat(200),
            &"é".repeat(100),
        ] {
            assert_eq!(FileName::parse(name.to_owned()).unwrap().as_str(), name);
        }
    }
}
