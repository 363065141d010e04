//! The whole system, story by story: real binaries over real sockets.

mod abuse;
mod drain;
mod reload;
mod scene;
mod stream;
mod wake;
