//! Heads and chunk framing as bytes.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use bytes::{BufMut as _, BytesMut};
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;

/// Writes a status line and header lines, without the empty line that ends a head. `reason` stands in for the status's
/// usual phrase.
pub fn head(write: &mut BytesMut, status: StatusCode, reason: Option<&[u8]>, headers: &HeaderMap) {
    write.reserve(size(headers) + 128);
    write.put_slice(b"HTTP/1.1 ");
    write.put_slice(status.as_str().as_bytes());
    write.put_u8(b' ');
    let usual = || status.canonical_reason().unwrap_or_default().as_bytes();
    write.put_slice(reason.unwrap_or_else(usual));
    write.put_slice(b"\r\n");
    fields(write, headers);
}

/// Writes a whole request head, with its target in origin form: request line, header lines, `lines`, the empty line.
pub fn request(write: &mut BytesMut, head: &Parts, lines: &[u8]) {
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    write.reserve(size(&head.headers) + target.len() + lines.len() + 64);
    write.put_slice(head.method.as_str().as_bytes());
    write.put_u8(b' ');
    write.put_slice(target.as_bytes());
    write.put_slice(b" HTTP/1.1\r\n");
    fields(write, &head.headers);
    write.put_slice(lines);
    write.put_slice(b"\r\n");
}

fn size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

fn fields(write: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        field(write, name.as_str(), value.as_bytes());
    }
}

/// What stands before a chunk's data: its size.
pub fn chunk_size(bytes: usize) -> String {
    format!("{bytes:x}\r\n")
}

/// What ends a chunked body with these trailers.
pub fn last_chunk(trailers: &HeaderMap) -> BytesMut {
    let mut last = BytesMut::from(&b"0\r\n"[..]);
    fields(&mut last, trailers);
    last.put_slice(b"\r\n");
    last
}

/// Writes one header line.
pub fn field(write: &mut BytesMut, name: &str, value: &[u8]) {
    write.put_slice(name.as_bytes());
    write.put_slice(b": ");
    write.put_slice(value);
    write.put_slice(b"\r\n");
}

/// Writes a `Date` line: now.
pub fn date(write: &mut BytesMut) {
    field(write, "date", date_value().as_bytes());
}

/// Now, made once a second (RFC 9110 section 6.6.1).
pub fn date_value() -> HeaderValue {
    thread_local! {
        static DATE: RefCell<(SystemTime, HeaderValue)> =
            const { RefCell::new((SystemTime::UNIX_EPOCH, HeaderValue::from_static(""))) };
    }
    DATE.with_borrow_mut(|(made, value)| {
        let now = SystemTime::now();
        let old = now
            .duration_since(*made)
            .is_ok_and(|age| age < Duration::from_secs(1));
        if !old {
            let since = now.duration_since(SystemTime::UNIX_EPOCH);
            *made =
                SystemTime::UNIX_EPOCH + Duration::from_secs(since.unwrap_or_default().as_secs());
            *value = HeaderValue::from_str(&httpdate::fmt_http_date(now))
                .expect("a date is visible ASCII");
        }
        value.clone()
    })
}
