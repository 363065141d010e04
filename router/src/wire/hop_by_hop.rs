//! What belongs to one connection and must not be forwarded (RFC 9110 section 7.6.1).

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::sieve::{Fields, Sieve};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that belong to one connection whether or not `Connection` names them. `TE` and `Trailer` are handled by
/// name below; `Transfer-Encoding` is the codec's.
static ALWAYS: [HeaderName; 7] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HTTP2_SETTINGS,
];

/// Fields that a `Connection` line may not take away: they frame the message or say for whom it is.
fn protected(name: &HeaderName) -> bool {
    *name == header::HOST || *name == header::CONTENT_LENGTH
}

/// What a head said of its connection.
#[derive(Debug, Default)]
pub struct Stripped {
    /// What its `Connection` names: trailers of that name are for nobody else either.
    pub named: Vec<HeaderName>,
    /// Whether `TE: trailers` is said again.
    pub te: bool,
}

/// Removes every hop-by-hop field, those that any `Connection` line names included.
///
/// Of `TE` only `trailers` is said again, for that is end to end in effect: it tells the cell that trailers
/// will be passed on.
pub fn strip(headers: &mut HeaderMap) -> Stripped {
    let names = Sieve::of(headers);
    let te = names.passes(&header::TE)
        && tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    let mut named = Vec::new();
    if names.has(headers, &header::CONNECTION) {
        named = tokens(headers, &header::CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .filter(|name| !protected(name))
            .collect();
        for name in &named {
            headers.remove(name);
        }
    }
    names.remove(headers, &ALWAYS);
    if te {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Stripped { named, te }
}

/// As [`strip`], for an answer with this status. A length beside a transfer coding is no length and must not be forwarded
/// (RFC 9112 section 6.3), nor one of an answer that has no body (RFC 9110 section 8.6); one that is said twice is said
/// once.
pub fn strip_answer(status: StatusCode, headers: &mut HeaderMap) -> Stripped {
    if headers.is_empty() {
        // As where the lines are passed on as they came.
        return Stripped::default();
    }
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    if bodiless || headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    } else {
        let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
        if let (Some(length), Some(_)) = (lines.next().cloned(), lines.next()) {
            // Whoever framed the answer has seen that they are equal.
            headers.insert(header::CONTENT_LENGTH, length);
        }
    }
    strip(headers)
}

/// How often an OPTIONS request may still be forwarded, if it says so (RFC 9110 section 7.6.2).
pub fn max_forwards(fields: Fields<'_>) -> Option<u64> {
    let mut lines = fields.all(&header::MAX_FORWARDS);
    let text = lines.next()?.to_str().ok()?;
    let number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| number && lines.next().is_none())
}

/// The protocol that an HTTP/1.1 message asks to switch to, if its `Connection` says so too.
///
/// `h2c` is none: the upgrade would let a client speak past the router (RFC 9113 section 3.1 has dropped it).
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted =
        tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    if !wanted {
        return None;
    }
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next()?;
    let text = protocol.to_str().ok()?;
    let h2c = text
        .split(',')
        .any(|one| one.trim().eq_ignore_ascii_case("h2c"));
    (protocols.next().is_none() && !h2c && !text.trim().is_empty()).then(|| protocol.clone())
}

/// Whether an answer switches to nothing but what was `asked` for (RFC 9110 section 7.8). Either may leave a version out.
pub fn switches_as_asked(asked: &HeaderValue, answer: &HeaderMap) -> bool {
    let is_asked = |taken: &[u8]| {
        let (taken, version) = versioned(taken);
        list(asked).map(versioned).any(|(name, wanted)| {
            let other = !version.is_empty() && !wanted.is_empty() && version != wanted;
            taken.eq_ignore_ascii_case(name) && !other
        })
    };
    tokens(answer, &header::UPGRADE).all(is_asked)
}

/// A protocol's name and its version, if it says one.
fn versioned(protocol: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = protocol.splitn(2, |byte| *byte == b'/');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next())
}

