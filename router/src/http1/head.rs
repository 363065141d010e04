//! Request heads, read strictly (RFC 9112 sections 2 to 6): what two readers could take for two things is a fault.

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Uri, Version};

use crate::wire::sieve::Sieve;
use crate::wire::strict;
pub use crate::wire::strict::Fault;

/// Bytes of a target and of a field's name that can be kept, whatever a head may have (the `http` crate's own limits).
const TARGET_MAX: usize = u16::MAX as usize - 1;
const NAME_MAX: usize = u16::MAX as usize;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, its request line and its last empty line included.
    pub bytes: usize,
    /// Header lines.
    pub lines: usize,
}

/// How a message's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// It has this many bytes, at least one.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// It lasts until the connection ends, as only an answer's may (RFC 9112 section 6.3).
    ToEnd,
}

/// A request's head, and what its connection needs to know of it.
#[derive(Debug)]
pub struct Head {
    /// Method, target, version and header fields.
    pub parts: Parts,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether the client wants the connection to go on after it (RFC 9112 section 9.3).
    pub keep_alive: bool,
}

/// Empty lines between two requests that are passed over, beside the one in front of a head.
const EMPTY_LINES: usize = 3;

/// What may come before a request and is none of it: some clients end a body with an empty line (RFC 9112 section 2.2).
#[derive(Debug)]
pub struct Gap {
    left: usize,
}

impl Default for Gap {
    fn default() -> Self {
        Self { left: EMPTY_LINES }
    }
}

impl Gap {
    /// Takes empty lines off what has come, though not for ever; whether nothing has begun yet.
    pub fn pass(&mut self, read: &mut BytesMut) -> bool {
        while self.left > 0 && read.starts_with(b"\r\n") {
            read.advance(2);
            self.left -= 1;
        }
        read.is_empty() || self.left > 0 && &read[..] == b"\r"
    }
}

/// Finds a head's end in what has come so far. Remembers how far it has looked, so that a head that comes byte by
/// byte is looked at once.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Where the line begins that is looked at.
    line: usize,
    /// How far it has been looked at.
    seen: usize,
    /// The empty line that may stand in front has been taken off.
    skipped: bool,
    /// The first line has begun: an empty line is the head's end.
    begun: bool,
}

impl Scanner {
    /// The head's length in bytes, its empty line included, once all of it is there. One empty line in front of a
    /// request is taken off (RFC 9112 section 2.2).
    ///
    /// # Errors
    /// `LineEnd`, `TargetTooLong`, `HeadTooLarge`.
    pub fn scan(&mut self, read: &mut BytesMut, limits: Limits) -> Result<Option<usize>, Fault> {
        if !self.begun {
            if !self.skipped {
                if read.is_empty() || &read[..] == b"\r" {
                    return Ok(None);
                }
                if read.starts_with(b"\r\n") {
                    read.advance(2);
                }
                self.skipped = true;
            }
            if read.is_empty() {
                return Ok(None);
            }
            self.begun = true;
        }
        loop {
            let bound = read.len().min(limits.bytes);
            let Some(found) = memchr::memchr(b'\n', &read[self.seen.min(bound)..bound]) else {
                self.seen = bound;
                return match read.len() >= limits.bytes {
                    true if self.line == 0 => Err(Fault::TargetTooLong),
                    true => Err(Fault::HeadTooLarge),
                    false => Ok(None),
                };
            };
            let end = self.seen + found;
            let line = &read[self.line..end];
            // All but its end is looked at as a whole later.
            if line.last() != Some(&b'\r') {
                return Err(Fault::LineEnd);
            }
            self.seen = end + 1;
            if line.len() == 1 {
                let length = self.seen;
                *self = Self::default();
                return Ok(Some(length));
            }
            self.line = self.seen;
        }
    }
}

/// Reads a whole head, as [`Scanner`] found it.
///
/// # Errors
/// Every `Fault` but those of bodies and of time.
pub fn parse(head: &Bytes, limits: Limits) -> Result<Head, Fault> {
    let (line, rest) = split_line(head, 0).ok_or(Fault::RequestLine)?;
    let (method, uri, version) = request_line(head, line)?;
    let headers = fields(head, rest, limits.lines)?;
    let names = Sieve::of(&headers);
    let framing = framing(&headers, names, version)?;
    let keep_alive = keep_alive(&headers, names, version);
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    parts.headers = headers;
    Ok(Head {
        parts,
        framing,
        keep_alive,
    })
}

