//! Who the client is, said to the cell; and what no client may claim.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::lines::Lines;
use super::sieve::{Fields, Sieve};
use super::{CELL_NAME, CELL_SIGNATURE, CELL_USER, X_REQUEST_ID, address, fly, hop_by_hop};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_SSL: HeaderName = HeaderName::from_static("x-forwarded-ssl");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What only a trusted proxy may say of a client.
pub(super) static FORWARDING: [HeaderName; 8] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_SSL,
    X_FORWARDED_PREFIX,
    X_REAL_IP,
    header::FORWARDED,
];

/// What Fly's edge neither writes nor takes out: whoever stands before it may have written that.
static NOT_THE_EDGES: [HeaderName; 5] = [
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PREFIX,
    X_REAL_IP,
    header::FORWARDED,
];

/// What only the router says to a cell.
static OURS: [HeaderName; 4] = [CELL_SIGNATURE, CELL_NAME, CELL_USER, X_REQUEST_ID];

/// The connection a request came over.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The address at the other end.
    pub ip: IpAddr,
    /// Whether the settings name that address as a proxy whose word on clients counts.
    pub trusted: bool,
    /// Whether it is trusted, and Fly's edge: nobody else writes the fields of [`fly::EDGE_ONLY`], or takes out what a client
    /// wrote of them.
    pub edge: bool,
    /// Whether the connection itself is TLS.
    pub tls: bool,
}

/// The client's address: what a trusted peer says it is, else the peer's own.
pub fn client_ip(fields: Fields<'_>, peer: Peer) -> IpAddr {
    let said = || {
        let edge = fields
            .get(&fly::FLY_CLIENT_IP)
            .filter(|_| peer.edge)
            .and_then(|value| value.to_str().ok());
        let last = || {
            fields
                .all(&X_FORWARDED_FOR)
                .next_back()
                .and_then(|value| value.to_str().ok())
        };
        edge.or_else(|| last().and_then(|list| list.rsplit(',').next()))?
            .trim()
            .parse()
            .ok()
    };
    peer.trusted.then(said).flatten().unwrap_or(peer.ip)
}

/// Whether the client is known to have come by plain HTTP. What a trusted peer does not say is not known.
pub fn plain_http(fields: Fields<'_>, peer: Peer) -> bool {
    if !peer.trusted {
        return !peer.tls;
    }
    let said = fields
        .all(&X_FORWARDED_PROTO)
        .next_back()
        .and_then(|value| value.to_str().ok())
        .and_then(|list| list.rsplit(',').next());
    said.is_some_and(|protocol| protocol.trim().eq_ignore_ascii_case("http"))
}

/// The request's id as a trusted peer gave it: up to 128 visible ASCII characters.
pub fn request_id(fields: Fields<'_>, peer: Peer) -> Option<HeaderValue> {
    let fits = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value.as_bytes().iter().all(|byte| byte.is_ascii_graphic())
    };
    let given = || {
        fields
            .get(&fly::FLY_REQUEST_ID)
            .filter(|_| peer.edge)
            .or_else(|| fields.get(&X_REQUEST_ID))
            .filter(fits)
            .cloned()
    };
    peer.trusted.then(given).flatten()
}

/// What no trailer may say, for it frames, routes, controls or authenticates a message, or says of what kind its body
/// is (RFC 9110 section 6.5.1).
static HEAD_ONLY: [HeaderName; 26] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
];

/// Removes from trailers what a head may not say, or is not believed to: some readers merge the two (RFC 9110 section
/// 6.5.1).
pub fn silence_trailers(trailers: &mut HeaderMap) {
    hop_by_hop::strip(trailers);
    remove(trailers, |name| {
        let name = name.replace('_', "-");
        let mut banned = HEAD_ONLY.iter().chain(&fly::STEERING);
        is_claim(&name) || banned.any(|banned| banned.as_str() == name)
    });
}

/// Removes claims in disguise. Programs that get fields as `HTTP_X_REAL_IP` (RFC 3875 section 4.1.18) cannot tell
/// `X_Real_IP` from `X-Real-IP`.
fn unmask(headers: &mut HeaderMap) {
    remove(headers, |name| {
        name.contains('_') && is_claim(&name.replace('_', "-"))
    });
}

/// Whether only a trusted proxy may say a field.
pub(super) fn is_forwarding(name: &str) -> bool {
    FORWARDING.iter().any(|field| field.as_str() == name)
}

/// Whether a request's field speaks of the client, of the cell or of a replay that has been.
fn is_claim(name: &str) -> bool {
    fly::REPLAY_TALK
        .iter()
        .chain(&fly::EDGE_ONLY)
        .chain(&FORWARDING)
        .chain(&OURS)
        .any(|claim| claim.as_str() == name)
}

