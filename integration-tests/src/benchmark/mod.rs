//! What the router costs beside nginx and HAProxy at the same work, in one run: processor time for each request and for
//! each GB, round by round.

pub mod load;
pub mod peers;
pub mod upstream;
mod work;

use std::fmt::Write as _;
use std::io;

use peers::Peer;
pub use work::{WORKS, Work};

/// The router comes first among the peers, then these, and then what else is measured.
const RIVALS: std::ops::Range<usize> = 1..3;

/// What one round of one work cost one peer.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Processor time in nanoseconds.
    pub busy: u64,
    /// Requests, or bytes, that it did.
    pub done: u64,
    /// How long it took in nanoseconds.
    pub took: u64,
}

/// One line of the table: a work, and what it cost each peer in each round.
#[derive(Debug)]
pub struct Line {
    work: &'static Work,
    /// For each peer, round by round.
    costs: Vec<Vec<Cost>>,
}

/// Does every work `rounds` times with every peer, one after the other within a round.
///
/// # Errors
/// A peer breaks a connection or answers something else.
pub async fn run(peers: &[Peer], works: &[&'static Work], rounds: usize) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for work in works {
        let mut costs = vec![Vec::new(); peers.len()];
        for round in 0..=rounds {
            for (peer, costs) in peers.iter().zip(&mut costs) {
                let busy = peer.busy()?;
                let began = tokio::time::Instant::now();
                let done = work.run(peer.address()).await.map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        format!("{} at {}: {error}", peer.name, work.name),
                    )
                })?;
                let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                // The access log of what is over belongs to it.
                peer.settle(busy).await?;
                let cost = Cost {
                    busy: peer.busy()? - busy,
                    done,
                    took,
                };
                // The first round warms up.
                if round > 0 {
                    costs.push(cost);
                }
            }
        }
        eprintln!("{}", row(work, &costs));
        lines.push(Line { work, costs });
    }
    Ok(lines)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The table as Markdown: medians, and the router's ratio to the better of nginx and HAProxy, round by round.
pub fn table(peers: &[Peer], lines: &[Line]) -> String {
    let names: Vec<_> = peers.iter().map(|peer| peer.name).collect();
    let mut text = format!(
        "| work | {} | ratio to the better | rounds |\n",
        names.join(" | ")
    );
    let _ = writeln!(text, "|---|{}---|---|", "---|".repeat(peers.len()));
    for line in lines {
        text.push_str(&row(line.work, &line.costs));
        text.push('\n');
    }
    text
}

fn row(work: &Work, costs: &[Vec<Cost>]) -> String {
    let each = |cost: &Cost| cost.busy as f64 / cost.done as f64;
    let medians: Vec<_> = costs
        .iter()
        .map(|rounds| median(rounds.iter().map(each).collect()))
        .collect();
    let mut text = format!("| {} |", work.name);
    for (median, rounds) in medians.iter().zip(costs) {
        let rate = self::median(
            rounds
                .iter()
                .map(|cost| cost.done as f64 / cost.took as f64)
                .collect(),
        );
        let _ = write!(text, " {} |", work.unit.show(*median, rate));
    }
    let rounds = costs.first().map_or(0, Vec::len);
    let ratios: Vec<_> = (0..rounds)
        .filter_map(|round| {
            let best = costs[RIVALS].iter().map(|rounds| each(&rounds[round]));
            let best = best.min_by(f64::total_cmp)?;
            Some(each(&costs[0][round]) / best)
        })
        .collect();
    let shown: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let _ = write!(text, " **{:.2}** | {} |", median(ratios), shown.join(" "));
    text
}
