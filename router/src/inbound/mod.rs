//! Bytes in: listeners, connections, and HTTP as clients speak it.
//!
//! Gets the service as a parameter; never knows what becomes of a request.

pub mod accept;
pub mod client;
pub mod http;
pub mod http1;
pub mod http2;
pub mod takeover;
pub mod tls;
pub mod turn_away;
