//! The commands.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cell_router::config::{Config, FlyPlace, LogFormat, Place, REPLAY_MAX_BYTES, Settings};
use cell_router::control::check;
use cell_router::control::explain::{self, Question};
use cell_router::decision::{BodyLength, CellState};
use cell_router::registry;
use clap::{Args, Parser, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tracing_subscriber::EnvFilter;

/// The front door for applications that give every tenant a machine of its own.
#[derive(Debug, Parser)]
#[command(name = "cell-router", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests.
    Serve(Box<Settings>),
    /// Check a registry file: all problems at once, each at its place. Exit code 1 if there is any.
    Check(Check),
    /// Say where a request would go and why, by the same decision that the router takes.
    Explain(Box<Explain>),
    /// Print the registry's JSON Schema.
    Schema,
}

#[derive(Debug, Args)]
struct Check {
    /// The registry file.
    #[arg(env = "CELL_ROUTER_REGISTRY", default_value = "registry.json")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Explain {
    /// The method, such as GET.
    method: Method,
    /// The whole URL, such as http://alice.example.com/posts?page=2.
    url: Uri,
    /// The registry file.
    #[arg(long, env = "CELL_ROUTER_REGISTRY", default_value = "registry.json")]
    registry: PathBuf,
    /// The body's length in bytes.
    #[arg(long, value_name = "N", conflicts_with = "chunked")]
    body_bytes: Option<u64>,
    /// The body's length is unknown: chunked, or HTTP/2 without a content-length.
    #[arg(long)]
    chunked: bool,
    /// A header line, as curl takes it; may be given more than once.
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = explain::header_line)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// As if the cell's machine were asleep.
    #[arg(long)]
    asleep: bool,
    /// As if the cell's breaker kept requests from it for so many seconds more.
    #[arg(long, value_name = "N")]
    breaker_open_s: Option<u64>,
    /// As if the router ran on Fly.io and the request came through its edge (known from FLY_MACHINE_ID otherwise).
    #[arg(long)]
    on_fly: bool,
    /// As if requests by plain HTTP were redirected to https.
    #[arg(long, env = "CELL_ROUTER_HTTPS_REDIRECT", value_parser = clap::builder::FalseyValueParser::new())]
    https_redirect: bool,
    /// The largest body in bytes that is answered with a replay.
    #[arg(long, env = "CELL_ROUTER_REPLAY_MAX_BYTES", default_value_t = REPLAY_MAX_BYTES)]
    replay_max_bytes: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(settings) => serve(*settings),
        Command::Check(arguments) => check(&arguments),
        Command::Explain(arguments) => explain(*arguments),
        Command::Schema => print(&registry::schema()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn place() -> Place {
    Place::from_env(|name| std::env::var(name).ok())
}

fn serve(settings: Settings) -> Result<(), String> {
    let config = settings.into_config(place(), std::io::stdout().is_terminal());
    log_to_stderr(&config);
    cell_router::run(config).map_err(|error| error.to_string())
}

fn log_to_stderr(config: &Config) {
    let filter = EnvFilter::try_from_env("CELL_ROUTER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hickory_resolver=error,hickory_net=error"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match config.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}

fn check(arguments: &Check) -> Result<(), String> {
    let file = &arguments.file;
    let registry = check::check(file).map_err(|error| {
        let lines = error.lines(file);
        let plural = if lines.len() == 1 {
            "problem"
        } else {
            "problems"
        };
        format!("{}\n{} {plural}", lines.join("\n"), lines.len())
    })?;
    print(&format!(
        "{}: {} cells, no problem\n",
        file.display(),
        registry.len()
    ))
}

fn explain(arguments: Explain) -> Result<(), String> {
    let file = &arguments.registry;
    let registry = check::check(file).map_err(|error| error.lines(file).join("\n"))?;
    let on_fly = || {
        Place::Fly(FlyPlace {
            app: String::new(),
            machine: String::new(),
            region: String::new(),
        })
    };
    let question = Question {
        method: arguments.method,
        url: arguments.url,
        headers: HeaderMap::from_iter(arguments.header),
        body: match (arguments.body_bytes, arguments.chunked) {
            (_, true) => BodyLength::Unknown,
            (Some(bytes), false) => BodyLength::Known(bytes),
            (None, false) => BodyLength::None,
        },
        place: if arguments.on_fly { on_fly() } else { place() },
        https_redirect: arguments.https_redirect.then_some(443),
        replay_max_bytes: arguments.replay_max_bytes,
        asleep: arguments.asleep,
        state: CellState {
            refused_for: arguments.breaker_open_s.map(Duration::from_secs),
            ..CellState::default()
        },
    };
    let explanation = explain::explain(&registry, &question).map_err(|error| error.to_string())?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&explanation).map_err(|error| error.to_string())?;
        print(&format!("{json}\n"))
    } else {
        print(&explanation.to_string())
    }
}

fn print(text: &str) -> Result<(), String> {
    // Whoever reads our output may stop doing so.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}
