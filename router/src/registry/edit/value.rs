//! What a person writes after `KEY=`, as JSON.

use crate::registry::fields::{FIELDS, Field, Kind};
use crate::registry::json::Shape;

/// The JSON for a value as it is written in a command: texts and words need no quotes, and lists may be written as items
/// with commas between. `keys` is the way to the key in an entry. What is no value of that key is told when the edited
/// text is read.
pub fn value_for(keys: &[String], written: &str) -> String {
    let shape = (!written.is_empty()).then(|| Shape::of(written));
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(written).is_ok();
    let text = || serde_json::Value::from(written).to_string();
    match (kind(keys), shape) {
        (_, Some(Shape::Text | Shape::Array | Shape::Object)) if is_json => written.to_owned(),
        (Some(Kind::Text { .. } | Kind::Choice { .. }), _) => text(),
        (
            Some(
                Kind::HostNames
                | Kind::HostRules
                | Kind::PathRules
                | Kind::PublicPaths
                | Kind::HeaderNames,
            ),
            _,
        ) => {
            let items = written
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let items: Vec<_> = items
                .map(|item| serde_json::Value::from(item).to_string())
                .collect();
            format!("[{}]", items.join(", "))
        }
        _ if is_json => written.to_owned(),
        _ => text(),
    }
}

fn kind(keys: &[String]) -> Option<Kind> {
    let name = keys.last()?;
    FIELDS
        .iter()
        .find(|field: &&Field| field.name == name)
        .map(|field| field.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_its_key_wants_it() {
        for (keys, written, json) in [
            ("state", "paused", "\"paused\""),
            ("app", "123", "\"123\""),
            ("app", "\"123\"", "\"123\""),
            ("port", "8080", "8080"),
            ("port", "many", "\"many\""),
            ("may_replay", "true", "true"),
            ("hosts", "x.org", "[\"x.org\"]"),
            ("hosts", "x.org, *.y.org", "[\"x.org\", \"*.y.org\"]"),
            ("hosts", "", "[]"),
            ("paths", "[{\"prefix\": \"/a\"}]", "[{\"prefix\": \"/a\"}]"),
            ("secret.env", "S", "\"S\""),
            ("secret", "{\"env\": \"S\"}", "{\"env\": \"S\"}"),
            ("unknown", "x", "\"x\""),
        ] {
            let keys: Vec<_> = keys.split('.').map(str::to_owned).collect();
            assert_eq!(value_for(&keys, written), json, "{keys:?}={written}");
        }
    }
}
