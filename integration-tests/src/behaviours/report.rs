//! The table, as Markdown.

use std::fmt::Write as _;

use super::run::Outcome;
use super::upstream::End;
use super::{Section, Verdict};

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
    let (interim, finals, _) = outcome.observed.answers();
    let mut words: Vec<String> = interim
        .iter()
        .chain(&finals)
        .map(|answer| match answer.whole {
            true => answer.status().to_string(),
            false => format!("{} cut", answer.status()),
        })
        .collect();
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

/// What a page says of the router: its rows up to its own column.
pub fn first_column(page: &str) -> Vec<String> {
    let sections = page
        .split_once("\n## ")
        .map_or("", |(_, sections)| sections);
    let rows = sections.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.replace("\\|", "").split('|').take(4).collect())
        .collect()
}

const HEAD: &str = "\
# Behaviours on hostile and unlucky input

The same bytes, put to the router, to nginx and to HAProxy, each before a scripted cell that records byte for byte what
it got. Made by `cargo run --release -p integration-tests --bin behaviours`; the router's column is held by
`cargo test --workspace`, too. nginx and HAProxy run as in production, streaming: `proxy_request_buffering off`,
`proxy_http_version 1.1` and idle connections to the cell that are kept; `http-reuse safe` and the defaults.

✓ right; ~ within the letter of the RFC or harmless, and not what the row asks for; ✗ bytes lost, leaked, doubled, or
passed on so that they can be read in two ways. Statuses are those that the client saw, interim ones first. Where a
request may be refused, `GET /end` follows it on the same connection, so that what is left of it would show.

";
