//! Makes `docs/behaviours.md`: router, nginx and HAProxy on the same inputs.
//!
//! `cargo run -p integration-tests --bin behaviours`, with nginx and haproxy installed. With `--check` nothing is
//! written: the router has to be right in every row but the named exceptions, and what the page says has to be so.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use integration_tests::Binaries;
use integration_tests::behaviours::proxies::Front;
use integration_tests::behaviours::report::{self, Column};
use integration_tests::behaviours::upstream::Upstream;
use integration_tests::behaviours::{Section, Verdict, cases, proxies, run};

/// Puts every case to the router, nginx and HAProxy.
#[derive(Debug, Parser)]
struct Args {
    /// Compares with the page instead of writing it.
    #[arg(long)]
    check: bool,
    /// Tries the router alone, and tells of the rows in which it is not right.
    #[arg(long)]
    router_only: bool,
    /// Tries only rows with this in their name, shows every byte of them, and writes nothing.
    #[arg(long)]
    row: Option<String>,
    /// The page.
    #[arg(long, default_value = "docs/behaviours.md")]
    page: PathBuf,
    /// The router's binary; built first unless given.
    #[arg(long)]
    router: Option<PathBuf>,
    /// How long anything is waited for, in milliseconds.
    #[arg(long, default_value_t = 4000)]
    patience_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let mut sections = cases::sections();
    if let Some(part) = &args.row {
        for section in &mut sections {
            section.cases.retain(|case| case.name.contains(part));
        }
    }
    let binary = match &args.router {
        Some(binary) => binary.clone(),
        None => Binaries::built().cell_router.clone(),
    };

    let cells = run::cells(&sections).await?;
    let router = proxies::router(&addresses(&cells), binary).await;
    let version = format!("cell-router/{}", env!("CARGO_PKG_VERSION"));
    let front = Front {
        http1: router.addr(),
        http2: router.addr(),
    };
    let ours = column("router", version, &sections, &cells, front, &args).await?;
    drop(router);
    let wrong = wrong(&sections, &ours);
    if args.router_only {
        return all_right(&wrong);
    }

    let cells = run::cells(&sections).await?;
    let nginx = proxies::nginx(&addresses(&cells)).await?;
    let (version, front) = (nginx.version.clone(), nginx.front);
    let second = column("nginx", version, &sections, &cells, front, &args).await?;
    drop(nginx);

    let cells = run::cells(&sections).await?;
    let haproxy = proxies::haproxy(&addresses(&cells)).await?;
    let (version, front) = (haproxy.version.clone(), haproxy.front);
    let third = column("HAProxy", version, &sections, &cells, front, &args).await?;
    drop(haproxy);

    if args.row.is_some() {
        return all_right(&wrong);
    }
    let page = report::page(&sections, &[ours, second, third]);
    if args.check {
        current(&std::fs::read_to_string(&args.page)?, &page)?;
    } else {
        std::fs::write(&args.page, page)?;
    }
    all_right(&wrong)
}

/// Compares what the page says with a fresh run: its rows, and the verdicts on the router. Of another verdict on a
/// proxy of another make it only tells: those are what this machine has installed.
fn current(old: &str, fresh: &str) -> io::Result<()> {
    let (old, fresh) = (report::rows(old), report::rows(fresh));
    let ours = |rows: &[[String; 5]]| {
        let ours = rows.iter().map(|row| row[..3].to_vec());
        ours.collect::<BTreeSet<_>>()
    };
    for (old, fresh) in old.iter().zip(&fresh) {
        if old != fresh {
            eprintln!("- {}\n+ {}", old.join(" | "), fresh.join(" | "));
        }
    }
    if ours(&old) == ours(&fresh) {
        return Ok(());
    }
    Err(io::Error::other(
        "docs/behaviours.md is not current: make it again",
    ))
}

fn all_right(wrong: &[String]) -> io::Result<()> {
    for row in wrong {
        eprintln!("{row}");
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} rows in which the router is not right",
        wrong.len()
    )))
}

fn addresses(cells: &[Upstream]) -> Vec<SocketAddr> {
    cells.iter().map(Upstream::addr).collect()
}

async fn column(
    name: &'static str,
    version: String,
    sections: &[Section],
    cells: &[Upstream],
    front: Front,
    args: &Args,
) -> io::Result<Column> {
    let patience = Duration::from_millis(args.patience_ms);
    let outcomes = run::all(sections, cells, front, patience).await?;
    if args.row.is_some() {
        for (section, outcomes) in sections.iter().zip(&outcomes) {
            for (case, outcome) in section.cases.iter().zip(outcomes) {
                println!("{name}: {}\n{}", case.name, report::bytes(outcome));
            }
        }
    }
    let cells = outcomes
        .iter()
        .map(|section| {
            section
                .iter()
                .map(|one| (one.verdict, report::cell(one)))
                .collect()
        })
        .collect();
    Ok(Column {
        name,
        version,
        cells,
    })
}

/// Rows in which the router is not right, and which are no named exceptions; and exceptions in which it is.
fn wrong(sections: &[Section], ours: &Column) -> Vec<String> {
    let rows = sections
        .iter()
        .zip(&ours.cells)
        .flat_map(|(section, cells)| section.cases.iter().zip(cells));
    rows.filter(|(case, (verdict, _))| (*verdict == Verdict::Right) == case.excepted())
        .map(|(case, (_, seen))| format!("{}: {seen}", case.name))
        .collect()
}
