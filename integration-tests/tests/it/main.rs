//! Stories of the whole system: real binaries, real sockets, an emulated platform.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect has failed"
)]

mod abuse;
mod admin;
mod admin_api;
mod admin_cli;
mod admin_requests;
mod asleep;
mod beats;
mod behaviours;
mod cell_http2;
mod cell_tls;
mod check;
mod differential;
mod door;
mod drain;
mod echo;
mod edits;
mod explain;
mod files;
mod http1;
mod http2;
mod http2_abuse;
mod identity;
mod limits;
mod log;
mod pages;
mod registry;
mod reload;
mod replay;
mod routing;
mod scene;
mod shared_store;
mod sign_in;
mod storm;
mod stream;
mod takeover;
mod tls;
mod traces;
mod tunnel;
mod visitors;
mod wake;
