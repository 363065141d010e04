//! The operator's side: the registry file as it is kept, and questions about it.

pub mod check;
pub mod explain;
pub mod reload;
