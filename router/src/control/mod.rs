//! The operator's side: the registry file as it is kept, questions about it, and the word to stop.

pub mod certificates;
pub mod check;
pub mod explain;
pub mod load;
mod look;
mod pages;
pub mod reload;
pub mod stop;
pub mod store;
pub mod unplug;
