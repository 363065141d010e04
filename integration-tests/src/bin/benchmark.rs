//! What the router costs beside nginx and HAProxy: processor time for each request and each GB, in one run.
//!
//! `cargo build --release -p cell-router && cargo run --release -p integration-tests --bin benchmark`

use std::io;
use std::path::PathBuf;

use clap::Parser;
use integration_tests::benchmark::peers::Peer;
use integration_tests::benchmark::{self, WORKS, upstream};

/// Measures the router beside nginx and HAProxy, which have to be installed. The first processor is the proxies'.
#[derive(Debug, Parser)]
struct Args {
    /// The router's binary.
    #[arg(long, default_value = "target/release/cell-router")]
    router: PathBuf,
    /// Another build of the router, measured as one more peer.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Rounds after the first, which warms up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only works whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Further arguments of the router.
    #[arg(last = true)]
    args: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    // Before anything is started: what loads leaves the first processor alone.
    let pid = std::process::id().to_string();
    std::process::Command::new("taskset")
        .args(["-pc", "1", &pid])
        .output()?;
    let upstream = upstream::start().await?;
    let further: Vec<_> = args.args.iter().map(String::as_str).collect();
    let mut peers = vec![Peer::router(&args.router, upstream, "router", &further).await?];
    peers.push(Peer::nginx(upstream).await?);
    peers.push(Peer::haproxy(upstream).await?);
    if let Some(other) = &args.against {
        peers.push(Peer::router(other, upstream, "other build", &further).await?);
    }
    let works: Vec<_> = WORKS
        .iter()
        .filter(|work| work.name.contains(&args.only))
        .collect();
    let lines = benchmark::run(&peers, &works, args.rounds).await?;
    print!("{}", benchmark::table(&peers, &lines));
    for peer in &peers {
        println!("{}: peak {} MiB", peer.name, peer.peak()? >> 20);
    }
    Ok(())
}
