//! Long work in short steps, between which whoever else wants the core gets it.
//!
//! A scheduler that is not asked to may let a request wait for milliseconds, however much less urgent the work is: Linux
//! without a preemptible kernel looks at the next tick only, each 1 to 10 ms. So who reads a large registry asks, some
//! thousand times a second. It must never hold a lock that a worker may want.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Steps, of a microsecond or two each, that are taken together.
pub const AT_ONCE: usize = 64;

/// Bytes that are looked at together: a tenth of a millisecond's worth.
const BYTES: usize = 64 << 10;

/// The steps of one piece of work.
#[derive(Debug, Default)]
pub struct Steps(usize);

impl Steps {
    /// After one more small step.
    pub fn step(&mut self) {
        self.0 = self.0.wrapping_add(1);
        if self.0.is_multiple_of(AT_ONCE) {
            give_way();
        }
    }
}

fn give_way() {
    std::thread::yield_now();
}

/// A text in parts, for who has to look at all of it.
pub fn parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.chunks(BYTES).inspect(|part| {
        if part.len() == BYTES {
            give_way();
        }
    })
}

/// How many bytes two texts begin with alike.
pub fn alike(one: &[u8], other: &[u8]) -> usize {
    let mut same = 0;
    for (one, other) in parts(one).zip(other.chunks(BYTES)) {
        if one != other {
            let pairs = one.iter().zip(other);
            return same + pairs.take_while(|(one, other)| one == other).count();
        }
        same += one.len();
    }
    same
}

/// How many bytes two texts end with alike.
pub fn alike_at_end(one: &[u8], other: &[u8]) -> usize {
    let mut same = 0;
    for (one, other) in one.rchunks(BYTES).zip(other.rchunks(BYTES)) {
        if one != other {
            let pairs = one.iter().rev().zip(other.iter().rev());
            return same + pairs.take_while(|(one, other)| one == other).count();
        }
        same += one.len();
        give_way();
    }
    same
}

/// The bytes of a file.
///
/// # Errors
/// Those of the system.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut text = Vec::new();
    text.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
    read_to_end(&mut file, &mut text)?;
    Ok(text)
}

/// Appends all that is still to be read.
///
/// # Errors
/// Those of the reader.
pub fn read_to_end(from: &mut impl Read, text: &mut Vec<u8>) -> io::Result<()> {
    while from.by_ref().take(BYTES as u64).read_to_end(text)? > 0 {
        give_way();
    }
    Ok(())
}

/// A text for who takes it from a reader.
#[derive(Debug)]
pub struct Reader<'t> {
    rest: &'t [u8],
    steps: usize,
}

impl<'t> Reader<'t> {
    /// At its beginning.
    pub fn new(text: &'t [u8]) -> Self {
        Self {
            rest: text,
            steps: 0,
        }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.rest.read(into)?;
        self.steps += read;
        if self.steps >= BYTES {
            self.steps = 0;
            give_way();
        }
        Ok(read)
    }
}

/// Lets go of many things.
pub fn let_go<T>(all: impl IntoIterator<Item = T>) {
    let mut steps = Steps::default();
    for one in all {
        drop(one);
        steps.step();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_found_however_long_it_is() {
        let long = vec![7; 2 * BYTES + 10];
        for (at, length) in [
            (0, long.len()),
            (1, 5),
            (BYTES, BYTES),
            (BYTES, 2 * BYTES),
            (BYTES + 1, long.len()),
            (2 * BYTES + 9, long.len()),
        ] {
            let mut other = long[..length].to_vec();
            if let Some(byte) = other.get_mut(at) {
                *byte = 8;
            }
            let before = at.min(length);
            assert_eq!(alike(&long, &other), before, "{at} of {length}");
            assert_eq!(alike(&other, &long), before, "{at} of {length}");
            let after = length.saturating_sub(at + 1);
            let after = if at < length { after } else { length };
            assert_eq!(alike_at_end(&long, &other), after, "{at} of {length}");
            assert_eq!(alike_at_end(&other, &long), after, "{at} of {length}");
        }
        assert_eq!((alike(b"", b"a"), alike_at_end(b"a", b"")), (0, 0));
        assert_eq!(
            (alike(&long, &long), alike_at_end(&long, &long)),
            (long.len(), long.len())
        );
    }

    #[test]
    fn all_is_read_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        for length in [0, 1, BYTES - 1, BYTES, BYTES + 1, 3 * BYTES] {
            let text: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &text).unwrap();
            assert!(read(&path).unwrap() == text, "{length}");
            assert!(
                parts(&text).collect::<Vec<_>>().concat() == text,
                "{length}"
            );
            let mut again = Vec::new();
            Reader::new(&text).read_to_end(&mut again).unwrap();
            assert!(again == text, "{length}");
        }
        let missing = read(&folder.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
