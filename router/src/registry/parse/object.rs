//! One object of the file, read by the table of fields: types and ranges, unknown keys, keys written twice.

use std::borrow::Cow;

use super::syntax;
use crate::registry::fields::{FIELDS, Field, KEYS, Key, Kind, Scope, field, fields_of};
use crate::registry::json::{self, Shape};
use crate::registry::problem::{Place, Refusal, Report, quoted};

/// A value whose type and range are right.
enum Value<'t> {
    Number(u64),
    Choice(usize),
    Flag(bool),
    Text(Cow<'t, str>),
    /// An object or a list, to be taken apart by its own reader.
    Nested,
}

/// The values of one object, each with the text that it was read from; a value that is not good is only text.
pub(super) struct Settings<'t> {
    values: [Option<(Option<Value<'t>>, &'t str)>; KEYS],
}

impl<'t> Settings<'t> {
    /// An object without keys.
    pub(super) fn empty() -> Self {
        Self {
            values: [const { None }; KEYS],
        }
    }

    /// Reads the object `json`; what is wrong with it goes to `report`.
    pub(super) fn read(
        json: &'t str,
        scope: Scope,
        place: Place<'_>,
        report: &mut Report<'t>,
    ) -> Self {
        let mut settings = Self::empty();
        let read = json::members(json, |key_json, value_json| {
            settings.read_member(key_json, value_json, scope, place, report);
        });
        if let Err(error) = read {
            syntax::add(json, &error, place, report);
        }
        settings
    }

    /// Reads one more member of the object at `place`; what is wrong with it goes to `report`.
    pub(super) fn read_member(
        &mut self,
        key_json: &'t str,
        value_json: &'t str,
        scope: Scope,
        place: Place<'_>,
        report: &mut Report<'t>,
    ) {
        let Some(key) = read_string(key_json, place, report) else {
            return;
        };
        let place = place.member(&key);
        let Some(field) = fields_of(scope).find(|field| field.name == key) else {
            report.add(key_json, place, unknown_key(&key, scope));
            return;
        };
        let slot = &mut self.values[field.key as usize];
        if slot.is_some() {
            report.add(key_json, place, written_twice(&key));
            return;
        }
        let value = read_value(field, value_json);
        *slot = Some((
            value
                .map_err(|refusal| report.add(value_json, place, refusal))
                .ok(),
            value_json,
        ));
    }

    /// The number of `key`, if it is there.
    pub(super) fn number(&self, key: Key) -> Option<u64> {
        match self.values[key as usize] {
            Some((Some(Value::Number(number)), _)) => Some(number),
            _ => None,
        }
    }

    /// Which word of its list `key` has, if it is there.
    pub(super) fn choice(&self, key: Key) -> Option<usize> {
        match self.values[key as usize] {
            Some((Some(Value::Choice(index)), _)) => Some(index),
            _ => None,
        }
    }

    /// The flag of `key`, if it is there.
    pub(super) fn flag(&self, key: Key) -> Option<bool> {
        match self.values[key as usize] {
            Some((Some(Value::Flag(flag)), _)) => Some(flag),
            _ => None,
        }
    }

    /// The text of `key`, if it is there.
    pub(super) fn text(&self, key: Key) -> Option<&str> {
        match &self.values[key as usize] {
            Some((Some(Value::Text(text)), _)) => Some(text),
            _ => None,
        }
    }

    /// The object or list of `key`, if it is there and is one.
    pub(super) fn nested(&self, key: Key) -> Option<&'t str> {
        match &self.values[key as usize] {
            Some((Some(Value::Nested), json)) => Some(json),
            _ => None,
        }
    }

    /// The value of `key` as written, good or not, if it is there.
    pub(super) fn source(&self, key: Key) -> Option<&'t str> {
        self.values[key as usize].as_ref().map(|(_, json)| *json)
    }
}

/// The default that the table gives a number.
pub(super) fn default_number(key: Key) -> Option<u64> {
    match field(key).kind {
        Kind::Number { default, .. } => default,
        _ => None,
    }
}

/// The default that the table gives a text.
pub(super) fn default_text(key: Key) -> Option<&'static str> {
    match field(key).kind {
        Kind::Text { default, .. } => default,
        _ => None,
    }
}

/// The default that the table gives a flag.
pub(super) fn default_flag(key: Key) -> bool {
    matches!(field(key).kind, Kind::Flag { default: true })
}

/// The default that the table gives a choice, as its index.
pub(super) fn default_choice(key: Key) -> usize {
    match field(key).kind {
        Kind::Choice { words, default } => words
            .iter()
            .position(|word| *word == default)
            .unwrap_or_default(),
        _ => 0,
    }
}

/// The text of a JSON string that is well-formed but for halves of surrogate pairs.
pub(super) fn read_string<'t>(
    json: &'t str,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Option<Cow<'t, str>> {
    match json::string(json) {
        Ok(text) => Some(text),
        Err(error) => {
            syntax::add(json, &error, place, report);
            None
        }
    }
}

/// A value of the wrong shape.
pub(super) fn wrong_shape(found: Shape, wanted: &str, fix: String) -> Refusal {
    Refusal::new(
        format!("{} stands where {wanted} belongs", found.name()),
        fix,
    )
}

