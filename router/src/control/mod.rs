//! The operator's side: the registry as it is kept, questions about it, and the word to stop.

pub mod certificates;
pub mod check;
pub mod explain;
mod gate;
pub mod load;
mod look;
mod pages;
mod poll;
pub mod reload;
pub(crate) mod runtime;
pub mod stop;
pub mod store;
pub mod unplug;
