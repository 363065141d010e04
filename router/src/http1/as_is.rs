//! Header lines of an answer that can be passed on as the bytes they came as: most cells' answers hold nothing that speaks to
//! the edge, and of what belongs to one connection no more than that it stays and how the body comes.

use bytes::Bytes;

use super::Piece;
use super::head::split_line;
use crate::wire::{fly, strict};

/// The longest name that is looked at closely; none of those that matter is longer.
const LONGEST: usize = 32;

/// Header lines, each with its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsIs {
    /// They, as they came, without those that belong to the connection.
    pub lines: Bytes,
    /// The length that they say, once.
    pub length: Option<u64>,
    /// Whether they say a date.
    pub dated: bool,
    /// Whether those that belong to the connection say that the body comes in chunks.
    pub(super) chunked: bool,
    /// And that the connection stays.
    pub(super) stays: bool,
}

impl AsIs {
    /// The lines from `from` to the empty line, up to `most`; none where one is not to be passed on as it is, or is malformed:
    /// who reads them field by field says how.
    pub(super) fn read(block: &Bytes, from: usize, most: usize) -> Option<Self> {
        let mut read = Self {
            lines: Bytes::new(),
            length: None,
            dated: false,
            chunked: false,
            stays: false,
        };
        // Where not all of them are.
        let mut some: Option<Vec<u8>> = None;
        let mut next = from;
        for _ in 0..=most {
            let (line, after) = split_line(block, next)?;
            if line.is_empty() {
                read.lines = some.map_or_else(|| block.slice(from..next), Bytes::from);
                let framed = read.chunked && read.length.is_some();
                return (!framed).then_some(read);
            }
            let text = &block[line];
            let (name, value) = text.split_at_checked(memchr::memchr(b':', text)?)?;
            let value = value.get(1..)?;
            let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f);
            let token = !name.is_empty() && name.iter().all(|byte| strict::is_token(*byte));
            // Looked at to its end: that is done many bytes at a time.
            if !token || value.iter().fold(false, |any, byte| any | control(byte)) {
                return None;
            }
            let mut lower = [0; LONGEST];
            let lower = lower.get_mut(..name.len()).map(|lower| {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                &*lower
            });
            if read.pass(lower.unwrap_or_default(), value.trim_ascii())? {
                if let Some(some) = &mut some {
                    some.extend_from_slice(&block[next..after]);
                }
            } else {
                some.get_or_insert_with(|| block[from..next].to_vec());
            }
            next = after;
        }
        None
    }

    /// Whether a line is passed on; none where that takes more than a look at it.
    fn pass(&mut self, name: &[u8], value: &[u8]) -> Option<bool> {
        let says = |word: &[u8]| value.eq_ignore_ascii_case(word);
        match name {
            b"connection" if says(b"keep-alive") => self.stays = true,
            b"keep-alive" => {}
            b"transfer-encoding" if says(b"chunked") && !self.chunked => self.chunked = true,
            b"connection" | b"transfer-encoding" | b"upgrade" | b"te" | b"proxy-connection"
            | b"http2-settings" => return None,
            b"content-length" if self.length.is_some() => return None,
            b"content-length" => {
                self.length = Some(strict::digits(value)?);
                return Some(true);
            }
            b"content-type" if fly::is_replay(value) => return None,
            // Whatever it may be that speaks to the edge.
            name if name.starts_with(b"fly-") => return None,
            name => {
                self.dated |= name == b"date";
                return Some(true);
            }
        }
        Some(false)
    }
}

/// An answer's body whose head may have lines that are passed on as they are.
pub trait HasLines {
    /// Takes them; the head has no other fields, then.
    fn take_lines(&mut self) -> Option<AsIs> {
        None
    }
}

