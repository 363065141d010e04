//! How it is spelled: header names, token formats and the rules of what may be forwarded.
//!
//! Owns the syntax of everything that crosses the wire and is not hyper's business. Pure: it reads and
//! writes `http` types and bytes, and never a socket, a clock or a log.

pub mod accept;
pub mod address;
pub mod fly;
pub mod forward;
pub mod hop_by_hop;
pub mod identity;
pub mod lines;
pub mod sieve;
pub mod sign_in;
pub mod signature;
pub mod strict;
pub mod trace;
pub mod visitor;
pub mod websocket;

use http::HeaderName;

/// Request header with the front door's signature on the stream lane (docs/signature.md).
pub const CELL_SIGNATURE: HeaderName = HeaderName::from_static("cell-signature");
/// Request header with the cell's name in the registry, set by the router on the stream lane.
pub const CELL_NAME: HeaderName = HeaderName::from_static("cell-name");
/// Request header with who the client is, set by the router where clients sign in before their requests reach the cell.
pub const CELL_USER: HeaderName = HeaderName::from_static("cell-user");
/// Request header with the request's id, in the log line and in front of the cell.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
