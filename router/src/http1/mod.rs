//! HTTP/1.1 as bytes: heads and chunks read strictly, and the connection that a request's body still comes over.
//!
//! Knows nothing of cells or decisions. What it refuses never becomes a request.

pub mod answer;
pub mod as_is;
pub mod buffered;
pub mod chunked;
pub mod connection;
pub mod encode;
pub mod exchange;
pub mod head;
pub mod io;
pub mod later;
pub mod piece;
pub mod pipe;
pub mod reading;
pub mod scratch;
pub mod tcp;

pub use as_is::{AsIs, HasLines};
pub use buffered::Switched;
pub use connection::{Body, Interim};
pub use exchange::AnswerBody;
pub use head::Fault;
pub use piece::Piece;
pub use reading::BodyError;