impl HasLines for http_body_util::Full<Piece> {}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::http1::head;
    use crate::wire::{forward, hop_by_hop};

    fn block(lines: &str) -> Bytes {
        Bytes::copy_from_slice(format!("{lines}\r\n").as_bytes())
    }

    fn fields(lines: &str) -> Option<HeaderMap> {
        head::fields(&block(lines), 0, 8).ok()
    }

    #[test]
    fn what_passes_as_it_is_needs_no_change() {
        for (lines, length, dated) in [
            ("", None, false),
            ("Content-Length: 7\r\nDATE: x\r\n", Some(7), true),
            (
                "content-length:\t0 \r\nX: \t a b\u{e9}\r\nx:\r\n",
                Some(0),
                false,
            ),
            (
                "Set-Cookie: a=1\r\nset-cookie: b=2\r\nTrailer: x\r\n",
                None,
                false,
            ),
            ("content-type: text/html; charset=utf-8\r\n", None, false),
            ("a-name-that-is-longer-than-thirty-two: 1\r\n", None, false),
            (
                "a: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\ne: 5\r\nf: 6\r\ng: 7\r\nh: 8\r\n",
                None,
                false,
            ),
        ] {
            let read = AsIs::read(&block(lines), 0, 8).expect(lines);
            assert_eq!((read.length, read.dated), (length, dated), "{lines:?}");
            assert_eq!(read.lines, lines);
            let before = fields(lines).expect(lines);
            let mut after = before.clone();
            hop_by_hop::strip_answer(StatusCode::OK, &mut after);
            forward::unsteer(&mut after);
            assert_eq!(after, before, "{lines:?}");
        }
    }

    #[test]
    fn what_belongs_to_the_connection_is_left_out() {
        for (lines, passed, chunked, stays) in [
            ("Connection: Keep-Alive\r\n", "", false, true),
            (
                "a: 1\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\nB: 2\r\n",
                "a: 1\r\nB: 2\r\n",
                false,
                true,
            ),
            (
                "keep-alive: timeout=5\r\na: 1\r\n",
                "a: 1\r\n",
                false,
                false,
            ),
            (
                "A: 1\r\nTransfer-Encoding: Chunked \r\nb:\r\n",
                "A: 1\r\nb:\r\n",
                true,
                false,
            ),
        ] {
            let read = AsIs::read(&block(lines), 0, 8).expect(lines);
            assert_eq!((read.chunked, read.stays), (chunked, stays), "{lines:?}");
            assert_eq!(read.lines, passed);
            let mut fields = fields(lines).expect(lines);
            hop_by_hop::strip_answer(StatusCode::OK, &mut fields);
            assert_eq!(Some(fields), self::fields(passed), "{lines:?}");
        }
    }

    #[test]
    fn what_is_to_be_changed_does_not_pass() {
        for lines in [
            "Connection: close\r\n",
            "connection: keep-alive, x\r\nx: 1\r\n",
            "connection: x\r\nx: 1\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "content-length: 7\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 7\r\n",
            "Upgrade: x\r\n",
            "TE: trailers\r\n",
            "proxy-connection: x\r\n",
            "http2-settings: x\r\n",
            "FLY-Replay: app=x\r\n",
            "fly-replay-cache: /*\r\n",
            "fly-replay-cache-ttl-secs: 60\r\n",
            "content-type: application/vnd.fly.Replay+json;x=1\r\n",
            "content-length: 7\r\ncontent-length: 7\r\n",
            "content-length: \r\n",
            "content-length: +7\r\n",
            "content-length: 7, 7\r\n",
            "content-length: 99999999999999999999\r\n",
            "a : 1\r\n",
            ": 1\r\n",
            "no colon\r\n",
            "a: 1\r\n b: folded\r\n",
            "a: 1\rb: 2\r\n",
            "a: \0\r\n",
            "a: \x7f\r\n",
            "a(b): 1\r\n",
            "a: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\ne: 5\r\nf: 6\r\ng: 7\r\nh: 8\r\ni: 9\r\n",
        ] {
            assert_eq!(AsIs::read(&block(lines), 0, 8), None, "{lines:?}");
        }
    }
}
