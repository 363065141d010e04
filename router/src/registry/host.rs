//! Host names: as a registry gives them, and as clients send them.
//!
//! Owns what makes two spellings of a host one host. It must never know which cell a host belongs to.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::name::{is_label, text_type};
use super::problem::{Refusal, quoted};

/// The longest host name, without the root's dot (RFC 1035 section 2.3.4).
pub(super) const HOST_MAX: usize = 253;
macro_rules! labels {
    () => {
        r"(?!(.*\.)?[0-9]+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
    };
}

macro_rules! ipv4 {
    () => {
        r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(?!$)|$)){4}$"
    };
}

/// The pattern of a host name in lower case (labels of RFC 1123 section 2.1) that is no address.
pub(super) const DOMAIN_PATTERN: &str = concat!("^", labels!());
/// The same, or an IPv4 address.
pub(super) const HOST_PATTERN: &str = concat!("^", labels!(), "|", ipv4!());
/// The same, or `*.` and a host name.
pub(super) const HOST_RULE_PATTERN: &str = concat!(r"^(\*\.)?", labels!(), "|", ipv4!());

/// A host name or IPv4 address in lower case, without port and without a dot at the end.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

text_type!(HostName);

/// A host that a cell answers at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostRule {
    /// Exactly this host.
    Exact(HostName),
    /// Every host that has exactly one label more before this one: `*.alice.org`.
    Wildcard(HostName),
}

/// Why a `Host` or `:authority` is refused. The answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// There is no host.
    Empty,
    /// The host is longer than 253 bytes.
    TooLong,
    /// There is a user name before an `@`.
    UserInfo,
    /// A character that no host name has: a blank, a control, `/`, `%`, or anything outside ASCII.
    Character,
    /// A label is empty: two dots side by side, or a dot at the start.
    EmptyLabel,
    /// What stands in brackets is no IPv6 address, or brackets do not match.
    Literal,
    /// What follows the colon is not one to five digits of at most 65535.
    Port,
}

impl HostName {
    /// Reads a host name as a registry gives it: lower case, no port, no dot at the end.
    ///
    /// # Errors
    /// If `text` is no such name; the refusal says what would be right.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() <= HOST_MAX && text.split('.').all(is_label) {
            let last = text.rsplit('.').next().unwrap_or_default();
            if last.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<Ipv4Addr>().is_err() {
                return Err(Refusal::new(
                    format!("{} ends in a number but is no IPv4 address", quoted(text)),
                    "write a host name such as \"www.example.com\"",
                ));
            }
            return Ok(Self(text.into()));
        }
        Err(refuse(text))
    }

    /// The host of a raw `Host` or `:authority` value: in lower case, without port, without one dot at the end; an
    /// IPv6 literal keeps its brackets. Allocates only if there are upper-case letters.
    ///
    /// # Errors
    /// If the value is not `host [":" port]` of RFC 9110 section 7.2; a port may be empty (RFC 3986 section 3.2.3).
    pub fn normalise(raw: &str) -> Result<Cow<'_, str>, HostFault> {
        if is_normal(raw) {
            return Ok(Cow::Borrowed(raw));
        }
        let host = if raw.starts_with('[') {
            literal(raw)?
        } else {
            registered_name(raw)?
        };
        Ok(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        })
    }

    /// Whether this is an IPv4 address, which has no subdomains.
    pub(super) fn is_address(&self) -> bool {
        self.0.parse::<Ipv4Addr>().is_ok()
    }

    /// What stands before `.parent` in this host, if anything does.
    pub(super) fn below<'a>(&'a self, parent: &HostName) -> Option<&'a str> {
        below(&self.0, parent)
    }
}

/// What stands before `.parent` in `host`, if anything does.
pub(super) fn below<'a>(host: &'a str, parent: &HostName) -> Option<&'a str> {
    host.strip_suffix(parent.as_str())?.strip_suffix('.')
}

impl HostRule {
    /// Reads a host, or `*.` and a host.
    ///
    /// # Errors
    /// If `text` is neither.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let Some(parent) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(Refusal::new(
                    format!("{} has a star where none can stand", quoted(text)),
                    "a star stands only alone before the first dot, as in \"*.example.com\"",
                ));
            }
            return HostName::parse(text).map(HostRule::Exact);
        };
        let parent = HostName::parse(parent)?;
        if parent.is_address() {
            return Err(Refusal::new(
                format!("{} asks for names below an address", quoted(text)),
                "write the address alone, or a host name after the star",
            ));
        }
        Ok(HostRule::Wildcard(parent))
    }

    /// The host itself, or the one below which the wildcard holds.
    pub(super) fn name(&self) -> &HostName {
        match self {
            HostRule::Exact(name) | HostRule::Wildcard(name) => name,
        }
    }
}

