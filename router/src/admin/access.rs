//! Who may ask: bearer tokens (RFC 6750), of which only hashes are kept, each with a role.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::Instant;

use crate::http2::Budget;
use crate::live::lock;

/// Tokens that do not fit, at once, and more of them each second, before nobody is let in for a moment.
const FAILURES: u32 = 20;
const FAILURES_PER_SECOND: u32 = 1;
/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// What a token allows; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// To look.
    Read,
    /// To pause, wake and put cells into maintenance.
    Operate,
    /// To change the registry in any way.
    Edit,
}

impl Role {
    /// Its name in the file of tokens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Edit => "edit",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Operate, Self::Edit]
            .into_iter()
            .find(|role| role.name() == text)
    }
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// There is no token, or not one that is known.
    Unknown,
    /// The token's role does not allow it; whose it is.
    Role(Role, String),
    /// Too many tokens that do not fit were tried.
    TooMany,
    /// The file of tokens cannot be read now.
    NoFile,
    /// Nobody needs a token, and another's page may have led a browser here.
    LedHere,
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The name in the token's line.
    pub name: String,
    /// What the token allows.
    pub role: Role,
}

/// One line of the file.
#[derive(Debug, Clone)]
struct Entry {
    role: Role,
    name: String,
    hash: [u8; 32],
}

/// The file of tokens: a line for each, `ROLE NAME SHA256`, the hash in hexadecimal digits. Empty lines and those that begin
/// with `#` are passed over. It is read anew for each question, so that a token that is taken out is out at once.
#[derive(Debug)]
pub struct Access {
    file: Option<PathBuf>,
    failures: Mutex<Budget>,
}

impl Access {
    /// By this file; without one whoever reaches the listener may read, and no more.
    ///
    /// # Errors
    /// What is wrong with the file, with the line.
    pub fn new(file: Option<PathBuf>) -> Result<Self, String> {
        if let Some(file) = &file {
            read(file)?;
        }
        Ok(Self {
            file,
            failures: Mutex::new(Budget::new(FAILURES, FAILURES_PER_SECOND, Instant::now())),
        })
    }

    /// Whether nobody needs a token to read.
    pub fn is_open(&self) -> bool {
        self.file.is_none()
    }

    /// Whether the bearer of `token` may do what needs `role`, and who that is.
    ///
    /// # Errors
    /// `Denied`.
    pub fn admit(&self, token: Option<&str>, role: Role) -> Result<Bearer, Denied> {
        let Some(file) = &self.file else {
            return match role {
                Role::Read => Ok(Bearer {
                    name: "anybody".to_owned(),
                    role,
                }),
                Role::Operate | Role::Edit => Err(Denied::Role(Role::Read, "anybody".to_owned())),
            };
        };
        let entries = read(file).map_err(|error| {
            tracing::error!("{error}");
            Denied::NoFile
        })?;
        let Some(token) = token else {
            return Err(Denied::Unknown);
        };
        let hash = digest(&SHA256, token.as_bytes());
        // Hashes say nothing of tokens that are near: comparing them needs no constant time, and has it nevertheless.
        let mut found = None;
        for entry in &entries {
            if same(&entry.hash, hash.as_ref()) {
                found = Some(entry);
            }
        }
        match found {
            Some(entry) if entry.role >= role => Ok(Bearer {
                name: entry.name.clone(),
                role: entry.role,
            }),
            Some(entry) => Err(Denied::Role(entry.role, entry.name.clone())),
            None => {
                let now = Instant::now();
                let left = lock(&self.failures).spend(now);
                Err(if left {
                    Denied::Unknown
                } else {
                    Denied::TooMany
                })
            }
        }
    }
}

/// The token that somebody was let in with, which may be judged again.
#[derive(Clone)]
pub(super) struct Pass {
    access: Arc<Access>,
    token: Option<Arc<str>>,
}

impl Pass {
    pub(super) fn new(access: &Arc<Access>, token: Option<&str>) -> Self {
        Self {
            access: Arc::clone(access),
            token: token.map(Arc::from),
        }
    }

    /// Whether it still lets its bearer read.
    pub(super) fn holds(&self) -> bool {
        self.access.admit(self.token.as_deref(), Role::Read).is_ok()
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").finish_non_exhaustive()
    }
}

