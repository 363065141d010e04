//! How a text is laid out, and new parts of it in the same way.

use crate::registry::json::{self, Shape};

/// A line longer than this is broken where the whole text is formatted, in characters.
const WIDE: usize = 120;

/// What is nested deeper stays as it is written: taking it apart recurses.
const DEEPEST: usize = 127;

/// What repeats in a text's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Between a key and its value.
    pub(super) colon: &'static str,
    /// Between two members of one line.
    pub(super) comma: &'static str,
    /// Inside the braces of one line.
    pub(super) pad: &'static str,
    /// What begins a new line, and what one more level adds to it; none where all is one line.
    lines: Option<(&'static str, String)>,
}

impl Style {
    /// The style of a text that is one object.
    pub(super) fn of(text: &str) -> Self {
        let text = text.trim();
        let gap = text.get(1..).and_then(|rest| rest.split('"').next());
        let gap = gap.unwrap_or_default();
        let spaced = text.contains("\": ");
        Self {
            colon: if spaced { ": " } else { ":" },
            comma: if spaced { ", " } else { "," },
            pad: if text.contains("{ \"") { " " } else { "" },
            lines: gap.rsplit_once('\n').map(|(before, unit)| {
                let end = if before.ends_with('\r') { "\r\n" } else { "\n" };
                (end, unit.to_owned())
            }),
        }
    }

    /// The style of formatted text.
    fn formatted() -> Self {
        Self {
            colon: ": ",
            comma: ", ",
            pad: " ",
            lines: Some(("\n", "  ".to_owned())),
        }
    }

    /// What begins a line at this depth.
    pub(super) fn line(&self, depth: usize) -> Option<String> {
        let (end, unit) = self.lines.as_ref()?;
        Some(format!("{end}{}", unit.repeat(depth)))
    }
}

/// A value at this depth of an object's keys; an object that is to be `broken` has a line for each member.
pub(super) fn layout(value: &str, broken: bool, style: &Style, depth: usize) -> String {
    match (Shape::of(value), style.line(depth + 1), style.line(depth)) {
        (Shape::Object, Some(line), Some(end)) if broken => {
            let members = parts(value, |_, value| inline(value, style, 1), style);
            if members.is_empty() {
                return "{}".to_owned();
            }
            format!("{{{line}{}{end}}}", members.join(&format!(",{line}")))
        }
        _ => inline(value, style, 0),
    }
}

/// A value in one line, that is so deep in the one that is laid out.
fn inline(value: &str, style: &Style, depth: usize) -> String {
    match Shape::of(value) {
        _ if depth > DEEPEST => value.to_owned(),
        Shape::Object => {
            let members = parts(value, |_, value| inline(value, style, depth + 1), style);
            if members.is_empty() {
                return "{}".to_owned();
            }
            format!("{{{0}{1}{0}}}", style.pad, members.join(style.comma))
        }
        Shape::Array => {
            let mut items = Vec::new();
            // The value is well-formed: it was read before.
            let _ = json::items(value, |item| items.push(inline(item, style, depth + 1)));
            format!("[{}]", items.join(style.comma))
        }
        Shape::Text | Shape::Number | Shape::Flag | Shape::Null => value.to_owned(),
    }
}

/// The members of an object, each as key and value.
fn parts(object: &str, mut value: impl FnMut(&str, &str) -> String, style: &Style) -> Vec<String> {
    let mut members = Vec::new();
    // The value is well-formed: it was read before.
    let _ = json::members(object, |key, json| {
        members.push(format!("{key}{}{}", style.colon, value(key, json)));
    });
    members
}

/// The whole text in one style, in its own order: one line for each cell, unless it would be too long.
pub(super) fn format(text: &str) -> String {
    let style = Style::formatted();
    let cell = |key: &str, json: &str| {
        let line = inline(json, &style, 0);
        let fits = key.chars().count() + line.chars().count() + 7 <= WIDE;
        if fits {
            line
        } else {
            layout(json, true, &style, 2)
        }
    };
    let top = |key: &str, json: &str| match Shape::of(json) {
        Shape::Object if key == "\"cells\"" => {
            let cells = parts(json, cell, &style);
            if cells.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{\n    {}\n  }}", cells.join(",\n    "))
            }
        }
        _ => {
            let line = inline(json, &style, 0);
            let fits = key.chars().count() + line.chars().count() + 5 <= WIDE;
            if fits {
                line
            } else {
                layout(json, true, &style, 1)
            }
        }
    };
    let members = parts(text.trim(), top, &style);
    format!("{{\n  {}\n}}\n", members.join(",\n  "))
}
