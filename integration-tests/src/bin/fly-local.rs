//! The whole system by hand on one computer: router, edge, Machines API, private DNS, and three cells asleep.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use integration_tests::fly::{Fly, MachineSpec, Options};
use integration_tests::{Binaries, Router, RouterOptions};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs a Fly.io on this computer: an edge, a router behind it, and three cells asleep.
#[derive(Debug, Parser)]
#[command(name = "fly-local", version)]
struct Arguments {
    /// Address of the public edge.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Folder for volumes, secrets and the registry, which is written anew at each start; a temporary one, removed at
    /// the end, when absent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Seconds without work after which a cell falls asleep; 0 is never.
    #[arg(long, default_value_t = 60)]
    idle_stop_s: u32,
    /// JSON file of further cells: by name, the shell `command` that runs one (told where to listen by `CELL_LISTEN`,
    /// where to keep its data by `CELL_DATA`), and what else its registry `entry` holds.
    #[arg(long)]
    cells: Option<PathBuf>,
    /// Address of a second router, off Fly and with no edge before it, for the same cells.
    #[arg(long)]
    direct: Option<SocketAddr>,
    /// Address at which the second router speaks TLS.
    #[arg(long, requires_all = ["direct", "tls_certificates"])]
    tls_listen: Option<SocketAddr>,
    /// Folder of the second router's certificates.
    #[arg(long)]
    tls_certificates: Option<PathBuf>,
    /// File to write once everything runs: where all of it listens, as JSON.
    #[arg(long)]
    describe: Option<PathBuf>,
}

/// A further cell, as `--cells` tells of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Further {
    command: String,
    #[serde(default)]
    entry: Map<String, Value>,
}

/// The cells: name and machine id.
const CELLS: [(&str, &str); 3] = [
    ("alice", "148e21ea7de401"),
    ("bob", "148e21ea7de402"),
    ("carol", "148e21ea7de403"),
];
/// The router's machine.
const ROUTER: (&str, &str) = ("cell-router", "148e21ea7de400");
/// App of the cells.
const CELL_APP: &str = "blog-cells";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads");
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("fly-local: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let binaries = Binaries::built();
    // From here on every end is an orderly one, which leaves no process behind.
    let mut stop = Stop::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let temporary = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let data = arguments
        .data
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&data)
        .map_err(|error| format!("cannot create {}: {error}", data.display()))?;
    let data = data.canonicalize().map_err(|error| error.to_string())?;

    let options = Options {
        cell_binary: Some(binaries.cell_app.clone()),
        data: Some(data.join("volumes")),
        ..Options::default()
    };
    let mut fly = Fly::with(options)
        .await
        .map_err(|error| format!("cannot start: {error}"))?;
    // First of all, so that a busy port is reported before anything runs.
    let door = fly.listen_on(ROUTER.0, 80, arguments.listen).await;
    let door = door.map_err(|error| {
        format!(
            "cannot listen on {}: {error}; choose another with --listen 127.0.0.1:PORT",
            arguments.listen
        )
    })?;

    let registry = data.join("registry.json");
    let mut router = RouterOptions {
        binary: Some(binaries.cell_router.clone()),
        ..RouterOptions::new("")
    }
    .on_fly(&fly, ROUTER.0, ROUTER.1);
    let mut cells = Map::new();
    for (name, id) in CELLS {
        let variable = format!("CELL_SECRET_{}", name.to_uppercase());
        let secret = secret(&data.join(format!("{name}.secret")))?;
        let path = format!("/{name}");
        let spec = MachineSpec::cell(CELL_APP, name)
            .id(id)
            .secret(&secret)
            .base_path(&path)
            .idle_stop_s(arguments.idle_stop_s.into());
        let machine = fly.machine(spec).map_err(|error| error.to_string())?;
        router = router.env(&variable, &secret);
        let entry = json!({
            "app": CELL_APP, "machine": id, "port": machine.address().port(),
            "paths": [path], "secret": { "env": variable },
        });
        cells.insert(name.to_owned(), entry);
    }
    for (name, cell) in further(arguments.cells.as_deref())? {
        let entry = run_by_command(&fly, &name, cell)?;
        cells.insert(name, entry);
    }
    let text = json!({ "version": 1, "domain": "localhost", "cells": cells });
    let text = serde_json::to_string_pretty(&text).map_err(|error| error.to_string())?;
    std::fs::write(&registry, text + "\n").map_err(|error| error.to_string())?;

    router.registry_file = Some(registry.clone());
    router.echo = Some(|name, line| eprintln!("{name} | {line}"));
    let mut direct = match arguments.direct {
        Some(address) => Some(past_the_edge(&router, address, &arguments, &fly).await),
        None => None,
    };
    if std::io::stderr().is_terminal() {
        // In text form the log is for people, so the port is chosen here.
        router.log_format = Some("text");
        router.listen = Some(free_port()?);
    }
    let router = Router::start(router).await;
    fly.attach(ROUTER.0, ROUTER.1, router.addr())
        .map_err(|error| error.to_string())?;
    println!("{}", what_to_try(door, &registry));
    if let Some(file) = &arguments.describe {
        let (address, tls) = match &direct {
            Some((router, tls)) => (Some(router.addr()), *tls),
            None => (None, None),
        };
        let described = json!({
            "edge": door, "router": router.addr(), "direct": address, "tls": tls, "dns": fly.dns_addr(),
            "api": fly.api_url(), "token": fly.token(), "registry": registry, "cells": cells,
        });
        std::fs::write(file, described.to_string())
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }

    tokio::select! {
        // A terminal's Ctrl-C reaches the router too; that it ends then is no failure.
        biased;
        () = stop.told() => {
            println!("Stopping everything.");
            Ok(())
        }
        status = router.exited() => Err(format!("the router ended: {status}")),
        status = ended(direct.as_mut().map(|(router, _)| router)) => {
            Err(format!("the router without an edge ended: {status}"))
        }
    }
}

