//! The table itself: every key of the file format, version 1. See [`super::fields`] for what the columns mean.

use super::cell::{Admission, Identity, Protocol, ReplayKind, WakeFor};
use super::fields::{Field, KEYS, Key, Kind, Scope, Unit};
use super::files::Missing;
use super::host::{DOMAIN_PATTERN, HOST_MAX};
use super::name::{APP_PATTERN, LABEL_PATTERN, MACHINE_PATTERN};
use super::path::{PREFIX_MAX, PREFIX_PATTERN};
use super::sign_in::{PUBLIC_MAX, PUBLIC_PATTERN};

/// The version of the format that this table describes.
const VERSION: u64 = 1;

const ROOT: &[Scope] = &[Scope::Root];
const ENTRY: &[Scope] = &[Scope::Cell];
const BOTH: &[Scope] = &[Scope::Defaults, Scope::Cell];
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

static STATES: [&str; 4] = words(&Admission::ALL);
static REPLAYS: [&str; 3] = words(&ReplayKind::ALL);
static PROTOCOLS: [&str; 2] = words(&Protocol::ALL);
static IDENTITIES: [&str; 2] = words(&Identity::ALL);
static MISSING: [&str; 2] = words(&Missing::ALL);
static WAKE_FOR: [&str; 2] = words(&WakeFor::ALL);

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
            max: Some(HOST_MAX),
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
        doc: "Requests that run at the same time through one router to the cell; as many may wait until it is not paused any more.",
        example: "1000",
    },
    Field {
        key: Key::QueueTimeout,
        name: "queue_timeout_ms",
        scopes: BOTH,
        kind: milliseconds(0, 60_000, 1_000),
        doc: "For a request that finds max_in_flight others running: it waits its turn, behind at most as many; 0 answers at once.",
        example: "1000",
    },
    Field {
        key: Key::MaxBodyBytes,
        name: "max_body_bytes",
        scopes: BOTH,
        kind: Kind::Number {
            min: 0,
            max: 1 << 50,
            default: None,
            unit: Unit::Bytes,
        },
        doc: "The largest request body: larger ones get 413, at once where their length is told, else where they exceed it. Absent: no limit.",
        example: "5368709120",
    },
    Field {
        key: Key::MinBodyRate,
        name: "min_body_rate",
        scopes: BOTH,
        kind: Kind::Number {
            min: 0,
            max: 1_000_000,
            default: Some(64),
            unit: Unit::BytesPerSecond,
        },
        doc: "How fast a request body of known length must come at least, on average over the time the router has waited for it, once that is idle_timeout_ms; 0: no matter how slow.",
        example: "64",
    },
    Field {
        key: Key::MinAnswerRate,
        name: "min_answer_rate",
        scopes: BOTH,
        kind: Kind::Number {
            min: 0,
            max: 1_000_000,
            default: Some(64),
            unit: Unit::BytesPerSecond,
        },
        doc: "How fast a client must take an answer at least, on average over each idle_timeout_ms that the router has waited for it with something to take; else the answer is cut. 0: no matter how slow.",
        example: "64",
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
        key: Key::WakingPageAfter,
        name: "waking_page_after_ms",
        scopes: BOTH,
        kind: milliseconds(0, 600_000, 1_500),
        doc: "How long a browser's navigation waits for a sleeping cell before it gets a page that says how far the wake is and refreshes itself; 0 for at once. All else waits as long as wake_timeout_ms.",
        example: "1500",
    },
    Field {
        key: Key::WakeFor,
        name: "wake_for",
        scopes: BOTH,
        kind: Kind::Choice {
            words: &WAKE_FOR,
            default: "all",
        },
        doc: "all: every request wakes a sleeping cell. visitors: crawlers, link previews, health checks and prefetches do not; they get 503 while it sleeps, and are relayed rather than replayed.",
        example: r#""visitors""#,
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
        doc: "The path that the cell answers with 2xx once it is ready; a query may follow. A cell that speaks TLS or http2 is ready once it accepts a connection.",
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
        key: Key::Identity,
        name: "identity",
        scopes: BOTH,
        kind: Kind::Choice {
            words: &IDENTITIES,
            default: "challenge",
        },
        doc: "challenge: on each new connection the cell proves that it has the secret before it gets a byte of a request. none: for cells that cannot. A cell without a secret is never asked.",
        example: r#""none""#,
    },
    Field {
        key: Key::BeatEvery,
        name: "beat_every_s",
        scopes: BOTH,
        kind: Kind::Number {
            min: 0,
            max: 3_600,
            default: Some(0),
            unit: Unit::Seconds,
        },
        doc: "How often the cell posts a beat while it is awake, signed with its secret; after three times as long without one it is missing, unless it sleeps. 0: none is expected.",
        example: "10",
    },
    Field {
        key: Key::Tls,
        name: "tls",
        scopes: BOTH,
        kind: Kind::Object(Scope::Tls),
        doc: "The cell speaks TLS, with a certificate that one of the authorities in a file has signed, or for a key that is pinned. Without it the connection is plain.",
        example: r#"{"ca": "cells-ca.pem"}"#,
    },
    Field {
        key: Key::Protocol,
        name: "protocol",
        scopes: BOTH,
        kind: Kind::Choice {
            words: &PROTOCOLS,
            default: "http1",
        },
        doc: "What the cell speaks. http1: HTTP/1.1. http2: HTTP/2, many requests on one connection, as gRPC needs it: with prior knowledge, or by ALPN under tls. Upgrades (WebSockets) are for http1.",
        example: r#""http2""#,
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
        key: Key::Pages,
        name: "pages",
        scopes: BOTH,
        kind: Kind::Text {
            pattern: Some(r"^[^\u0000-\u001f\u007f]+$"),
            max: Some(1000),
            default: None,
        },
        doc: "The folder of pages that browsers get instead of the router's own: maintenance.html, waking.html, not_found.html and error.html, each as far as it is there. If its path is relative, beside the registry file; read whenever the registry is. {cell} stands for the cell's name. In defaults also for requests that no cell has.",
        example: r#""pages/{cell}""#,
    },
    Field {
        key: Key::SignIn,
        name: "sign_in",
        scopes: BOTH,
        kind: Kind::Object(Scope::SignIn),
        doc: "Clients sign in before their requests reach or wake the cell, which gets the name in cell-user. Such a cell is never replayed to. An entry's sign_in stands for that of defaults as a whole.",
        example: r#"{"basic": "{cell}.htpasswd", "public": ["/assets"]}"#,
    },
    Field {
        key: Key::Static,
        name: "static",
        scopes: BOTH,
        kind: Kind::Object(Scope::Static),
        doc: "Files of the cell that the router serves itself, while the cell sleeps or is paused, too. An entry's static stands for that of defaults as a whole.",
        example: r#"{"folder": "sites/{cell}", "path": "/assets"}"#,
    },
    Field {
        key: Key::Prefix,
        name: "prefix",
        scopes: &[Scope::Path],
        kind: Kind::Text {
            pattern: Some(PREFIX_PATTERN),
            max: Some(PREFIX_MAX),
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
        doc: "The file that holds the secret; if its path is relative, beside the registry file. {cell} stands for the cell's name.",
        example: r#""/run/secrets/{cell}""#,
    },
    Field {
        key: Key::Ca,
        name: "ca",
        scopes: &[Scope::Tls],
        kind: Kind::Text {
            pattern: Some(r"^[^\u0000-\u001f\u007f]+$"),
            max: Some(1000),
            default: None,
        },
        doc: "The PEM file of the authorities that sign the cell's certificate; if its path is relative, beside the registry file. It is read whenever the registry is. {cell} stands for the cell's name.",
        example: r#""cells-ca.pem""#,
    },
    Field {
        key: Key::Pin,
        name: "pin",
        scopes: &[Scope::Tls],
        kind: Kind::Text {
            pattern: Some("^sha256:[0-9A-Fa-f]{64}$"),
            max: None,
            default: None,
        },
        doc: "SHA-256 of the certificate's public key (SubjectPublicKeyInfo, DER), as `openssl x509 -in CERT.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum` prints it. Name and dates of the certificate do not count then.",
        example: r#""sha256:0000000000000000000000000000000000000000000000000000000000000000""#,
    },
    Field {
        key: Key::ServerName,
        name: "name",
        scopes: &[Scope::Tls],
        kind: Kind::Text {
            pattern: None,
            max: Some(HOST_MAX),
            default: None,
        },
        doc: "The name that the cell is asked for by TLS, and that its certificate must be for; absent: the host of its address, or its machine's private name. {cell} stands for the cell's name.",
        example: r#""{cell}.cells.internal""#,
    },
    Field {
        key: Key::Basic,
        name: "basic",
        scopes: &[Scope::SignIn],
        kind: Kind::Text {
            pattern: Some(r"^[^\u0000-\u001f\u007f]+$"),
            max: Some(1000),
            default: None,
        },
        doc: "The file of names and hashed passwords, as `htpasswd -B` writes it: bcrypt or argon2. If its path is relative, beside the registry file; read whenever the registry is. {cell} stands for the cell's name.",
        example: r#""{cell}.htpasswd""#,
    },
    Field {
        key: Key::Realm,
        name: "realm",
        scopes: &[Scope::SignIn],
        kind: Kind::Text {
            pattern: Some(r#"^[ !#-\[\]-~]+$"#),
            max: Some(100),
            default: Some("Sign in"),
        },
        doc: "What browsers say that the password is for.",
        example: r#""Alice's notes""#,
    },
    Field {
        key: Key::KeepAuthorization,
        name: "keep_authorization",
        scopes: &[Scope::SignIn],
        kind: Kind::Flag { default: false },
        doc: "Whether the cell gets the authorization field, with the password, too.",
        example: "true",
    },
    Field {
        key: Key::Forward,
        name: "forward",
        scopes: &[Scope::SignIn],
        kind: Kind::Text {
            pattern: Some(r"^https?://[^@#\s/?]+(/[^#\s]*)?(\?[^#\s]*)?$"),
            max: Some(1000),
            default: None,
        },
        doc: "A server that is asked about each request, with its fields and x-forwarded-method, -proto, -host, -uri and -for, as Traefik, Caddy and nginx do: 2xx lets it pass, any other answer goes to the client. {cell} stands for the cell's name.",
        example: r#""http://auth.internal:9091/api/authz/forward-auth""#,
    },
    Field {
        key: Key::SignInTimeout,
        name: "timeout_ms",
        scopes: &[Scope::SignIn],
        kind: milliseconds(10, 60_000, 5_000),
        doc: "How long that server may take, with its whole answer; then the client gets 503.",
        example: "5000",
    },
    Field {
        key: Key::UserFrom,
        name: "user_from",
        scopes: &[Scope::SignIn],
        kind: Kind::Text {
            pattern: Some("^[a-z0-9-]+$"),
            max: Some(100),
            default: Some("remote-user"),
        },
        doc: "The field of that server's answer that says who the client is, for cell-user.",
        example: r#""x-auth-request-user""#,
    },
    Field {
        key: Key::CopyHeaders,
        name: "copy_headers",
        scopes: &[Scope::SignIn],
        kind: Kind::HeaderNames,
        doc: "The fields of that server's answer that the cell gets; from clients it gets none of these names.",
        example: r#"["remote-groups", "remote-email"]"#,
    },
    Field {
        key: Key::Public,
        name: "public",
        scopes: &[Scope::SignIn],
        kind: Kind::PublicPaths,
        doc: "Paths, as the cell sees them, that are for everybody, with all below them; / for all. A path that could be read in two ways, or has an escape or a parameter, is not public.",
        example: r#"["/assets", "/webhooks/github"]"#,
    },
    Field {
        key: Key::Folder,
        name: "folder",
        scopes: &[Scope::Static],
        kind: Kind::Text {
            pattern: Some(r"^[^\u0000-\u001f\u007f]+$"),
            max: Some(1000),
            default: None,
        },
        doc: "The folder of the files; if its path is relative, beside the registry file. {cell} stands for the cell's name. Nothing outside it is served, and nothing whose name begins with a dot.",
        example: r#""sites/{cell}""#,
    },
    Field {
        key: Key::FilesPath,
        name: "path",
        scopes: &[Scope::Static],
        kind: Kind::Text {
            pattern: Some(PUBLIC_PATTERN),
            max: Some(PUBLIC_MAX),
            default: Some("/"),
        },
        doc: "Where the files are, as the cell sees paths.",
        example: r#""/assets""#,
    },
    Field {
        key: Key::Missing,
        name: "missing",
        scopes: &[Scope::Static],
        kind: Kind::Choice {
            words: &MISSING,
            default: "not_found",
        },
        doc: "What becomes of a request for which there is no file. not_found: 404, and 405 for what is neither GET nor HEAD. cell: it is the cell's, which it may wake.",
        example: r#""cell""#,
    },
    Field {
        key: Key::MaxAge,
        name: "max_age_s",
        scopes: &[Scope::Static],
        kind: Kind::Number {
            min: 0,
            max: 31_536_000,
            default: Some(0),
            unit: Unit::Seconds,
        },
        doc: "For how long clients and caches need not ask again; 0: they ask each time whether the file has changed.",
        example: "86400",
    },
];
