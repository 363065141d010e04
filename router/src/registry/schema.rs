//! The JSON Schema of the file format, made from the table of fields, for editors.

use serde_json::{Map, Value, json};

use super::fields::{Field, Key, Kind, Scope, field, fields_of, item_pattern};
use super::name::LABEL_PATTERN;

/// The JSON Schema (draft 2020-12) of a registry file, as it is committed in `router/registry.schema.json`.
pub fn schema() -> String {
    let mut root = object(Scope::Root);
    root.insert(
        "$schema".into(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    root.insert("title".into(), json!("Cell Router registry, version 1"));
    root.insert(
        "description".into(),
        json!("Which cells there are, where they live, and what they answer at."),
    );
    root.insert(
        "required".into(),
        json!([name(Key::Version), name(Key::Cells)]),
    );
    root.insert(
        "$defs".into(),
        json!({
            "cell": Value::Object(cell()),
            "defaults": object(Scope::Defaults),
            "path": Value::Object(required(object(Scope::Path), Key::Prefix)),
            "secret": Value::Object(exactly_one(object(Scope::Secret), Key::Env, Key::File)),
            "sign_in": Value::Object(exactly_one(object(Scope::SignIn), Key::Basic, Key::Forward)),
            "static": Value::Object(required(object(Scope::Static), Key::Folder)),
            "tls": Value::Object(exactly_one(object(Scope::Tls), Key::Ca, Key::Pin)),
        }),
    );
    let mut text = format!("{:#}", Value::Object(root));
    text.push('\n');
    text
}

fn name(key: Key) -> &'static str {
    field(key).name
}

/// An object that has the keys of `scope` and no others.
fn object(scope: Scope) -> Map<String, Value> {
    let described = |field: &Field| {
        (
            field.name.to_owned(),
            Value::Object(described(field, scope)),
        )
    };
    let properties: Map<String, Value> = fields_of(scope).map(described).collect();
    let mut object = Map::new();
    object.insert("type".into(), json!("object"));
    object.insert("additionalProperties".into(), json!(false));
    object.insert("properties".into(), Value::Object(properties));
    object
}

fn cell() -> Map<String, Value> {
    let mut cell = exactly_one(object(Scope::Cell), Key::Machine, Key::Address);
    cell.insert("if".into(), json!({"required": [name(Key::Address)]}));
    cell.insert(
        "then".into(),
        json!({"properties": {
            name(Key::App): false,
            name(Key::Port): false,
            name(Key::Replay): {"const": "never"},
            name(Key::ReplayTtl): false,
            name(Key::ReplayTimeout): false,
        }}),
    );
    cell
}

fn required(mut object: Map<String, Value>, key: Key) -> Map<String, Value> {
    object.insert("required".into(), json!([name(key)]));
    object
}

fn exactly_one(mut object: Map<String, Value>, one: Key, other: Key) -> Map<String, Value> {
    let choices = json!([{"required": [name(one)]}, {"required": [name(other)]}]);
    object.insert("oneOf".into(), choices);
    object
}

fn described(field: &Field, scope: Scope) -> Map<String, Value> {
    let mut schema = typed(field.kind);
    schema.insert("description".into(), json!(field.doc));
    if let Ok(example) = serde_json::from_str::<Value>(field.example) {
        schema.insert("examples".into(), json!([example]));
    }
    // In a cell the defaults of the file come first, so that only the other places can name one.
    let inherited = scope == Scope::Cell && field.scopes.contains(&Scope::Defaults);
    if !inherited && let Some(default) = default(field.kind) {
        schema.insert("default".into(), default);
    }
    schema
}

fn default(kind: Kind) -> Option<Value> {
    match kind {
        Kind::Number { default, .. } => default.map(Value::from),
        Kind::Choice { default, .. } => Some(default.into()),
        Kind::Flag { default } => Some(default.into()),
        Kind::Text { default, .. } => default.map(Value::from),
        Kind::HostNames
        | Kind::HostRules
        | Kind::PathRules
        | Kind::PublicPaths
        | Kind::HeaderNames
        | Kind::Object(_)
        | Kind::Cells => None,
    }
}

fn typed(kind: Kind) -> Map<String, Value> {
    let value = match kind {
        Kind::Number { min, max, .. } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Choice { words, .. } => json!({"enum": words}),
        Kind::Flag { .. } => json!({"type": "boolean"}),
        Kind::Text { pattern, max, .. } => {
            let mut text = Map::new();
            text.insert("type".into(), json!("string"));
            if let Some(pattern) = pattern {
                text.insert("pattern".into(), json!(pattern));
            }
            if let Some(max) = max {
                text.insert("maxLength".into(), json!(max));
            }
            Value::Object(text)
        }
        Kind::HostNames | Kind::HostRules => list(
            json!({"type": "string", "pattern": item_pattern(kind), "maxLength": host_max(kind)}),
        ),
        Kind::PublicPaths => list(json!({
            "type": "string",
            "pattern": item_pattern(kind),
            "maxLength": super::sign_in::PUBLIC_MAX,
        })),
        Kind::HeaderNames => list(json!({"type": "string", "pattern": item_pattern(kind)})),
        Kind::PathRules => list(json!({"anyOf": [
            {"type": "string", "pattern": item_pattern(kind), "maxLength": super::path::PREFIX_MAX},
            {"$ref": "#/$defs/path"},
        ]})),
        Kind::Object(Scope::Secret) => json!({"$ref": "#/$defs/secret"}),
        Kind::Object(Scope::SignIn) => json!({"$ref": "#/$defs/sign_in"}),
        Kind::Object(Scope::Static) => json!({"$ref": "#/$defs/static"}),
        Kind::Object(Scope::Tls) => json!({"$ref": "#/$defs/tls"}),
        Kind::Object(_) => json!({"$ref": "#/$defs/defaults"}),
        Kind::Cells => json!({
            "type": "object",
            "propertyNames": {"pattern": LABEL_PATTERN},
            "additionalProperties": {"$ref": "#/$defs/cell"},
        }),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn list(item: Value) -> Value {
    json!({"type": "array", "uniqueItems": true, "items": item})
}

/// In a wildcard, `*.` goes before a whole host name.
fn host_max(kind: Kind) -> usize {
    match kind {
        Kind::HostRules => super::host::HOST_MAX + "*.".len(),
        _ => super::host::HOST_MAX,
    }
}
