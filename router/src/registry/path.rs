//! Paths: the prefixes that a registry gives, and what makes a request's path unfit to choose a tenant.
//!
//! Owns segment boundaries and reserved paths. It must never change a path: what is matched is what the cell sees.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::name::text_type;
use super::problem::{Refusal, quoted};

/// The longest prefix, in bytes. It bounds the work of a lookup, whatever path a client sends.
pub(super) const PREFIX_MAX: usize = 256;
/// Paths that belong to the router, with everything below them.
pub(super) const RESERVED: [&str; 3] = ["/up", "/-", "/.well-known"];
/// How often a cell is thought to undo the escapes of a path.
const READINGS: usize = 3;
/// The pattern of a prefix that [`PathPrefix::parse`] accepts.
pub(super) const PREFIX_PATTERN: &str = concat!(
    r"^(?!/(up|-|\.well-known)(/|$))(/(?!\.\.?(/|$))([A-Za-z0-9._~!$&'()+=:@-]",
    r"|%(2[0-9A-C]|3[A-F]|40|5[BDE]|60|7[BCD]|[89A-F][0-9A-F]))+)+$",
);

/// A path prefix in its one spelling: `/team/a`. It matches whole segments.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix(Arc<str>);

text_type!(PathPrefix);

/// Why a path cannot choose a tenant: two readers could read it in two ways. The answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// `%2e`: a dot in disguise.
    EncodedDot,
    /// `%2f`: a slash in disguise.
    EncodedSlash,
    /// `\` or `%5c`, which some readers take for a slash.
    Backslash,
    /// `//`: an empty segment, which some readers drop.
    EmptySegment,
    /// `.` or `..` as a segment.
    DotSegment,
    /// A control byte.
    Control,
    /// A byte outside ASCII.
    NotAscii,
}

impl PathPrefix {
    /// Reads a prefix.
    ///
    /// # Errors
    /// If it could be read in two ways, has no leading `/`, ends in `/`, is reserved, or has a character that must be
    /// percent-encoded in a path (RFC 3986 section 3.3) or that means more in a replay's cache pattern (`*`, `;`, `,`).
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let shown = quoted(text);
        if text.is_empty() || text == "/" {
            return Err(Refusal::new(
                format!("{shown} is no prefix"),
                "write at least one segment, as in \"/alice\"; what nothing else matches is for default_cell",
            ));
        }
        if !text.starts_with('/') {
            return Err(Refusal::new(
                format!("{shown} does not begin with a slash"),
                format!("write {}", quoted(&format!("/{text}"))),
            ));
        }
        if text.len() > PREFIX_MAX {
            return Err(Refusal::new(
                format!("{shown} is {} bytes long", text.len()),
                format!("a prefix has at most {PREFIX_MAX}"),
            ));
        }
        if text.contains(['?', '#']) {
            return Err(Refusal::new(
                format!("{shown} has a query or a fragment"),
                "write the path alone",
            ));
        }
        if let Some(fault) = fault(text) {
            return Err(Refusal::new(
                format!("in {shown}, {fault}"),
                "write plain segments, as in \"/team/alice\"",
            ));
        }
        if text.ends_with('/') {
            return Err(Refusal::new(
                format!("{shown} ends in a slash"),
                format!(
                    "write {}; it matches what is below, too",
                    quoted(text.trim_end_matches('/'))
                ),
            ));
        }
        check_characters(text)?;
        if let Some(reserved) = RESERVED.iter().find(|reserved| covers(reserved, text)) {
            return Err(Refusal::new(
                format!("{reserved} and all below it belong to the router"),
                "choose another prefix",
            ));
        }
        Ok(Self(text.into()))
    }

    /// Whether the prefix matches `path`, on a segment boundary: `/alice` matches `/alice` and `/alice/x`, not `/alicia`.
    pub fn matches(&self, path: &str) -> bool {
        covers(&self.0, path)
    }

    /// The first segment, without slashes.
    pub(super) fn first_segment(&self) -> &str {
        first_segment(&self.0).unwrap_or_default()
    }
}

/// The first segment of an absolute path, if it has one.
pub(super) fn first_segment(path: &str) -> Option<&str> {
    let rest = path.strip_prefix('/')?;
    let segment = rest.split('/').next().unwrap_or_default();
    (!segment.is_empty()).then_some(segment)
}

/// Whether `path` belongs to the router.
pub(super) fn is_reserved(path: &str) -> bool {
    RESERVED.iter().any(|reserved| covers(reserved, path))
}