fn remove(headers: &mut HeaderMap, which: impl Fn(&str) -> bool) {
    let names = headers.keys().filter(|name| which(name.as_str()));
    for name in names.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// What the router says of the request to the cell.
#[derive(Debug)]
pub struct Introduction<'a> {
    /// The cell's name in the registry.
    pub cell: &'a str,
    /// The authority as the client wrote it.
    pub authority: &'a HeaderValue,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// The path prefix that was taken off, if one was.
    pub stripped_prefix: Option<&'a str>,
}

/// Takes away what the client claims about itself, and says in lines of the router's own what is known and for which cell the
/// request is.
pub fn introduce(
    headers: &mut HeaderMap,
    peer: Peer,
    introduction: &Introduction<'_>,
    lines: &mut Lines,
) {
    let names = Sieve::of(headers);
    let claims = fly::REPLAY_TALK.iter().chain(&OURS);
    match (peer.edge, peer.trusted) {
        (true, _) => names.remove(headers, claims.chain(&NOT_THE_EDGES)),
        (false, true) => names.remove(headers, claims.chain(&fly::EDGE_ONLY)),
        (false, false) => names.remove(headers, claims.chain(&fly::EDGE_ONLY).chain(&FORWARDING)),
    }
    unmask(headers);
    let said = |headers: &HeaderMap, name: &HeaderName| peer.trusted && names.has(headers, name);
    if !said(headers, &X_FORWARDED_PROTO) {
        lines.add_text(
            &X_FORWARDED_PROTO,
            [if peer.tls { "https" } else { "http" }],
        );
    }
    if !said(headers, &X_FORWARDED_HOST) {
        lines.add(&X_FORWARDED_HOST, introduction.authority);
    }
    if said(headers, &X_FORWARDED_FOR) {
        lines.add(&X_FORWARDED_FOR, &passed(headers, peer.ip));
        headers.remove(X_FORWARDED_FOR);
    } else {
        lines.add_text(&X_FORWARDED_FOR, [address::Text::of(peer.ip).as_str()]);
    }
    if let Some(prefix) = introduction.stripped_prefix {
        headers.remove(X_FORWARDED_PREFIX);
        lines.add_text(&X_FORWARDED_PREFIX, [prefix]);
    }
    lines.add(&X_REQUEST_ID, introduction.request_id);
    lines.add_text(&CELL_NAME, [introduction.cell]);
}

