//! Header fields on their way to a cell and back: what belongs to a connection stays there, what no client may claim
//! is gone, and all else is as it was.

use std::collections::BTreeMap;

use cell_router::decision::{BodyLength, Facts, Surroundings};
use cell_router::wire::accept::Form;
use cell_router::wire::forward::{Rewrite, rewrite, unsteer};
use cell_router::wire::hop_by_hop;
use cell_router::wire::identity::{self, Introduction, Peer};
use cell_router::wire::sieve::Fields;
use cell_router::wire::trace::TraceParent;
use cell_router::wire::visitor::{NO_VISITORS, is_navigation, is_visitor};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode, Version};

const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// What only the router says.
const ROUTERS: [&str; 6] = [
    "cell-name",
    "cell-user",
    "cell-signature",
    "fly-replay-failed",
    "fly-replay-src",
    "x-request-id",
];
/// What only the router or a trusted proxy says.
const PROXIES: [&str; 13] = [
    "fly-client-ip",
    "fly-forwarded-port",
    "fly-region",
    "fly-replay-cache-status",
    "fly-request-id",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-ssl",
    "x-real-ip",
];
/// What Fly's edge passes on as it came.
const NOT_THE_EDGES: [&str; 5] = [
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
];
const STEERING: [&str; 4] = [
    "fly-replay",
    "fly-replay-cache",
    "fly-replay-cache-allow-bypass",
    "fly-replay-cache-ttl-secs",
];

type Lines = BTreeMap<String, Vec<Vec<u8>>>;

/// What must hold for header lines, whoever sends them.
pub fn holds(data: &[u8]) {
    let headers = read(data);
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        for (trusted, prefix) in [(false, None), (true, Some("/alice"))] {
            request(&headers, version, trusted, false, prefix);
            // On Fly, whoever is trusted is its edge.
            request(&headers, version, trusted, trusted, prefix);
        }
    }
    answer(&headers);
    trailers(&headers);
    visitor(&headers);
    trace(&headers);
}

