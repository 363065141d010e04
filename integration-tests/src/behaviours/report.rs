//! The table, as Markdown.

use std::fmt::Write as _;

use super::frames;
use super::message::sort;
use super::run::Outcome;
use super::upstream::End;
use super::{Section, Verdict};

/// Answers to one case that the table shows.
const MOST: usize = 4;

impl Verdict {
    /// Its mark in the table.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Right => "✓",
            Self::Debatable => "~",
            Self::Wrong => "✗",
        }
    }
}

/// What came of a case, in one cell of the table.
pub fn cell(outcome: &Outcome) -> String {
    let mut text = format!("{} {}", outcome.verdict.mark(), seen(outcome));
    if let Some(fault) = &outcome.fault {
        let _ = write!(text, "; {fault}");
    }
    text.replace('|', "\\|")
}

/// The statuses that the client saw, and how its connection ended where that tells more.
fn seen(outcome: &Outcome) -> String {
    let mut words = Vec::new();
    for got in &outcome.observed.client {
        let answers = sort(got.answers().0);
        let answers = answers.0.iter().chain(&answers.1);
        words.extend(
            answers.filter_map(|answer| match (answer.status(), answer.reset) {
                (0, Some(code)) => Some(frames::code(code)),
                (0, None) => None,
                (status, Some(code)) if !answer.whole => {
                    Some(format!("{status} {}", frames::code(code)))
                }
                (status, _) if !answer.whole => Some(format!("{status} cut")),
                (status, _) => Some(status.to_string()),
            }),
        );
        let given_up = got.goaway().filter(|code| *code != 0);
        words.extend(given_up.map(|code| format!("GOAWAY {}", frames::code(code))));
    }
    // Of a flood of answers as much as fits the table.
    if words.len() > MOST {
        let more = words.split_off(MOST).len();
        words.push(format!("and {more} more"));
    }
    if words.is_empty() {
        let end = outcome.observed.client.last().and_then(|got| got.end);
        words.push(
            match end {
                Some(End::Closed) => "closed",
                Some(End::Reset) => "reset",
                Some(End::Ours) => "client left",
                None => "silence",
            }
            .to_owned(),
        );
    }
    words.join(" ")
}

/// One proxy's column.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Its outcomes, section by section.
    pub cells: Vec<Vec<(Verdict, String)>>,
}

/// The whole page.
pub fn page(sections: &[Section], columns: &[Column]) -> String {
    let mut page = String::from(HEAD);
    for column in columns {
        let _ = writeln!(page, "- {}: {}", column.name, column.version);
    }
    let rows: usize = sections.iter().map(|section| section.cases.len()).sum();
    let _ = write!(page, "\n| {rows} rows | ✓ | ~ | ✗ |\n|---|---|---|---|\n");
    for column in columns {
        let count = |verdict| {
            let all = column.cells.iter().flatten();
            all.filter(|(one, _)| *one == verdict).count()
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            column.name,
            count(Verdict::Right),
            count(Verdict::Debatable),
            count(Verdict::Wrong)
        );
    }
    exceptions(&mut page, sections);
    for (at, section) in sections.iter().enumerate() {
        let _ = write!(page, "\n## {}\n\n{}\n\n", section.title, section.about);
        let names: Vec<_> = columns.iter().map(|column| column.name).collect();
        let _ = writeln!(page, "| sent | right | {} |", names.join(" | "));
        let _ = writeln!(page, "|---|---|{}", "---|".repeat(columns.len()));
        for (row, case) in section.cases.iter().enumerate() {
            let _ = write!(
                page,
                "| {} | {} ({}) |",
                case.name.replace('|', "\\|"),
                case.right.to_string().replace('|', "\\|"),
                case.source
            );
            for column in columns {
                let _ = write!(page, " {} |", column.cells[at][row].1);
            }
            page.push('\n');
        }
    }
    page
}

fn exceptions(page: &mut String, sections: &[Section]) {
    let cases = sections.iter().flat_map(|section| &section.cases);
    let mut named = cases
        .filter_map(|case| Some((case.name, case.exception?)))
        .peekable();
    if named.peek().is_none() {
        return;
    }
    page.push_str("\nThe router's exceptions:\n\n");
    for (name, why) in named {
        let _ = writeln!(page, "- {name}: {why}");
    }
}

/// The rows of a page, each proxy's cell but its mark: what else is said there may come now so, now otherwise.
pub fn rows(page: &str) -> Vec<[String; 5]> {
    let sections = page.split_once("\n## ").map_or("", |(_, rest)| rest);
    let rows = sections.lines().filter(|line| line.starts_with("| "));
    rows.filter_map(|row| {
        // A bar that is text is escaped.
        let row = row.replace("\\|", "\u{1}");
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, right, ours, second, third, _] = cells[..] else {
            return None;
        };
        let mark = |cell: &str| cell.chars().take(1).collect();
        let (ours, second, third) = (mark(ours), mark(second), mark(third));
        Some([name.to_owned(), right.to_owned(), ours, second, third])
    })
    .collect()
}

/// Every byte of a case, both ways.
pub fn bytes(outcome: &Outcome) -> String {
    let mut text = format!("{}\n", cell(outcome));
    for got in &outcome.observed.client {
        let _ = writeln!(text, "  client got ({:?}): {}", got.end, shown(&got.bytes));
    }
    for connection in &outcome.observed.cell.connections {
        let end = connection.end;
        let _ = writeln!(text, "  cell got ({end:?}): {}", shown(&connection.got));
    }
    text
}

fn shown(bytes: &[u8]) -> String {
    let first = &bytes[..bytes.len().min(2000)];
    format!("{} bytes \"{}\"", bytes.len(), first.escape_ascii())
}

const HEAD: &str = "\
# Behaviours on hostile and unlucky input

The same bytes, put to the router, to nginx and to HAProxy, each before a scripted cell that records byte for byte what
it got. Made by `cargo run -p integration-tests --bin behaviours`; the router's column is held by
`cargo test --workspace`, too. nginx and HAProxy run as in production, streaming: `proxy_request_buffering off`,
`proxy_http_version 1.1` and idle connections to the cell that are kept; `http-reuse safe` and the defaults.

✓ right; ~ within the letter of the RFC or harmless, and not what the row asks for; ✗ bytes lost, leaked, doubled, or
passed on so that they can be read in two ways. Statuses are those that the client saw, interim ones first. Where a
request may be refused, `GET /end` follows it on the same connection, so that what is left of it would show.

";