/// The list of those that the request has passed, with the peer, as one line.
fn passed(headers: &HeaderMap, ip: IpAddr) -> HeaderValue {
    let mut list = Vec::new();
    for line in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(address::Text::of(ip).as_str().as_bytes());
    let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(list));
    value.expect("header values joined by commas are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn peer(trusted: bool) -> Peer {
        Peer {
            ip: "192.0.2.7".parse().unwrap(),
            trusted,
            edge: false,
            tls: false,
        }
    }

    fn edge() -> Peer {
        Peer {
            edge: true,
            ..peer(true)
        }
    }

    fn introduced(mut headers: HeaderMap, peer: Peer) -> HeaderMap {
        let (authority, id) = (
            HeaderValue::from_static("Alice.example.com"),
            HeaderValue::from_static("id-1"),
        );
        let introduction = Introduction {
            cell: "alice",
            authority: &authority,
            request_id: &id,
            stripped_prefix: Some("/a"),
        };
        let mut lines = Lines::default();
        introduce(&mut headers, peer, &introduction, &mut lines);
        lines.append_to(&mut headers);
        headers
    }

    const CLAIMS: [(&str, &str); 10] = [
        ("cell-user", "admin"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("forwarded", "for=1.1.1.1"),
        ("x-real-ip", "1.1.1.1"),
        ("fly-client-ip", "1.1.1.1"),
        ("cell-name", "bob"),
        ("cell-signature", "v1.1.x"),
        ("fly-replay-src", "state=x"),
    ];

    #[test]
    fn plain_http_is_what_is_known_to_be() {
        for (trusted, tls, said, plain) in [
            (false, false, None, true),
            (false, true, None, false),
            (false, false, Some("https"), true),
            (false, true, Some("http"), false),
            (true, false, Some("https"), false),
            (true, false, Some("http"), true),
            (true, false, Some("https, HTTP"), true),
            (true, true, Some("http"), true),
            (true, false, None, false),
        ] {
            let ip = "192.0.2.1".parse().unwrap();
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(said));
            }
            let edge = false;
            let peer = Peer {
                ip,
                trusted,
                edge,
                tls,
            };
            assert_eq!(
                plain_http(Fields::of(&headers), peer),
                plain,
                "{trusted} {tls} {said:?}"
            );
        }
    }

    #[test]
    fn a_strangers_claims_are_replaced() {
        let got = introduced(headers(&CLAIMS), peer(false));
        assert_eq!(got["x-forwarded-for"], "192.0.2.7");
        assert_eq!(got["x-forwarded-proto"], "http");
        assert_eq!(got["x-forwarded-host"], "Alice.example.com");
        assert_eq!(got["x-forwarded-prefix"], "/a");
        assert_eq!(got["cell-name"], "alice");
        for gone in [
            "forwarded",
            "x-real-ip",
            "fly-client-ip",
            "cell-signature",
            "cell-user",
            "fly-replay-src",
        ] {
            assert!(!got.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn a_trusted_proxys_words_are_kept_and_added_to() {
        for (peer, client) in [(peer(true), None), (edge(), Some("1.1.1.1"))] {
            let got = introduced(headers(&CLAIMS), peer);
            assert_eq!(got["x-forwarded-for"], "1.1.1.1, 192.0.2.7");
            assert_eq!(got["x-forwarded-proto"], "https");
            // The edge passes on what it did not write.
            let host = if peer.edge {
                "Alice.example.com"
            } else {
                "evil"
            };
            assert_eq!(got["x-forwarded-host"], host);
            for name in ["x-real-ip", "forwarded"] {
                assert_eq!(got.contains_key(name), !peer.edge, "{name}");
            }
            let said = got.get("fly-client-ip").map(HeaderValue::as_bytes);
            assert_eq!(said, client.map(str::as_bytes), "{peer:?}");
            assert_eq!(got["cell-name"], "alice");
            assert!(!got.contains_key("fly-replay-src") && !got.contains_key("cell-user"));
        }
    }

    #[test]
    fn claims_with_underscores_are_gone_whoever_sends_them() {
        for trusted in [false, true] {
            let masked = [
                ("x_forwarded_for", "1.1.1.1"),
                ("cell-signature", "v1"),
                ("cell_name", "bob"),
                ("cell_user", "admin"),
                ("fly_client-ip", "1.1.1.1"),
                ("x_mine", "1"),
                // Of no request: it passes, as it does with hyphens.
                ("fly_replay", "app=x"),
            ];
            let got = introduced(headers(&masked), peer(trusted));
            let left: Vec<_> = got
                .keys()
                .filter(|name| name.as_str().contains('_'))
                .collect();
            assert_eq!(left, ["x_mine", "fly_replay"]);
            assert_eq!(got["x-forwarded-for"], "192.0.2.7");
        }
    }

    #[test]
    fn trailers_claim_nothing() {
        let mut trailers = headers(&CLAIMS);
        trailers.insert("cell_name", HeaderValue::from_static("bob"));
        trailers.insert("fly-replay", HeaderValue::from_static("app=x"));
        for (name, value) in [
            ("x-sum", "1"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("cookie", "a=b"),
            ("transfer-encoding", "chunked"),
            ("content-length", "1"),
        ] {
            trailers.insert(name, HeaderValue::from_static(value));
        }
        silence_trailers(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
    }

    #[test]
    fn client_address_is_the_peers_unless_a_trusted_one_names_it() {
        let told = [
            ("fly-client-ip", "203.0.113.9"),
            ("x-forwarded-for", "9.9.9.9, 203.0.113.1"),
        ];
        let unreadable = [
            ("fly-client-ip", "x"),
            ("x-forwarded-for", "9.9.9.9, 203.0.113.1"),
        ];
        for (said, peer, client) in [
            (&told[..], peer(false), "192.0.2.7"),
            (&told, peer(true), "203.0.113.1"),
            (&told, edge(), "203.0.113.9"),
            (&told[..1], peer(true), "192.0.2.7"),
            (&told[1..], peer(true), "203.0.113.1"),
            (&told[1..], edge(), "203.0.113.1"),
            (&unreadable, peer(true), "203.0.113.1"),
            (&unreadable, edge(), "192.0.2.7"),
        ] {
            let said = headers(said);
            let ip = client_ip(Fields::of(&said), peer);
            assert_eq!(ip.to_string(), client, "{said:?} {peer:?}");
        }
    }

    #[test]
    fn forwarded_for_on_two_lines_becomes_one_list() {
        let got = introduced(
            headers(&[
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
            ]),
            peer(true),
        );
        assert_eq!(
            got.get_all("x-forwarded-for").iter().collect::<Vec<_>>(),
            ["1.1.1.1, 2.2.2.2, 192.0.2.7"]
        );
    }

    #[test]
    fn only_a_trusted_peers_request_id_counts() {
        let flys = [("fly-request-id", "01J-iad"), ("x-request-id", "1")];
        for (said, peer, id) in [
            (&flys[..], edge(), Some("01J-iad")),
            (&flys, peer(true), Some("1")),
            (&flys, peer(false), None),
            (&flys[..1], peer(true), None),
            (&flys[1..], edge(), Some("1")),
            (&[("x-request-id", "a b")], peer(true), None),
        ] {
            let said = headers(said);
            let given = request_id(Fields::of(&said), peer);
            assert_eq!(given, id.map(HeaderValue::from_static), "{said:?} {peer:?}");
        }
    }
}
