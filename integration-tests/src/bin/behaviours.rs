//! Makes `docs/behaviours.md`: router, nginx and HAProxy on the same inputs.
//!
//! `cargo run --release -p integration-tests --bin behaviours`, with nginx and haproxy installed. With `--check` nothing
//! is written: the router has to be right in every row but the named exceptions, and what the page says of it has to be
//! so.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use integration_tests::behaviours::report::{self, Column};
use integration_tests::behaviours::upstream::Upstream;
use integration_tests::behaviours::{Section, Verdict, cases, proxies, run};

/// Puts every case to the router, nginx and HAProxy.
#[derive(Debug, Parser)]
struct Args {
    /// Compares with the page instead of writing it.
    #[arg(long)]
    check: bool,
    /// The page.
    #[arg(long, default_value = "docs/behaviours.md")]
    page: PathBuf,
    /// The router's binary; the one beside this one unless given, built first.
    #[arg(long)]
    router: Option<PathBuf>,
    /// How long anything is waited for, in milliseconds.
    #[arg(long, default_value_t = 4000)]
    patience_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let patience = Duration::from_millis(args.patience_ms);
    let sections = cases::sections();

    let cells = run::cells(&sections).await?;
    let router = proxies::router(&addresses(&cells), args.router.clone()).await;
    let version = format!("cell-router/{}", env!("CARGO_PKG_VERSION"));
    let ours = column(
        "router",
        version,
        &sections,
        &cells,
        router.addr(),
        patience,
    )
    .await?;
    drop(router);

    let cells = run::cells(&sections).await?;
    let nginx = proxies::nginx(&addresses(&cells)).await?;
    let (version, address) = (nginx.version.clone(), nginx.address);
    let second = column("nginx", version, &sections, &cells, address, patience).await?;
    drop(nginx);

    let cells = run::cells(&sections).await?;
    let haproxy = proxies::haproxy(&addresses(&cells)).await?;
    let (version, address) = (haproxy.version.clone(), haproxy.address);
    let third = column("HAProxy", version, &sections, &cells, address, patience).await?;
    drop(haproxy);

    let wrong = wrong(&sections, &ours);
    let page = report::page(&sections, &[ours, second, third]);
    if args.check {
        let old = std::fs::read_to_string(&args.page)?;
        if report::first_column(&old) != report::first_column(&page) {
            return Err(io::Error::other(
                "docs/behaviours.md is not current: make it again",
            ));
        }
    } else {
        std::fs::write(&args.page, page)?;
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the router is not right in:\n{}",
        wrong.join("\n")
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
    address: SocketAddr,
    patience: Duration,
) -> io::Result<Column> {
    let outcomes = run::all(sections, cells, address, patience).await?;
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

/// Rows in which the router is not right, and which are no named exceptions.
fn wrong(sections: &[Section], ours: &Column) -> Vec<String> {
    let rows = sections
        .iter()
        .zip(&ours.cells)
        .flat_map(|(section, cells)| section.cases.iter().zip(cells));
    rows.filter(|(case, (verdict, _))| *verdict != Verdict::Right && !case.excepted())
        .map(|(case, (_, seen))| format!("{}: {seen}", case.name))
        .collect()
}
