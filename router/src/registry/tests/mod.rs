//! The file format and the lookup as tables.

mod schema;
