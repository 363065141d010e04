//! How many instructions the router takes for a request on each lane, beside the figures that were recorded.
//!
//! `.ci/instructions`, and `.ci/instructions --record` after a change that is meant to cost more, or that costs less.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use integration_tests::Binaries;
use integration_tests::client::Error;
use integration_tests::instructions::{Counted, LANES};
use serde::{Deserialize, Serialize};

/// How much more than recorded a lane may take, in percent.
const MORE_PERCENT: f64 = 3.0;

/// Counts instructions for each request by valgrind's callgrind, and fails if a lane takes over 3 % more than recorded.
#[derive(Debug, Parser)]
#[command(name = "instructions", version)]
struct Args {
    /// Records the figures anew.
    #[arg(long)]
    record: bool,
    /// The router's binary; built in the profile of this one unless given.
    #[arg(long)]
    router: Option<PathBuf>,
    /// Where figures are recorded.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json"))]
    figures: PathBuf,
}

/// What was counted, and with what.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    compiler: String,
    lanes: BTreeMap<String, u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no lane takes more than it may.
async fn run(args: Args) -> Result<bool, Error> {
    let found = Command::new("valgrind").arg("--version").output();
    found.map_err(|error| format!("valgrind is needed, of your system's packages: {error}"))?;
    let binary = args.router;
    let binary = binary.unwrap_or_else(|| Binaries::built().cell_router.clone());
    let mut counted = Counted::start(binary).await?;
    let mut lanes = BTreeMap::new();
    for lane in LANES {
        lanes.insert(lane.to_string(), counted.count(lane).await?);
    }
    let compiler = Command::new("rustc").arg("--version").output()?.stdout;
    let compiler = String::from_utf8_lossy(&compiler).trim().to_owned();
    let now = Figures { compiler, lanes };
    if args.record {
        let text = serde_json::to_string_pretty(&now)? + "\n";
        std::fs::write(&args.figures, text)?;
    }
    let place = args.figures.display();
    let text = std::fs::read_to_string(&args.figures).map_err(|error| {
        format!("no figures are recorded in {place} ({error}): --record records them")
    })?;
    let recorded: Figures =
        serde_json::from_str(&text).map_err(|error| format!("{place}: {error}"))?;
    Ok(compare(&now, &recorded))
}

/// Prints the table; whether no lane takes more than it may.
fn compare(now: &Figures, recorded: &Figures) -> bool {
    let mut good = true;
    println!("| instructions for each request | now | recorded | |\n|---|---|---|---|");
    for lane in LANES.map(|lane| lane.to_string()) {
        let count = now.lanes[&lane];
        let (before, change) = match recorded.lanes.get(&lane) {
            None => {
                good = false;
                ("none".to_owned(), "not recorded".to_owned())
            }
            Some(&before) => {
                let percent = (count as f64 / before as f64 - 1.0) * 100.0;
                let grown = percent > MORE_PERCENT;
                good &= !grown;
                let word = if grown { " **grown**" } else { "" };
                (before.to_string(), format!("{percent:+.1} %{word}"))
            }
        };
        println!("| {lane} | {count} | {before} | {change} |");
    }
    if !good {
        println!(
            "a lane may take {MORE_PERCENT} % more than recorded; if it is meant to take more: --record"
        );
        if now.compiler != recorded.compiler {
            let (now, before) = (&now.compiler, &recorded.compiler);
            println!(
                "it was recorded with {before}, and this is {now}: another compiler counts differently"
            );
        }
    }
    good
}
