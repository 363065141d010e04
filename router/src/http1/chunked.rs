//! The chunked transfer coding (RFC 9112 section 7.1), read strictly.

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::HeaderMap;

use super::head::{self, Fault};
use crate::wire::strict;

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
                    self.begin(size, extensions)?;
                    read.advance(line + 2);
                }
                State::Data(_) if read.is_empty() => return Ok(Step::More),
                State::Data(_) => return Ok(Step::Data(self.data(read))),
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

    /// The data at the front of `read`, and that of all chunks after it as far as they are there: moved together, so that many
    /// small chunks cost whoever gets them no more than a large one.
    fn data(&mut self, read: &mut BytesMut) -> Bytes {
        let mut end = self.take(read.len());
        let mut from = end;
        while let Some((framing, size)) = self.more(&read[from..])
            && self.begin(size, 0).is_ok()
        {
            from += framing;
            let taken = self.take(read.len() - from);
            read.copy_within(from..from + taken, end);
            end += taken;
            from += taken;
        }
        let data = read.split_to(end).freeze();
        read.advance(from - end);
        data
    }

    /// How many bytes lead to the next chunk's data, and its size: where that is all that they say.
    fn more(&self, rest: &[u8]) -> Option<(usize, u64)> {
        let rest = rest
            .strip_prefix(b"\r\n")
            .filter(|_| self.state == State::DataEnd)?;
        let line = line(rest, MAX_SIZE_LINE)??;
        match size(&rest[..line]) {
            Ok((size, 0)) if size > 0 && rest.len() > line + 2 => Some((line + 4, size)),
            _ => None,
        }
    }

    /// Takes what there is of the chunk's data, of `most` bytes.
    fn take(&mut self, most: usize) -> usize {
        let taken = usize::try_from(self.plain()).map_or(most, |left| left.min(most));
        self.pass(taken as u64);
        taken
    }

    /// Begins a chunk, and charges extensions against the data they come with.
    fn begin(&mut self, size: u64, extensions: usize) -> Result<(), Fault> {
        self.extensions = (self.extensions + extensions as u64).saturating_sub(size);
        if self.extensions > MAX_EXTENSIONS {
            return Err(Fault::Chunk);
        }
        self.chunk = size;
        self.state = match size {
            0 => State::Trailers,
            size => State::Data(size),
        };
        Ok(())
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
    let end = text
        .iter()
        .position(|byte| !strict::is_token(*byte))
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
    fn data_of_chunks_that_are_there_comes_at_once() {
        for (text, datas, rest) in [
            (
                &b"3\r\nabc\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\nGET"[..],
                &["abcdef"][..],
                "GET",
            ),
            // As far as it is there.
            (b"3\r\nabc\r\n8\r\nde", &["abcde"], ""),
            (b"3\r\nabc\r\n8\r\n", &["abc"], ""),
            (b"3\r\nabc\r\n8\r", &["abc"], "8\r"),
            (b"3\r\nabc\r", &["abc"], "\r"),
            // What says more is looked at by itself.
            (
                b"3\r\nabc\r\n2;a=b\r\nde\r\n1\r\nf\r\n0\r\n\r\n",
                &["abc", "def"],
                "",
            ),
        ] {
            let (mut decoder, mut read, mut found) =
                (Decoder::default(), BytesMut::from(text), Vec::new());
            while let Step::Data(data) = decoder.step(&mut read).unwrap() {
                found.push(data);
            }
            assert_eq!(found, datas, "{}", text.escape_ascii());
            assert_eq!(read, rest, "{}", text.escape_ascii());
        }
        // What is malformed is so after the data before it.
        let (mut decoder, mut read) = (
            Decoder::default(),
            BytesMut::from(&b"3\r\nabc\r\nx\r\n"[..]),
        );
        assert_eq!(
            decoder.step(&mut read),
            Ok(Step::Data(Bytes::from_static(b"abc")))
        );
        assert_eq!(decoder.step(&mut read), Err(Fault::Chunk));
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
