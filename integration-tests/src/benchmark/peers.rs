//! The proxies: each on a processor of its own, before the same cell, with the same hosts in its table, an access log, and
//! its settings as its own documents advise them for this work.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, json};
use tempfile::TempDir;

use crate::tls::Tls;

/// The host for which a proxy answers by itself.
pub const OWN: &str = "own.example.org";

/// The host of a cell.
pub fn host(cell: usize) -> String {
    format!("cell-{cell}.example.org")
}

/// What every proxy is given.
#[derive(Debug, Clone)]
pub struct Given {
    /// The cell.
    pub upstream: SocketAddr,
    /// Hosts in its table.
    pub cells: usize,
    /// Its certificate.
    pub tls: Tls,
    /// Whether it is to be told of changes while it serves.
    pub changes: bool,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Peer {
    /// What it is called.
    pub name: String,
    doors: Doors,
    cells: usize,
    certificate: Tls,
    child: Child,
    change: Change,
    changes: Cell<usize>,
    _folder: TempDir,
}

/// Where a proxy speaks what.
#[derive(Debug, Clone, Copy)]
struct Doors {
    http1: SocketAddr,
    http2: SocketAddr,
    tls: SocketAddr,
}

/// How a proxy learns that its table has changed.
#[derive(Debug)]
enum Change {
    /// Its file is another one.
    File {
        registry: PathBuf,
        others: [PathBuf; 2],
    },
    Signal(Signal),
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended. A master ends its workers first when it is asked to; so what they took is known, too.
        let signal = match self.change {
            Change::File { .. } => Signal::KILL,
            Change::Signal(_) => Signal::TERM,
        };
        let _ = kill_process(Pid::from_child(&self.child), signal);
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.doors.http1
    }

    /// Where it speaks HTTP/2 without TLS.
    pub fn http2(&self) -> SocketAddr {
        self.doors.http2
    }

    /// Where it speaks TLS.
    pub fn tls(&self) -> SocketAddr {
        self.doors.tls
    }

    /// By what it is known there.
    pub fn certificate(&self) -> &Tls {
        &self.certificate
    }

    /// Hosts in its table.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Changes its table in one entry.
    ///
    /// # Errors
    /// It has ended.
    pub fn change(&self) -> io::Result<()> {
        let number = self.changes.replace(self.changes.get() + 1);
        match &self.change {
            Change::File { registry, others } => {
                // What is renamed was written before: nothing else has to be done now.
                let fresh = registry.with_extension("fresh");
                fs::hard_link(&others[number % others.len()], &fresh)?;
                fs::rename(&fresh, registry)
            }
            Change::Signal(signal) => Ok(kill_process(Pid::from_child(&self.child), *signal)?),
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It ended otherwise.
    pub fn stop(mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} ended: {status}", self.name))),
        }
    }

    /// Processor time so far, of all its threads, in nanoseconds.
    ///
    /// # Errors
    /// It has ended.
    pub fn busy(&self) -> io::Result<u64> {
        self.busy_of("")
    }

