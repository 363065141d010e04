//! The buffer that a thread reads into. All its connections share it: one that waits for bytes keeps no memory for them.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;

/// Bytes that can be read at once.
pub const SIZE: usize = 128 * 1024;
/// What is read of up to so many bytes is copied out of the buffer; with more, the buffer itself is lent.
pub const COPIED: usize = 16 * 1024;
/// The most buffers that connections of one thread have at once. Beyond them, they read in pieces that are copied.
const MOST: usize = 16;

thread_local! {
    static SPARE: RefCell<Option<BytesMut>> = const { RefCell::new(None) };
    static LENT: Cell<usize> = const { Cell::new(0) };
}

/// The empty buffer, for one look at a socket; [`put`] takes it back.
pub fn take() -> BytesMut {
    let spare = SPARE.with_borrow_mut(Option::take);
    spare.unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Takes the buffer back, of which nobody holds a part.
pub fn put(mut buffer: BytesMut) {
    buffer.clear();
    // At the thread's end there may be nobody left to take it.
    let _ = SPARE.try_with(|spare| spare.replace(Some(buffer)));
}

/// Whether one more may be lent.
pub fn lends() -> bool {
    LENT.get() < MOST
}

/// A buffer that a connection has for as long as somebody holds a part of it.
#[derive(Debug)]
pub struct Lent(BytesMut);

impl Lent {
    /// The buffer whose bytes were split off.
    pub fn new(buffer: BytesMut) -> Self {
        LENT.set(LENT.get() + 1);
        Self(buffer)
    }

    /// Gives it back, unless somebody still holds a part of it.
    pub fn give_back(mut self) -> Option<Self> {
        if !self.0.try_reclaim(SIZE) {
            return Some(self);
        }
        put(std::mem::take(&mut self.0));
        None
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let _ = LENT.try_with(|lent| lent.set(lent.get() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: usize) -> (BytesMut, Lent) {
        let mut buffer = take();
        buffer.resize(count, 7);
        let data = buffer.split();
        (data, Lent::new(buffer))
    }

    #[test]
    fn a_buffer_comes_back_once_nobody_holds_a_part_of_it() {
        let (mut data, lent) = filled(SIZE - 1);
        let place = data.as_ptr();
        let part = data.split_to(10).freeze();
        drop(data);
        let lent = lent.give_back().expect("a part of it is held");
        assert_ne!(take().as_ptr(), place);
        drop(part);
        assert!(lent.give_back().is_none());
        let again = take();
        assert_eq!(again.as_ptr(), place);
        assert_eq!((again.len(), again.capacity()), (0, SIZE));
    }

    #[test]
    fn a_thread_lends_so_many_and_no_more() {
        let mut lent: Vec<_> = (0..MOST).map(|_| filled(1)).collect();
        assert!(!lends());
        lent.pop();
        assert!(lends());
    }
}