/// A key that the object has already.
pub(super) fn written_twice(key: &str) -> Refusal {
    Refusal::new(
        format!("the key {} is here a second time", quoted(key)),
        "keep one of the two",
    )
}

/// Adds a problem of the value of `key`, which is there.
pub(super) fn refuse(
    own: &Settings<'_>,
    key: Key,
    place: Place<'_>,
    refusal: Refusal,
    report: &mut Report<'_>,
) {
    if let Some(source) = own.source(key) {
        report.add(source, place.member(field(key).name), refusal);
    }
}

/// Refuses keys that belong to another way of doing the same.
pub(super) fn refuse_stray(
    own: &Settings<'_>,
    keys: &[Key],
    belong_to: &str,
    place: Place<'_>,
    report: &mut Report<'_>,
) {
    for key in keys {
        let refusal = Refusal::new(
            format!("this counts only beside {belong_to:?}"),
            "take it out",
        );
        refuse(own, *key, place, refusal, report);
    }
}

fn read_value<'t>(field: &Field, json: &'t str) -> Result<Value<'t>, Refusal> {
    let shape = Shape::of(json);
    match (field.kind, shape) {
        (Kind::Number { min, max, unit, .. }, Shape::Number) => {
            let number = json.parse::<u64>().ok();
            match number.filter(|number| (min..=max).contains(number)) {
                Some(number) => Ok(Value::Number(number)),
                None => Err(Refusal::new(
                    format!("{} is no {}", shortened(json), unit.noun()),
                    advice(field),
                )),
            }
        }
        (Kind::Choice { words, .. }, Shape::Text) => {
            let word = json::string(json).unwrap_or_default();
            match words.iter().position(|known| *known == word) {
                Some(index) => Ok(Value::Choice(index)),
                None => Err(Refusal::new(
                    format!("{} is not known here", quoted(&word)),
                    match nearest(&word, words.iter().copied()) {
                        Some(known) => format!("did you mean {known:?}? {}", advice(field)),
                        None => advice(field),
                    },
                )),
            }
        }
        (Kind::Flag { .. }, Shape::Flag) => Ok(Value::Flag(json == "true")),
        (Kind::Text { .. }, Shape::Text) => match json::string(json) {
            Ok(text) => Ok(Value::Text(text)),
            Err(error) => Err(syntax::refusal(&error)),
        },
        (
            Kind::HostNames
            | Kind::HostRules
            | Kind::PathRules
            | Kind::PublicPaths
            | Kind::HeaderNames,
            Shape::Array,
        ) => Ok(Value::Nested),
        (Kind::Object(_) | Kind::Cells, Shape::Object) => Ok(Value::Nested),
        (Kind::Object(Scope::Secret), Shape::Text) => Err(Refusal::new(
            "a secret itself must never stand in this file",
            "write where the router finds it, as {\"env\": \"NAME\"} or {\"file\": \"PATH\"}; if what stands here is a secret, replace it",
        )),
        (kind, shape) => Err(wrong_shape(shape, wanted(kind), advice(field))),
    }
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Number { .. } => "a whole number",
        Kind::Choice { .. } | Kind::Text { .. } => "a text",
        Kind::Flag { .. } => "true or false",
        Kind::HostNames
        | Kind::HostRules
        | Kind::PathRules
        | Kind::PublicPaths
        | Kind::HeaderNames => "a list",
        Kind::Object(_) | Kind::Cells => "an object",
    }
}

/// What would be right for a field.
fn advice(field: &Field) -> String {
    match field.kind {
        Kind::Number { min, max, .. } if min == max => format!("write {min}"),
        Kind::Number { min, max, unit, .. } => {
            format!("write a number from {min} to {max}{}", unit.suffix())
        }
        Kind::Choice { words, .. } => format!("write one of {}", words.join(", ")),
        Kind::Flag { .. } => "write true or false, without quotes".to_owned(),
        _ => format!("write, for example, {}", field.example),
    }
}

fn unknown_key(key: &str, scope: Scope) -> Refusal {
    let names = || fields_of(scope).map(|field| field.name);
    let elsewhere = FIELDS.iter().find(|field| field.name == key);
    let fix = match (elsewhere, nearest(key, names())) {
        (Some(field), _) => format!("{key} belongs {}", belongs(field.scopes)),
        (None, Some(known)) => format!("did you mean {known:?}?"),
        (None, None) => format!(
            "the keys here are {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    };
    Refusal::new(format!("the key {} is not known here", quoted(key)), fix)
}

fn belongs(scopes: &[Scope]) -> &'static str {
    match scopes.first() {
        Some(Scope::Defaults) => "to defaults or to a cell",
        Some(Scope::Cell) => "to a cell, in cells",
        Some(Scope::Path) => "to an item of paths",
        Some(Scope::Secret) => "into secret",
        Some(Scope::Tls) => "into tls",
        Some(Scope::SignIn) => "into sign_in",
        Some(Scope::Static) => "into static",
        Some(Scope::Root) | None => "to the file's outermost object",
    }
}

fn shortened(json: &str) -> String {
    match json.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &json[..end]),
        None => json.to_owned(),
    }
}

/// The known word that a mistyped one is nearest to, if it is near.
fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    const LONGEST: usize = 40;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    known
        .map(|known| (distance(&lower, known), known))
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many characters must be put in, taken out or replaced to make one word the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
