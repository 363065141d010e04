//! What the router costs beside nginx and HAProxy: processor time for each request and each GB, in one run.
//!
//! `cargo build --release -p cell-router && cargo run --release -p integration-tests --bin benchmark`

use std::fmt::Display;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

use clap::Parser;
use integration_tests::benchmark::held::{self, Held};
use integration_tests::benchmark::others::Others;
use integration_tests::benchmark::peers::{Given, Peer};
use integration_tests::benchmark::upstream::Upstream;
use integration_tests::benchmark::{self, WORKS, reload, tables};
use integration_tests::tls::Tls;

/// Hosts in the tables of all works that do not say otherwise.
const CELLS: usize = 100_000;

/// Measures the router beside nginx and HAProxy, which have to be installed. The first processor is the proxies'.
#[derive(Debug, Parser)]
struct Args {
    /// The router's binary.
    #[arg(long, default_value = "target/release/cell-router")]
    router: PathBuf,
    /// Another build of the router, measured as one more peer, in the works that are measured for each request or GB.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Caddy is measured, too, in the same works; it has to be installed, and takes several times as long as the others.
    #[arg(long)]
    caddy: bool,
    /// Rounds after the first, which warms up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only works whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Names all works, and does none.
    #[arg(long)]
    list: bool,
    /// Does every work that is measured for each request or GB once, with the router alone, and measures nothing: for
    /// `router/optimized/record`.
    #[arg(long)]
    train: bool,
    /// Measures in the network as it is, with the machine's own congestion control, not in one made for it.
    #[arg(long)]
    here: bool,
    /// Further arguments of the router.
    #[arg(last = true)]
    args: Vec<String>,
}

/// Works that have proxies of their own.
#[derive(Debug, Clone, Copy)]
enum Apart {
    Table(usize),
    Changing,
    Reload,
    Held(Held),
}

fn apart() -> Vec<(String, Apart)> {
    let sizes = tables::SIZES.map(|cells| (format!("table of {cells} cells"), Apart::Table(cells)));
    let mut all = Vec::from(sizes);
    all.extend([
        ("registry that changes every second".into(), Apart::Changing),
        ("reload under load".into(), Apart::Reload),
        (
            "10000 idle connections".into(),
            Apart::Held(Held::Idle(10_000)),
        ),
        (
            "1000 stalled uploads".into(),
            Apart::Held(Held::Stalled(1_000)),
        ),
    ]);
    all
}

/// Set in a network that was made for the measuring.
const ENCLOSED: &str = "CELL_ROUTER_BENCHMARK_ENCLOSED";

/// Goes on in a network namespace of its own. There, connections are governed by CUBIC, as Linux has it by default: BBR, which
/// some machines prefer, spaces what is sent by timers, and between processes of one machine these cost more than the rest.
///
/// # Errors
/// There can be none, or it cannot be set up.
fn enclose() -> io::Result<()> {
    if env::var_os(ENCLOSED).is_none() {
        let mut command = Command::new("unshare");
        command.arg("--net");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let error = command.args(env::args_os()).env(ENCLOSED, "").exec();
        return Err(without("unshare", &error));
    }
    // By route: as a namespace's default, a machine may allow only what it prefers itself.
    for change in [
        "link set lo up",
        "route change local 127.0.0.1 dev lo src 127.0.0.1 table local congctl cubic",
    ] {
        let changed = Command::new("ip")
            .args(change.split(' '))
            .status()
            .map_err(|error| without("ip", &error))?;
        if !changed.success() {
            return Err(without(&format!("ip {change}"), &changed));
        }
    }
    Ok(())
}

fn without(tool: &str, why: &dyn Display) -> io::Error {
    io::Error::other(format!("{tool}: {why}; --here measures without it"))
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    if !(args.here || args.list || args.train) {
        enclose()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: Args) -> io::Result<()> {
    let works: Vec<_> = WORKS
        .iter()
        .filter(|work| work.name.contains(&args.only))
        .collect();
    let mut others = apart();
    others.retain(|(name, _)| name.contains(&args.only));
    if args.list {
        works.iter().for_each(|work| println!("{}", work.name));
        others.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    // Before anything is started: what loads leaves the first processor alone.
    let pid = std::process::id().to_string();
    Command::new("taskset").args(["-pc", "1", &pid]).output()?;
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start()?;
    let given = Given {
        upstream: upstream.address,
        cells: CELLS,
        tls: Tls::issue(folder.path(), &["*.example.org"])?,
        changes: false,
    };
    if args.train {
        return benchmark::train(&given, &args.router, &args.args).await;
    }
    let mut tables = Vec::new();
    if !works.is_empty() {
        let mut peers = benchmark::trio(&given, &args.router, &args.args).await?;
        if args.caddy {
            peers.push(Peer::caddy(&given, "Caddy").await?);
        }
        if let Some(other) = &args.against {
            peers.push(Peer::router(&given, other, "other build", &args.args).await?);
        }
        let lines = benchmark::run(&peers, &works, args.rounds).await?;
        let mut table = benchmark::table(&peers, &lines);
        for peer in &peers {
            table += &format!("{}: peak {} MiB\n", peer.name, peer.peak()? >> 20);
        }
        tables.push(table);
    }
    for (name, apart) in others {
        eprintln!("{name}");
        let (router, further, rounds) = (&args.router, &args.args[..], args.rounds);
        let others = Others::watch(&[])?;
        let table = match apart {
            Apart::Table(cells) => tables::size(&given, cells, router, further, rounds).await?,
            Apart::Changing => tables::changing(&given, router, further, rounds).await?,
            Apart::Reload => reload::run(&given, router, further, rounds).await?,
            Apart::Held(held) => held::run(&given, held, router, further, rounds).await?,
        };
        tables.push(table + &others.told(&[])?);
    }
    print!("{}", tables.join("\n"));
    Ok(())
}
