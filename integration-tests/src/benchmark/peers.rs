//! The proxies: each on a processor of its own, before the same cell, with 100,000 hosts in its table, an access log, and
//! its settings as its own documents advise them for this work.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Map, json};
use tempfile::TempDir;

/// Hosts in every table.
pub const CELLS: usize = 100_000;
/// The host for which a proxy answers by itself.
pub const OWN: &str = "own.example.org";

/// The host of a cell.
pub fn host(cell: usize) -> String {
    format!("cell-{cell}.example.org")
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Peer {
    /// What it is called.
    pub name: &'static str,
    address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Processor time so far, of all its threads, in nanoseconds.
    ///
    /// # Errors
    /// It has ended.
    pub fn busy(&self) -> io::Result<u64> {
        let mut all = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            all += text
                .split(' ')
                .next()
                .and_then(|first| first.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(all)
    }

    /// Waits until it does nothing more.
    ///
    /// # Errors
    /// It has ended.
    pub async fn settle(&self, mut before: u64) -> io::Result<()> {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = self.busy()?;
            if now - before < 100_000 {
                return Ok(());
            }
            before = now;
        }
    }

    /// Its peak resident memory in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn peak(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = kib.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.unwrap_or(0) * 1024)
    }

    /// The router: signed, logged, with its limits, as behind Fly's edge.
    ///
    /// # Errors
    /// It does not start.
    pub async fn router(
        binary: &Path,
        upstream: SocketAddr,
        name: &'static str,
        args: &[&str],
    ) -> io::Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free()?);
        let mut cells: Map<_, _> = (0..CELLS)
            .map(|cell| {
                let entry = json!({ "address": upstream.to_string(), "identity": "none", "secret": { "env": "CELL_SECRET" } });
                (format!("cell-{cell}"), entry)
            })
            .collect();
        cells.insert("own".into(), json!({ "machine": "3d8d9e67c2e123", "app": "cells", "replay": "strict", "secret": { "env": "CELL_SECRET" } }));
        let registry = json!({ "version": 1, "domain": "example.org", "cells": cells });
        let file = folder.path().join("registry.json");
        fs::write(&file, registry.to_string())?;
        let mut command = pinned(binary);
        command
            .args([
                "serve",
                "--workers",
                "1",
                "--log-format",
                "json",
                "--listen",
                &address.to_string(),
            ])
            .args([
                "--trusted-proxies",
                "127.0.0.1/32",
                "--pool-size",
                "256",
                "--registry",
            ])
            .arg(&file)
            .args(args)
            .env(
                "CELL_SECRET",
                "a benchmark's secret, which is 32 bytes or more",
            )
            .env("FLY_APP_NAME", "front")
            .env("FLY_MACHINE_ID", "148e21ea7de489")
            .env("FLY_REGION", "ams");
        start(name, command, address, folder).await
    }

    /// nginx from Debian's package.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn nginx(upstream: SocketAddr) -> io::Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free()?);
        let mut map = String::new();
        for cell in 0..CELLS {
            let _ = writeln!(map, "{} cells;", host(cell));
        }
        fs::write(folder.path().join("hosts.map"), map)?;
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
  log_format line '$remote_addr $request_id [$time_iso8601] \"$request\" $host $status $bytes_sent $upstream_addr $request_time';
  access_log access.log line buffer=64k flush=1s;
  client_body_temp_path body; proxy_temp_path proxied; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  tcp_nodelay on;
  client_max_body_size 0;
  map_hash_max_size 400000; map_hash_bucket_size 128;
  map $host $cell {{ default ''; include hosts.map; }}
  upstream cells {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {address} default_server;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_buffer_size 16k; proxy_buffers 8 64k; client_body_buffer_size 64k;
    proxy_set_header Connection '';
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Request-Id $request_id;
    location / {{ proxy_pass http://$cell; }}
  }}
  server {{
    listen {address}; server_name {OWN};
    location / {{ add_header fly-replay 'app=cells;instance=3d8d9e67c2e123;state=x' always; return 409 'replay'; }}
  }}
}}
"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, text)?;
        let mut command = pinned("nginx");
        command
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"]);
        start("nginx", command, address, folder).await
    }

    /// HAProxy from Debian's package.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn haproxy(upstream: SocketAddr) -> io::Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free()?);
        let mut map = String::new();
        for cell in 0..CELLS {
            let _ = writeln!(map, "{} cells", host(cell));
        }
        let hosts = folder.path().join("hosts.map");
        fs::write(&hosts, map)?;
        let text = format!(
            "global
  nbthread 1
  maxconn 4096
  tune.pipesize 1048576
  tune.maxpollevents 200
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option forwardfor
  option splice-request
  option splice-response
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 600s
frontend front
  bind {address}
  unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  http-request return status 409 content-type text/plain string replay hdr fly-replay 'app=cells;instance=3d8d9e67c2e123;state=x' if {{ req.hdr(host) -m str {OWN} }}
  http-request set-header X-Forwarded-Proto http
  use_backend %[req.hdr(host),field(1,:),lower,map({hosts},nobody)]
  default_backend nobody
backend nobody
  http-request return status 404
backend cells
  server cell {upstream} pool-max-conn 256
",
            hosts = hosts.display()
        );
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text)?;
        let mut command = pinned("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        start("HAProxy", command, address, folder).await
    }
}

/// The first processor is the proxy's alone; whoever loads it takes the other.
fn pinned(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

fn free() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

async fn start(
    name: &'static str,
    mut command: Command,
    address: SocketAddr,
    folder: TempDir,
) -> io::Result<Peer> {
    let log = File::create(folder.path().join("log"))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut peer = Peer {
        name,
        address,
        child,
        _folder: folder,
    };
    while TcpStream::connect(address).is_err() {
        if let Some(status) = peer.child.try_wait()? {
            let said = fs::read_to_string(peer._folder.path().join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("{name} ended: {status}\n{said}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(peer)
}
