//! Answers' heads as bytes.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use bytes::{BufMut as _, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;

/// Writes a status line and header lines, without the empty line that ends a head. `reason` stands in for the status's
/// usual phrase.
pub fn head(write: &mut BytesMut, status: StatusCode, reason: Option<&[u8]>, headers: &HeaderMap) {
    let lines: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    write.reserve(lines + 128);
    write.put_slice(b"HTTP/1.1 ");
    write.put_slice(status.as_str().as_bytes());
    write.put_u8(b' ');
    let usual = || status.canonical_reason().unwrap_or_default().as_bytes();
    write.put_slice(reason.unwrap_or_else(usual));
    write.put_slice(b"\r\n");
    for (name, value) in headers {
        field(write, name.as_str(), value.as_bytes());
    }
}

/// Writes one header line.
pub fn field(write: &mut BytesMut, name: &str, value: &[u8]) {
    write.put_slice(name.as_bytes());
    write.put_slice(b": ");
    write.put_slice(value);
    write.put_slice(b"\r\n");
}

/// Writes a `Date` line: now, made once a second (RFC 9110 section 6.6.1).
pub fn date(write: &mut BytesMut) {
    thread_local! {
        static DATE: RefCell<(SystemTime, String)> =
            const { RefCell::new((SystemTime::UNIX_EPOCH, String::new())) };
    }
    DATE.with_borrow_mut(|(made, text)| {
        let now = SystemTime::now();
        let old = now
            .duration_since(*made)
            .is_ok_and(|age| age < Duration::from_secs(1));
        if !old {
            let since = now.duration_since(SystemTime::UNIX_EPOCH);
            *made =
                SystemTime::UNIX_EPOCH + Duration::from_secs(since.unwrap_or_default().as_secs());
            *text = httpdate::fmt_http_date(now);
        }
        field(write, "date", text.as_bytes());
    });
}
