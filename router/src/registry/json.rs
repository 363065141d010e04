//! JSON read as a stream of slices: objects and arrays hand out their parts as text, and no tree is built.
//!
//! Every part is a slice of the source text, so its place is the difference of two addresses. Each level of a file is
//! read once more when its parts are taken apart; a million entries never stand in memory side by side.
//! It must never know what the file means.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::steps::Steps;

/// What a JSON text is, told by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
    Text,
    Number,
    Flag,
    Null,
}

impl Shape {
    /// The shape of a well-formed value without leading blanks.
    pub(super) fn of(json: &str) -> Shape {
        match json.as_bytes().first() {
            Some(b'{') => Shape::Object,
            Some(b'[') => Shape::Array,
            Some(b'"') => Shape::Text,
            Some(b't' | b'f') => Shape::Flag,
            Some(b'n') => Shape::Null,
            _ => Shape::Number,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::Object => "an object",
            Shape::Array => "a list",
            Shape::Text => "a text",
            Shape::Number => "a number",
            Shape::Flag => "true or false",
            Shape::Null => "null",
        }
    }
}

/// Hands out the members of the object `json` as (key, value), both as written. A value that is an object is itself stepped
/// over member by member, so that the outermost object of a million entries is not read in one go.
///
/// # Errors
/// If `json` is not one well-formed object; the members before the fault have then been handed out.
pub(super) fn members<'t>(
    json: &'t str,
    each: impl FnMut(&'t str, &'t str),
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let members = Members {
        json,
        each,
        steps: Steps::default(),
    };
    members.deserialize(&mut reader)?;
    reader.end()
}

/// Hands out the items of the array `json` as written.
///
/// # Errors
/// If `json` is not one well-formed array; the items before the fault have then been handed out.
pub(super) fn items<'t>(json: &'t str, each: impl FnMut(&'t str)) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let items = Items {
        each,
        steps: Steps::default(),
    };
    items.deserialize(&mut reader)?;
    reader.end()
}

/// The value at the end of a path of names through objects, as written; of members with the same name the first. What comes
/// after it is not read, so it may be anything.
pub(super) fn find<'t>(json: &'t str, path: &[&str]) -> Option<&'t str> {
    let mut found = None;
    let way = Way {
        path,
        found: &mut found,
    };
    // What it finds ends it by an error.
    let _ = way.deserialize(&mut serde_json::Deserializer::from_str(json));
    found
}

/// The text that the JSON string `json` stands for; borrowed if it is written without escapes.
///
/// # Errors
/// If `json` is no JSON string, or half of a surrogate pair stands alone in it.
pub(super) fn string(json: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    let inner = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str(json).map(Cow::Owned),
    }
}

struct Members<'t, F> {
    /// The object, with whatever follows it.
    json: &'t str,
    each: F,
    steps: Steps,
}

impl<'t, F: FnMut(&'t str, &'t str)> DeserializeSeed<'t> for Members<'t, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'t, F: FnMut(&'t str, &'t str)> Visitor<'t> for Members<'t, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<&'t RawValue>()? {
            let key = key.get();
            let value = value_after(self.json, key);
            let value = if value.starts_with('{') {
                map.next_value_seed(Leap(value))?
            } else {
                map.next_value::<&'t RawValue>()?.get()
            };
            (self.each)(key, value);
            self.steps.step();
        }
        Ok(())
    }
}

/// Over an object, member by member; what comes of it is the object as written.
struct Leap<'t>(&'t str);

impl<'t> DeserializeSeed<'t> for Leap<'t> {
    type Value = &'t str;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<&'t str, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'t> Visitor<'t> for Leap<'t> {
    type Value = &'t str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<&'t str, A::Error> {
        let mut steps = Steps::default();
        let mut end = 0;
        while let Some((_, value)) = map.next_entry::<&'t RawValue, &'t RawValue>()? {
            end = end_of(value.get(), self.0);
            steps.step();
        }
        // Between the last member and the end of the object stand blanks only.
        let length = self.0[end..].find('}').map(|close| end + close + 1);
        Ok(&self.0[..length.unwrap_or(end)])
    }
}

/// What follows the key of a member: its value, if colon and all are as they should.
fn value_after<'t>(json: &'t str, key: &str) -> &'t str {
    json[end_of(key, json)..].trim_start_matches([' ', '\t', '\r', '\n', ':'])
}

/// Where a part of a text ends in it.
fn end_of(part: &str, whole: &str) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr() + part.len()
}

