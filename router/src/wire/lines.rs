//! Header lines that the router adds to a head: written once, as they go over the wire.

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Header lines, each with its end.
#[derive(Debug, Default)]
pub struct Lines(BytesMut);

impl Lines {
    /// Room for what a request is introduced with.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(BytesMut::with_capacity(bytes))
    }

    /// Adds a line.
    pub fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.write(name, [value.as_bytes()]);
    }

    /// Adds a line of several parts, each of visible ASCII and blanks; nothing if one is not.
    pub fn add_text<const N: usize>(&mut self, name: &HeaderName, parts: [&str; N]) {
        // Looked at to its end: that is done many bytes at a time.
        let fits = |all, byte| all & matches!(byte, b' '..=b'~');
        if parts.iter().all(|part| part.bytes().fold(true, fits)) {
            self.write(name, parts.map(str::as_bytes));
        }
    }

    fn write<const N: usize>(&mut self, name: &HeaderName, parts: [&[u8]; N]) {
        let lines = &mut self.0;
        lines.put_slice(name.as_str().as_bytes());
        lines.put_slice(b": ");
        for part in parts {
            lines.put_slice(part);
        }
        lines.put_slice(b"\r\n");
    }

    /// How many bytes they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes off those that were added when they were `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// As they go over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends them to a head that does not go over the wire like this.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        let lines = self.as_bytes().split(|byte| *byte == b'\n');
        for line in lines.filter_map(|line| line.strip_suffix(b"\r")) {
            let Some(end) = memchr::memchr(b':', line) else {
                continue;
            };
            let name = HeaderName::from_bytes(&line[..end]);
            let value = HeaderValue::from_bytes(&line[end + 2..]);
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_as_they_are_and_read_again() {
        let mut lines = Lines::default();
        let via = HeaderName::from_static("via");
        lines.add_text(&via, ["1.1", " ", "me"]);
        lines.add(&HeaderName::from_static("x"), &HeaderValue::from_static(""));
        lines.add(&via, &HeaderValue::from_bytes(b"a: \xe9").unwrap());
        let length = lines.len();
        lines.add(&via, &HeaderValue::from_static("of this try"));
        lines.truncate(length);
        assert_eq!(lines.as_bytes(), b"via: 1.1 me\r\nx: \r\nvia: a: \xe9\r\n");
        let mut headers = HeaderMap::new();
        headers.insert("via", HeaderValue::from_static("first"));
        lines.append_to(&mut headers);
        let vias: Vec<_> = headers.get_all("via").iter().collect();
        assert_eq!(vias, [&b"first"[..], b"1.1 me", b"a: \xe9"]);
        assert_eq!(
            (headers.len(), &headers["x"]),
            (4, &HeaderValue::from_static(""))
        );
    }

    #[test]
    fn no_text_becomes_two_lines() {
        for text in ["a\r\nb: c", "a\n", "\0", "\u{e9}"] {
            let mut lines = Lines::default();
            lines.add_text(&HeaderName::from_static("x"), ["fine", text]);
            assert!(lines.is_empty(), "{text:?}");
        }
    }
}
