//! The file format and the lookup as tables, and the lookup beside a plain one.

mod beside;
mod host;
mod lookup;
mod path;
mod places;
mod reference;
mod refused;
mod scale;
mod schema;
mod values;

use super::{Problem, Registry};

/// A good registry, or a panic that lists what is wrong with it.
fn registry(text: &str) -> Registry {
    Registry::parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The problems of a text that must have some.
fn problems(text: &str) -> Vec<Problem> {
    Registry::parse(text.as_bytes()).expect_err("the text has problems")
}
