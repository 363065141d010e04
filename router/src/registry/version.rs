//! Which text of a registry is meant.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};

use crate::steps;

/// The first 64 bits of the SHA-256 of a registry's text, as 16 hexadecimal digits: two texts are the same if theirs are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version([u8; 8]);

impl Version {
    /// The version of a text.
    pub fn of(text: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in steps::parts(text) {
            context.update(part);
        }
        let mut first = [0; 8];
        for (byte, sum) in first.iter_mut().zip(context.finish().as_ref()) {
            *byte = *sum;
        }
        Self(first)
    }
}

/// A text that is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVersion;

impl fmt::Display for NoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no version; one has 16 hexadecimal digits, as `cell-router registry history` prints it")
    }
}

impl std::error::Error for NoVersion {}

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoVersion);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| NoVersion)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_written() {
        let version = Version::of(b"");
        assert_eq!(version.to_string(), "e3b0c44298fc1c14");
        assert_eq!("e3b0c44298fc1c14".parse(), Ok(version));
        assert_ne!(version, Version::of(b" "));
        for text in [
            "",
            "e3b0c44298fc1c1",
            "e3b0c44298fc1c14a",
            "+3b0c44298fc1c14",
            "e3b0c44298fc1c1g",
        ] {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text}");
        }
    }
}
