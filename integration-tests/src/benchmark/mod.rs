//! What the router costs beside nginx and HAProxy at the same work, in one run: processor time for each request and for
//! each GB, round by round.

pub mod held;
pub mod load;
pub mod others;
pub mod peers;
pub mod reload;
pub mod tables;
pub mod upstream;
mod work;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use others::Others;
use peers::{Given, Peer};
pub use work::{Unit, WORKS, Work};

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
    disturbed: String,
}

impl Cost {
    fn each(&self) -> f64 {
        self.busy as f64 / self.done as f64
    }
}

/// The router, nginx and HAProxy.
///
/// # Errors
/// One of them is not installed, or does not start.
pub async fn trio(given: &Given, router: &Path, args: &[String]) -> io::Result<Vec<Peer>> {
    Ok(vec![
        Peer::router(given, router, "router", args).await?,
        Peer::nginx(given, "nginx").await?,
        Peer::haproxy(given, "HAProxy").await?,
    ])
}

/// Does every work `rounds` times with every peer, one after the other within a round.
///
/// # Errors
/// A peer breaks a connection or answers something else.
pub async fn run(peers: &[Peer], works: &[&'static Work], rounds: usize) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for work in works {
        let others = Others::watch(peers)?;
        let costs = alternate(peers, work, rounds).await?;
        let disturbed = others.told(peers)?;
        eprintln!("{}\n{disturbed}", row(work, &costs));
        lines.push(Line {
            work,
            costs,
            disturbed,
        });
    }
    Ok(lines)
}

/// Does every work once with a router alone, and stops it as an operator does: a build that watches itself then writes
/// down what it saw.
///
/// # Errors
/// It breaks a connection, answers something else, or does not end well.
pub async fn train(given: &Given, router: &Path, args: &[String]) -> io::Result<()> {
    let router = Peer::router(given, router, "router", args).await?;
    for work in &WORKS {
        eprintln!("{}", work.name);
        work.run(&router).await?;
    }
    router.stop()
}

/// What a work costs each peer, round by round. Who begins changes with the round: what came before may cost something.
async fn alternate(peers: &[Peer], work: &Work, rounds: usize) -> io::Result<Vec<Vec<Cost>>> {
    let mut costs = vec![Vec::new(); peers.len()];
    for round in 0..=rounds {
        for turn in 0..peers.len() {
            let peer = (turn + round) % peers.len();
            let cost = once(&peers[peer], work).await?;
            // The first round warms up.
            if round > 0 {
                costs[peer].push(cost);
            }
        }
    }
    Ok(costs)
}

async fn once(peer: &Peer, work: &Work) -> io::Result<Cost> {
    let busy = peer.busy()?;
    let began = tokio::time::Instant::now();
    let done = work.run(peer).await.map_err(|error| {
        let place = format!("{} at {}: {error}", peer.name, work.name);
        io::Error::new(error.kind(), place)
    })?;
    let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    // The access log of what is over belongs to it.
    peer.settle(busy).await?;
    let busy = peer.busy()? - busy;
    Ok(Cost { busy, done, took })
}

/// Ratios of one peer's costs to another's, round by round.
fn ratios(of: &[Cost], to: &[Cost]) -> Vec<f64> {
    let pairs = of.iter().zip(to);
    pairs.map(|(of, to)| of.each() / to.each()).collect()
}

/// Their median, and each of them.
fn shown(ratios: Vec<f64>) -> String {
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    format!("**{:.2}** | {}", median(ratios), each.join(" "))
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
    let names: Vec<_> = peers.iter().map(|peer| &*peer.name).collect();
    let mut text = format!(
        "| work | {} | ratio to the better | rounds |\n",
        names.join(" | ")
    );
    let _ = writeln!(text, "|---|{}---|---|", "---|".repeat(peers.len()));
    for line in lines {
        text.push_str(&row(line.work, &line.costs));
        text.push('\n');
    }
    for line in lines.iter().filter(|line| !line.disturbed.is_empty()) {
        let _ = write!(text, "{}: {}", line.work.name, line.disturbed);
    }
    text
}

fn row(work: &Work, costs: &[Vec<Cost>]) -> String {
    let mut text = format!("| {} |", work.name);
    for rounds in costs {
        let _ = write!(text, " {} |", typical(work.unit, rounds));
    }
    let rounds = costs.first().map_or(0, Vec::len);
    let ratios = (0..rounds)
        .filter_map(|round| {
            let best = costs[RIVALS].iter().map(|rounds| rounds[round].each());
            let best = best.min_by(f64::total_cmp)?;
            Some(costs[0][round].each() / best)
        })
        .collect();
    let _ = write!(text, " {} |", shown(ratios));
    text
}

/// The median cost, and the median rate.
fn typical(unit: Unit, rounds: &[Cost]) -> String {
    let rate = |cost: &Cost| cost.done as f64 / cost.took as f64;
    let cost = median(rounds.iter().map(Cost::each).collect());
    unit.show(cost, median(rounds.iter().map(rate).collect()))
}
