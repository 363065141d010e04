//! Prints the JSON Schema of the registry: `cargo run --example registry_schema > router/registry.schema.json`.

fn main() {
    print!("{}", cell_router::registry::schema());
}
