//! What both versions of HTTP refuse of a request's head, and what it is called.
//!
//! Where a grammar has two readers, the stricter one is followed: what two readers could take for two things is a fault.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Scheme;
use http::{StatusCode, Uri};

/// What is wrong with a message. Its connection cannot be trusted any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The first line is no request line (RFC 9112 section 3).
    RequestLine,
    /// The first line of an answer is no status line (RFC 9112 section 4).
    StatusLine,
    /// The method is no token (RFC 9110 section 9.1).
    Method,
    /// The target is none of the four forms, or has characters that no URI has (RFC 9112 section 3.2).
    Target,
    /// A version of HTTP other than 1.0 and 1.1.
    Version,
    /// The first line is longer than a whole head may be.
    TargetTooLong,
    /// The head is longer, or has more lines, than it may.
    HeadTooLarge,
    /// A line feed without its carriage return, or the reverse (RFC 9112 section 2.2).
    LineEnd,
    /// A line folded onto the one before (RFC 9112 section 5.2).
    Folded,
    /// A header name that is no token, such as one followed by a space (RFC 9112 section 5.1).
    HeaderName,
    /// A control character in a header value (RFC 9110 section 5.5).
    HeaderValue,
    /// A `Content-Length` that is no number, or several (RFC 9112 section 6.3).
    ContentLength,
    /// `Content-Length` and `Transfer-Encoding` together (RFC 9112 section 6.1).
    LengthAndCoding,
    /// A `Transfer-Encoding` that does not frame the message, or on HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncoding,
    /// A transfer coding that is not known here.
    UnknownCoding,
    /// A chunk's size, extension or end that is malformed (RFC 9112 section 7.1).
    Chunk,
    /// Trailers that are malformed or too large.
    Trailers,
    /// The head did not come in time.
    TimedOut,
    /// An HTTP/2 message with field names, pseudo-header fields or fields of a connection that it may not have (RFC 9113
    /// section 8.1.1).
    Http2Message,
    /// Frames that HTTP/2 does not allow (RFC 9113 section 5.4.1).
    Http2Frames,
    /// More frames that ask for nothing, or more requests taken back, than any client needs (RFC 9113 section 10.5).
    Flood,
}

impl Fault {
    /// The status that tells a client of it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::Flood => StatusCode::TOO_MANY_REQUESTS,
            Self::RequestLine
            | Self::StatusLine
            | Self::Method
            | Self::Target
            | Self::LineEnd
            | Self::Folded
            | Self::HeaderName
            | Self::HeaderValue
            | Self::ContentLength
            | Self::LengthAndCoding
            | Self::TransferEncoding
            | Self::Chunk
            | Self::Trailers
            | Self::Http2Message
            | Self::Http2Frames => StatusCode::BAD_REQUEST,
        }
    }

    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestLine => "bad_request_line",
            Self::StatusLine => "bad_status_line",
            Self::Method => "bad_method",
            Self::Target => "bad_target",
            Self::Version => "bad_version",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::LineEnd => "bad_line_end",
            Self::Folded => "folded_header",
            Self::HeaderName => "bad_header_name",
            Self::HeaderValue => "bad_header_value",
            Self::ContentLength => "bad_content_length",
            Self::LengthAndCoding => "length_and_coding",
            Self::TransferEncoding => "bad_transfer_encoding",
            Self::UnknownCoding => "unknown_coding",
            Self::Chunk => "bad_chunk",
            Self::Trailers => "bad_trailers",
            Self::TimedOut => "head_timeout",
            Self::Http2Message => "bad_http2_message",
            Self::Http2Frames => "bad_http2_frames",
            Self::Flood => "flood",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Fault {}

/// Refuses what a URI may not contain instead of repairing it; so a fragment, which is never sent (RFC 9110 section 7.1).
///
/// # Errors
/// `Target`.
pub fn target(text: &[u8]) -> Result<(), Fault> {
    let fits = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    text.iter().all(fits).then_some(()).ok_or(Fault::Target)
}

/// Refuses schemes other than HTTP's, and user information (RFC 9110 section 4.2.4).
///
/// # Errors
/// `Target`.
pub fn origin(uri: &Uri) -> Result<(), Fault> {
    let foreign = uri
        .scheme()
        .is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS);
    let user = uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    if foreign || user {
        Err(Fault::Target)
    } else {
        Ok(())
    }
}

/// The length that a head promises: one line of digits, or none (RFC 9110 section 8.6).
///
/// # Errors
/// `ContentLength`.
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(Fault::ContentLength);
    }
    let length = digits(line.as_bytes()).ok_or(Fault::ContentLength)?;
    Ok(Some(length))
}

/// Whether each byte may be part of a token.
static TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < token.len() {
        token[byte] = matches!(
            byte as u8,
            b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'#'..=b'\'' | b'!' | b'*' | b'+' | b'-' | b'.' | b'|' | b'~'
        );
        byte += 1;
    }
    token
};

/// Whether a byte may be part of a token (RFC 9110 section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// A number of nothing but digits.
pub fn digits(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = plain.then(|| std::str::from_utf8(text).ok()).flatten()?;
    text.parse().ok()
}

/// Whether a value begins or ends with a blank, which HTTP/1.1 takes off and HTTP/2 forbids (RFC 9113 section 8.2.1).
pub fn padded(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_letters_digits_and_fifteen_others() {
        let others: Vec<u8> = (0..=255)
            .filter(|byte: &u8| is_token(*byte) && !byte.is_ascii_alphanumeric())
            .collect();
        assert_eq!(others, b"!#$%&'*+-.^_`|~");
        assert!((0..=255).all(|byte: u8| !byte.is_ascii_alphanumeric() || is_token(byte)));
    }

    #[test]
    fn a_length_is_one_line_of_digits() {
        for (lines, length) in [
            (&[][..], Ok(None)),
            (&["0"], Ok(Some(0))),
            (&["007"], Ok(Some(7))),
            (&[""], Err(Fault::ContentLength)),
            (&["+1"], Err(Fault::ContentLength)),
            (&["1, 1"], Err(Fault::ContentLength)),
            (&["1", "1"], Err(Fault::ContentLength)),
            (&["18446744073709551616"], Err(Fault::ContentLength)),
        ] {
            let value =
                |line: &&'static str| (header::CONTENT_LENGTH, HeaderValue::from_static(line));
            let headers: HeaderMap = lines.iter().map(value).collect();
            assert_eq!(content_length(&headers), length, "{lines:?}");
        }
    }

    #[test]
    fn blanks_at_either_end_are_seen() {
        for (value, is) in [
            ("", false),
            ("a b", false),
            (" a", true),
            ("a\t", true),
            (" ", true),
        ] {
            assert_eq!(padded(&HeaderValue::from_static(value)), is, "{value:?}");
        }
    }
}