/// Lines of `name: value`; what is no header field is passed over.
fn read(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(200) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn fields(headers: &HeaderMap) -> Lines {
    let mut fields = Lines::new();
    for (name, value) in headers {
        let values = fields.entry(name.as_str().to_owned()).or_default();
        values.push(value.as_bytes().to_vec());
    }
    fields
}

/// The items of a comma-separated field, over all its lines, in lower case.
fn list(fields: &Lines, name: &str) -> Vec<Vec<u8>> {
    let lines = fields.get(name).into_iter().flatten();
    lines
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(|item| item.trim_ascii().to_ascii_lowercase())
        .collect()
}

/// A name as programs see it that write `HTTP_X_REAL_IP` for `X-Real-IP` and for `X_Real_IP` (RFC 3875 section 4.1.18).
fn plain(name: &str) -> String {
    name.replace('_', "-")
}

fn request(headers: &HeaderMap, version: Version, trusted: bool, edge: bool, prefix: Option<&str>) {
    let (mut head, ()) = Request::new(()).into_parts();
    head.headers = headers.clone();
    head.version = version;
    let before = fields(headers);
    let via = before.get("via").cloned().unwrap_or_default();
    assert_eq!(looped(&head), passed(&via));
    let peer = Peer {
        ip: [192, 0, 2, 7].into(),
        trusted,
        edge,
        tls: false,
    };
    if !trusted {
        assert_eq!(identity::client_ip(Fields::of(headers), peer), peer.ip);
        assert_eq!(identity::request_id(Fields::of(headers), peer), None);
    }
    let modern = version == Version::HTTP_11;
    let upgrade = modern.then(|| hop_by_hop::upgrade(headers)).flatten();
    if let Some(protocol) = &upgrade {
        assert!(list(&before, "connection").contains(&b"upgrade".to_vec()));
        let protocol = protocol.as_bytes().to_ascii_lowercase();
        assert!(
            !protocol.windows(3).any(|part| part == b"h2c")
                || !protocol
                    .split(|byte| *byte == b',')
                    .any(|one| one.trim_ascii() == b"h2c")
        );
    }
    let (authority, id) = (
        HeaderValue::from_static("alice.example.com"),
        HeaderValue::from_static("id-1"),
    );
    let with = Rewrite {
        peer,
        sign_in: None,
        introduction: Introduction {
            cell: "alice",
            authority: &authority,
            request_id: &id,
            stripped_prefix: prefix,
        },
        target: http::uri::PathAndQuery::from_static("/x?y"),
        upgrade: upgrade.as_ref(),
        pseudonym: "me",
    };
    rewrite(&mut head, with).0.append_to(&mut head.headers);
    assert!(looped(&head), "what passed here is known again");
    let expected = forwarded(&before, version, peer, prefix, upgrade.as_ref());
    assert_eq!(shown(&fields(&head.headers)), shown(&expected));
}

/// What the cell is to get, by the rules one after the other.
fn forwarded(
    before: &Lines,
    version: Version,
    peer: Peer,
    prefix: Option<&str>,
    upgrade: Option<&HeaderValue>,
) -> Lines {
    let named = list(before, "connection");
    let mut after = before.clone();
    after.retain(|name, _| {
        let taken =
            named.contains(&name.as_bytes().to_vec()) && name != "host" && name != "content-length";
        let disguised = name.contains('_');
        !taken
            && !HOP_BY_HOP.contains(&&name[..])
            && !ROUTERS.contains(&&plain(name)[..])
            && !(PROXIES.contains(&&plain(name)[..]) && (disguised || !peer.trusted))
            && (peer.edge || !name.starts_with("fly-") || !PROXIES.contains(&&name[..]))
            && !(peer.edge && NOT_THE_EDGES.contains(&&name[..]))
    });
    let mut say = |name: &str, value: &[u8]| after.insert(name.to_owned(), vec![value.to_vec()]);
    say("host", b"alice.example.com");
    say("cell-name", b"alice");
    say("x-request-id", b"id-1");
    let te = list(before, "te").contains(&b"trailers".to_vec());
    if te {
        say("te", b"trailers");
        say("connection", b"te");
    }
    if let Some(prefix) = prefix {
        say("x-forwarded-prefix", prefix.as_bytes());
    }
    if let Some(protocol) = upgrade {
        say("connection", if te { b"te, upgrade" } else { b"upgrade" });
        say("upgrade", protocol.as_bytes());
    }
    let mut passed = after.remove("x-forwarded-for").unwrap_or_default();
    passed.push(b"192.0.2.7".to_vec());
    after.insert("x-forwarded-for".to_owned(), vec![passed.join(&b", "[..])]);
    let default = |name: &str, value: &[u8], after: &mut Lines| {
        after
            .entry(name.to_owned())
            .or_insert_with(|| vec![value.to_vec()]);
    };
    default("x-forwarded-proto", b"http", &mut after);
    default("x-forwarded-host", b"alice.example.com", &mut after);
    let hop = match version {
        Version::HTTP_10 => "1.0 me",
        Version::HTTP_2 => "2 me",
        _ => "1.1 me",
    };
    after.entry("via".to_owned()).or_default().push(hop.into());
    if let (Version::HTTP_2, Some(cookies)) = (version, after.get_mut("cookie")) {
        *cookies = vec![cookies.join(&b"; "[..])];
    }
    after
}

fn looped(head: &Parts) -> bool {
    let mut head = head.clone();
    head.headers.remove("host");
    head.headers
        .insert("host", HeaderValue::from_static("alice.example.com"));
    let surroundings = Surroundings {
        through_edge: false,
        https_at: None,
        replay_max_bytes: 0,
        pseudonym: "me",
    };
    let facts = Facts::read(&head, BodyLength::None, &surroundings);
    facts.expect("a plain request").looped
}

/// RFC 9110 section 7.6.3: `1.1 me (comment), ...`.
fn passed(via: &[Vec<u8>]) -> bool {
    via.iter()
        .flat_map(|line| line.split(|byte| *byte == b','))
        .any(|hop| {
            let mut words = hop
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            words.nth(1) == Some(&b"me"[..])
        })
}

fn answer(headers: &HeaderMap) {
    let mut left = headers.clone();
    hop_by_hop::strip_answer(StatusCode::OK, &mut left);
    unsteer(&mut left);
    for name in left.keys().map(HeaderName::as_str) {
        assert!(!STEERING.contains(&name), "{name}");
        assert!(!HOP_BY_HOP.contains(&name) || name == "te", "{name}");
    }
    assert!(!(left.contains_key("content-length") && headers.contains_key("transfer-encoding")));
    assert!(left.get_all("content-length").iter().count() <= 1);
    for kind in left.get_all("content-type") {
        let kind = kind.as_bytes().to_ascii_lowercase();
        let wanted = b"application/vnd.fly.replay+json";
        assert!(
            !kind.windows(wanted.len()).any(|part| part == wanted),
            "it steers the edge"
        );
    }
}

fn trailers(headers: &HeaderMap) {
    let mut left = headers.clone();
    identity::silence_trailers(&mut left);
    for name in left.keys().map(|name| plain(name.as_str())) {
        let claims = [&ROUTERS[..], &PROXIES, &STEERING].concat();
        assert!(!claims.contains(&&name[..]), "{name}");
    }
}

/// Crawlers, checks and prefetches are told by what they say, whatever stands around it.
fn visitor(headers: &HeaderMap) {
    let lower = |name: &str| {
        let lines = headers.get_all(name).iter();
        lines
            .map(|line| line.as_bytes().to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    let says = |name: &str, word: &str| {
        let has = |line: &Vec<u8>| line.windows(word.len()).any(|part| part == word.as_bytes());
        lower(name).iter().any(has)
    };
    let ahead = ["sec-purpose", "purpose", "x-moz"]
        .iter()
        .any(|name| says(name, "prefetch"));
    let robot = NO_VISITORS.iter().any(|word| says("user-agent", word));
    let fields = Fields::of(headers);
    assert_eq!(is_visitor(fields), !ahead && !robot);
    let form = Form::wanted(fields);
    assert!(!is_navigation(&Method::POST, fields, form));
    if is_navigation(&Method::GET, fields, form) {
        assert!(form == Form::Html && !headers.contains_key("upgrade"));
    }
}

/// W3C Trace Context section 3.2, part by part: what is taken for a trace is one, and is told as it was said.
fn trace(headers: &HeaderMap) {
    let lines: Vec<_> = headers.get_all("traceparent").iter().collect();
    let read = TraceParent::of(Fields::of(headers));
    let ([line], Some(read)) = (&lines[..], read) else {
        assert_eq!(read, None, "none or several");
        assert!(lines.len() != 1 || !is_traceparent(lines[0].as_bytes()));
        return;
    };
    assert!(is_traceparent(line.as_bytes()), "{line:?}");
    // What a later version says after that may be in any bytes.
    assert_eq!(read.to_string().as_bytes()[2..], line.as_bytes()[2..55]);
}

fn is_traceparent(line: &[u8]) -> bool {
    let parts: Vec<_> = line.split(|byte| *byte == b'-').collect();
    let [version, trace, span, flags, more @ ..] = &parts[..] else {
        return false;
    };
    let digits = |part: &[u8], length| {
        let digit = |byte: &u8| b"0123456789abcdef".contains(byte);
        part.len() == length && part.iter().all(digit)
    };
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    digits(version, 2)
        && *version != b"ff"
        && (*version != b"00" || more.is_empty())
        && digits(trace, 32)
        && !zero(trace)
        && digits(span, 16)
        && !zero(span)
        && digits(flags, 2)
}

/// As text that a failed comparison can be read in.
fn shown(fields: &Lines) -> Vec<String> {
    let lines = fields.iter().flat_map(|(name, values)| {
        values
            .iter()
            .map(move |value| format!("{name}: {}", value.escape_ascii()))
    });
    lines.collect()
}
