//! `cell-router simulate`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use cell_router::config::{Place, REPLAY_MAX_BYTES};
use cell_router::control::check;
use cell_router::control::explain::{Explanation, Question, explain};
use cell_router::decision::{BodyLength, CellState};
use cell_router::registry::Registry;
use clap::Args;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::explain::on_fly;
use super::failure::Failure;
use super::output::{print, print_json, table};
use super::remote;

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// The draft of a registry.
    draft: PathBuf,
    /// An access log of the router, as JSON lines; - is standard input.
    log: PathBuf,
    /// The registry file that it is compared with.
    #[arg(long, env = "CELL_ROUTER_REGISTRY", default_value = "registry.json")]
    registry: PathBuf,
    /// As if the router ran on Fly.io and the requests came through its edge.
    #[arg(long)]
    on_fly: bool,
    /// The largest body in bytes that is answered with a replay.
    #[arg(long, env = "CELL_ROUTER_REPLAY_MAX_BYTES", default_value_t = REPLAY_MAX_BYTES)]
    replay_max_bytes: u64,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// A line of the log, as far as it is asked again. What the log does not hold (query, headers, the length that was told)
/// is not in the question.
#[derive(Deserialize)]
struct Line {
    method: String,
    host: String,
    path: String,
    #[serde(default)]
    bytes_in: u64,
}

/// Requests that would go elsewhere in the same way.
#[derive(Serialize)]
struct Moved {
    requests: u64,
    from: String,
    to: String,
    /// The first of them.
    example: String,
}

/// What all of the log comes to.
#[derive(Serialize, Default)]
struct Outcome {
    requests: u64,
    /// Lines that are none of an access log.
    skipped: u64,
    elsewhere: u64,
    moved: Vec<Moved>,
}

pub(super) fn simulate(arguments: &Simulate, router: &remote::Which) -> Result<(), Failure> {
    let file = &arguments.registry;
    let live = Backend::new(file, router)?.registry(file)?;
    let draft = registry(&arguments.draft)?;
    let outcome = compare(arguments, &live, &draft)?;
    let elsewhere = outcome.elsewhere > 0;
    if arguments.json {
        print_json(&outcome)?;
    } else {
        print(&text(&outcome))?;
    }
    if elsewhere {
        return Err(Failure::differs());
    }
    Ok(())
}

fn registry(file: &Path) -> Result<Registry, Failure> {
    check::check(file).map_err(|error| error.lines(file).join("\n").into())
}

fn lines(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    match File::open(file) {
        Ok(file) => Ok(Box::new(BufReader::new(file))),
        Err(error) => Err(format!("{}: {error}", file.display()).into()),
    }
}

fn compare(arguments: &Simulate, live: &Registry, draft: &Registry) -> Result<Outcome, Failure> {
    let place = if arguments.on_fly {
        on_fly()
    } else {
        super::serve::place()
    };
    let mut outcome = Outcome::default();
    let mut moved: BTreeMap<(String, String), Moved> = BTreeMap::new();
    for line in lines(&arguments.log)?.lines() {
        let line = line.map_err(|error| format!("{}: {error}", arguments.log.display()))?;
        let question = serde_json::from_str(&line)
            .ok()
            .and_then(|line| question(&line, &place, arguments.replay_max_bytes));
        let Some(question) = question else {
            outcome.skipped += 1;
            continue;
        };
        let (Ok(from), Ok(to)) = (explain(live, &question), explain(draft, &question)) else {
            outcome.skipped += 1;
            continue;
        };
        outcome.requests += 1;
        let (from, to) = (goes(from), goes(to));
        if from == to {
            continue;
        }
        outcome.elsewhere += 1;
        let first = || Moved {
            requests: 0,
            from: from.0.clone(),
            to: to.0.clone(),
            example: format!("{} {}", question.method, question.url),
        };
        let key = (from.0.clone(), to.0.clone());
        moved.entry(key).or_insert_with(first).requests += 1;
    }
    outcome.moved = moved.into_values().collect();
    outcome
        .moved
        .sort_by_key(|moved| std::cmp::Reverse(moved.requests));
    Ok(outcome)
}

fn question(line: &Line, place: &Place, replay_max_bytes: u64) -> Option<Question> {
    Some(Question {
        method: line.method.parse().ok()?,
        url: format!("http://{}{}", line.host, line.path).parse().ok()?,
        headers: HeaderMap::new(),
        body: match line.bytes_in {
            0 => BodyLength::None,
            bytes => BodyLength::Known(bytes),
        },
        place: place.clone(),
        https_redirect: None,
        replay_max_bytes,
        asleep: false,
        state: CellState::default(),
    })
}

/// Where a request goes, for a table, and what it is sent as.
fn goes(explanation: Explanation) -> (String, Option<String>, Option<String>) {
    let cell = explanation.cell.as_deref().unwrap_or("no cell");
    let told = match explanation.lane {
        "answer" => format!("{cell}, {}", explanation.reason),
        lane => format!("{cell}, {lane}"),
    };
    let told = match &explanation.to {
        Some(to) => format!("{told} to {to}"),
        None => told,
    };
    (told, explanation.to, explanation.target)
}

fn text(outcome: &Outcome) -> String {
    let rows: Vec<_> = outcome
        .moved
        .iter()
        .map(|moved| {
            let requests = moved.requests.to_string();
            let texts = [&requests, &moved.from, &moved.to, &moved.example];
            texts.map(|text| (text.clone(), None)).to_vec()
        })
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text = table(&["REQUESTS", "NOW", "BY THE DRAFT", "FIRST"], &rows);
    }
    let Outcome {
        requests,
        skipped,
        elsewhere,
        ..
    } = outcome;
    text + &format!(
        "{elsewhere} of {requests} requests would go elsewhere; {skipped} lines skipped\n"
    )
}
