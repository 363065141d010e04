//! The operator's side: the registry file as it is kept, and questions about it.

pub mod certificates;
pub mod check;
pub mod explain;
mod look;
pub mod reload;
