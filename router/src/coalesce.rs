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
/// For so long a thread lets come what comes; the kernel may make it 50 µs more (`timerslack_ns` in proc(5)).
const LULL: Duration = Duration::from_micros(50);
/// If it moved some of a large body within so long of having looked: of what comes seldom no more would come meanwhile.
const SOON: Duration = Duration::from_micros(200);

thread_local! {
    /// This thread has moved some of a large body since it waited last.
    static MOVED: Cell<bool> = const { Cell::new(false) };
    /// When it looked for more, after it had.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// This thread has moved some of a large body.
pub fn moved() {
    MOVED.set(true);
}

/// Called before this thread waits for events, when nobody on it can go on. Where large bodies come fast, blocks it for up to
/// a tenth of a millisecond.
pub fn wait() {
    wait_by(Instant::now, || thread::sleep(LULL));
}

fn wait_by(clock: impl Fn() -> Instant, lull: impl FnOnce()) {
    if !MOVED.replace(false) {
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

/// Whether this thread has moved some of a large body since it was last asked, or waited.
#[cfg(test)]
pub fn take_moved() -> bool {
    MOVED.replace(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_let_come_while_large_bodies_come_fast() {
        let clock = Cell::new(Instant::now());
        for (after, some, lull, what) in [
            (0, false, false, "nothing large"),
            (10, true, false, "the first: there may be no more"),
            (199, true, true, "more of it, soon"),
            // From when it looked again.
            (199, true, true, "and more"),
            (50, false, false, "something else"),
            (149, true, true, "which does not matter"),
            (200, true, false, "it comes more slowly"),
            (1000, true, false, "and so on"),
            (100, true, true, "and fast again"),
        ] {
            let pass = |micros| clock.set(clock.get() + Duration::from_micros(micros));
            pass(after);
            if some {
                moved();
            }
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