/// The line that begins at `from`, without its end, and where the next one begins.
pub(super) fn split_line(head: &[u8], from: usize) -> Option<(std::ops::Range<usize>, usize)> {
    let end = from + memchr::memchr(b'\n', head.get(from..)?)?;
    (end > from).then_some((from..end - 1, end + 1))
}

fn request_line(
    head: &Bytes,
    line: std::ops::Range<usize>,
) -> Result<(Method, Uri, Version), Fault> {
    let text = &head[line.clone()];
    if text.contains(&b'\r') {
        return Err(Fault::LineEnd);
    }
    let first = memchr::memchr(b' ', text).ok_or(Fault::RequestLine)?;
    let last = memchr::memrchr(b' ', text)
        .filter(|last| *last > first + 1)
        .ok_or(Fault::RequestLine)?;
    let version = match &text[last + 1..] {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Fault::Version);
        }
        _ => return Err(Fault::RequestLine),
    };
    let method = Method::from_bytes(&text[..first]).map_err(|_| Fault::Method)?;
    let target = head.slice(line.start + first + 1..line.start + last);
    let slash = target.ends_with(b"/");
    let uri = uri(target)?;
    if method == Method::OPTIONS && !slash && uri.scheme().is_some() {
        return Ok((method, of_server(uri)?, version));
    }
    Ok((method, uri, version))
}

/// An absolute URI, which does not end in a slash, of an OPTIONS request: with neither path nor query it means `*` (RFC 9112
/// section 3.2.4).
fn of_server(uri: Uri) -> Result<Uri, Fault> {
    if uri.path_and_query().is_some_and(|target| target != "/") {
        return Ok(uri);
    }
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    Uri::from_parts(parts).map_err(|_| Fault::Target)
}

/// A target in one of its four forms.
fn uri(target: Bytes) -> Result<Uri, Fault> {
    strict::target(&target)?;
    if target.len() > TARGET_MAX {
        return Err(Fault::TargetTooLong);
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| Fault::Target)?;
    strict::origin(&uri)?;
    with_path(uri)
}

/// An absolute URI with a path: `http://a?b` has none, which means `/` (RFC 9112 section 3.2.1).
fn with_path(uri: Uri) -> Result<Uri, Fault> {
    let Some(query) = uri
        .authority()
        .and(uri.path_and_query())
        .map(PathAndQuery::as_str)
        .filter(|target| target.starts_with('?'))
    else {
        return Ok(uri);
    };
    let target = format!("/{query}");
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(target.parse().map_err(|_| Fault::Target)?);
    Uri::from_parts(parts).map_err(|_| Fault::Target)
}

/// Header lines from `from` to the empty line.
pub(super) fn fields(block: &Bytes, from: usize, most: usize) -> Result<HeaderMap, Fault> {
    let ends = memchr::memchr_iter(b'\n', block.get(from..).unwrap_or_default());
    let mut headers = HeaderMap::with_capacity(ends.count().min(most));
    let mut next = from;
    let mut lines = 0;
    loop {
        let (line, after) = split_line(block, next).ok_or(Fault::LineEnd)?;
        if line.is_empty() {
            return Ok(headers);
        }
        lines += 1;
        if lines > most {
            return Err(Fault::HeadTooLarge);
        }
        let (name, value) = field(block, line)?;
        headers
            .try_append(name, value)
            .map_err(|_| Fault::HeadTooLarge)?;
        next = after;
    }
}

fn field(block: &Bytes, line: std::ops::Range<usize>) -> Result<(HeaderName, HeaderValue), Fault> {
    let text = &block[line.clone()];
    if matches!(text.first(), Some(b' ' | b'\t')) {
        return Err(Fault::Folded);
    }
    let colon = memchr::memchr(b':', text).ok_or(Fault::HeaderName)?;
    let name = HeaderName::from_bytes(&text[..colon]).map_err(|_| match colon > NAME_MAX {
        true => Fault::HeadTooLarge,
        false => Fault::HeaderName,
    })?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let value = &text[colon + 1..];
    let start = value
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(start, |last| last + 1);
    let at = line.start + colon + 1;
    let fault = |_| match value.contains(&b'\r') {
        true => Fault::LineEnd,
        false => Fault::HeaderValue,
    };
    let value = block.slice(at + start..at + end);
    let value = HeaderValue::from_maybe_shared(value).map_err(fault)?;
    Ok((name, value))
}

