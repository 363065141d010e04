//! Answers' heads, read strictly (RFC 9112 sections 4 to 6): what a client could take for another answer than the router
//! did is a fault.

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Version};

use super::as_is::AsIs;
use super::head::{self, Fault, Framing, Limits};
use crate::wire::sieve::Sieve;
use crate::wire::strict;

/// An answer's head, and what its connection needs to know of it.
#[derive(Debug)]
pub struct AnswerHead {
    /// The status.
    pub status: StatusCode,
    /// The words after it, where they are not the usual ones.
    pub reason: Option<Bytes>,
    /// Its header fields; what framed the body is among them.
    pub headers: HeaderMap,
    /// They instead, where they may be passed on as they came: there are no others, then.
    pub as_is: Option<AsIs>,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether the connection may carry another request after it (RFC 9112 section 9.3).
    pub keep_alive: bool,
}

/// Reads a whole head, as [`head::Scanner`] found it, that answers a request of method `asked`. `as_is` says whether its lines
/// may be left as they came.
///
/// # Errors
/// `StatusLine`, `Version`, `HeadTooLarge`, and every `Fault` of header lines and framing.
pub fn parse(
    block: &Bytes,
    asked: &Method,
    limits: Limits,
    as_is: bool,
) -> Result<AnswerHead, Fault> {
    let (line, rest) = head::split_line(block, 0).ok_or(Fault::StatusLine)?;
    let (version, status, reason) = status_line(block, line)?;
    let bodiless = *asked == Method::HEAD || without_body(status);
    let modern = version == Version::HTTP_11;
    // Of what says nothing of a body, or a length where there can be none, each field is looked at.
    let as_is = as_is && !without_body(status);
    let lines = as_is.then(|| AsIs::read(block, rest, limits.lines));
    if let Some(lines) = lines.flatten().filter(|lines| modern || !lines.chunked) {
        let framing = match lines.length {
            _ if bodiless => Framing::None,
            None if lines.chunked => Framing::Chunked,
            None => Framing::ToEnd,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
        };
        let keep_alive = framing != Framing::ToEnd && (modern || lines.stays);
        return Ok(AnswerHead {
            status,
            reason,
            headers: HeaderMap::new(),
            as_is: Some(lines),
            framing,
            keep_alive,
        });
    }
    let headers = head::fields(block, rest, limits.lines)?;
    let names = Sieve::of(&headers);
    let (framing, clean) = framing(&headers, names, version)?;
    let framing = if bodiless { Framing::None } else { framing };
    let keep_alive =
        clean && framing != Framing::ToEnd && head::keep_alive(&headers, names, version);
    Ok(AnswerHead {
        status,
        reason,
        headers,
        as_is: None,
        framing,
        keep_alive,
    })
}

/// Statuses whose answers have no body whatever their head says (RFC 9112 section 6.3).
pub fn without_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

fn status_line(
    block: &Bytes,
    line: std::ops::Range<usize>,
) -> Result<(Version, StatusCode, Option<Bytes>), Fault> {
    let text = &block[line.clone()];
    let version = match text.get(..9) {
        Some(b"HTTP/1.1 ") => Version::HTTP_11,
        Some(b"HTTP/1.0 ") => Version::HTTP_10,
        Some([b'H', b'T', b'T', b'P', b'/', ..]) => return Err(Fault::Version),
        Some(_) | None => return Err(Fault::StatusLine),
    };
    let digits = text.get(9..12).ok_or(Fault::StatusLine)?;
    let status = StatusCode::from_bytes(digits).map_err(|_| Fault::StatusLine)?;
    if !(100..=599).contains(&status.as_u16()) {
        return Err(Fault::StatusLine);
    }
    // The blank before an empty reason is often left out.
    let reason = match text.get(12) {
        None => line.end..line.end,
        Some(b' ') => line.start + 13..line.end,
        Some(_) => return Err(Fault::StatusLine),
    };
    let said = &block[reason.clone()];
    if !said
        .iter()
        .all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
    {
        return Err(Fault::StatusLine);
    }
    let usual = status.canonical_reason().unwrap_or_default().as_bytes();
    let reason = (said != usual).then(|| block.slice(reason));
    Ok((version, status, reason))
}

/// How a body is framed that the status allows (RFC 9112 section 6.3), and whether the head said so in one way only:
/// what did not is read as the RFC says, and its connection ends with it.
fn framing(headers: &HeaderMap, names: Sieve, version: Version) -> Result<(Framing, bool), Fault> {
    let length = length(headers)?;
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coded = names.passes(&header::TRANSFER_ENCODING);
    if let Some(coding) = coded.then(|| codings.next()).flatten() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if codings.next().is_some() || !chunked || version < Version::HTTP_11 {
            return Err(Fault::TransferEncoding);
        }
        return Ok((Framing::Chunked, length.is_none()));
    }
    Ok(match length {
        None => (Framing::ToEnd, true),
        Some(0) => (Framing::None, true),
        Some(length) => (Framing::Length(length), true),
    })
}

