//! The chunked transfer coding (RFC 9112 section 7.1), read strictly.

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::HeaderMap;

use super::head::{self, Fault};

/// The most bytes of a chunk's size and extensions. No extension is known that anybody uses; they are read and left.
const MAX_SIZE_LINE: usize = 256;
/// The most bytes and lines of trailers.
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_LINES: usize = 64;
/// The most bytes of extensions beyond those of the data they come with: a way to keep a reader busy with nothing.
const MAX_EXTENSIONS: u64 = 64 * 1024;

/// What decoding came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Some of the body.
    Data(Bytes),
    /// What follows the body; it is over.
    Trailers(HeaderMap),
    /// It is over.
    End,
    /// More has to come first.
    More,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

/// Takes the framing off a body as it comes.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The size of the chunk under way, or of the last one.
    chunk: u64,
    /// Bytes of extensions beyond those of data.
    extensions: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Size,
            chunk: 0,
            extensions: 0,
        }
    }
}

impl Decoder {
    /// Decodes what is next in `read`.
    ///
    /// # Errors
    /// `Chunk`, `Trailers`.
    pub fn step(&mut self, read: &mut BytesMut) -> Result<Step, Fault> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = line(read, MAX_SIZE_LINE).ok_or(Fault::Chunk)? else {
                        return Ok(Step::More);
                    };
                    let (size, extensions) = size(&read[..line])?;
                    self.spend(extensions, size)?;
                    read.advance(line + 2);
                    self.chunk = size;
                    self.state = match size {
                        0 => State::Trailers,
                        size => State::Data(size),
                    };
                }
                State::Data(_) if read.is_empty() => return Ok(Step::More),
                State::Data(left) => {
                    let take =
                        usize::try_from(left).map_or(read.len(), |left| left.min(read.len()));
                    self.pass(take as u64);
                    return Ok(Step::Data(read.split_to(take).freeze()));
                }
                State::DataEnd => {
                    if !b"\r\n".starts_with(&read[..read.len().min(2)]) {
                        return Err(Fault::Chunk);
                    }
                    if read.len() < 2 {
                        return Ok(Step::More);
                    }
                    read.advance(2);
                    self.state = State::Size;
                }
                State::Trailers => {
                    if read.starts_with(b"\r\n") {
                        read.advance(2);
                        self.state = State::End;
                        return Ok(Step::End);
                    }
                    let bound = read.len().min(MAX_TRAILERS);
                    let Some(end) = memchr::memmem::find(&read[..bound], b"\r\n\r\n") else {
                        if bound == MAX_TRAILERS || bare_line_feed(&read[..bound]) {
                            return Err(Fault::Trailers);
                        }
                        return Ok(Step::More);
                    };
                    let block = read.split_to(end + 4).freeze();
                    if bare_line_feed(&block) {
                        return Err(Fault::Trailers);
                    }
                    self.state = State::End;
                    return head::trailers(&block, MAX_TRAILER_LINES).map(Step::Trailers);
                }
                State::End => return Ok(Step::End),
            }
        }
    }

    /// How many bytes come next that are data of one chunk.
    pub fn plain(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            State::Size | State::DataEnd | State::Trailers | State::End => 0,
        }
    }

    /// The size of the chunk that they belong to, or of the one before the next.
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// So many of them were taken, here or elsewhere.
    pub fn pass(&mut self, bytes: u64) {
        if let State::Data(left) = self.state {
            self.state = match left.saturating_sub(bytes) {
                0 => State::DataEnd,
                left => State::Data(left),
            };
        }
    }

    /// Whether the body's end has been read.
    pub fn ended(&self) -> bool {
        self.state == State::End
    }

    /// Charges extensions against the data they come with.
    fn spend(&mut self, extensions: usize, data: u64) -> Result<(), Fault> {
        self.extensions = (self.extensions + extensions as u64).saturating_sub(data);
        if self.extensions > MAX_EXTENSIONS {
            Err(Fault::Chunk)
        } else {
            Ok(())
        }
    }
}

/// The length of the line at the front of `read`, without its end; `None` where it is malformed or longer than `most`.
fn line(read: &[u8], most: usize) -> Option<Option<usize>> {
    let bound = read.len().min(most + 2);
    match memchr::memchr2(b'\r', b'\n', &read[..bound]) {
        Some(at) if read[at] == b'\n' => None,
        Some(at) => match read.get(at + 1) {
            Some(b'\n') => Some(Some(at)),
            Some(_) => None,
            None => Some(None),
        },
        None if bound < most + 2 => Some(None),
        None => None,
    }
}

/// A chunk's size, and how many bytes of extensions follow it: hexadecimal digits, then nothing or what begins with a
/// semicolon.
fn size(line: &[u8]) -> Result<(u64, usize), Fault> {
    let digits = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let rest = &line[digits..];
    // Fifteen digits are beyond any body, and within the number.
    if !(1..=15).contains(&digits) || !(rest.is_empty() || extensions(rest)) {
        return Err(Fault::Chunk);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| Fault::Chunk)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| Fault::Chunk)?;
    Ok((size, rest.len()))
}