struct Way<'w, 't> {
    path: &'w [&'w str],
    found: &'w mut Option<&'t str>,
}

impl<'t> DeserializeSeed<'t> for Way<'_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(<&RawValue>::deserialize(deserializer)?.get());
            return Ok(());
        }
        deserializer.deserialize_map(self)
    }
}

impl<'t> Visitor<'t> for Way<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((name, path)) = self.path.split_first() else {
            return Ok(());
        };
        let found = self.found;
        while let Some(key) = map.next_key::<&RawValue>()? {
            if string(key.get()).is_ok_and(|key| key == *name) {
                map.next_value_seed(Way { path, found })?;
                return Err(A::Error::custom("no more is read"));
            }
            map.next_value::<&RawValue>()?;
        }
        Ok(())
    }
}

struct Items<F> {
    each: F,
    steps: Steps,
}

impl<'t, F: FnMut(&'t str)> DeserializeSeed<'t> for Items<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'t, F: FnMut(&'t str)> Visitor<'t> for Items<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'t>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element::<&'t RawValue>()? {
            (self.each)(item.get());
            self.steps.step();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_handed_out_as_written() {
        for (json, expected) in [
            ("{}", &[][..]),
            (r#"{"a":1}"#, &[(r#""a""#, "1")]),
            (r#"{"a":{}}"#, &[(r#""a""#, "{}")]),
            (
                "{ \"a\"\r\n :\t{ } , \"b\" : [ {} ]}\n",
                &[(r#""a""#, "{ }"), (r#""b""#, "[ {} ]")],
            ),
            (
                r#"{"{\"": {"}": {"}}": "}"} }, "\u007b": "{"}"#,
                &[
                    (r#""{\"""#, r#"{"}": {"}}": "}"} }"#),
                    (r#""\u007b""#, r#""{""#),
                ],
            ),
            (
                r#"{"a": {"b": 1, "b": {"c": {}}}, "a": {"d": [1, 2] }}"#,
                &[
                    (r#""a""#, r#"{"b": 1, "b": {"c": {}}}"#),
                    (r#""a""#, r#"{"d": [1, 2] }"#),
                ],
            ),
        ] {
            let mut found = Vec::new();
            members(json, |key, value| found.push((key, value))).unwrap();
            assert_eq!(found, expected, "{json}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused_where_it_stops_being_one() {
        for (json, before, column) in [
            ("", 0, 0),
            ("[]", 0, 0),
            (r#"{"a" {}}"#, 0, 6),
            (r#"{"a":: {}}"#, 0, 6),
            (r#"{"a": {}"#, 1, 8),
            (r#"{"a": {"b": 1}, "c": {"d": 1]}"#, 1, 29),
            (r#"{"a": {"b": 1,}}"#, 0, 15),
            (r#"{"a": {"b" 1}}"#, 0, 12),
            (r#"{"a": {"b": 1} "c": 2}"#, 1, 16),
            (r#"{"a": {}} {}"#, 1, 11),
        ] {
            let mut found = 0;
            let error = members(json, |_, _| found += 1).unwrap_err();
            assert_eq!((found, error.column()), (before, column), "{json}: {error}");
        }
    }

    #[test]
    fn a_value_is_found_by_the_way_to_it() {
        for (json, path, found) in [
            (r#"{"a": {"b": [1, 2]}}"#, &["a", "b"][..], Some("[1, 2]")),
            (r#" {"a": 1}"#, &["a"], Some("1")),
            (r#"{"a": 1}"#, &[], Some(r#"{"a": 1}"#)),
            (r#"{"\u0061": 1}"#, &["a"], Some("1")),
            // The first of two, be it the wrong one.
            (r#"{"a": {"b": 1}, "a": {"b": 2}}"#, &["a", "b"], Some("1")),
            (r#"{"a": {}, "a": {"b": 2}}"#, &["a", "b"], None),
            (r#"{"b": {"a": 1}, "a": 2}"#, &["a"], Some("2")),
            (r#"{"a": {"b": 1}, ?"#, &["a", "b"], Some("1")),
            (r#"{"a": {"b": ?}}"#, &["a", "b"], None),
            (r#"{? "a": 1}"#, &["a"], None),
            (r#"{"a": "b"}"#, &["a", "b"], None),
            (r#"[{"a": 1}]"#, &["a"], None),
            ("", &["a"], None),
        ] {
            assert_eq!(find(json, path), found, "{json} {path:?}");
        }
    }
}
