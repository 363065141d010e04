//! The buffers that a thread reads into. All its connections share them: one that waits for bytes keeps no memory for them.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes that can be read at once.
pub const SIZE: usize = 128 * 1024;
/// Bytes that are read at once where what comes is copied.
pub const COPIED: usize = 16 * 1024;
/// From how many bytes on the buffer itself is lent to whoever has what was read, while few are.
const LENT_FROM: usize = 4 * 1024;
/// The most buffers that are lent at once. Beyond them, connections read in pieces that are copied.
const MOST: usize = 16;
/// How many are few.
const FEW: usize = MOST / 2;

thread_local! {
    static BUFFERS: RefCell<Buffers> = const {
        RefCell::new(Buffers {
            spare: None,
            lent: Vec::new(),
        })
    };
}

struct Buffers {
    spare: Option<BytesMut>,
    /// What is left of those of which somebody has a part, or had when they were last looked at.
    lent: Vec<BytesMut>,
}

impl Buffers {
    /// Takes a lent buffer back of which nobody has a part any more, if there is one.
    fn reclaim(&mut self) -> Option<BytesMut> {
        // Those that were lent last are given back first.
        let free = self
            .lent
            .iter_mut()
            .rposition(|buffer| buffer.try_reclaim(SIZE))?;
        Some(self.lent.swap_remove(free))
    }
}

/// An empty buffer, for one look at a socket; [`keep`] takes it back.
pub fn take() -> BytesMut {
    let buffer = BUFFERS.with_borrow_mut(|all| all.spare.take().or_else(|| all.reclaim()));
    buffer.unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Whether one more may be lent.
pub fn lends() -> bool {
    BUFFERS.with_borrow_mut(|all| {
        if all.lent.len() < MOST {
            return true;
        }
        let free = all.reclaim();
        let lends = free.is_some();
        all.spare = all.spare.take().or(free);
        lends
    })
}

/// Takes back a buffer that [`take`] gave, and appends what it holds to `read`: copied, or, where that pays and one may be
/// lent, as a part of it.
pub fn keep(mut buffer: BytesMut, read: &mut BytesMut) {
    let _ = BUFFERS.try_with(|all| {
        let all = &mut *all.borrow_mut();
        let from = if all.lent.len() < FEW {
            LENT_FROM
        } else {
            COPIED
        };
        if buffer.len() > from && read.is_empty() && all.lent.len() < MOST {
            *read = buffer.split();
            all.lent.push(buffer);
        } else {
            read.extend_from_slice(&buffer);
            buffer.clear();
            all.spare = Some(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: usize) -> BytesMut {
        let mut buffer = take();
        buffer.resize(count, 7);
        buffer
    }

    fn lend(count: usize) -> BytesMut {
        let mut read = BytesMut::new();
        keep(filled(count), &mut read);
        read
    }

    fn lent() -> usize {
        BUFFERS.with_borrow(|all| all.lent.len())
    }

    #[test]
    fn a_buffer_comes_back_once_nobody_has_a_part_of_it() {
        let mut read = lend(SIZE - 1);
        let place = read.as_ptr();
        let part = read.split_to(10).freeze();
        drop(read);
        let other = take();
        assert_ne!(other.as_ptr(), place, "a part of it is held");
        drop(part);
        let again = take();
        assert_eq!(again.as_ptr(), place);
        assert_eq!((again.len(), again.capacity()), (0, SIZE));
    }

    #[test]
    fn a_thread_lends_so_many_and_no_more() {
        let mut lent: Vec<_> = (0..MOST).map(|_| lend(SIZE)).collect();
        assert!(!lends());
        let copied = lend(COPIED + 1);
        assert_eq!((copied.len(), self::lent()), (COPIED + 1, MOST));
        lent.pop();
        assert!(lends());
        assert_eq!(self::lent(), MOST - 1);
    }

    #[test]
    fn little_is_copied_and_more_where_many_are_lent() {
        assert_eq!((lend(LENT_FROM).len(), lent()), (LENT_FROM, 0));
        let held: Vec<_> = (0..MOST).map(|_| lend(LENT_FROM + 1)).collect();
        assert_eq!(lent(), FEW);
        assert!(held.iter().all(|read| read.len() == LENT_FROM + 1));
        let _large = lend(COPIED + 1);
        assert_eq!(lent(), FEW + 1);
    }

    #[test]
    fn what_comes_is_appended_to_what_has_come() {
        let mut read = lend(10);
        keep(filled(SIZE), &mut read);
        assert_eq!((read.len(), lent()), (SIZE + 10, 0));
    }
}
