//! The table of the file format: every key with its place, type, range, default and meaning.
//!
//! Reading, unknown keys, messages and the JSON Schema all come from this table, so that they cannot disagree.

use super::host::{HOST_PATTERN, HOST_RULE_PATTERN};
use super::path::PREFIX_PATTERN;
use super::sign_in::{HEADER_PATTERN, PUBLIC_PATTERN};
pub(super) use super::table::FIELDS;

/// A key of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Schema,
    Version,
    Domain,
    PathHosts,
    MachinePaths,
    DefaultCell,
    Defaults,
    Cells,
    Machine,
    App,
    Port,
    Address,
    Hosts,
    Paths,
    State,
    Replay,
    ReplayTtl,
    ReplayTimeout,
    MaxInFlight,
    QueueTimeout,
    MaxBodyBytes,
    MinBodyRate,
    MinAnswerRate,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    TunnelIdleTimeout,
    WakeTimeout,
    WakingPageAfter,
    WakeFor,
    HoldTimeout,
    RetryAfter,
    ReadyPath,
    Secret,
    Identity,
    BeatEvery,
    Tls,
    Protocol,
    MayReplay,
    Pages,
    SignIn,
    Static,
    Prefix,
    Strip,
    Env,
    File,
    Ca,
    Pin,
    ServerName,
    Basic,
    Realm,
    KeepAuthorization,
    Forward,
    SignInTimeout,
    UserFrom,
    CopyHeaders,
    Public,
    Folder,
    FilesPath,
    Missing,
    MaxAge,
}

/// How many keys there are.
pub(super) const KEYS: usize = Key::MaxAge as usize + 1;

/// An object of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The file.
    Root,
    /// What holds for every cell that says nothing else.
    Defaults,
    /// One cell's entry.
    Cell,
    /// One path prefix, where it is an object.
    Path,
    /// Where a secret is to be found.
    Secret,
    /// How a cell's certificate is judged.
    Tls,
    /// How clients sign in.
    SignIn,
    /// Files that the router serves.
    Static,
}

/// One key of the format.
pub(super) struct Field {
    pub(super) key: Key,
    pub(super) name: &'static str,
    pub(super) scopes: &'static [Scope],
    pub(super) kind: Kind,
    /// What the key means, as one or two sentences.
    pub(super) doc: &'static str,
    /// A value that is right, as JSON.
    pub(super) example: &'static str,
}

/// What the value of a key is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A whole number; `unit` also names it in messages.
    Number {
        min: u64,
        max: u64,
        default: Option<u64>,
        unit: Unit,
    },
    /// One of some words.
    Choice {
        words: &'static [&'static str],
        default: &'static str,
    },
    /// `true` or `false`.
    Flag { default: bool },
    /// A text. Its type's own reader is the judge; pattern and length tell editors the same.
    Text {
        pattern: Option<&'static str>,
        max: Option<usize>,
        default: Option<&'static str>,
    },
    /// A list of host names.
    HostNames,
    /// A list of hosts and wildcards.
    HostRules,
    /// A list of prefixes, each a text or an object.
    PathRules,
    /// A list of paths that are for everybody.
    PublicPaths,
    /// A list of names of header fields.
    HeaderNames,
    /// An object with the keys of a scope.
    Object(Scope),
    /// The cells by name.
    Cells,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Version,
    Port,
    Requests,
    Bytes,
    BytesPerSecond,
    Milliseconds,
    Seconds,
}

impl Unit {
    /// As in "70000 is no port".
    pub(super) fn noun(self) -> &'static str {
        match self {
            Unit::Version => "version that this router reads",
            Unit::Port => "port",
            Unit::Requests => "number of requests that is allowed here",
            Unit::Bytes => "size that is allowed here",
            Unit::BytesPerSecond => "rate that is allowed here",
            Unit::Milliseconds | Unit::Seconds => "time that is allowed here",
        }
    }

    /// As in "a number from 1 to 10 (seconds)".
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Unit::Version | Unit::Port => "",
            Unit::Requests => " (requests)",
            Unit::Bytes => " (bytes)",
            Unit::BytesPerSecond => " (bytes per second)",
            Unit::Milliseconds => " (milliseconds)",
            Unit::Seconds => " (seconds)",
        }
    }
}

/// The entry of a key.
pub(super) fn field(key: Key) -> &'static Field {
    &FIELDS[key as usize]
}

/// The keys of an object.
pub(super) fn fields_of(scope: Scope) -> impl Iterator<Item = &'static Field> {
    FIELDS
        .iter()
        .filter(move |field| field.scopes.contains(&scope))
}

/// The pattern of each item of a list.
pub(super) fn item_pattern(kind: Kind) -> &'static str {
    match kind {
        Kind::HostRules => HOST_RULE_PATTERN,
        Kind::PathRules => PREFIX_PATTERN,
        Kind::PublicPaths => PUBLIC_PATTERN,
        Kind::HeaderNames => HEADER_PATTERN,
        _ => HOST_PATTERN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_finds_its_own_entry() {
        for (index, entry) in FIELDS.iter().enumerate() {
            assert_eq!(entry.key as usize, index, "{}", entry.name);
            assert_eq!(field(entry.key).name, entry.name);
        }
    }

    #[test]
    fn each_example_is_json() {
        for entry in &FIELDS {
            let read = serde_json::from_str::<serde_json::Value>(entry.example);
            assert!(read.is_ok(), "{}: {read:?}", entry.name);
        }
    }
}