fn same(one: &[u8; 32], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn read(file: &Path) -> Result<Vec<Entry>, String> {
    let shown = file.display();
    let text = fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
    let lines = text
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            entry(line).ok_or_else(|| {
                format!("{shown}:{number}: this is no token's line; write ROLE NAME SHA256, as `cell-router token` prints it")
            })
        })
        .collect()
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace();
    let (role, name, digits) = (words.next()?, words.next()?, words.next()?);
    let mut hash = [0; 32];
    if words.next().is_some() || digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(Entry {
        role: Role::parse(role)?,
        name: name.to_owned(),
        hash,
    })
}

/// A new token.
#[derive(Debug)]
pub struct NewToken {
    /// What its bearer sends.
    pub token: String,
    /// Its line in the file.
    pub line: String,
}

impl NewToken {
    /// Makes one for `name`.
    ///
    /// # Errors
    /// The name is no single word.
    pub fn new(name: &str, role: Role) -> Result<Self, String> {
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("{name:?} is no name for a token; write one word"));
        }
        let mut bytes = [0; TOKEN_BYTES];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| "the system has no random bytes".to_owned())?;
        let token = hexadecimal(&bytes);
        let hash = hexadecimal(digest(&SHA256, token.as_bytes()).as_ref());
        let line = format!("{} {name} {hash}", role.name());
        Ok(Self { token, line })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        fs::write(&file, text).unwrap();
        (folder, file)
    }

    #[test]
    fn roles_include_those_before_them() {
        let tokens = [Role::Read, Role::Operate, Role::Edit]
            .map(|role| (role, NewToken::new("ops", role).unwrap()));
        let text: Vec<_> = tokens.iter().map(|(_, new)| new.line.clone()).collect();
        let (_folder, file) = file(&format!("# people\n\n{}\n", text.join("\n")));
        let access = Access::new(Some(file)).unwrap();
        for (has, new) in &tokens {
            for (needs, _) in &tokens {
                let admitted = access.admit(Some(&new.token), *needs);
                let name = "ops".to_owned();
                let expected = if has >= needs {
                    Ok(Bearer { name, role: *has })
                } else {
                    Err(Denied::Role(*has, name))
                };
                assert_eq!(admitted, expected, "{has:?} {needs:?}");
            }
        }
        assert_eq!(access.admit(None, Role::Read), Err(Denied::Unknown));
        assert_eq!(access.admit(Some("x"), Role::Read), Err(Denied::Unknown));
    }

    #[test]
    fn guessing_is_slowed_down_and_holds_nobody_up_who_knows() {
        let new = NewToken::new("ops", Role::Read).unwrap();
        let (_folder, file) = file(&new.line);
        let access = Access::new(Some(file)).unwrap();
        let last = (0..=FAILURES)
            .map(|_| access.admit(Some("x"), Role::Read))
            .last();
        assert_eq!(last, Some(Err(Denied::TooMany)));
        assert!(access.admit(Some(&new.token), Role::Read).is_ok());
    }

    #[test]
    fn a_token_that_is_taken_out_is_out_at_once() {
        let new = NewToken::new("ops", Role::Read).unwrap();
        let (_folder, file) = file(&new.line);
        let access = Access::new(Some(file.clone())).unwrap();
        assert!(access.admit(Some(&new.token), Role::Read).is_ok());
        fs::write(&file, "").unwrap();
        assert_eq!(
            access.admit(Some(&new.token), Role::Read),
            Err(Denied::Unknown)
        );
        fs::remove_file(&file).unwrap();
        assert_eq!(
            access.admit(Some(&new.token), Role::Read),
            Err(Denied::NoFile)
        );
    }

    #[test]
    fn bad_lines_are_named() {
        for line in ["read ops", "king ops 00", "read ops zz", "read ops 00 more"] {
            let (_folder, file) = file(&format!("\n{line}\n"));
            let error = Access::new(Some(file)).unwrap_err();
            assert!(error.contains("tokens:2: "), "{error}");
        }
    }

    #[test]
    fn without_a_file_there_is_only_reading() {
        let access = Access::new(None).unwrap();
        assert!(access.admit(None, Role::Read).is_ok());
        assert_eq!(
            access.admit(None, Role::Edit),
            Err(Denied::Role(Role::Read, "anybody".to_owned()))
        );
    }
}
