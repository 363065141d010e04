//! What happened: one typed record for each request, written as one line when the request is over.
//!
//! Never holds what must not be logged: no header values but the request's id, no query, no body, no secret.

pub mod body;
pub mod file;
pub mod log;
pub mod output;
pub mod pace;
pub mod recent;
pub mod record;
pub mod sight;
pub mod tally;
