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

use crate::config::Config;
use crate::live::drain::Signal;
use crate::live::room::Room;

/// What all connections of a worker are served by.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Limits and times.
    pub config: &'a Config,
    /// When they are to end.
    pub signal: &'a Signal,
    /// The places of which each has one.
    pub room: &'a Room,
}
