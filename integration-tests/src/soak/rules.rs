//! What must never happen, and what was found of it.

use std::collections::BTreeMap;

/// Breaches of a rule that are kept in words; the rest are counted.
const KEPT: usize = 10;

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rule {
    WrongCell,
    Altered,
    CutUploadWhole,
    CutAnswerWhole,
    Doubled,
    Mixed,
    Unseen,
    Unrequested,
    Unanswered,
    Stuck,
    Disturbed,
    WrongBlame,
    Refused,
    Panic,
    Platform,
    InFlight,
    Connections,
    Memory,
    Isolation,
}

impl Rule {
    /// Every rule with its words.
    pub(crate) const ALL: [(Self, &'static str); 19] = [
        (
            Self::WrongCell,
            "no request, and no byte, at a cell that it is not for",
        ),
        (Self::Altered, "no byte changed on the way"),
        (Self::CutUploadWhole, "no cut upload taken for a whole one"),
        (Self::CutAnswerWhole, "no cut answer taken for a whole one"),
        (
            Self::Doubled,
            "no request doubled but idempotent ones without a body",
        ),
        (Self::Mixed, "no answer of another request or cell"),
        (Self::Unseen, "no success that no cell gave"),
        (Self::Unrequested, "no request at a cell that nobody sent"),
        (
            Self::Unanswered,
            "no request left without an answer by the router itself",
        ),
        (Self::Stuck, "no request outlives every time-out"),
        (Self::Disturbed, "no failure at a cell without faults"),
        (
            Self::WrongBlame,
            "no failure blamed on the wrong side in the access log",
        ),
        (Self::Refused, "no connection refused by the router"),
        (Self::Panic, "no panic and no unasked end of the router"),
        (Self::Platform, "no rule of the platform broken"),
        (
            Self::InFlight,
            "no request counted as in flight when all is over",
        ),
        (
            Self::Connections,
            "no connection left open when all is over",
        ),
        (Self::Memory, "memory flat"),
        (
            Self::Isolation,
            "ill cells raise no other cell's p99 by over a tenth",
        ),
    ];
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Breaches {
    by_rule: BTreeMap<Rule, (usize, Vec<String>)>,
    /// What nobody has been told yet.
    fresh: Vec<(Rule, String)>,
}

impl Breaches {
    pub(crate) fn add(&mut self, rule: Rule, what: String) {
        let (count, kept) = self.by_rule.entry(rule).or_default();
        *count += 1;
        if kept.len() < KEPT {
            kept.push(what.clone());
            self.fresh.push((rule, what));
        }
    }

    pub(crate) fn of(&self, rule: Rule) -> (usize, &[String]) {
        self.by_rule
            .get(&rule)
            .map_or((0, &[]), |(count, kept)| (*count, kept))
    }

    /// What was found since the last call, as far as it is kept in words.
    pub(crate) fn fresh(&mut self) -> Vec<(Rule, String)> {
        std::mem::take(&mut self.fresh)
    }

    pub(crate) fn count(&self) -> usize {
        self.by_rule.values().map(|(count, _)| count).sum()
    }
}