    /// The same of the threads whose names begin so.
    ///
    /// # Errors
    /// It has ended.
    pub fn busy_of(&self, name: &str) -> io::Result<u64> {
        let mut all = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let thread = thread?.path();
            if !fs::read_to_string(thread.join("comm"))?.starts_with(name) {
                continue;
            }
            let text = fs::read_to_string(thread.join("schedstat"))?;
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
        self.memory("VmHWM:")
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident(&self) -> io::Result<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = kib.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.unwrap_or(0) * 1024)
    }

    /// The router: signed, logged, with its limits, as behind Fly's edge.
    ///
    /// # Errors
    /// It does not start.
    pub async fn router(
        given: &Given,
        binary: &Path,
        name: &str,
        args: &[String],
    ) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let doors = Doors::free()?;
        let registry = folder.path().join("registry.json");
        let others = ["a", "b"].map(|name| folder.path().join(name));
        fs::write(&registry, given.registry(0))?;
        if given.changes {
            for (other, number) in others.iter().zip(1..) {
                fs::write(other, given.registry(number))?;
            }
        }
        let certificates = folder.path().join("certificates");
        fs::create_dir(&certificates)?;
        fs::copy(&given.tls.file, certificates.join("all.pem"))?;
        let mut command = pinned(binary);
        command
            .args([
                "serve",
                "--workers",
                "1",
                "--log-format",
                "json",
                "--listen",
                &doors.http1.to_string(),
                "--tls-listen",
                &doors.tls.to_string(),
                "--tls-certificates",
            ])
            .arg(&certificates)
            .args([
                "--trusted-proxies",
                "127.0.0.1/32",
                "--pool-size",
                "256",
                "--idle-timeout-ms",
                "600000",
                "--registry",
            ])
            .arg(&registry)
            .args(args)
            .env(
                "CELL_SECRET",
                "a benchmark's secret, which is 32 bytes or more",
            )
            .env("FLY_APP_NAME", "front")
            .env("FLY_MACHINE_ID", "148e21ea7de489")
            .env("FLY_REGION", "ams");
        let doors = Doors {
            http2: doors.http1,
            ..doors
        };
        let change = Change::File { registry, others };
        start(name, given, command, doors, change, folder).await
    }

    /// nginx from Debian's package.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn nginx(given: &Given, name: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let doors = Doors::free()?;
        let Doors { http1, http2, tls } = doors;
        let upstream = given.upstream;
        let certificate = given.tls.file.display();
        let master = if given.changes { "on" } else { "off" };
        let places = (4 * given.cells).max(2048);
        let mut map = String::new();
        for cell in 0..given.cells {
            let _ = writeln!(map, "{} cells;", host(cell));
        }
        fs::write(folder.path().join("hosts.map"), map)?;
        let text = format!(
            "daemon off; master_process {master}; worker_processes 1; user root; pid nginx.pid; error_log stderr crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 12000; }}
http {{
  log_format line '$remote_addr $request_id [$time_iso8601] \"$request\" $host $status $bytes_sent $upstream_addr $request_time';
  access_log access.log line buffer=64k flush=1s;
  client_body_temp_path body; proxy_temp_path proxied; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  tcp_nodelay on;
  client_max_body_size 0;
  map_hash_max_size {places}; map_hash_bucket_size 128;
  map $host $cell {{ default ''; include hosts.map; }}
  upstream cells {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {http1} default_server backlog=4096;
    listen {http2} default_server http2;
    listen {tls} default_server ssl;
    ssl_certificate {certificate}; ssl_certificate_key {certificate};
    ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;
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
    location /echo {{
      proxy_pass http://$cell;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Request-Id $request_id;
    }}
  }}
  server {{
    listen {http1}; server_name {OWN};
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
        let change = Change::Signal(Signal::HUP);
        start(name, given, command, doors, change, folder).await
    }

    /// HAProxy from Debian's package.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn haproxy(given: &Given, name: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let doors = Doors::free()?;
        let Doors { http1, http2, tls } = doors;
        let upstream = given.upstream;
        let certificate = given.tls.file.display();
        let mut map = String::new();
        for cell in 0..given.cells {
            let _ = writeln!(map, "{} cells", host(cell));
        }
        let hosts = folder.path().join("hosts.map");
        fs::write(&hosts, map)?;
        let text = format!(
            "global
  nbthread 1
  maxconn 12000
  no strict-limits
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
  bind {http1} backlog 4096
  bind {http2} proto h2
  bind {tls} ssl crt {certificate} alpn http/1.1 curves X25519 ssl-min-ver TLSv1.3
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
        let process = if given.changes { "-W" } else { "-db" };
        command.arg(process).arg("-f").arg(&file);
        let change = Change::Signal(Signal::USR2);
        start(name, given, command, doors, change, folder).await
    }

    /// Caddy from Debian's package.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn caddy(given: &Given, name: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let doors = Doors::free()?;
        let hosts: Vec<_> = (0..given.cells).map(host).collect();
        let routes = json!([
            {
                "match": [{ "host": [OWN] }],
                "handle": [{
                    "handler": "static_response",
                    "status_code": 409,
                    "headers": { "fly-replay": ["app=cells;instance=3d8d9e67c2e123;state=x"] },
                    "body": "replay",
                }],
            },
            {
                "match": [{ "host": hosts }],
                "handle": [{
                    "handler": "reverse_proxy",
                    "upstreams": [{ "dial": given.upstream.to_string() }],
                    "transport": {
                        "protocol": "http",
                        "compression": false,
                        "keep_alive": { "max_idle_conns_per_host": 256 },
                    },
                    "headers": { "request": { "set": { "X-Request-Id": ["{http.request.uuid}"] } } },
                }],
            },
        ]);
        let server = |door: SocketAddr, protocols: &[&str]| {
            json!({
                "listen": [door.to_string()],
                "protocols": protocols,
                "idle_timeout": 600_000_000_000_u64,
                "automatic_https": { "disable": true },
                "routes": routes,
                "logs": { "default_logger_name": "all" },
            })
        };
        let mut tls = server(doors.tls, &["h1"]);
        tls["tls_connection_policies"] =
            json!([{ "curves": ["x25519"], "protocol_min": "tls1.3" }]);
        let certificate = &given.tls.file;
        let log = folder.path().join("access.log");
        let config = json!({
            "admin": { "disabled": true, "config": { "persist": false } },
            "logging": { "logs": {
                "default": { "level": "ERROR", "exclude": ["http.log.access"] },
                "access": {
                    "include": ["http.log.access.all"],
                    "writer": { "output": "file", "filename": log, "roll": false },
                    "encoder": { "format": "json" },
                },
            } },
            "apps": {
                "http": { "servers": {
                    "http1": server(doors.http1, &["h1"]),
                    "http2": server(doors.http2, &["h1", "h2c"]),
                    "tls": tls,
                } },
                "tls": { "certificates": {
                    "load_files": [{ "certificate": certificate, "key": certificate }],
                } },
            },
        });
        let file = folder.path().join("caddy.json");
        fs::write(&file, config.to_string())?;
        let mut command = pinned("caddy");
        command.arg("run").arg("--config").arg(&file);
        let change = Change::Signal(Signal::USR1);
        start(name, given, command, doors, change, folder).await
    }
}

/// The first processor is the proxy's alone; whoever loads it takes the other, and when that one ends, it ends too.
fn pinned(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", "0", "setpriv", "--pdeathsig", "TERM", "--"])
        .arg(program);
    command
}

impl Doors {
    fn free() -> io::Result<Self> {
        // Held together, so that no port is given twice.
        let free = || std::net::TcpListener::bind("127.0.0.1:0");
        let [http1, http2, tls] = [free()?, free()?, free()?];
        Ok(Self {
            http1: http1.local_addr()?,
            http2: http2.local_addr()?,
            tls: tls.local_addr()?,
        })
    }
}

impl Given {
    /// The router's registry after `change` changes.
    fn registry(&self, change: usize) -> String {
        let secret = json!({ "env": "CELL_SECRET" });
        let mut cells: Map<_, _> = (0..self.cells)
            .map(|cell| {
                let address = self.upstream.to_string();
                let entry = json!({ "address": address, "identity": "none", "secret": secret });
                (format!("cell-{cell}"), entry)
            })
            .collect();
        let port = 8080 + change;
        let own = json!({ "machine": "3d8d9e67c2e123", "app": "cells", "port": port, "replay": "strict", "secret": secret });
        cells.insert("own".into(), own);
        json!({ "version": 1, "domain": "example.org", "cells": cells }).to_string()
    }
}

async fn start(
    name: &str,
    given: &Given,
    mut command: Command,
    doors: Doors,
    change: Change,
    folder: TempDir,
) -> io::Result<Peer> {
    let log = File::create(folder.path().join("log"))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut peer = Peer {
        name: name.to_owned(),
        doors,
        cells: given.cells,
        certificate: given.tls.clone(),
        child,
        change,
        changes: Cell::new(0),
        _folder: folder,
    };
    while TcpStream::connect(doors.http1).is_err() {
        if let Some(status) = peer.child.try_wait()? {
            let said = fs::read_to_string(peer._folder.path().join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("{name} ended: {status}\n{said}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(peer)
}
