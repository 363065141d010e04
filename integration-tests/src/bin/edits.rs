//! Everybody edits one registry at once, and programs are killed amid their edits.
//!
//! `cargo run -p integration-tests --bin edits -- --edits 500 --kills 200`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use integration_tests::Binaries;
use integration_tests::edits::{Options, run};

/// The page, commands and an editor edit one registry file at once; then commands and routers are killed amid edits.
/// Nothing may be lost, half written or missing from the history.
#[derive(Debug, Parser)]
#[command(name = "edits", version)]
struct Arguments {
    /// How many edits each of the three makes.
    #[arg(long, default_value_t = 500)]
    edits: usize,
    /// How many programs are killed.
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// What all is drawn from; another each time unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// The router's binary; built in the profile of this one unless given.
    #[arg(long)]
    router: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        router: arguments
            .router
            .unwrap_or_else(|| Binaries::built().cell_router.clone()),
        edits: arguments.edits,
        kills: arguments.kills,
        seed: arguments
            .seed
            .unwrap_or_else(|| cell_router::config::seed() % 1_000_000),
    };
    println!("seed {}", options.seed);
    match run(&options).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("edits: {problem}");
            ExitCode::FAILURE
        }
    }
}
