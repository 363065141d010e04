//! A file of names and hashed passwords, as `htpasswd` and `argon2` write it.
//!
//! Never shows, logs or keeps a password.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordVerifier as _};
use argon2::{Argon2, Params};
use ring::digest::{SHA256, digest};

/// The dearest bcrypt that is taken: some seconds of one core for each check.
const BCRYPT_COST_MAX: u32 = 15;
/// The dearest argon2 that is taken: 256 MiB, and passes over it.
const ARGON2_KIB_MAX: u32 = 256 * 1024;
const ARGON2_PASSES_MAX: u32 = 20;
/// The longest name, in bytes.
const NAME_MAX: usize = 255;

/// The entries of one file. Two that hold the same are equal, whenever they were read.
pub struct Passwords {
    sum: [u8; 32],
    hashes: HashMap<Box<str>, Arc<Hash>>,
    /// Checked in the place of one that is not there, so that nobody learns by the time it takes who is.
    stand_in: Arc<Hash>,
}

impl PartialEq for Passwords {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords({})", self.hashes.len())
    }
}

/// A hashed password.
pub struct Hash {
    kind: Kind,
    text: Box<str>,
}

#[derive(Clone, Copy)]
enum Kind {
    Bcrypt,
    Argon2,
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Bcrypt => "Hash(bcrypt)",
            Kind::Argon2 => "Hash(argon2)",
        })
    }
}

impl Passwords {
    /// Reads lines `NAME:HASH`; empty ones and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// What is wrong, with the line; never what stands in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut hashes = HashMap::new();
        let lines = text.lines().enumerate();
        for (index, line) in lines.map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fail = |why: &str| format!("line {index}: {why}");
            let (name, hash) = line
                .split_once(':')
                .ok_or_else(|| fail("there is no colon; write NAME:HASH"))?;
            let good = !name.is_empty() && name.len() <= NAME_MAX;
            if !good || name.contains(char::is_control) {
                return Err(fail("the name is empty, or longer than 255 bytes"));
            }
            let hash = Arc::new(Hash::parse(hash).map_err(fail)?);
            if hashes.insert(name.into(), hash).is_some() {
                return Err(fail("this name is there twice"));
            }
        }
        let stand_in = hashes.values().next().cloned();
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Ok(Self {
            sum,
            stand_in: stand_in.ok_or("it holds no name")?,
            hashes,
        })
    }

    /// What to check for a name, and whether there is such a name.
    pub fn find(&self, name: &str) -> (&Arc<Hash>, bool) {
        match self.hashes.get(name) {
            Some(hash) => (hash, true),
            None => (&self.stand_in, false),
        }
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const WEAK: &str = "the password is hashed neither by bcrypt nor by argon2; write it anew with htpasswd -B";
        let kind = if ["$2y$", "$2b$", "$2a$", "$2x$"]
            .iter()
            .any(|begin| text.starts_with(begin))
        {
            let parts = text.parse::<bcrypt::HashParts>();
            let cost = parts.map_err(|_| "this is no bcrypt hash")?.get_cost();
            if cost > BCRYPT_COST_MAX {
                return Err("this bcrypt hash costs too much; at most 15");
            }
            Kind::Bcrypt
        } else if text.starts_with("$argon2") {
            let hash = PasswordHash::new(text).map_err(|_| "this is no argon2 hash")?;
            let params = Params::try_from(&hash).map_err(|_| "this is no argon2 hash")?;
            if hash.hash.is_none() || hash.salt.is_none() {
                return Err("this is no argon2 hash");
            }
            if params.m_cost() > ARGON2_KIB_MAX || params.t_cost() > ARGON2_PASSES_MAX {
                return Err("this argon2 hash costs too much; at most 256 MiB and 20 passes");
            }
            Kind::Argon2
        } else {
            return Err(WEAK);
        };
        Ok(Self {
            kind,
            text: text.into(),
        })
    }

    /// The hash as it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a password's. Takes as long as it is meant to: tens of milliseconds of one core.
    pub fn fits(&self, password: &[u8]) -> bool {
        match self.kind {
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Argon2 => PasswordHash::new(&self.text)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `htpasswd -nbB -C 4 alice secret`, and `argon2` with 8 KiB and one pass.
    fn file() -> String {
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        format!("# people\n\nalice:{bcrypt}\nbob:{}\n", argon("other"))
    }

    fn argon(password: &str) -> String {
        use argon2::password_hash::{PasswordHasher as _, Salt};
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let salt = Salt::from_b64("c2FsdHNhbHQ").unwrap();
        let hash = argon.hash_password(password.as_bytes(), salt);
        hash.unwrap().to_string()
    }

    #[test]
    fn each_kind_of_hash_fits_its_password_only() {
        let passwords = Passwords::parse(&file()).unwrap();
        for (name, password, fits) in [
            ("alice", "secret", true),
            ("alice", "other", false),
            ("alice", "", false),
            ("bob", "other", true),
            ("bob", "secret", false),
        ] {
            let (hash, known) = passwords.find(name);
            assert!(known);
            assert_eq!(hash.fits(password.as_bytes()), fits, "{name} {password}");
        }
        assert!(!passwords.find("Alice").1 && !passwords.find("").1);
    }

    #[test]
    fn what_apache_writes_is_read() {
        // Of `htpasswd -nbB -C 5 user password`.
        let line = "user:$2y$05$/OK.fbVrR/bpIqNJ5ianF.Swe0q5YzE3OoQ6QkKgGSHrWn2B5Z9mG";
        assert!(Passwords::parse(line).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_its_text() {
        for (line, told) in [
            ("alice", "no colon"),
            (":x", "name is empty"),
            ("alice:secret", "neither by bcrypt nor by argon2"),
            ("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "neither"),
            ("alice:$apr1$x$y", "neither"),
            ("alice:$2y$05$short", "no bcrypt hash"),
            (
                "alice:$2y$31$/OK.fbVrR/bpIqNJ5ianF.Swe0q5YzE3OoQ6QkKgGSHrWn2B5Z9mG",
                "costs too much",
            ),
            (
                "alice:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ",
                "no argon2 hash",
            ),
            (
                "alice:$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
                "costs too much",
            ),
        ] {
            let error = Passwords::parse(&format!("# x\n{line}")).unwrap_err();
            assert!(
                error.starts_with("line 2: ") && error.contains(told),
                "{line}: {error}"
            );
            assert!(
                !error.contains("secret") && !error.contains("c2Fs"),
                "{error}"
            );
        }
        assert!(
            Passwords::parse("# nobody\n")
                .unwrap_err()
                .contains("no name")
        );
        let twice = format!("{}{}", file(), file());
        assert!(Passwords::parse(&twice).unwrap_err().contains("twice"));
    }

    #[test]
    fn files_are_equal_that_hold_the_same() {
        let file = file();
        assert_eq!(
            Passwords::parse(&file).unwrap(),
            Passwords::parse(&file).unwrap()
        );
        assert_ne!(
            Passwords::parse(&file).unwrap(),
            Passwords::parse(&format!("{file}#")).unwrap()
        );
    }
}
