//! `cell-router serve`.

use std::io::IsTerminal as _;

use cell_router::account::output::{LAST_LINES, Output};
use cell_router::config::{Config, LogFormat, Place, Settings};
use tracing_subscriber::EnvFilter;

use super::failure::Failure;

/// Where this process runs.
pub(super) fn place() -> Place {
    Place::from_env(|name| std::env::var(name).ok())
}

pub(super) fn serve(settings: Settings) -> Result<(), Failure> {
    let config = settings.into_config(place(), std::io::stdout().is_terminal());
    let log = log_to_stderr(&config)?;
    let ran = cell_router::run(config);
    log.finish(LAST_LINES);
    ran.map_err(|error| Failure::from(error.to_string()))
}

fn log_to_stderr(config: &Config) -> Result<Output, Failure> {
    let output = Output::to(std::io::stderr(), |lines| {
        tracing::warn!(lines, "this log: dropped, for whoever reads it is too slow");
    })
    .map_err(|error| Failure::from(format!("cannot start the log's thread: {error}")))?;
    let writer = output.clone();
    let filter = EnvFilter::try_from_env("CELL_ROUTER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hickory_resolver=error,hickory_net=error"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .with_target(false);
    match config.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(output)
}
