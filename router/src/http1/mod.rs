//! HTTP/1.1 as bytes: heads and chunks read strictly, and the connection that a request's body still comes over.
//!
//! Knows nothing of cells or decisions. What it refuses never becomes a request.

pub mod chunked;
pub mod connection;
pub mod encode;
pub mod head;
pub mod io;

pub use connection::{Body, BodyError, Interim, Switched};
pub use head::Fault;