/// Whether this is `;name` or `;name=value`, any times, with blanks around each part where old senders put them (RFC
/// 9112 section 7.1.1).
fn extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let after = without_blanks(rest)
            .strip_prefix(b";")
            .and_then(|rest| token(without_blanks(rest)));
        let Some(after) = after else {
            return false;
        };
        rest = after;
        if let Some(value) = without_blanks(rest).strip_prefix(b"=") {
            let value = without_blanks(value);
            let after = match value.strip_prefix(b"\"") {
                Some(quoted) => quoted_string(quoted),
                None => token(value),
            };
            let Some(after) = after else {
                return false;
            };
            rest = after;
        }
    }
    true
}

/// What follows the blanks at the front.
fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = text
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    &text[blanks..]
}

/// What follows the token at the front, if there is one (RFC 9110 section 5.6.2).
fn token(text: &[u8]) -> Option<&[u8]> {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = text
        .iter()
        .position(|byte| !part(byte))
        .unwrap_or(text.len());
    (end > 0).then(|| &text[end..])
}

/// What follows a quoted string without its first quote (RFC 9110 section 5.6.4).
fn quoted_string(mut text: &[u8]) -> Option<&[u8]> {
    let shown = |byte: u8| byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] if shown(*byte) => rest,
            _ => return None,
        };
    }
}

fn bare_line_feed(block: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', block).any(|at| at == 0 || block[at - 1] != b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Body and trailers, decoded in pieces of `piece` bytes.
    fn decode(text: &[u8], piece: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        let (mut decoder, mut read, mut body, mut trailers) =
            (Decoder::default(), BytesMut::new(), Vec::new(), 0);
        let mut pieces = text.chunks(piece);
        loop {
            match decoder.step(&mut read)? {
                Step::Data(data) => body.extend_from_slice(&data),
                Step::Trailers(fields) => trailers = fields.len(),
                Step::End => {
                    let rest = pieces.flatten().copied();
                    return Ok((body, trailers, read.iter().copied().chain(rest).collect()));
                }
                Step::More => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None => return Err(Fault::TimedOut),
                },
            }
            if decoder.ended() {
                let rest = pieces.flatten().copied();
                return Ok((body, trailers, read.iter().copied().chain(rest).collect()));
            }
        }
    }

    #[test]
    fn bodies_are_decoded_however_they_come() {
        let text =
            b"5\r\nhello\r\n00A;a=\"b\" ;c\r\n0123456789\r\n0\r\nx-sum: 1\r\nb: 2\r\n\r\nGET";
        for piece in [1, 2, 3, 7, 1000] {
            let (body, trailers, rest) = decode(text, piece).unwrap();
            assert_eq!(body, b"hello0123456789");
            assert_eq!((trailers, &rest[..]), (2, &b"GET"[..]), "{piece}");
        }
        assert_eq!(decode(b"0\r\n\r\n", 1).unwrap(), (vec![], 0, vec![]));
    }

    #[test]
    fn malformed_framing_is_refused() {
        for text in [
            &b"\r\n"[..],
            b"g\r\n",
            b"0x5\r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b" 5\r\nhello\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5 5\r\n",
            b"5;a\0\r\n",
            b"5;a\nb\r\n",
            b"5;\r\nhello\r\n",
            b"5;;a\r\nhello\r\n",
            b"5;a b\r\nhello\r\n",
            b"5;a=\r\nhello\r\n",
            b"5;a=\"b\r\nhello\r\n",
            b"5;a=\"b\\\"\r\nhello\r\n",
            b"5;a=\"b\"c\r\nhello\r\n",
            b"5;a \r\nhello\r\n",
            b"10000000000000000\r\n",
            b"FFFFFFFFFFFFFFFFF\r\n",
            b"0\r\na: 1\n\r\n",
            b"0\r\na : 1\r\n\r\n",
            b"0\r\n a: 1\r\n\r\n",
            b"0\r\na\r\n\r\n",
        ] {
            for piece in [1, 1000] {
                let decoded = decode(text, piece);
                assert!(
                    matches!(decoded, Err(Fault::Chunk | Fault::Trailers)),
                    "{:?} {decoded:?}",
                    text.escape_ascii().to_string()
                );
            }
        }
    }

    #[test]
    fn framing_is_bounded() {
        let long = format!("5;{}\r\n", "a".repeat(MAX_SIZE_LINE));
        assert_eq!(decode(long.as_bytes(), 64), Err(Fault::Chunk));
        let trailers = format!("0\r\na: {}\r\n\r\n", "a".repeat(MAX_TRAILERS));
        assert_eq!(decode(trailers.as_bytes(), 64), Err(Fault::Trailers));
        let one = format!("1;{}\r\nx\r\n", "a".repeat(200));
        let drip = one.repeat(usize::try_from(MAX_EXTENSIONS).unwrap() / 200 + 10);
        assert_eq!(decode(drip.as_bytes(), 4096), Err(Fault::Chunk));
        let small = "1\r\nx\r\n".repeat(500_000) + "0\r\n\r\n";
        assert_eq!(decode(small.as_bytes(), 4096).unwrap().0.len(), 500_000);
    }
}
