//! A request's head as the cell is to get it.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, Version};

use super::hop_by_hop::Stripped;
use super::identity::{self, Introduction, Peer};
use super::lines::Lines;
use super::sieve::{Fields, Sieve};
use super::sign_in::{self, SignedIn};
use super::{fly, hop_by_hop};
use crate::registry::SignIn;

/// What a head is rewritten with.
#[derive(Debug)]
pub struct Rewrite<'a> {
    /// The connection the request came over.
    pub peer: Peer,
    /// What the router says of it.
    pub introduction: Introduction<'a>,
    /// How clients sign in before the cell, and who this one is, if it has.
    pub sign_in: Option<(&'a SignIn, Option<&'a SignedIn>)>,
    /// Path and query as the cell gets them.
    pub target: PathAndQuery,
    /// The protocol that the client asks to switch to.
    pub upgrade: Option<&'a HeaderValue>,
    /// The name under which this router enters itself in `Via`.
    pub pseudonym: &'a str,
}

/// Rewrites a head for an HTTP/1.1 connection to a cell. Everything end to end stays as it was, in its order; the lines
/// follow it. Trailers must not have the names that are returned, either.
pub fn rewrite(head: &mut Parts, with: Rewrite<'_>) -> (Lines, Vec<HeaderName>) {
    let came_as = std::mem::replace(&mut head.version, Version::HTTP_11);
    if head.method == Method::OPTIONS
        && let Some(left) = hop_by_hop::max_forwards(Fields::of(&head.headers))
    {
        let left = HeaderValue::from(left.saturating_sub(1));
        head.headers.insert(header::MAX_FORWARDS, left);
    }
    let Stripped { named, te } = hop_by_hop::strip(&mut head.headers);
    let mut lines = Lines::with_capacity(512);
    identity::introduce(&mut head.headers, with.peer, &with.introduction, &mut lines);
    if let Some((sign_in, signed_in)) = with.sign_in {
        // What it sets takes the place of what has been said so far.
        std::mem::take(&mut lines).append_to(&mut head.headers);
        sign_in::tell(&mut head.headers, sign_in, signed_in);
    }
    let authority = with.introduction.authority;
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let only = hosts.next() == Some(authority) && hosts.next().is_none();
    if !only {
        head.headers.insert(header::HOST, authority.clone());
    }
    enter_via(&mut lines, came_as, with.pseudonym);
    if came_as == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    let connection = match (te, with.upgrade) {
        (false, None) => None,
        (true, None) => Some("te"),
        (false, Some(_)) => Some("upgrade"),
        (true, Some(_)) => Some("te, upgrade"),
    };
    if let Some(connection) = connection {
        let connection = HeaderValue::from_static(connection);
        head.headers.insert(header::CONNECTION, connection);
    }
    if let Some(protocol) = with.upgrade {
        head.headers.insert(header::UPGRADE, protocol.clone());
    }
    head.uri = Uri::from(with.target);
    (lines, named)
}

/// Turns a head for HTTP/1.1 into one for HTTP/2: its host into `:authority`, and without fields of a connection but `te`
/// (RFC 9113 section 8.2.2 and 8.3.1).
pub fn for_http2(head: &mut Parts, secure: bool) {
    head.version = Version::HTTP_2;
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
    ] {
        head.headers.remove(name);
    }
    let host = head.headers.remove(header::HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    // Whatever host has come so far is an authority.
    parts.authority = authority.or(Some(Authority::from_static("unknown")));
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The target as a cell gets it whose entry takes `prefix` off: what is left of the path, with the query.
///
/// `prefix` must be one that the path begins with, on a segment boundary.
pub fn without_prefix(target: &PathAndQuery, prefix: &str) -> PathAndQuery {
    let rest = target.as_str().get(prefix.len()..).unwrap_or_default();
    let text = if rest.starts_with('/') {
        rest.to_owned()
    } else {
        format!("/{rest}")
    };
    PathAndQuery::try_from(text).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

/// RFC 9110 section 7.6.3.
pub(super) fn enter_via(lines: &mut Lines, version: Version, pseudonym: &str) {
    let version = match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    lines.add_text(&header::VIA, [version, " ", pseudonym]);
}

/// HTTP/2 clients send cookies one a line; HTTP/1.1 has one line (RFC 9113 section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (lines.next(), lines.next()) {
        let mut joined = first.as_bytes().to_vec();
        for line in std::iter::once(second).chain(lines) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(line.as_bytes());
        }
        let joined = HeaderValue::from_maybe_shared(Bytes::from(joined));
        headers.insert(
            header::COOKIE,
            joined.expect("header values joined by semicolons are a header value"),
        );
    }
}

