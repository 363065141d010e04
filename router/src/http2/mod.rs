//! HTTP/2 as the h2 crate does not show it: frames counted on their way, heads checked once more, windows that grow, and
//! the body of a stream's request.
//!
//! Knows nothing of cells or decisions. What it refuses never becomes a request.

mod budget;
mod frames;
pub mod head;
pub mod stream;
pub mod watch;
pub mod window;

pub use budget::Budget;
pub use stream::{Body, BodyError, Interim};
