//! What commands write: tables with colours for people at a terminal, JSON for programs.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use cell_router::registry::edit::Change;
use serde::Serialize;

use super::failure::Failure;

/// Between two columns.
const GAP: usize = 2;

/// Writes to standard output; colours reach a terminal only, and none where `NO_COLOR` is set.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    // Whoever reads our output may stop doing so.
    match anstream::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

/// Writes a value as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    print(&format!("{json}\n"))
}

/// Text in a style.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Text in a colour.
pub(super) fn coloured(colour: AnsiColor, text: &str) -> String {
    styled(colour.on_default(), text)
}

/// Rows below a heading, each column as wide as it has to be. A cell of it is a text and its colour.
pub(super) fn table(heading: &[&str], rows: &[Vec<(String, Option<AnsiColor>)>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|(text, _)| text.chars().count()).max();
        heading[column].chars().count().max(widest.unwrap_or(0))
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: Vec<(String, usize)>| {
        let mut row = String::new();
        let mut owed = 0;
        for ((shown, taken), width) in cells.into_iter().zip(&widths) {
            row.push_str(&" ".repeat(owed));
            row.push_str(&shown);
            owed = width - taken + GAP;
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    let bold = Style::new().bold();
    line(
        heading
            .iter()
            .map(|name| (styled(bold, name), name.chars().count()))
            .collect(),
    );
    for row in rows {
        let shown = |(text, colour): &(String, Option<AnsiColor>)| {
            let taken = text.chars().count();
            let shown = colour.map_or_else(|| text.clone(), |colour| coloured(colour, text));
            (shown, taken)
        };
        line(row.iter().map(shown).collect());
    }
    text
}

/// Changes, one a line.
pub(super) fn changes(changes: &[Change]) -> String {
    let line = |change: &Change| {
        let colour = match (&change.before, &change.after) {
            (None, Some(_)) => AnsiColor::Green,
            (Some(_), None) => AnsiColor::Red,
            _ => AnsiColor::Yellow,
        };
        coloured(colour, &change.to_string()) + "\n"
    };
    changes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [
            vec![
                ("é".to_owned(), Some(AnsiColor::Red)),
                ("x".to_owned(), None),
            ],
            vec![("long".to_owned(), None), (String::new(), None)],
        ];
        let text = anstream::adapter::strip_str(&table(&["A", "B"], &rows)).to_string();
        assert_eq!(text, "A     B\né     x\nlong\n");
    }
}