/// The end of a router, if there is one.
async fn ended(router: Option<&mut Router>) -> std::process::ExitStatus {
    match router {
        Some(router) => router.exited().await,
        None => std::future::pending().await,
    }
}

/// The cells of `--cells`.
fn further(file: Option<&Path>) -> Result<BTreeMap<String, Further>, String> {
    let Some(file) = file else {
        return Ok(BTreeMap::new());
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// A machine that runs a command, asleep; its entry in the registry.
fn run_by_command(fly: &Fly, name: &str, cell: Further) -> Result<Value, String> {
    let shell = ["-c".to_owned(), format!("exec {}", cell.command)];
    let spec = MachineSpec {
        program: Some(("/bin/sh".into(), shell.into())),
        ..MachineSpec::cell(CELL_APP, name)
    };
    let machine = fly.machine(spec).map_err(|error| error.to_string())?;
    let mut entry = cell.entry;
    let placed =
        json!({ "app": CELL_APP, "machine": machine.id, "port": machine.address().port() });
    if let Value::Object(placed) = placed {
        entry.extend(placed);
    }
    Ok(entry.into())
}

/// A router for the same registry that is not on Fly, and where it speaks TLS.
async fn past_the_edge(
    like: &RouterOptions,
    address: SocketAddr,
    arguments: &Arguments,
    fly: &Fly,
) -> (Router, Option<SocketAddr>) {
    let secrets = like
        .env
        .iter()
        .filter(|(name, _)| name.starts_with("CELL_SECRET_"));
    let mut options = RouterOptions {
        binary: like.binary.clone(),
        registry_file: like.registry_file.clone(),
        echo: like.echo,
        listen: Some(address),
        env: secrets
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        ..RouterOptions::new("")
    };
    let (api, dns) = (fly.api_url(), fly.dns_addr().to_string());
    options = options.env("CELL_ROUTER_FLY_API_TOKEN", fly.token()).args([
        "--fly-api-url",
        &api,
        "--dns-server",
        &dns,
    ]);
    let tls = arguments
        .tls_listen
        .zip(arguments.tls_certificates.as_ref());
    if let Some((address, folder)) = tls {
        let (address, folder) = (address.to_string(), folder.display().to_string());
        options = options.args(["--tls-listen", &address, "--tls-certificates", &folder]);
    }
    let router = Router::start(options).await;
    if tls.is_none() {
        return (router, None);
    }
    let event = router.next_event(|event| event["message"] == "listening" && event["tls"] == true);
    let event = event.await;
    let address = event["address"].as_str().and_then(|text| text.parse().ok());
    (router, address)
}

/// The signals that end everything: Ctrl-C, a service manager's word, and a terminal that closes.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn told(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A cell's secret: made once, kept beside its volume.
fn secret(file: &Path) -> Result<String, String> {
    if let Ok(kept) = std::fs::read_to_string(file) {
        return Ok(kept.trim().to_owned());
    }
    let random = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new());
    let random = random
        .map_err(|_| "the system has no random bytes")?
        .expose();
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(file, &hex)
        .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Ok(hex)
}

fn free_port() -> Result<SocketAddr, String> {
    let found =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    found.map_err(|error| error.to_string())
}

fn what_to_try(door: SocketAddr, registry: &Path) -> String {
    let port = door.port();
    format!(
        "
Everything runs; the cells alice, bob and carol are asleep. Ctrl-C stops it all.

In a browser:   http://alice.localhost:{port}/

In another terminal:
  curl http://alice.localhost:{port}/                             # by subdomain
  curl http://localhost:{port}/alice/                             # by path
  curl -d title=Hello -d body=World http://alice.localhost:{port}/posts   # small: the replay lane

  head -c 1073741824 /dev/urandom > big.bin                      # 1 GiB to a cell that sleeps: the stream lane
  curl -T big.bin http://bob.localhost:{port}/files/big.bin       # prints the SHA-256 that the cell computed
  sha256sum big.bin

The registry; edit it, and the next request follows it:
  {}
",
        registry.display()
    )
}
