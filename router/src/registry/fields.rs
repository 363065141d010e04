//! The table of the file format: every key with its place, type, range, default and meaning.
//!
//! Reading, unknown keys, messages and the JSON Schema all come from this table, so that they cannot disagree.

use super::cell::{Admission, ReplayKind};
use super::host::{DOMAIN_PATTERN, HOST_PATTERN, HOST_RULE_PATTERN};
use super::name::{APP_PATTERN, LABEL_PATTERN, MACHINE_PATTERN};
use super::path::PREFIX_PATTERN;

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
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    TunnelIdleTimeout,
    WakeTimeout,
    HoldTimeout,
    RetryAfter,
    ReadyPath,
    Secret,
    MayReplay,
    Prefix,
    Strip,
    Env,
    File,
}

/// How many keys there are.
pub(super) const KEYS: usize = Key::File as usize + 1;

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
            Unit::Milliseconds | Unit::Seconds => "time that is allowed here",
        }
    }

    /// As in "a number from 1 to 10 (seconds)".
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Unit::Version | Unit::Port => "",
            Unit::Requests => " (requests)",
            Unit::Milliseconds => " (milliseconds)",
            Unit::Seconds => " (seconds)",
        }
    }
}

/// The version of the format that this table describes.
pub(super) const VERSION: u64 = 1;

const ROOT: &[Scope] = &[Scope::Root];
const ENTRY: &[Scope] = &[Scope::Cell];
const BOTH: &[Scope] = &[Scope::Defaults, Scope::Cell];
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

static STATES: [&str; 4] = words(&Admission::ALL);
static REPLAYS: [&str; 3] = words(&ReplayKind::ALL);

const fn words<T, const N: usize>(all: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut index = 0;
    while index < N {
        words[index] = all[index].0;
        index += 1;
    }
    words
}

const fn milliseconds(min: u64, max: u64, default: u64) -> Kind {
    Kind::Number {
        min,
        max,
        default: Some(default),
        unit: Unit::Milliseconds,
    }
}

const fn text(pattern: &'static str) -> Kind {
    Kind::Text {
        pattern: Some(pattern),
        max: None,
        default: None,
    }
}

