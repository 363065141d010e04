//! The cell as a process: each test starts the real binary on port 0 and a folder of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beats;
mod cell;
mod ending;
mod entrance;
mod files;
mod live;
mod posts;