/// Whether a cell could take `path` for the one at which it answers the router's challenge, however it reads it: with
/// escapes undone, even several times, whatever the case, with dot segments or parameters, below a prefix that is taken off.
/// What is answered there is for the router only (docs/signature.md).
pub(super) fn asks_identity(path: &str) -> bool {
    if memchr::memchr2(b'%', b'\\', path.as_bytes()).is_none() {
        return names_identity(path);
    }
    let mut read = path.as_bytes().to_vec();
    for _ in 0..READINGS {
        read = unescaped(&read);
    }
    let read = String::from_utf8_lossy(&read).replace('\\', "/");
    names_identity(&read)
}

fn names_identity(path: &str) -> bool {
    const NAMES: [&str; 2] = ["cell-identity", ".well-known"];
    if path.len() <= NAMES[0].len() + NAMES[1].len() {
        return false;
    }
    let has = |wanted: &str| {
        let mut segments = path.split('/').map(|s| s.split(';').next().unwrap_or(s));
        segments.any(|segment| segment.eq_ignore_ascii_case(wanted))
    };
    NAMES.into_iter().all(has)
}

/// Percent-escapes undone once.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut read = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            read.push((high << 4 | low) as u8);
            rest = &after[2..];
        } else {
            read.push(first);
            rest = after;
        }
    }
    read
}

/// Whether `path` is `prefix` or lies below it.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The first thing in `path` that two readers could read in two ways.
pub(super) fn fault(path: &str) -> Option<PathFault> {
    let bytes = path.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        let rest = &bytes[index + 1..];
        match byte {
            b'%' => match rest {
                [b'2', b'e' | b'E', ..] => return Some(PathFault::EncodedDot),
                [b'2', b'f' | b'F', ..] => return Some(PathFault::EncodedSlash),
                [b'5', b'c' | b'C', ..] => return Some(PathFault::Backslash),
                _ => {}
            },
            b'\\' => return Some(PathFault::Backslash),
            b'/' => match rest {
                [b'/', ..] => return Some(PathFault::EmptySegment),
                [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..] => {
                    return Some(PathFault::DotSegment);
                }
                _ => {}
            },
            0..=0x1F | 0x7F => return Some(PathFault::Control),
            0x80.. => return Some(PathFault::NotAscii),
            _ => {}
        }
    }
    None
}

/// Refuses what has a second spelling, so that one prefix is written in one way only.
fn check_characters(text: &str) -> Result<(), Refusal> {
    let bytes = text.as_bytes();
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        index += 1;
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            b'/' | b'.' | b'_' | b'~' | b'-' | b'!' | b'$' | b'&' | b'\'' => {}
            b'(' | b')' | b'+' | b'=' | b':' | b'@' => {}
            b'%' => {
                check_escape(text, bytes.get(index..index + 2))?;
                index += 2;
            }
            _ => {
                let character = char::from(*byte);
                return Err(Refusal::new(
                    format!("{character:?} cannot stand in a prefix"),
                    format!("write %{byte:02X}, as clients send it, or choose another prefix"),
                ));
            }
        }
    }
    Ok(())
}

fn check_escape(text: &str, digits: Option<&[u8]>) -> Result<(), Refusal> {
    let decoded = digits
        .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| Some((digits, u8::from_str_radix(digits, 16).ok()?)));
    match decoded {
        None => Err(Refusal::new(
            format!("{} has a percent sign without two digits", quoted(text)),
            "write %25 for a percent sign",
        )),
        Some((digits, _)) if digits.bytes().any(|digit| digit.is_ascii_lowercase()) => {
            Err(Refusal::new(
                format!("%{digits} has a second spelling"),
                format!("write %{}", digits.to_ascii_uppercase()),
            ))
        }
        Some((digits, 0..=0x1F | 0x7F)) => Err(Refusal::new(
            format!("%{digits} stands for a control character"),
            "leave it out",
        )),
        Some((digits, byte))
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') =>
        {
            let plain = char::from(byte);
            Err(Refusal::new(
                format!("%{digits} has a second spelling"),
                format!("write {plain}"),
            ))
        }
        Some(_) => Ok(()),
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathFault::EncodedDot => "%2e could be read as a dot",
            PathFault::EncodedSlash => "%2f could be read as a slash",
            PathFault::Backslash => "a backslash could be read as a slash",
            PathFault::EmptySegment => "an empty segment could be read as none",
            PathFault::DotSegment => "a dot segment could be resolved",
            PathFault::Control => "a control character could be dropped",
            PathFault::NotAscii => "a character outside ASCII could be encoded in two ways",
        })
    }
}

impl std::error::Error for PathFault {}
