//! The proxies that are compared, each before the same cells: the router, nginx and HAProxy.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Map, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::process::Process;
use crate::{Router, RouterOptions};

/// How long a proxy may take to listen.
const START: Duration = Duration::from_secs(10);

/// The host of the case of this number.
pub fn host(number: usize) -> String {
    format!("c{number:03}.example.com")
}

/// Where a proxy listens.
#[derive(Debug, Clone, Copy)]
pub struct Front {
    /// For HTTP/1.1.
    pub http1: SocketAddr,
    /// For HTTP/2 without TLS, with prior knowledge.
    pub http2: SocketAddr,
}

/// The router before these cells, one for each case in turn.
pub async fn router(cells: &[SocketAddr], binary: PathBuf) -> Router {
    let entries: Map<_, _> = cells
        .iter()
        .enumerate()
        .map(|(number, cell)| {
            let entry = json!({ "address": cell.to_string() });
            (format!("c{number:03}"), entry)
        })
        .collect();
    let registry = json!({ "version": 1, "domain": "example.com", "cells": entries });
    let mut options = RouterOptions::new(registry.to_string()).args(["--workers", "1"]);
    options.binary = Some(binary);
    Router::start(options).await
}

/// A running proxy of another make; killed on drop.
#[derive(Debug)]
pub struct Other {
    /// Its version, as it says it.
    pub version: String,
    /// Where it listens.
    pub front: Front,
    _process: Process,
    _folder: TempDir,
}

/// nginx before these cells.
///
/// # Errors
/// It is not installed, or does not listen.
pub async fn nginx(cells: &[SocketAddr]) -> io::Result<Other> {
    let hosts = cells.iter().enumerate();
    let hosts: Vec<_> = hosts.map(|(number, cell)| (host(number), *cell)).collect();
    nginx_at(&hosts).await
}

/// nginx before cells, each at a host of its own.
///
/// # Errors
/// It is not installed, or does not listen.
pub async fn nginx_at(cells: &[(String, SocketAddr)]) -> io::Result<Other> {
    let said = Command::new("nginx").arg("-v").output()?;
    let version = first_line(&said).replace("nginx version: ", "");
    let (folder, front) = (tempfile::tempdir()?, free()?);
    let (http1, http2) = (front.http1, front.http2);
    let mut servers = String::new();
    for (number, (host, cell)) in cells.iter().enumerate() {
        let _ = write!(
            servers,
            "  upstream c{number} {{ server {cell}; keepalive 8; }}
  server {{ listen {http1}; listen {http2} http2; server_name {host}; location / {{ proxy_pass http://c{number}; }} }}
"
        );
    }
    let text = format!(
        "daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxied; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server_names_hash_max_size 8192;
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_buffer_size 16k;
  proxy_buffers 8 16k;
  proxy_http_version 1.1;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;
  server {{ listen {http1} default_server; listen {http2} http2 default_server; return 404; }}
{servers}}}
"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
    command.args(["-e", "stderr"]);
    start("nginx", command, version, front, folder).await
}

/// HAProxy before these cells.
///
/// # Errors
/// It is not installed, or does not listen.
pub async fn haproxy(cells: &[SocketAddr]) -> io::Result<Other> {
    let said = Command::new("haproxy").arg("-v").output()?;
    let version = first_line(&said)
        .split(" - ")
        .next()
        .unwrap_or_default()
        .replace("HAProxy version ", "haproxy/");
    let (folder, front) = (tempfile::tempdir()?, free()?);
    let (http1, http2) = (front.http1, front.http2);
    let (mut backends, mut map) = (String::new(), String::new());
    for (number, cell) in cells.iter().enumerate() {
        let _ = write!(backends, "backend c{number}\n  server cell {cell}\n");
        let _ = writeln!(map, "{} c{number}", host(number));
    }
    let hosts = folder.path().join("hosts.map");
    std::fs::write(&hosts, map)?;
    let text = format!(
        "global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option forwardfor
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 60s
  timeout http-keep-alive 60s
frontend front
  bind {http1}
  bind {http2} proto h2
  use_backend %[req.hdr(host),field(1,:),lower,map({hosts},nobody)]
  default_backend nobody
backend nobody
  http-request return status 404
{backends}",
        hosts = hosts.display()
    );
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, text)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    start("haproxy", command, version, front, folder).await
}

async fn start(
    name: &str,
    mut command: Command,
    version: String,
    front: Front,
    folder: TempDir,
) -> io::Result<Other> {
    let process = Process::spawn(name, &mut command, None)?;
    let listening = async {
        let mut looks = interval(Duration::from_millis(20));
        while TcpStream::connect(front.http1).await.is_err() {
            looks.tick().await;
        }
    };
    if timeout(START, listening).await.is_err() {
        let said = process.stderr.all().join("\n");
        return Err(io::Error::other(format!("{name} does not listen: {said}")));
    }
    Ok(Other {
        version,
        front,
        _process: process,
        _folder: folder,
    })
}

/// Addresses that nobody listens at.
fn free() -> io::Result<Front> {
    let each = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let [http1, http2] = each;
    Ok(Front {
        http1: http1?.local_addr()?,
        http2: http2?.local_addr()?,
    })
}

fn first_line(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().to_owned()
}
