//! The whole system by hand on one computer: router, edge, Machines API, private DNS, and three cells asleep.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use integration_tests::fly::{Fly, MachineSpec, Options};
use integration_tests::{Binaries, Router, RouterOptions};
use serde_json::json;
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
    let mut cells = serde_json::Map::new();
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
    let text = json!({ "version": 1, "domain": "localhost", "cells": cells });
    let text = serde_json::to_string_pretty(&text).map_err(|error| error.to_string())?;
    std::fs::write(&registry, text + "\n").map_err(|error| error.to_string())?;

    router.registry_file = Some(registry.clone());
    router.echo = Some(|name, line| eprintln!("{name} | {line}"));
    if std::io::stderr().is_terminal() {
        // In text form the log is for people, so the port is chosen here.
        router.log_format = Some("text");
        router.listen = Some(free_port()?);
    }
    let router = Router::start(router).await;
    fly.attach(ROUTER.0, ROUTER.1, router.addr())
        .map_err(|error| error.to_string())?;
    println!("{}", what_to_try(door, &registry));

    tokio::select! {
        // A terminal's Ctrl-C reaches the router too; that it ends then is no failure.
        biased;
        () = stop.told() => {
            println!("Stopping everything.");
            Ok(())
        }
        status = router.exited() => Err(format!("the router ended: {status}")),
    }
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
