//! One tenant's cell: posts in SQLite, uploads on its own volume, live pushes.
//!
//! A request passes `server` (bytes), `entrance` (is it ours, and did it come through the front door?), and then
//! the routes of `app`. A cell knows its tenant only through its settings; nothing here knows of another tenant.

mod app;
mod beat;
mod config;
mod entrance;
mod files;
mod front_door;
mod identity;
mod lingering;
mod live;
mod pages;
mod posts;
mod server;
mod store;
mod whoami;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// How long blocking disk work may go on once the server has returned.
const DISK_GRACE: Duration = Duration::from_secs(2);

/// The process: settings in, exit code out.
pub fn main() -> ExitCode {
    let settings = config::Settings::parse();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_env_filter(tracing_subscriber::EnvFilter::new(&settings.log))
        .init();
    let config = match config::Config::try_from(settings) {
        Ok(config) => config,
        Err(problem) => {
            tracing::error!(%problem, "settings refused");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(problem) => {
            tracing::error!(%problem, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(server::run(config));
    runtime.shutdown_timeout(DISK_GRACE);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!(%problem, "failed");
            ExitCode::FAILURE
        }
    }
}