/// The trailers of a chunked body: header lines up to an empty one.
///
/// # Errors
/// `Trailers`.
pub(super) fn trailers(block: &Bytes, most: usize) -> Result<HeaderMap, Fault> {
    fields(block, 0, most).map_err(|_| Fault::Trailers)
}

/// RFC 9112 section 6.3, without its leniences.
fn framing(headers: &HeaderMap, names: Sieve, version: Version) -> Result<Framing, Fault> {
    if !names.passes(&header::TRANSFER_ENCODING) && !names.passes(&header::CONTENT_LENGTH) {
        return Ok(Framing::None);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next();
    if codings.next().is_some() {
        return Err(Fault::TransferEncoding);
    }
    match (coding, strict::content_length(headers)?) {
        (Some(_), Some(_)) => Err(Fault::LengthAndCoding),
        (None, None | Some(0)) => Ok(Framing::None),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (Some(_), None) if version < Version::HTTP_11 => Err(Fault::TransferEncoding),
        (Some(coding), None) => {
            let coding = coding.as_bytes();
            if coding.eq_ignore_ascii_case(b"chunked") {
                return Ok(Framing::Chunked);
            }
            let last = coding
                .rsplit(|byte| *byte == b',')
                .next()
                .unwrap_or_default();
            let times = coding
                .split(|byte| *byte == b',')
                .filter(|one| one.trim_ascii().eq_ignore_ascii_case(b"chunked"))
                .count();
            if times == 1 && last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                Err(Fault::UnknownCoding)
            } else {
                Err(Fault::TransferEncoding)
            }
        }
    }
}

