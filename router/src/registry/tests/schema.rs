//! The committed schema and the committed example are the ones this code means.

use crate::registry::{Registry, schema};

#[test]
fn committed_schema_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/registry.schema.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == schema(),
        "{path} is not what `cell-router schema` prints"
    );
}

#[test]
fn committed_example_is_good() {
    let text = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../registry.json"));
    let registry = Registry::parse(text).unwrap();
    assert_eq!(registry.len(), 3);
}
