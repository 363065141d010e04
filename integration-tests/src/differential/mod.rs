//! The same bytes through the router and through nginx, to cells that record what they get.
//!
//! What is compared is only what matters most: how many requests a client's bytes are, where each ends, and for what.
//! A third reader of them, strict and plain, says what is in the client's bytes and in what the cells got.

pub mod judge;
pub mod recorder;
pub mod requests;
pub mod run;
#[path = "../../../router/fuzz/src/strict.rs"]
pub mod strict;