/// Every key of the format; the order is that of [`Key`].
pub(super) static FIELDS: [Field; KEYS] = [
    Field {
        key: Key::Schema,
        name: "$schema",
        scopes: ROOT,
        kind: Kind::Text {
            pattern: None,
            max: None,
            default: None,
        },
        doc: "Where editors find the description of this format. The router does not read it.",
        example: r#""./router/registry.schema.json""#,
    },
    Field {
        key: Key::Version,
        name: "version",
        scopes: ROOT,
        kind: Kind::Number {
            min: VERSION,
            max: VERSION,
            default: None,
            unit: Unit::Version,
        },
        doc: "The version of this format.",
        example: "1",
    },
    Field {
        key: Key::Domain,
        name: "domain",
        scopes: ROOT,
        kind: Kind::Text {
            pattern: Some(DOMAIN_PATTERN),
            max: Some(super::host::HOST_MAX),
            default: None,
        },
        doc: "Every cell answers at its name before this domain; its paths hold on the domain itself. Without it there are no subdomains.",
        example: r#""example.com""#,
    },
    Field {
        key: Key::PathHosts,
        name: "path_hosts",
        scopes: ROOT,
        kind: Kind::HostNames,
        doc: "Hosts besides the domain on which the path chooses the cell.",
        example: r#"["apps.example.com"]"#,
    },
    Field {
        key: Key::MachinePaths,
        name: "machine_paths",
        scopes: ROOT,
        kind: Kind::Flag { default: false },
        doc: "Whether /MACHINE/... on the domain and the path hosts reaches the cell on that machine. The path is kept whole.",
        example: "true",
    },
    Field {
        key: Key::DefaultCell,
        name: "default_cell",
        scopes: ROOT,
        kind: text(LABEL_PATTERN),
        doc: "The cell that gets what no host and no path gives to another. Without it the answer is 404.",
        example: r#""alice""#,
    },
    Field {
        key: Key::Defaults,
        name: "defaults",
        scopes: ROOT,
        kind: Kind::Object(Scope::Defaults),
        doc: "What holds for every cell that says nothing else.",
        example: r#"{"app": "blog-cells", "port": 8080}"#,
    },
    Field {
        key: Key::Cells,
        name: "cells",
        scopes: ROOT,
        kind: Kind::Cells,
        doc: "The cells by name. A name is one DNS label in lower case.",
        example: r#"{"alice": {"machine": "3d8d9e67c2e123"}}"#,
    },
    Field {
        key: Key::Machine,
        name: "machine",
        scopes: ENTRY,
        kind: text(MACHINE_PATTERN),
        doc: "The id of the Fly Machine where the cell lives. Several cells may share a machine on different ports.",
        example: r#""3d8d9e67c2e123""#,
    },
    Field {
        key: Key::App,
        name: "app",
        scopes: BOTH,
        kind: text(APP_PATTERN),
        doc: "The Fly app that the machine belongs to.",
        example: r#""blog-cells""#,
    },
    Field {
        key: Key::Port,
        name: "port",
        scopes: BOTH,
        kind: Kind::Number {
            min: 1,
            max: 65_535,
            default: Some(8080),
            unit: Unit::Port,
        },
        doc: "The port on which the cell listens on its machine.",
        example: "8080",
    },
    Field {
        key: Key::Address,
        name: "address",
        scopes: ENTRY,
        kind: Kind::Text {
            pattern: Some(r"^(\[[0-9a-f:.]+\]|[a-z0-9.-]+):[0-9]{1,5}$"),
            max: None,
            default: None,
        },
        doc: "Where the cell lives, if not on a Fly Machine: a host name, an IPv4 address or an IPv6 address in brackets, and a port.",
        example: r#""127.0.0.1:9000""#,
    },
    Field {
        key: Key::Hosts,
        name: "hosts",
        scopes: ENTRY,
        kind: Kind::HostRules,
        doc: "Hosts at which the cell answers besides its subdomain. *.alice.org stands for exactly one label before alice.org; an exact host goes before it.",
        example: r#"["www.alice.org", "*.alice.org"]"#,
    },
    Field {
        key: Key::Paths,
        name: "paths",
        scopes: ENTRY,
        kind: Kind::PathRules,
        doc: "Path prefixes at which the cell answers on the domain and the path hosts. The longest that matches whole segments wins.",
        example: r#"["/alice", {"prefix": "/a", "strip": true}]"#,
    },
    Field {
        key: Key::State,
        name: "state",
        scopes: BOTH,
        kind: Kind::Choice {
            words: &STATES,
            default: "active",
        },
        doc: "active: serve. maintenance: answer 503. disabled: answer 403. paused: let requests wait.",
        example: r#""maintenance""#,
    },
    Field {
        key: Key::Replay,
        name: "replay",
        scopes: BOTH,
        kind: Kind::Choice {
            words: &REPLAYS,
            default: "strict",
        },
        doc: "strict: hand small requests back to Fly's edge, signed. cached: let the edge remember, unsigned. never: relay everything. A cell with an address is never replayed.",
        example: r#""strict""#,
    },
    Field {
        key: Key::ReplayTtl,
        name: "replay_ttl_s",
        scopes: BOTH,
        kind: Kind::Number {
            min: 10,
            max: 86_400,
            default: Some(60),
            unit: Unit::Seconds,
        },
        doc: "How long the edge remembers a cached replay.",
        example: "60",
    },
    Field {
        key: Key::ReplayTimeout,
        name: "replay_timeout_ms",
        scopes: BOTH,
        kind: Kind::Number {
            min: 100,
            max: 600_000,
            default: None,
            unit: Unit::Milliseconds,
        },
        doc: "How long the edge tries to reach the cell with a strict replay before it comes back. Longer than a cold start takes, or absent: the edge decides.",
        example: "30000",
    },
    Field {
        key: Key::MaxInFlight,
        name: "max_in_flight",
        scopes: BOTH,
        kind: Kind::Number {
            min: 1,
            max: 1_000_000,
            default: Some(1000),
            unit: Unit::Requests,
        },
        doc: "Requests that run at the same time through one router to the cell.",
        example: "1000",
    },
    Field {
        key: Key::ConnectTimeout,
        name: "connect_timeout_ms",
        scopes: BOTH,
        kind: milliseconds(10, 120_000, 5_000),
        doc: "For one attempt to connect to the cell.",
        example: "5000",
    },
    Field {
        key: Key::FirstByteTimeout,
        name: "first_byte_timeout_ms",
        scopes: BOTH,
        kind: milliseconds(100, HOUR_MS, 120_000),
        doc: "Until the first byte of the cell's answer.",
        example: "120000",
    },
    Field {
        key: Key::IdleTimeout,
        name: "idle_timeout_ms",
        scopes: BOTH,
        kind: milliseconds(100, HOUR_MS, 60_000),
        doc: "Without progress of a body in either direction.",
        example: "60000",
    },
    Field {
        key: Key::TunnelIdleTimeout,
        name: "tunnel_idle_timeout_ms",
        scopes: BOTH,
        kind: milliseconds(100, DAY_MS, HOUR_MS),
        doc: "Without a byte in either direction of a WebSocket or another upgraded connection.",
        example: "3600000",
    },
    Field {
        key: Key::WakeTimeout,
        name: "wake_timeout_ms",
        scopes: BOTH,
        kind: milliseconds(100, 600_000, 60_000),
        doc: "From the start of a sleeping machine until the cell is ready.",
        example: "60000",
    },
    Field {
        key: Key::HoldTimeout,
        name: "hold_timeout_ms",
        scopes: BOTH,
        kind: milliseconds(0, 600_000, 30_000),
        doc: "For a request that waits until a paused cell is active again; 0 answers at once.",
        example: "30000",
    },
    Field {
        key: Key::RetryAfter,
        name: "retry_after_s",
        scopes: BOTH,
        kind: Kind::Number {
            min: 1,
            max: 86_400,
            default: Some(30),
            unit: Unit::Seconds,
        },
        doc: "What retry-after says when the cell cannot answer now.",
        example: "30",
    },
    Field {
        key: Key::ReadyPath,
        name: "ready_path",
        scopes: BOTH,
        kind: Kind::Text {
            pattern: Some(r#"^/[!$-;=?-_a-z~]*$"#),
            max: Some(256),
            default: Some("/up"),
        },
        doc: "The path that the cell answers with 2xx once it is ready; a query may follow.",
        example: r#""/up""#,
    },
    Field {
        key: Key::Secret,
        name: "secret",
        scopes: BOTH,
        kind: Kind::Object(Scope::Secret),
        doc: "Where the router finds the secret that it shares with the cell; never the secret itself. Without it the router signs nothing.",
        example: r#"{"env": "CELL_SECRET_{cell}"}"#,
    },
    Field {
        key: Key::MayReplay,
        name: "may_replay",
        scopes: BOTH,
        kind: Kind::Flag { default: false },
        doc: "Whether the cell's own answers may carry replay instructions to Fly's edge.",
        example: "true",
    },
    Field {
        key: Key::Prefix,
        name: "prefix",
        scopes: &[Scope::Path],
        kind: Kind::Text {
            pattern: Some(PREFIX_PATTERN),
            max: Some(super::path::PREFIX_MAX),
            default: None,
        },
        doc: "The path prefix: whole segments, as clients send them.",
        example: r#""/a""#,
    },
    Field {
        key: Key::Strip,
        name: "strip",
        scopes: &[Scope::Path],
        kind: Kind::Flag { default: false },
        doc: "Whether the cell sees the path without the prefix.",
        example: "true",
    },
    Field {
        key: Key::Env,
        name: "env",
        scopes: &[Scope::Secret],
        kind: Kind::Text {
            pattern: Some(r"^([A-Za-z0-9_]|\{cell\})+$"),
            max: Some(200),
            default: None,
        },
        doc: "The environment variable that holds the secret. {cell} stands for the cell's name in upper case, hyphens as underscores.",
        example: r#""CELL_SECRET_{cell}""#,
    },
    Field {
        key: Key::File,
        name: "file",
        scopes: &[Scope::Secret],
        kind: Kind::Text {
            pattern: Some(r"^[^\u0000-\u001f\u007f]+$"),
            max: Some(1000),
            default: None,
        },
        doc: "The file that holds the secret. {cell} stands for the cell's name.",
        example: r#""/run/secrets/{cell}""#,
    },
];

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
