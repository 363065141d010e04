//! Hundreds of cells that fail in every way, clients of every kind, and every byte accounted for.
//!
//! `cargo run --release -p integration-tests --bin soak -- --seconds 600`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use integration_tests::Binaries;
use integration_tests::soak::{Options, faults, run};

/// Soaks a router: cells are killed, put to sleep, slowed, cut off and moved while clients of every kind are served and
/// the registry is rewritten; then the books of clients and cells are compared.
#[derive(Debug, Parser)]
#[command(name = "soak", version)]
struct Arguments {
    /// How long requests are sent.
    #[arg(long, default_value_t = 45)]
    seconds: u64,
    /// What everything is drawn from; another each time unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many cells there are.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..=999))]
    cells: u64,
    /// How many clients there are, each with one connection at a time.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    clients: u64,
    /// Faults to leave out, to see which of them it takes.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    without: Vec<String>,
    /// The router's binary; built in the profile of this one unless given.
    #[arg(long)]
    router: Option<PathBuf>,
}

fn fault(name: &str) -> Result<String, String> {
    let all = faults();
    if all.iter().any(|fault| fault == name) {
        return Ok(name.to_owned());
    }
    Err(format!("no such fault; there are {}", all.join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads");
    let seed = arguments
        .seed
        .unwrap_or_else(|| cell_router::config::seed() % 1_000_000);
    let options = Options {
        router: arguments
            .router
            .unwrap_or_else(|| Binaries::built().cell_router.clone()),
        lasts: Duration::from_secs(arguments.seconds),
        seed,
        cells: arguments.cells as usize,
        clients: arguments.clients as usize,
        without: arguments.without,
        talks: true,
    };
    println!(
        "seed {seed}, {} cells, {} clients",
        options.cells, options.clients
    );
    match runtime.block_on(run(&options)) {
        Ok(report) => {
            println!("{report}");
            if report.failed() == 0 {
                ExitCode::SUCCESS
            } else {
                println!(
                    "the same again: soak --seed {seed} --seconds {} --cells {} --clients {}",
                    arguments.seconds, arguments.cells, arguments.clients
                );
                ExitCode::FAILURE
            }
        }
        Err(problem) => {
            eprintln!("soak: {problem}");
            ExitCode::FAILURE
        }
    }
}
