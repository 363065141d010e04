//! The bytes of bodies, made from the soak's seed and the request's id: whoever knows these knows every byte. Pure.

use std::fmt;

use ring::digest::{Context, SHA256};

use super::dice::{Dice, For, mix};

/// An endless run of bytes, of which a body is the beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content(u64);

impl Content {
    /// What request `id` sends.
    pub(crate) fn upload(seed: u64, id: u64) -> Self {
        Self(Dice::new(seed, For::Upload, id).roll())
    }

    /// What the answer to request `id` holds.
    pub(crate) fn answer(seed: u64, id: u64) -> Self {
        Self(Dice::new(seed, For::Answer, id).roll())
    }

    fn word(self, index: u64) -> [u8; 8] {
        mix(self.0 ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93)).to_le_bytes()
    }

    /// Calls `each` with the bytes from `offset` on, in pieces of at most eight, until `left` are done.
    fn words(self, offset: u64, left: usize, mut each: impl FnMut(usize, &[u8])) {
        let mut done = 0;
        while done < left {
            let at = offset + done as u64;
            let word = self.word(at / 8);
            let from = (at % 8) as usize;
            let to = 8.min(from + left - done);
            each(done, &word[from..to]);
            done += to - from;
        }
    }

    /// The `length` bytes at `offset`.
    pub(crate) fn bytes(self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        self.words(offset, length, |_, word| bytes.extend_from_slice(word));
        bytes
    }

    /// Whether `bytes` are those at `offset`.
    pub(crate) fn has(self, offset: u64, bytes: &[u8]) -> bool {
        let mut same = true;
        self.words(offset, bytes.len(), |done, word| {
            same &= bytes[done..done + word.len()] == *word;
        });
        same
    }
}

/// What came of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    /// SHA-256 of what came.
    pub(crate) digest: [u8; 32],
    /// Whether every byte was the one that belongs there.
    pub(crate) intact: bool,
}

/// As bytes and the beginning of the digest.
impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.digest;
        let changed = if self.intact { "" } else { " changed" };
        write!(f, "{}:{a:02x}{b:02x}{c:02x}{d:02x}{changed}", self.bytes)
    }
}

/// Counts, digests and compares a body on its way.
#[derive(Clone)]
pub(crate) struct Meter {
    content: Content,
    bytes: u64,
    digest: Context,
    intact: bool,
}

impl Meter {
    pub(crate) fn new(content: Content) -> Self {
        Self {
            content,
            bytes: 0,
            digest: Context::new(&SHA256),
            intact: true,
        }
    }

    pub(crate) fn take(&mut self, piece: &[u8]) {
        self.intact &= self.content.has(self.bytes, piece);
        self.digest.update(piece);
        self.bytes += piece.len() as u64;
    }

    /// The next `length` bytes of the content, counted in.
    pub(crate) fn give(&mut self, length: usize) -> Vec<u8> {
        let piece = self.content.bytes(self.bytes, length);
        self.digest.update(&piece);
        self.bytes += length as u64;
        piece
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn sum(&self) -> Sum {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.digest.clone().finish().as_ref());
        Sum {
            bytes: self.bytes,
            digest,
            intact: self.intact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_make_the_same_body() {
        let content = Content::upload(1, 2);
        let whole = content.bytes(0, 100);
        for cut in [0, 1, 7, 8, 9, 63, 100] {
            assert!(content.has(0, &whole[..cut]) && content.has(cut as u64, &whole[cut..]));
        }
        assert!(!content.has(1, &whole[..10]));
        assert!(!Content::upload(1, 3).has(0, &whole[..10]));
        assert!(!Content::answer(1, 2).has(0, &whole[..10]));
    }

    #[test]
    fn both_ends_of_a_body_come_to_the_same_sum() {
        let content = Content::answer(7, 9);
        let (mut from, mut to) = (Meter::new(content), Meter::new(content));
        for length in [3, 1000, 0, 17] {
            to.take(&from.give(length));
        }
        assert_eq!(from.sum(), to.sum());
        to.take(b"x");
        assert!(!to.sum().intact);
    }
}
