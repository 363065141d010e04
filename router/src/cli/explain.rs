//! `cell-router explain`.

use std::path::PathBuf;
use std::time::Duration;

use cell_router::config::{FlyPlace, Place, REPLAY_MAX_BYTES};
use cell_router::control::explain::{self, Question};
use cell_router::decision::{BodyLength, CellState};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::backend::Backend;
use super::failure::Failure;
use super::output::{print, print_json};
use super::remote;
use super::serve::place;

#[derive(Debug, Args)]
pub(super) struct Explain {
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
    pub(super) json: bool,
}

/// The place of a router on Fly.io, as far as a decision needs it.
pub(super) fn on_fly() -> Place {
    Place::Fly(FlyPlace {
        app: String::new(),
        machine: String::new(),
        region: String::new(),
    })
}

pub(super) fn explain(arguments: Explain, router: &remote::Which) -> Result<(), Failure> {
    let file = &arguments.registry;
    let registry = Backend::new(file, router)?.registry(file)?;
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
        print_json(&explanation)
    } else {
        print(&explanation.to_string())
    }
}
