//! What came of a soak, as a person reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::isolation::Isolation;
use super::journal::Counts;
use super::ledger::{Ledger, Tally};
use super::plan::Trouble;
use super::rules::{Breaches, Rule};

/// Samples that it takes to say whether memory is flat.
const SAMPLES_MIN: usize = 100;
/// How much more the last fifth may have than the second: this share, and so many bytes.
const GROWTH_MAX: f64 = 0.1;
const GROWTH_MAX_BYTES: u64 = 4 << 20;

/// Memory of the router in bytes, medians of the second and the last fifth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    second: u64,
    last: u64,
    most: u64,
}

impl Memory {
    pub(crate) fn of(samples: &[u64], ledger: &Ledger) -> Self {
        let fifth = samples.len() / 5;
        let of = |part: &[u64]| median(part.to_vec()).unwrap_or(0);
        let this = Self {
            second: of(&samples[fifth..2 * fifth]),
            last: of(&samples[4 * fifth..]),
            most: samples.iter().copied().max().unwrap_or(0),
        };
        let allowed = this.second + GROWTH_MAX_BYTES.max((this.second as f64 * GROWTH_MAX) as u64);
        if samples.len() >= SAMPLES_MIN && this.last > allowed {
            ledger.breach(Rule::Memory, format!("{this:?}"));
        }
        this
    }
}

pub(crate) fn median<T: Ord + Copy>(mut all: Vec<T>) -> Option<T> {
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

/// Whether a rule was kept.
#[derive(Debug)]
pub(crate) struct Verdict {
    rule: Rule,
    words: &'static str,
    count: usize,
    examples: Vec<String>,
}

pub(crate) fn verdicts(breaches: &Breaches) -> Vec<Verdict> {
    let all = Rule::ALL.iter().map(|(rule, words)| {
        let (count, examples) = breaches.of(*rule);
        Verdict {
            rule: *rule,
            words,
            count,
            examples: examples.to_vec(),
        }
    });
    all.collect()
}

/// What came of a soak.
#[derive(Debug)]
pub struct Report {
    pub(crate) seed: u64,
    pub(crate) lasted: Duration,
    pub(crate) tally: Tally,
    pub(crate) faults: BTreeMap<Trouble, u64>,
    pub(crate) edits: u64,
    pub(crate) replacements: u64,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) memory: Memory,
    pub(crate) counts: Counts,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Report {
    /// How many rules were broken.
    pub fn failed(&self) -> usize {
        self.verdicts
            .iter()
            .filter(|verdict| verdict.count > 0)
            .count()
    }

    /// How many requests were accounted for.
    pub fn requests(&self) -> u64 {
        self.tally.settled
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasted.as_secs_f64();
        let tally = &self.tally;
        writeln!(f, "\nseed {}, {seconds:.0} s", self.seed)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<44} {value:>12}");
        row("requests", tally.settled.to_string())?;
        row(
            "  a second",
            format!("{:.0}", tally.settled as f64 / seconds),
        )?;
        row("  at cells without faults", tally.undisturbed.to_string())?;
        row(
            "  sent twice, idempotent and without a body",
            tally.repeated.to_string(),
        )?;
        row(
            "  that came to their cell as HTTP/2",
            tally.as_http2.to_string(),
        )?;
        row("bodies to cells: whole", tally.whole_uploads.to_string())?;
        row("  cut", tally.cut_uploads.to_string())?;
        row("  refused by the cell", tally.refused_uploads.to_string())?;
        row("  MiB", format!("{:.0}", mib(tally.bytes_up)))?;
        row("bodies to clients: whole", tally.whole_answers.to_string())?;
        row("  cut", tally.cut_answers.to_string())?;
        row("  MiB", format!("{:.0}", mib(tally.bytes_down)))?;
        row("lines of the access log", self.counts.lines.to_string())?;
        row(
            "  that waited for their cell",
            self.counts.waited.to_string(),
        )?;
        let failed: u64 = self.counts.failures.values().sum();
        row("  that say who failed", failed.to_string())?;
        row("wakes", self.counts.wakes.to_string())?;
        row("edits of the registry", self.edits.to_string())?;
        row("  loaded", self.counts.reloads.to_string())?;
        row("  refused as broken", self.counts.refused_files.to_string())?;
        row(
            "memory: second fifth, MiB",
            format!("{:.1}", mib(self.memory.second)),
        )?;
        row("  last fifth, MiB", format!("{:.1}", mib(self.memory.last)))?;
        row("  most, MiB", format!("{:.1}", mib(self.memory.most)))?;
        row("routers replaced under load", self.replacements.to_string())?;
        if let Some(found) = &self.isolation {
            let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
            row(
                "questions beside ill cells and without them",
                found.questions.to_string(),
            )?;
            row("  pairs of turns", found.pairs.to_string())?;
            row("  p50 without, ms", ms(found.p50_well))?;
            row("  p50 beside ill cells, ms", ms(found.p50_ill))?;
            row("  p99 without, ms", ms(found.p99_well))?;
            row("  p99 beside ill cells, ms", ms(found.p99_ill))?;
            row(
                "  p99 by p99, median of the pairs",
                format!("{:.3}", found.ratio),
            )?;
        }
        writeln!(f, "requests, by way and client")?;
        for (kind, count) in &tally.kinds {
            writeln!(f, "  {kind:<44} {count:>12}")?;
        }
        writeln!(f, "how requests ended")?;
        for (end, count) in &tally.ends {
            writeln!(f, "  {end:<44} {count:>12}")?;
        }
        writeln!(f, "faults")?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {:<44} {count:>12}", format!("{fault:?}"))?;
        }
        writeln!(f, "lanes, by the access log")?;
        for ((lane, reason), count) in &self.counts.lanes {
            writeln!(f, "  {:<44} {count:>12}", format!("{lane}/{reason}"))?;
        }
        writeln!(f, "failures, by the access log")?;
        for ((by, reason), count) in &self.counts.failures {
            writeln!(f, "  {:<44} {count:>12}", format!("{by}: {reason}"))?;
        }
        writeln!(f, "rules")?;
        for verdict in &self.verdicts {
            let (count, words) = (verdict.count, verdict.words);
            if count == 0 {
                writeln!(f, "  ok      {words}")?;
                continue;
            }
            writeln!(f, "  BROKEN  {words}: {count} times ({:?})", verdict.rule)?;
            for example in &verdict.examples {
                for (place, line) in example.lines().enumerate() {
                    let indent = if place == 0 { 10 } else { 14 };
                    writeln!(f, "{:indent$}{line}", "")?;
                }
            }
        }
        let failed = self.failed();
        writeln!(
            f,
            "{} passed, {failed} failed",
            self.verdicts.len() - failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::World;
    use super::*;

    fn breaches(samples: &[u64]) -> usize {
        let ledger = Ledger::new(World {
            seed: 1,
            cells: 40,
            undisturbed: 4,
        });
        Memory::of(samples, &ledger);
        ledger.with_breaches(|breaches| breaches.of(Rule::Memory).0)
    }

    #[test]
    fn memory_that_grows_is_not_flat_and_one_that_settles_is() {
        let grows = |number: u64| (20 + number / 20) << 20;
        assert_eq!(breaches(&(0..200).map(grows).collect::<Vec<_>>()), 1);
        let settles = |number: u64| (20 + number.min(30)) << 20;
        assert_eq!(breaches(&(0..200).map(settles).collect::<Vec<_>>()), 0);
    }
}
