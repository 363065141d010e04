//! Owns what the edge does to headers: what it adds, what it removes, what ends at each hop (fly-platform 6).

use std::net::IpAddr;

use http::header::{
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
    VIA,
};
use http::request::Parts;
use http::{Method, Version};

/// Names of the edge's own that clients may forge, as far as anybody documents (fly-platform 1.10, 6, 10).
const FORGEABLE: [&str; 5] = [
    "fly-replay-src",
    "fly-replay-failed",
    "fly-replay-cache-status",
    "fly-preferred-instance-unavailable",
    "x-forwarded-port",
];

/// A request's head as it is delivered.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) target: http::uri::PathAndQuery,
    pub(super) headers: HeaderMap,
}

/// Who a request came from, and through which door.
pub(super) struct Arrival<'a> {
    pub(super) client: IpAddr,
    pub(super) public_port: u16,
    pub(super) region: &'a str,
    pub(super) request_id: &'a str,
    pub(super) strips_forged: bool,
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("made of printable ASCII")
}

/// Removes what must not pass a hop (RFC 9110 section 7.6.1), also what `Connection` names, on any of its lines.
pub(super) fn end_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

/// Host of a request, without port, in lower case: the key of the replay cache (fly-platform 1.11).
pub(super) fn hostname(headers: &HeaderMap) -> String {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("");
    let end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    let end = host[end..]
        .find(':')
        .map_or(host.len(), |colon| end + colon);
    host[..end].to_ascii_lowercase()
}

/// The head that machines get for a request that came in as `parts`.
pub(super) fn delivered(parts: &Parts, arrival: &Arrival<'_>) -> Head {
    let mut headers = parts.headers.clone();
    let upgrade = headers
        .get(UPGRADE)
        .cloned()
        .filter(|_| parts.version == Version::HTTP_11);
    end_hop(&mut headers);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    if arrival.strips_forged {
        for name in FORGEABLE {
            headers.remove(name);
        }
    }
    if let Some(authority) = parts.uri.authority() {
        headers.insert(HOST, value(authority.as_str()));
    }
    join_cookies(&mut headers);
    let client = arrival.client.to_string();
    let secure = arrival.public_port == 443;
    let list = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|line| line.to_str().ok())
        .chain([client.as_str(), "127.0.0.1"])
        .collect::<Vec<_>>()
        .join(", ");
    // Its rightmost address is the app's own (fly-platform 6).
    headers.insert("x-forwarded-for", value(&list));
    headers.insert("fly-client-ip", value(&client));
    headers.insert("fly-forwarded-port", arrival.public_port.into());
    headers.insert("fly-region", value(arrival.region));
    headers.insert("fly-request-id", value(arrival.request_id));
    headers.insert(
        "x-forwarded-proto",
        HeaderValue::from_static(if secure { "https" } else { "http" }),
    );
    headers.insert(
        "x-forwarded-ssl",
        HeaderValue::from_static(if secure { "on" } else { "off" }),
    );
    // May come from the client (fly-platform 6).
    headers
        .entry("x-forwarded-port")
        .or_insert(arrival.public_port.into());
    let hop = if parts.version == Version::HTTP_2 {
        "2 fly.io"
    } else {
        "1.1 fly.io"
    };
    headers.append(VIA, HeaderValue::from_static(hop));
    Head {
        method: parts.method.clone(),
        target: parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| "/".parse().expect("`/` is a path")),
        headers,
    }
}

/// HTTP/2 may send a cookie in pieces, HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if pieces.len() > 1 {
        let joined =
            HeaderValue::from_bytes(&pieces.join(&b"; "[..])).expect("pieces were header values");
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(request: http::request::Builder, strips_forged: bool) -> Head {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let arrival = Arrival {
            client: "203.0.113.9".parse().unwrap(),
            public_port: 443,
            region: "ams",
            request_id: "01K-ams",
            strips_forged,
        };
        delivered(&parts, &arrival)
    }

    #[test]
    fn edge_says_who_the_client_is_and_overwrites_what_it_owns() {
        let request = http::Request::get("/a?b")
            .header("fly-client-ip", "6.6.6.6")
            .header("x-forwarded-for", "6.6.6.6");
        let headers = head(request, false).headers;
        assert_eq!(headers["fly-client-ip"], "203.0.113.9");
        assert_eq!(
            headers["x-forwarded-for"],
            "6.6.6.6, 203.0.113.9, 127.0.0.1"
        );
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["fly-forwarded-port"], "443");
    }

    #[test]
    fn forged_replay_headers_pass_unless_switched_off() {
        let request = || http::Request::get("/").header("fly-replay-failed", "reason=timeout");
        assert!(
            head(request(), false)
                .headers
                .contains_key("fly-replay-failed")
        );
        assert!(
            !head(request(), true)
                .headers
                .contains_key("fly-replay-failed")
        );
    }

    #[test]
    fn headers_named_by_any_connection_line_end_here() {
        let request = http::Request::get("/")
            .header("connection", "close, x-one")
            .header("connection", "x-two")
            .header("x-one", "1")
            .header("x-two", "2");
        let headers = head(request, false).headers;
        assert!(!headers.contains_key("x-one") && !headers.contains_key("x-two"));
        assert!(!headers.contains_key("connection"));
    }

    #[test]
    fn hostname_has_no_port() {
        for (host, name) in [
            ("A.test:80", "a.test"),
            ("a.test", "a.test"),
            ("[::1]:80", "[::1]"),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            assert_eq!(hostname(&headers), name);
        }
    }
}
