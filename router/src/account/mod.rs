//! What happened: one typed record for each request, written as one line when the request is over.
//!
//! Never holds what must not be logged: no header values but the request's id and those of its trace, no query, no body, no secret.

pub mod body;
pub mod file;
pub mod log;
pub mod output;
pub mod pace;
pub mod recent;
pub mod record;
pub mod sight;
mod span;
pub mod tally;
pub mod trace;