/// Takes away from a cell's answer what would steer the edge: else one tenant could send its visitors' requests to
/// another's machine.
pub fn unsteer(headers: &mut HeaderMap) {
    Sieve::of(headers).remove(headers, &fly::STEERING);
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    if kinds.any(|kind| fly::is_replay(kind.as_bytes())) {
        headers.remove(header::CONTENT_TYPE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> PathAndQuery {
        text.parse().unwrap()
    }

    #[test]
    fn prefix_is_taken_off_on_its_boundary() {
        for (from, prefix, to) in [
            ("/alice", "/alice", "/"),
            ("/alice/", "/alice", "/"),
            ("/alice/a%2Fb?x=1&y", "/alice", "/a%2Fb?x=1&y"),
            ("/alice?x", "/alice", "/?x"),
            ("/a/b/c", "/a/b", "/c"),
        ] {
            assert_eq!(without_prefix(&target(from), prefix).as_str(), to, "{from}");
        }
    }

    fn rewritten(request: http::request::Builder, upgrade: Option<&HeaderValue>) -> Parts {
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let (authority, id) = (
            HeaderValue::from_static("alice.example.com:80"),
            HeaderValue::from_static("1"),
        );
        let introduction = Introduction {
            cell: "alice",
            authority: &authority,
            request_id: &id,
            stripped_prefix: None,
        };
        let peer = Peer {
            ip: "192.0.2.7".parse().unwrap(),
            trusted: false,
            edge: false,
            tls: true,
        };
        let (lines, _) = rewrite(
            &mut head,
            Rewrite {
                peer,
                introduction,
                sign_in: None,
                target: target("/x?y"),
                upgrade,
                pseudonym: "cell-router-1",
            },
        );
        lines.append_to(&mut head.headers);
        head
    }

    #[test]
    fn http2_becomes_http11_with_host_and_one_cookie_line() {
        let request = http::Request::get("https://alice.example.com/x?y").version(Version::HTTP_2);
        let head = rewritten(
            request
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .header("te", "trailers"),
            None,
        );
        assert_eq!(
            (head.version, head.uri.to_string()),
            (Version::HTTP_11, "/x?y".to_owned())
        );
        assert_eq!(head.headers["host"], "alice.example.com:80");
        assert_eq!(
            head.headers.get_all("cookie").iter().collect::<Vec<_>>(),
            ["a=1; b=2"]
        );
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!(head.headers["via"], "2 cell-router-1");
        assert_eq!(head.headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn a_cell_hears_of_one_host() {
        let (right, wrong) = ("alice.example.com:80", "bob.example.com");
        for said in [
            &[][..],
            &[right],
            &[wrong],
            &[right, wrong],
            &[wrong, right],
        ] {
            let request = said.iter().fold(http::Request::get("/"), |request, host| {
                request.header(header::HOST, *host)
            });
            let head = rewritten(request, None);
            let hosts: Vec<_> = head.headers.get_all(header::HOST).iter().collect();
            assert_eq!(hosts, [right], "{said:?}");
        }
    }

    #[test]
    fn upgrade_is_said_again_for_the_next_hop() {
        let request = http::Request::get("/x")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket");
        let head = rewritten(request, Some(&HeaderValue::from_static("websocket")));
        assert_eq!(
            (&head.headers["connection"], &head.headers["upgrade"]),
            (
                &HeaderValue::from_static("upgrade"),
                &HeaderValue::from_static("websocket")
            )
        );
        let plain = rewritten(
            http::Request::get("/x")
                .header("connection", "upgrade")
                .header("upgrade", "h2c"),
            None,
        );
        assert!(
            !plain.headers.contains_key("upgrade") && !plain.headers.contains_key("connection")
        );
    }

    #[test]
    fn steering_content_type_goes_whatever_stands_beside_it() {
        for kind in [
            &b"application/vnd.fly.replay+json;x=\xff"[..],
            b"text/html, application/vnd.fly.replay+json",
            b"\xffapplication/vnd.fly.replay+json",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_bytes(kind).unwrap());
            unsteer(&mut headers);
            assert!(headers.is_empty(), "{headers:?}");
        }
    }

    #[test]
    fn a_head_for_http2_has_an_authority_and_no_fields_of_a_connection() {
        let request = http::Request::get("/x").header("te", "trailers, gzip");
        let mut head = rewritten(request, Some(&HeaderValue::from_static("websocket")));
        for_http2(&mut head, true);
        assert_eq!(head.uri, "https://alice.example.com:80/x?y");
        assert_eq!(head.version, Version::HTTP_2);
        for name in ["host", "connection", "upgrade", "transfer-encoding"] {
            assert!(!head.headers.contains_key(name), "{name}");
        }
        assert_eq!(head.headers["te"], "trailers");
    }

    #[test]
    fn steering_fields_go() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("fly-replay", "app=x"),
            ("fly-replay-cache", "/*"),
            ("fly-replay-cache-ttl-secs", "60"),
            (
                "content-type",
                "Application/vnd.fly.replay+JSON; charset=utf-8",
            ),
            ("x-mine", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        unsteer(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-mine"]);
    }
}