/// As written in the registry.
impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostRule::Exact(name) => write!(f, "{name}"),
            HostRule::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostFault::Empty => "there is no host",
            HostFault::TooLong => "the host is longer than 253 bytes",
            HostFault::UserInfo => "there is a user name before the host",
            HostFault::Character => "the host has a character that no host name has",
            HostFault::EmptyLabel => "the host has an empty label",
            HostFault::Literal => "the host is no IPv6 address in brackets",
            HostFault::Port => "the port is no number up to 65535",
        })
    }
}

impl std::error::Error for HostFault {}

/// The part of `[v6]` or `[v6]:port` up to the closing bracket.
fn literal(raw: &str) -> Result<&str, HostFault> {
    let end = raw.find(']').ok_or(HostFault::Literal)?;
    let (host, rest) = raw.split_at(end + 1);
    if host[1..end].parse::<Ipv6Addr>().is_err() {
        return Err(HostFault::Literal);
    }
    match rest.strip_prefix(':') {
        Some(port) => check_port(port)?,
        None if rest.is_empty() => {}
        None => return Err(HostFault::Literal),
    }
    Ok(host)
}

/// Whether a name is there already, as most are: in lower case, without port, without a dot at its end.
fn is_normal(raw: &str) -> bool {
    let mut before = b'.';
    let mut fits = raw.len() <= HOST_MAX;
    // Looked at to its end: nothing is to be said of what does not fit.
    for byte in raw.bytes() {
        let label = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        fits &= label | ((byte == b'.') & (before != b'.'));
        before = byte;
    }
    fits && before != b'.'
}

/// The host of `host` or `host:port`, without one dot at its end.
fn registered_name(raw: &str) -> Result<&str, HostFault> {
    let special = raw.bytes().position(|byte| matches!(byte, b':' | b'@'));
    let host = match special.map(|at| raw.split_at(at)) {
        Some((_, rest)) if rest.contains('@') => return Err(HostFault::UserInfo),
        Some((host, port)) => {
            check_port(&port[1..])?;
            host
        }
        None => raw,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(HostFault::Empty);
    }
    if host.len() > HOST_MAX {
        return Err(HostFault::TooLong);
    }
    let mut before = b'.';
    for byte in host.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' if before == b'.' => return Err(HostFault::EmptyLabel),
            b'.' => {}
            _ => return Err(HostFault::Character),
        }
        before = byte;
    }
    if before == b'.' {
        return Err(HostFault::EmptyLabel);
    }
    Ok(host)
}

fn check_port(port: &str) -> Result<(), HostFault> {
    let digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if port.is_empty() || (digits && port.parse::<u16>().is_ok()) {
        Ok(())
    } else {
        Err(HostFault::Port)
    }
}

/// Says why a text of a registry is no host name.
fn refuse(text: &str) -> Refusal {
    let shown = quoted(text);
    let lower = text.to_ascii_lowercase();
    let well_formed = |text: &str| text.split('.').all(is_label);
    if text.is_empty() {
        Refusal::new(
            "the host is empty",
            "write a host name such as \"www.example.com\"",
        )
    } else if text.len() > HOST_MAX && well_formed(text) {
        Refusal::new(
            format!("{shown} is {} bytes long", text.len()),
            format!("a host name has at most {HOST_MAX}"),
        )
    } else if !text.is_ascii() {
        Refusal::new(
            format!("{shown} has characters outside ASCII"),
            "write the name as browsers send it, in its xn-- form",
        )
    } else if text.contains("://") || text.contains('/') {
        Refusal::new(
            format!("{shown} is more than a host name"),
            "leave out the scheme and the path",
        )
    } else if let Some((host, _)) = text.split_once(':').filter(|(host, _)| well_formed(host)) {
        Refusal::new(
            format!("{shown} has a port, which never matters here"),
            format!("write {}", quoted(host)),
        )
    } else if let Some(host) = text.strip_suffix('.').filter(|host| well_formed(host)) {
        Refusal::new(
            format!("{shown} ends in a dot, which never matters here"),
            format!("write {}", quoted(host)),
        )
    } else if well_formed(&lower) {
        Refusal::new(
            format!("{shown} has upper-case letters"),
            format!("write it in lower case: {}", quoted(&lower)),
        )
    } else {
        Refusal::new(
            format!("{shown} is no host name"),
            "use labels of a-z, 0-9 and inner hyphens, with dots between them",
        )
    }
}