/// The one length that all lines agree on.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut found = None;
    for line in headers.get_all(header::CONTENT_LENGTH) {
        let length = strict::digits(line.as_bytes()).ok_or(Fault::ContentLength)?;
        if found.is_some_and(|other| other != length) {
            return Err(Fault::ContentLength);
        }
        found = Some(length);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bytes: 4096,
        lines: 4,
    };

    /// However its lines are read, they say the same.
    fn read(asked: &Method, text: &str) -> Result<AnswerHead, Fault> {
        let block = Bytes::copy_from_slice(text.as_bytes());
        let read = |as_is| parse(&block, asked, LIMITS, as_is);
        let known = |head: &AnswerHead| (head.status, head.framing, head.keep_alive);
        let (one, other) = (read(false), read(true));
        assert_eq!(
            one.as_ref().map(known),
            other.as_ref().map(known),
            "{text:?}"
        );
        one
    }

    fn get(text: &str) -> Result<AnswerHead, Fault> {
        read(&Method::GET, text)
    }

    #[test]
    fn status_lines_are_read() {
        for (line, status, reason) in [
            ("HTTP/1.1 200 OK", 200, None),
            ("HTTP/1.1 200 Fine", 200, Some("Fine")),
            ("HTTP/1.1 200 ", 200, Some("")),
            ("HTTP/1.1 200", 200, Some("")),
            ("HTTP/1.0 404 Not Found", 404, None),
            ("HTTP/1.1 599 Odd\tone", 599, Some("Odd\tone")),
        ] {
            let head = get(&format!("{line}\r\n\r\n")).unwrap();
            assert_eq!(head.status.as_u16(), status, "{line}");
            assert_eq!(head.reason.as_deref(), reason.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn other_status_lines_are_refused() {
        for (line, fault) in [
            ("", Fault::StatusLine),
            ("HTTP/1.1", Fault::StatusLine),
            ("HTTP/1.1  200 OK", Fault::StatusLine),
            ("HTTP/1.1 20", Fault::StatusLine),
            ("HTTP/1.1 2000 OK", Fault::StatusLine),
            ("HTTP/1.1 099 OK", Fault::StatusLine),
            ("HTTP/1.1 600 OK", Fault::StatusLine),
            ("HTTP/1.1 200 O\u{1}K", Fault::StatusLine),
            ("HTTP/1.2 200 OK", Fault::Version),
            ("HTTP/2.0 200 OK", Fault::Version),
            ("ICY 200 OK plain", Fault::StatusLine),
        ] {
            assert_eq!(
                get(&format!("{line}\r\n\r\n")).unwrap_err(),
                fault,
                "{line}"
            );
        }
    }

    #[test]
    fn bodies_are_framed_in_one_way() {
        for (lines, framing, keep_alive) in [
            ("content-length: 7\r\n", Framing::Length(7), true),
            ("content-length: 0\r\n", Framing::None, true),
            (
                "content-length: 7\r\ncontent-length: 7\r\n",
                Framing::Length(7),
                true,
            ),
            ("transfer-encoding: Chunked\r\n", Framing::Chunked, true),
            (
                "transfer-encoding: chunked\r\ncontent-length: 7\r\n",
                Framing::Chunked,
                false,
            ),
            ("", Framing::ToEnd, false),
            (
                "content-length: 7\r\nconnection: x, Close\r\n",
                Framing::Length(7),
                false,
            ),
        ] {
            let head = get(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).unwrap();
            assert_eq!(
                (head.framing, head.keep_alive),
                (framing, keep_alive),
                "{lines}"
            );
        }
    }

    #[test]
    fn other_framings_are_refused() {
        for (lines, fault) in [
            (
                "content-length: 7\r\ncontent-length: 8\r\n",
                Fault::ContentLength,
            ),
            ("content-length: 7, 7\r\n", Fault::ContentLength),
            ("content-length: +7\r\n", Fault::ContentLength),
            ("content-length: \r\n", Fault::ContentLength),
            (
                "content-length: 99999999999999999999\r\n",
                Fault::ContentLength,
            ),
            (
                "transfer-encoding: gzip, chunked\r\n",
                Fault::TransferEncoding,
            ),
            ("transfer-encoding: identity\r\n", Fault::TransferEncoding),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                Fault::TransferEncoding,
            ),
            ("a: 1\r\n b: 2\r\n", Fault::Folded),
            ("a : 1\r\n", Fault::HeaderName),
            (
                "a: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\ne: 5\r\n",
                Fault::HeadTooLarge,
            ),
        ] {
            let answer = get(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
            assert_eq!(answer.unwrap_err(), fault, "{lines}");
        }
        let old = get("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(old.unwrap_err(), Fault::TransferEncoding);
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        let lines = "content-length: 7\r\n\r\n";
        for (asked, status) in [
            (Method::HEAD, "200 OK"),
            (Method::GET, "204 No Content"),
            (Method::GET, "304 Not Modified"),
            (Method::GET, "103 Early Hints"),
        ] {
            let head = read(&asked, &format!("HTTP/1.1 {status}\r\n{lines}")).unwrap();
            assert_eq!(head.framing, Framing::None, "{status}");
            assert!(head.keep_alive, "{status}");
        }
        // Without a length, too.
        let head = get("HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert!(head.keep_alive);
    }

    #[test]
    fn old_answers_end_their_connection_unless_they_say_otherwise() {
        let head = |lines: &str| {
            get(&format!(
                "HTTP/1.0 200 OK\r\n{lines}content-length: 1\r\n\r\n"
            ))
        };
        assert!(!head("").unwrap().keep_alive);
        assert!(head("connection: keep-alive\r\n").unwrap().keep_alive);
    }
}