/// The comma-separated tokens of a field, over all its lines. A line may have bytes beyond ASCII: what stands beside
/// them counts.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(list)
}

fn list(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        lines.iter().map(pair).collect()
    }

    fn left(lines: &[(&str, &str)]) -> Vec<String> {
        let mut headers = map(lines);
        strip(&mut headers);
        let mut names: Vec<_> = headers
            .iter()
            .map(|(n, v)| format!("{n}={}", v.to_str().unwrap()))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn fields_named_on_any_connection_line_go() {
        let lines = [
            ("connection", "close, X-One"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ];
        assert_eq!(left(&lines), ["x-three=3"]);
    }

    #[test]
    fn bytes_beyond_ascii_hide_no_token() {
        let mut headers = map(&[("x-one", "1"), ("te", "trailers")]);
        let odd = HeaderValue::from_bytes(b"\xff, x-one, upgrade").unwrap();
        headers.insert("connection", odd);
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        assert_eq!(upgrade(&headers).unwrap(), "websocket");
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["te"]);
    }

    #[test]
    fn connection_cannot_take_host_or_length_away() {
        let lines = [
            ("connection", "host, content-length"),
            ("host", "a"),
            ("content-length", "3"),
        ];
        assert_eq!(left(&lines), ["content-length=3", "host=a"]);
    }

    #[test]
    fn an_answer_has_one_length_if_it_has_a_body() {
        for (status, kept) in [(100, 0), (103, 0), (204, 0), (200, 1), (304, 1)] {
            let twice = [("content-length", "3"), ("content-length", "3")];
            let mut headers = map(&twice);
            strip_answer(StatusCode::from_u16(status).unwrap(), &mut headers);
            let left = headers.get_all(header::CONTENT_LENGTH).iter().count();
            assert_eq!(left, kept, "{status}");
        }
    }

    #[test]
    fn te_keeps_only_trailers() {
        assert_eq!(
            left(&[("te", "gzip;q=0.5, trailers"), ("connection", "te")]),
            ["te=trailers"]
        );
        assert_eq!(left(&[("te", "gzip")]), Vec::<String>::new());
    }

    #[test]
    fn all_hop_by_hop_fields_go() {
        let lines = [
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABk"),
            ("trailer", "x-sum"),
        ];
        assert_eq!(left(&lines), ["trailer=x-sum"]);
    }

    #[test]
    fn upgrade_is_found_in_a_list_on_a_second_line() {
        let lines = [
            ("connection", "keep-alive"),
            ("connection", "x, Upgrade"),
            ("upgrade", "websocket"),
        ];
        assert_eq!(upgrade(&map(&lines)).unwrap(), "websocket");
    }

    #[test]
    fn upgrade_needs_the_connection_token() {
        assert_eq!(upgrade(&map(&[("upgrade", "websocket")])), None);
        assert_eq!(
            upgrade(&map(&[
                ("connection", "upgrade-insecure"),
                ("upgrade", "websocket")
            ])),
            None
        );
    }

    #[test]
    fn a_count_of_forwards_is_one_number() {
        for (lines, count) in [
            (&["0"][..], Some(0)),
            (&["007"], Some(7)),
            (&["18446744073709551615"], Some(u64::MAX)),
            (&["18446744073709551616"], None),
            (&["+1"], None),
            (&["-1"], None),
            (&[""], None),
            (&["1, 2"], None),
            (&["1", "1"], None),
            (&[], None),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("max-forwards", *line)).collect();
            let headers = map(&lines);
            assert_eq!(max_forwards(Fields::of(&headers)), count, "{lines:?}");
        }
    }

    #[test]
    fn h2c_is_no_upgrade() {
        assert_eq!(
            upgrade(&map(&[
                ("connection", "upgrade, http2-settings"),
                ("upgrade", "H2C")
            ])),
            None
        );
        assert_eq!(
            upgrade(&map(&[
                ("connection", "upgrade"),
                ("upgrade", "websocket, h2c")
            ])),
            None
        );
    }
}
