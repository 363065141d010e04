//! The same made-up requests through the router and through nginx, and what reached the cells compared.
//!
//! `cargo build --release -p cell-router && cargo run --release -p integration-tests --bin differential`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use integration_tests::differential::run::{Options, run};

/// Sends the same bytes through the router and through nginx (Debian's package) and compares what the cells got.
#[derive(Debug, Parser)]
struct Args {
    /// What the requests follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Rows of requests at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=26))]
    lanes: u8,
    /// The router's binary; built if it is not named.
    #[arg(long)]
    router: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        seed: args.seed,
        time: Some(Duration::from_secs(args.seconds)),
        lanes: usize::from(args.lanes),
        rows: 200,
        nginx: true,
        router: args.router,
    };
    match run(&options).await {
        Ok(tally) => {
            print!("seed {}: {tally}", args.seed);
            if tally.findings.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("differential: {error}; is nginx installed?");
            ExitCode::FAILURE
        }
    }
}
