//! What is written once everybody who can go on has done so: then one after the other writes, while the processor still
//! has in its caches how that is done, and whoever they write to is woken once and not for each.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use tokio::task::coop::unconstrained;

/// Somebody who has left something to be written.
pub trait Leaves {
    /// Writes it; `false` if that cannot be now, since somebody is at it.
    fn write_left(&self) -> bool;
}

struct Left {
    all: Vec<Weak<dyn Leaves>>,
    /// Of [`run`], if it runs.
    writer: Option<Waker>,
}

thread_local! {
    static LEFT: RefCell<Left> = const {
        RefCell::new(Left {
            all: Vec::new(),
            writer: None,
        })
    };
}

/// Whether anybody writes what is left on this thread.
pub fn is_served() -> bool {
    LEFT.with_borrow(|left| left.writer.is_some())
}

/// Has it write later. If it is gone by then, nothing is written.
pub fn leave(who: &Rc<impl Leaves + 'static>) {
    // Made before the borrow: it names no type.
    let who: Weak<dyn Leaves> = Rc::downgrade(who) as _;
    LEFT.with_borrow_mut(|left| {
        if let (true, Some(writer)) = (left.all.is_empty(), &left.writer) {
            writer.wake_by_ref();
        }
        left.all.push(who);
    });
}

/// Has all write now: before something that takes long, and at the end.
pub fn write() {
    let mut all = LEFT.with_borrow_mut(|left| std::mem::take(&mut left.all));
    if all.is_empty() {
        return;
    }
    all.retain(|who| who.upgrade().is_some_and(|who| !who.write_left()));
    LEFT.with_borrow_mut(|left| {
        // What was left meanwhile comes after it.
        all.append(&mut left.all);
        left.all = all;
    });
}

/// Has everybody who has left something write it, whenever those who could go on have done so. A task of its own does
/// this: it comes after all that were ready before it.
pub async fn run() -> Infallible {
    // To be cut short in the middle of it would only cost more.
    unconstrained(poll_fn(|context| {
        LEFT.with_borrow_mut(|left| {
            if left.writer.is_none() {
                left.writer = Some(context.waker().clone());
            }
        });
        write();
        if LEFT.with_borrow(|left| !left.all.is_empty()) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }))
    .await
}
