//! What is wrong with a registry file, where, and what would be right.
//!
//! Owns the collection of problems while a text is read. Lines and columns are counted once, at the end, and only
//! if there is a problem. It must never decide what a problem is: that is the parser's work.

use std::fmt;

use super::name::CellName;

/// One thing that is wrong with a registry file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, counted in characters.
    pub column: usize,
    /// The JSON path of the value, such as `$.cells.alice.hosts[1]`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub fix: String,
}

impl Problem {
    /// The problem as one line that begins with `file:line:column:`, as editors and terminals link it.
    pub fn in_file<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        InFile {
            problem: self,
            file,
        }
    }
}

/// `12:17: $.cells.alice.port: 70000 is no port; write a number from 1 to 65535`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            path,
            what,
            fix,
        } = self;
        write!(f, "{line}:{column}: {path}: {what}; {fix}")
    }
}

impl std::error::Error for Problem {}

struct InFile<'a> {
    problem: &'a Problem,
    file: &'a str,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.problem)
    }
}

/// Why a text is not the value it should be, before it is known where the text stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub fix: String,
}

impl Refusal {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

impl std::error::Error for Refusal {}

/// An entry that is not in force as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The cell's name as it is written.
    pub cell: String,
    /// What is wrong with the entry, at least one thing.
    pub problems: Vec<Problem>,
    /// Whether its last good version is in force; else the cell is left out.
    pub kept: bool,
}

/// What is wrong with an entry beside its text, such as a secret that it names and that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The cell.
    pub cell: CellName,
    /// The key of the entry that it is about.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub refusal: Refusal,
}

/// The way from the root to a value; it becomes text only in a problem.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Root,
    Member(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    pub(super) fn member(&'a self, key: &'a str) -> Place<'a> {
        Place::Member(self, key)
    }

    pub(super) fn item(&'a self, index: usize) -> Place<'a> {
        Place::Item(self, index)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => f.write_str("$"),
            Place::Item(parent, index) => write!(f, "{parent}[{index}]"),
            Place::Member(parent, key) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
                if !key.is_empty() && key.chars().all(plain) {
                    write!(f, "{parent}.{key}")
                } else {
                    write!(f, "{parent}[{}]", quoted(key))
                }
            }
        }
    }
}

/// All problems of one text, gathered while it is read.
pub(super) struct Report<'t> {
    text: &'t str,
    found: Vec<(usize, Problem)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            found: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many problems there are so far: a reader compares two counts to see whether its own part was good.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// The offset of `part`, which must be a slice of the text.
    pub(super) fn offset(&self, part: &str) -> usize {
        (part.as_ptr() as usize)
            .saturating_sub(self.text.as_ptr() as usize)
            .min(self.text.len())
    }

    /// Adds a problem of the value that is written as `part`.
    pub(super) fn add(&mut self, part: &str, place: Place<'_>, refusal: Refusal) {
        self.add_at(self.offset(part), place, refusal);
    }

    /// Adds a problem at a byte offset.
    pub(super) fn add_at(&mut self, offset: usize, place: Place<'_>, refusal: Refusal) {
        self.push(offset, place.to_string(), refusal);
    }

    /// Adds a problem whose place has been written down before.
    pub(super) fn add_written(&mut self, part: &str, path: String, refusal: Refusal) {
        self.push(self.offset(part), path, refusal);
    }

    fn push(&mut self, offset: usize, path: String, refusal: Refusal) {
        let problem = Problem {
            line: 0,
            column: 0,
            path,
            what: refusal.what,
            fix: refusal.fix,
        };
        self.found.push((offset.min(self.text.len()), problem));
    }

    /// The problems in the order of the text, each with its line and column.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|(offset, _)| *offset);
        self.finish_as_added()
    }

    /// The problems in the order in which they were added, each with its line and column.
    pub(super) fn finish_as_added(mut self) -> Vec<Problem> {
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        order.sort_by_key(|index| self.found[*index].0);
        let (mut line, mut line_start, mut seen) = (1, 0, 0);
        for index in order {
            let (offset, problem) = &mut self.found[index];
            for (index, byte) in self.text.as_bytes()[seen..*offset].iter().enumerate() {
                if *byte == b'\n' {
                    line += 1;
                    line_start = seen + index + 1;
                }
            }
            seen = *offset;
            let before = &self.text.as_bytes()[line_start..*offset];
            problem.line = line;
            // A byte that continues a character does not begin a column.
            problem.column = 1 + before.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        }
        self.found.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// A text in quotes for a message: control characters escaped, and not longer than a line can bear.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
