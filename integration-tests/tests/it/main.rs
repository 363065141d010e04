//! Stories of the whole system: real binaries, real sockets, an emulated platform.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect has failed"
)]

mod check;
mod echo;
mod explain;
mod replay;
mod routing;
