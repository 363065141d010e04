//! The front door for applications that give every tenant a machine of its own.

pub mod registry;
