//! Large bodies go in large pieces: a thread that moves some of them lets more come before it looks again.
//!
//! They come in segments of 64 KiB at most. A thread that the first of them wakes moves each by itself, and that costs it up to
//! twice what moving several at once does. Network cards hold back their interrupts for the same reason (`rx-usecs` in
//! ethtool(8)).

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

/// A body of which so many bytes have come is large.
pub const LARGE: u64 = 512 * 1024;
/// For so long a thread lets come what comes; the kernel may make it 50 µs more (`timerslack_ns` in proc(5)), and whoever else
/// wants its processor more than that.
const LULL: Duration = Duration::from_micros(50);
/// If it moved so many bytes of large bodies since it waited last: what comes in drops delays nobody.
const MUCH: u64 = 32 * 1024;
/// And within so long of having looked: of what comes seldom no more would come meanwhile.
const SOON: Duration = Duration::from_micros(200);

thread_local! {
    /// Bytes of large bodies that this thread has moved since it waited last.
    static MOVED: Cell<u64> = const { Cell::new(0) };
    /// When it looked for more, after it had moved much.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// This thread has moved so many bytes of a large body.
pub fn moved(bytes: u64) {
    MOVED.set(MOVED.get().wrapping_add(bytes));
}

/// Called before this thread waits for events, when nobody on it can go on. Where large bodies come fast, blocks it for about
/// a tenth of a millisecond.
pub fn wait() {
    wait_by(Instant::now, || thread::sleep(LULL));
}

fn wait_by(clock: impl Fn() -> Instant, lull: impl FnOnce()) {
    if MOVED.take() < MUCH {
        return;
    }
    let now = clock();
    let soon = LOOKED.get().is_some_and(|looked| now - looked < SOON);
    LOOKED.set(Some(if soon {
        lull();
        clock()
    } else {
        now
    }));
}

/// Bytes of large bodies that this thread has moved since it was last asked, or waited.
#[cfg(test)]
pub fn take_moved() -> u64 {
    MOVED.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_let_come_while_large_bodies_come_fast() {
        let clock = Cell::new(Instant::now());
        for (after, bytes, lull, what) in [
            (0, 0, false, "nothing large"),
            (10, MUCH, false, "the first: there may be no more"),
            (199, MUCH, true, "more of it, soon"),
            // From when it looked again.
            (199, MUCH, true, "and more"),
            (50, 0, false, "something else"),
            (50, MUCH - 1, false, "a little of it"),
            (99, MUCH, true, "neither of which matters"),
            (200, MUCH, false, "it comes more slowly"),
            (1000, MUCH, false, "and so on"),
            (100, u64::MAX, true, "and fast again"),
        ] {
            let pass = |micros| clock.set(clock.get() + Duration::from_micros(micros));
            pass(after);
            moved(bytes / 2);
            moved(bytes - bytes / 2);
            let mut lulls = false;
            wait_by(
                || clock.get(),
                || {
                    lulls = true;
                    pass(100);
                },
            );
            assert_eq!(lulls, lull, "{what}");
        }
    }
}
