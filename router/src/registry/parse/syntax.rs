//! Text that is no JSON: where it stops being JSON, and what was probably meant.

use crate::registry::problem::{Place, Refusal, Report};

/// Adds the fault that the JSON reader met in `json` as a problem at its place.
pub(super) fn add(
    json: &str,
    error: &serde_json::Error,
    place: Place<'_>,
    report: &mut Report<'_>,
) {
    let offset = if error.is_eof() {
        json.len()
    } else {
        offset_in(json, error.line(), error.column())
    };
    // A control character inside a text is reported one byte early.
    let follows = json
        .as_bytes()
        .get(offset + 1)
        .is_some_and(u8::is_ascii_control);
    let early = follows && error.to_string().starts_with("control character");
    let offset = offset + usize::from(early);
    let met = json.as_bytes().get(offset).copied();
    let base = report.offset(json);
    report.add_at(base + offset, place, explained(error, met));
}

/// The fault as a refusal, where its place is known otherwise.
pub(super) fn refusal(error: &serde_json::Error) -> Refusal {
    explained(error, None)
}

/// The byte offset of a reader's line and column, which count from 1 and in bytes.
fn offset_in(json: &str, line: usize, column: usize) -> usize {
    let start: usize = json
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut offset = (start + column.saturating_sub(1)).min(json.len());
    while !json.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn explained(error: &serde_json::Error, met: Option<u8>) -> Refusal {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    let has = |part: &str| what.contains(part);
    let fix = if has("EOF") {
        "the file ends too early: close what is open with \", ] or }"
    } else if met == Some(b'/') || met == Some(b'#') {
        "JSON has no comments: take it out"
    } else if met == Some(b'\'') {
        "write texts in double quotes"
    } else if has("trailing comma") || matches!(met, Some(b'}' | b']')) {
        "take out the comma before this"
    } else if has("trailing characters") {
        "the file is one object: take out what follows it"
    } else if has("key must be a string") {
        "write the key in double quotes"
    } else if has("expected `,`") {
        "put a comma between this and what stands before it, or close what is open"
    } else if has("expected `:`") {
        "put a colon between the key and its value"
    } else if has("control character") {
        "a text ends on the line where it begins: close it, or write \\n"
    } else if has("escape") || has("surrogate") {
        "write a backslash as \\\\, and other characters as themselves"
    } else if has("number") {
        "write numbers as 8080: no sign, no leading zero, no exponent"
    } else {
        "write a text in double quotes, a number, true, false, a list or an object"
    };
    Refusal::new(format!("this is no JSON ({what})"), fix)
}
