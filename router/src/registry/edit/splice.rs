//! One member of one object put in, taken out or replaced, in the style of what stands around it.

use super::style::{Style, layout};
use crate::registry::json::{self, Shape};

/// Why a text cannot be changed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is nothing there.
    NoSuchKey,
    /// What should hold the key is no object.
    NoObject,
}

/// A member as it stands in the text.
struct Member<'t> {
    key: &'t str,
    value: &'t str,
}

fn members(object: &str) -> Option<Vec<Member<'_>>> {
    if Shape::of(object) != Shape::Object {
        return None;
    }
    let mut found = Vec::new();
    json::members(object, |key, value| found.push(Member { key, value })).ok()?;
    Some(found)
}

/// The number of the first member of this name.
fn position(members: &[Member<'_>], name: &str) -> Option<usize> {
    let is_it = |member: &Member<'_>| json::string(member.key).is_ok_and(|key| key == name);
    members.iter().position(is_it)
}

/// The value at the end of a path.
pub(super) fn find<'t>(text: &'t str, path: &[&str]) -> Option<&'t str> {
    json::find(text.trim(), path)
}

/// Whether there is something at the end of a path.
pub(super) fn has(text: &str, path: &[&str]) -> bool {
    find(text, path).is_some()
}

/// The string at the end of a path.
pub(super) fn text_at(text: &str, path: &[&str]) -> Option<String> {
    json::string(find(text, path)?)
        .ok()
        .map(std::borrow::Cow::into_owned)
}

/// The offset of `part`, which must be a slice of `text`.
fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// `text` with another part in place of the one from `from` to `to`.
fn spliced(text: &str, from: usize, to: usize, part: &str) -> String {
    let mut spliced = String::with_capacity(text.len() + part.len());
    spliced.push_str(&text[..from]);
    spliced.push_str(part);
    spliced.push_str(&text[to..]);
    spliced
}

/// Sets the value at the end of a path. Objects on the way that are not there yet are made.
pub(super) fn set(text: &str, path: &[&str], value: &str) -> Result<String, Fault> {
    let Some((name, parent)) = path.split_last() else {
        return Err(Fault::NoSuchKey);
    };
    if let Some(old) = find(text, path) {
        let style = Style::of(text);
        let new = layout(value, old.contains('\n'), &style, path.len());
        let from = offset(text, old);
        return Ok(spliced(text, from, from + old.len(), &new));
    }
    if !parent.is_empty() && !has(text, parent) {
        let key = serde_json::Value::from(*name).to_string();
        return set(text, parent, &format!("{{{key}: {value}}}"));
    }
    insert(text, parent, name, value)
}

/// Puts a member at the end of an object, laid out as its neighbour is.
pub(super) fn insert(text: &str, path: &[&str], name: &str, value: &str) -> Result<String, Fault> {
    let object = find(text, path).ok_or(Fault::NoSuchKey)?;
    let members = members(object).ok_or(Fault::NoObject)?;
    let style = Style::of(text);
    let depth = path.len() + 1;
    let key = serde_json::Value::from(name).to_string();
    let Some(last) = members.last() else {
        let value = layout(value, false, &style, depth);
        let member = format!("{key}{}{value}", style.colon);
        let filled = match style.line(depth) {
            Some(line) if path.len() < 2 => {
                let end = style.line(depth - 1).unwrap_or_default();
                format!("{{{line}{member}{end}}}")
            }
            _ => format!("{{{0}{member}{0}}}", style.pad),
        };
        let from = offset(text, object);
        return Ok(spliced(text, from, from + object.len(), &filled));
    };
    let value = layout(value, last.value.contains('\n'), &style, depth);
    let before = match members.len() {
        1 => &object[1..offset(object, last.key)],
        count => {
            let previous = members[count - 2].value;
            let gap = &object[offset(object, previous) + previous.len()..offset(object, last.key)];
            gap.split_once(',').map_or("", |(_, gap)| gap)
        }
    };
    let gap = if members.len() == 1 && !before.contains('\n') {
        &style.comma[1..]
    } else {
        before
    };
    let end = offset(text, last.value) + last.value.len();
    let member = format!(",{gap}{key}{}{value}", style.colon);
    Ok(spliced(text, end, end, &member))
}

/// Takes out what is at the end of a path, with its comma.
pub(super) fn remove(text: &str, path: &[&str]) -> Result<String, Fault> {
    let (name, parent) = path.split_last().ok_or(Fault::NoSuchKey)?;
    let object = find(text, parent).ok_or(Fault::NoSuchKey)?;
    let members = members(object).ok_or(Fault::NoObject)?;
    let index = position(&members, name).ok_or(Fault::NoSuchKey)?;
    let end = |index: usize| {
        let value = members[index].value;
        offset(text, value) + value.len()
    };
    let start = |index: usize| offset(text, members[index].key);
    let inside = offset(text, object) + 1;
    let (from, to) = match (index, members.len()) {
        (_, 1) => (inside, inside + object.len() - 2),
        (index, count) if index + 1 < count => (start(index), start(index + 1)),
        (index, _) => (end(index - 1), end(index)),
    };
    Ok(spliced(text, from, to, ""))
}

/// Puts another key, as JSON, in place of the one at the end of a path.
pub(super) fn rename(text: &str, path: &[&str], key: &str) -> Result<String, Fault> {
    let (name, parent) = path.split_last().ok_or(Fault::NoSuchKey)?;
    let object = find(text, parent).ok_or(Fault::NoSuchKey)?;
    let members = members(object).ok_or(Fault::NoObject)?;
    let index = position(&members, name).ok_or(Fault::NoSuchKey)?;
    let old = members[index].key;
    let from = offset(text, old);
    Ok(spliced(text, from, from + old.len(), key))
}