pub(super) fn keep_alive(headers: &HeaderMap, names: Sieve, version: Version) -> bool {
    if !names.passes(&header::CONNECTION) {
        return version == Version::HTTP_11;
    }
    let says = |wanted: &str| {
        headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    if version == Version::HTTP_11 {
        !says("close")
    } else {
        says("keep-alive") && !says("close")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bytes: 512,
        lines: 8,
    };

    fn read(text: &[u8]) -> Result<Option<Head>, Fault> {
        let mut read = BytesMut::from(text);
        let found = Scanner::default().scan(&mut read, LIMITS)?;
        found
            .map(|length| parse(&read.split_to(length).freeze(), LIMITS))
            .transpose()
    }

    fn lines(lines: &str) -> Result<Head, Fault> {
        read(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes()).map(Option::unwrap)
    }

    fn first(line: &str) -> Result<Head, Fault> {
        read(format!("{line}\r\nhost: a\r\n\r\n").as_bytes()).map(Option::unwrap)
    }

    #[test]
    fn heads_are_read() {
        let head = read(b"\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nX-A:\t 1 2 \t\r\nx-a:\r\ncontent-length: 7\r\n\r\n1234567")
            .unwrap()
            .unwrap();
        assert_eq!(head.parts.method, Method::POST);
        assert_eq!(head.parts.uri, "/a?b");
        assert_eq!(head.framing, Framing::Length(7));
        assert!(head.keep_alive);
        let values: Vec<_> = head.parts.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1 2", ""]);
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let text = b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let (mut scanner, mut read) = (Scanner::default(), BytesMut::new());
        for (at, byte) in text.iter().enumerate() {
            read.extend_from_slice(&[*byte]);
            let found = scanner.scan(&mut read, LIMITS).unwrap();
            assert_eq!(found.is_some(), at + 1 == text.len(), "{at}");
        }
    }

    #[test]
    fn request_lines_are_strict() {
        for (line, fault) in [
            ("GET /", Fault::RequestLine),
            ("GET", Fault::RequestLine),
            ("GET  HTTP/1.1", Fault::RequestLine),
            (" GET / HTTP/1.1", Fault::Method),
            ("GET / http/1.1", Fault::RequestLine),
            ("GET / HTTP/1.1 ", Fault::RequestLine),
            ("GET  / HTTP/1.1", Fault::Target),
            ("GET / x HTTP/1.1", Fault::Target),
            ("GET /\tx HTTP/1.1", Fault::Target),
            ("GET\t/ HTTP/1.1", Fault::RequestLine),
            ("G(T / HTTP/1.1", Fault::Method),
            ("GET / HTTP/1.2", Fault::Version),
            ("GET / HTTP/2.0", Fault::Version),
            ("GET / HTTP/11", Fault::RequestLine),
            ("GET /ä HTTP/1.1", Fault::Target),
            ("GET /#a HTTP/1.1", Fault::Target),
            ("GET http://u@a/ HTTP/1.1", Fault::Target),
            ("GET ftp://a/ HTTP/1.1", Fault::Target),
            ("GET /\rx HTTP/1.1", Fault::LineEnd),
        ] {
            assert_eq!(first(line).map(|_| ()), Err(fault), "{line:?}");
        }
        for line in [
            "GET //x HTTP/1.1",
            "GET http://a/x HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "CONNECT a:1 HTTP/1.1",
            "PROPFIND / HTTP/1.0",
        ] {
            assert!(first(line).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn an_absolute_target_has_a_path() {
        for (line, target) in [
            ("GET http://a HTTP/1.1", "/"),
            ("GET http://a?b=/c HTTP/1.1", "/?b=/c"),
            ("GET http://a/b?c HTTP/1.1", "/b?c"),
            ("OPTIONS http://a HTTP/1.1", "*"),
            ("OPTIONS http://a:80 HTTP/1.1", "*"),
            ("OPTIONS http://a/ HTTP/1.1", "/"),
            ("OPTIONS http://a? HTTP/1.1", "/?"),
            ("OPTIONS http://a/b HTTP/1.1", "/b"),
        ] {
            let head = first(line).unwrap();
            assert_eq!(head.parts.uri.path_and_query().unwrap(), target, "{line}");
        }
    }

    #[test]
    fn header_lines_are_strict() {
        for (text, fault) in [
            ("a : 1\r\n", Fault::HeaderName),
            (": 1\r\n", Fault::HeaderName),
            ("a\r\n", Fault::HeaderName),
            ("a b: 1\r\n", Fault::HeaderName),
            ("a\0: 1\r\n", Fault::HeaderName),
            ("ä: 1\r\n", Fault::HeaderName),
            ("a: 1\r\n b\r\n", Fault::Folded),
            (" a: 1\r\n", Fault::Folded),
            ("a: 1\0\r\n", Fault::HeaderValue),
            ("a: 1\x7f\r\n", Fault::HeaderValue),
            ("a: 1\rb: 2\r\n", Fault::LineEnd),
            ("a: 1\nb: 2\r\n", Fault::LineEnd),
            ("a: 1\n\r\n", Fault::LineEnd),
            ("a: 1\r\r\n", Fault::LineEnd),
        ] {
            assert_eq!(lines(text).map(|_| ()), Err(fault), "{text:?}");
        }
        assert!(lines("a: ä\r\nb:\tc\td \r\n").is_ok());
    }

    #[test]
    fn framing_is_strict() {
        for (text, fault) in [
            (
                "content-length: 1\r\ncontent-length: 1\r\n",
                Fault::ContentLength,
            ),
            ("content-length: 1, 1\r\n", Fault::ContentLength),
            ("content-length: +1\r\n", Fault::ContentLength),
            ("content-length: -1\r\n", Fault::ContentLength),
            ("content-length: 0x1\r\n", Fault::ContentLength),
            ("content-length: 1 1\r\n", Fault::ContentLength),
            ("content-length:\r\n", Fault::ContentLength),
            (
                "content-length: 18446744073709551616\r\n",
                Fault::ContentLength,
            ),
            (
                "content-length: 0\r\ntransfer-encoding: chunked\r\n",
                Fault::LengthAndCoding,
            ),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                Fault::TransferEncoding,
            ),
            (
                "transfer-encoding: chunked, chunked\r\n",
                Fault::TransferEncoding,
            ),
            (
                "transfer-encoding: chunked, gzip\r\n",
                Fault::TransferEncoding,
            ),
            ("transfer-encoding: identity\r\n", Fault::TransferEncoding),
            ("transfer-encoding: xchunked\r\n", Fault::TransferEncoding),
            (
                "transfer-encoding: \"chunked\"\r\n",
                Fault::TransferEncoding,
            ),
            (
                "transfer-encoding: chunked;q=1\r\n",
                Fault::TransferEncoding,
            ),
            ("transfer-encoding:\r\n", Fault::TransferEncoding),
            ("transfer-encoding: gzip, chunked\r\n", Fault::UnknownCoding),
        ] {
            assert_eq!(lines(text).map(|_| ()), Err(fault), "{text:?}");
        }
        for (text, framing) in [
            ("", Framing::None),
            ("content-length: 0\r\n", Framing::None),
            ("content-length: 007\r\n", Framing::Length(7)),
            ("transfer-encoding: Chunked\r\n", Framing::Chunked),
        ] {
            assert_eq!(lines(text).unwrap().framing, framing, "{text:?}");
        }
        let old = read(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(old.map(|_| ()), Err(Fault::TransferEncoding));
    }

    #[test]
    fn one_empty_line_in_front_is_taken_off_however_it_comes() {
        for text in [
            &b"\r\nGET / HTTP/1.1\r\n\r\n"[..],
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            for piece in [1, 2, 3, 100] {
                let (mut scanner, mut read) = (Scanner::default(), BytesMut::new());
                let mut found = None;
                for piece in text.chunks(piece) {
                    read.extend_from_slice(piece);
                    found = found.or(scanner.scan(&mut read, LIMITS).unwrap());
                }
                let length = if text.starts_with(b"\r\n\r\n") { 2 } else { 18 };
                assert_eq!(found, Some(length), "{piece}");
            }
        }
    }

    #[test]
    fn size_is_bounded() {
        let long = "a".repeat(LIMITS.bytes);
        assert_eq!(
            read(format!("GET /{long}").as_bytes()).map(|_| ()),
            Err(Fault::TargetTooLong)
        );
        assert_eq!(
            lines(&format!("a: {long}\r\n")).map(|_| ()),
            Err(Fault::HeadTooLarge)
        );
        assert!(lines(&"a: 1\r\n".repeat(LIMITS.lines)).is_ok());
        let many = "a: 1\r\n".repeat(LIMITS.lines + 1);
        assert_eq!(lines(&many).map(|_| ()), Err(Fault::HeadTooLarge));
    }

    #[test]
    fn what_is_too_long_to_be_kept_is_too_long_and_not_malformed() {
        let most = Limits {
            bytes: 1024 * 1024,
            lines: 8,
        };
        for (length, fault) in [(65_534, None), (65_535, Some(Fault::TargetTooLong))] {
            let head = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 1));
            assert_eq!(parse(&head.into(), most).err(), fault, "{length}");
        }
        for (length, fault) in [(65_535, None), (65_536, Some(Fault::HeadTooLarge))] {
            let head = format!("GET / HTTP/1.1\r\n{}: a\r\n\r\n", "a".repeat(length));
            assert_eq!(parse(&head.into(), most).err(), fault, "{length}");
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_passed_over_though_not_for_ever() {
        for (text, nothing, left) in [
            (&b""[..], true, &b""[..]),
            (b"\r", true, b"\r"),
            (b"\r\n", true, b""),
            (b"\r\n\r", true, b"\r"),
            (b"\r\n\r\n\r\n", true, b""),
            (b"\r\n\r\n\r\n\r", false, b"\r"),
            (b"\r\nGET", false, b"GET"),
            (b"\n", false, b"\n"),
            (b"\rG", false, b"\rG"),
        ] {
            for piece in [1, 2, 100] {
                let (mut gap, mut read) = (Gap::default(), BytesMut::new());
                let mut passed = gap.pass(&mut read);
                for piece in text.chunks(piece) {
                    read.extend_from_slice(piece);
                    passed = gap.pass(&mut read);
                }
                assert_eq!((passed, &read[..]), (nothing, left), "{piece}");
            }
        }
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        for (head, lasts) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nconnection: x, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", true),
            (
                "GET / HTTP/1.0\r\nconnection: keep-alive, close\r\n\r\n",
                false,
            ),
        ] {
            assert_eq!(
                read(head.as_bytes()).unwrap().unwrap().keep_alive,
                lasts,
                "{head:?}"
            );
        }
    }
}
