//! The router of a soak: its processes, one after the other, and what the kernel knows of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::journal::Journal;
use super::rules::Rule;
use crate::process::lock;

/// The state of a socket that listens, in the kernel's table.
const LISTEN: &str = "0A";

/// How routers are started.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) binary: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// One router process; killed on drop.
#[derive(Debug)]
pub(crate) struct Router {
    child: Child,
    pub(crate) id: u32,
    pub(crate) address: SocketAddr,
    asked: bool,
}

impl Router {
    /// Starts a router and waits until it listens.
    pub(crate) async fn start(
        recipe: &Recipe,
        listen: SocketAddr,
        journal: &Journal,
    ) -> Result<Self, String> {
        let mut child = Command::new(&recipe.binary)
            .arg("serve")
            .args(["--listen", &listen.to_string()])
            .args(&recipe.arguments)
            .env_clear()
            .envs(recipe.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", recipe.binary.display()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (told, mut listens) = watch::channel(None);
        let said = Arc::new(Mutex::new(Vec::new()));
        let (access, events, kept) = (journal.clone(), journal.clone(), Arc::clone(&said));
        tokio::spawn(lines(stdout, move |line| access.access(line)));
        let ended = tokio::spawn(lines(stderr, move |line| {
            events.event(line);
            if told.borrow().is_none() {
                lock(&kept).push(line.to_owned());
                if let Some(address) = listening(line) {
                    told.send_replace(Some(address));
                }
            }
        }));
        let address = tokio::select! {
            address = listens.wait_for(Option::is_some) => address.ok().and_then(|address| *address),
            _ = ended => None,
        };
        let said = lock(&said).join("\n");
        Ok(Self {
            id: child.id().unwrap_or(0),
            child,
            address: address.ok_or(format!("the router does not listen:\n{said}"))?,
            asked: false,
        })
    }

    /// Whether it runs; if not, and nobody asked it to end, that is a breach.
    pub(crate) fn runs(&mut self, journal: &Journal) -> bool {
        match self.child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) if !self.asked => {
                journal.breach(Rule::Panic, &format!("the router ended: {status}"));
                self.asked = true;
                false
            }
            Ok(Some(status)) if !status.success() => {
                journal.breach(Rule::Panic, &format!("a replaced router: {status}"));
                false
            }
            Ok(Some(_)) | Err(_) => false,
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    /// Another has taken its sockets over: it drains and ends.
    pub(crate) fn asked_to_end(&mut self) {
        self.asked = true;
    }

    /// Waits for its end, which has to be an orderly one.
    pub(crate) async fn ended(&mut self, journal: &Journal) {
        let status = self.child.wait().await;
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            journal.breach(Rule::Panic, &format!("a replaced router: {status:?}"));
        }
    }

    /// The other ends of its connections, but those at the port `besides`.
    pub(crate) fn connections(&self, besides: u16) -> Vec<String> {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.id));
        let mut owned = std::collections::HashSet::new();
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.id))
            .into_iter()
            .flatten()
        {
            let link = entry.and_then(|entry| std::fs::read_link(entry.path()));
            let link = link
                .map(|link| link.display().to_string())
                .unwrap_or_default();
            let socket = link
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            owned.extend(socket.map(str::to_owned));
        }
        let table = table.unwrap_or_default();
        // Columns as in Linux's Documentation/networking/proc_net_tcp.rst.
        let lines = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = lines.filter(|columns| {
            let port = format!(":{besides:04X}");
            columns.get(9).is_some_and(|inode| owned.contains(*inode))
                && columns[3] != LISTEN
                && !columns[2].ends_with(&port)
        });
        ours.map(|columns| format!("{} to {}, state {}", columns[1], columns[2], columns[3]))
            .collect()
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.id)).ok()?;
        Some(folder.count())
    }
}

async fn lines(source: Option<impl AsyncRead + Unpin>, mut each: impl FnMut(&str)) {
    let Some(source) = source else { return };
    let mut lines = BufReader::with_capacity(64 * 1024, source).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        each(&line);
    }
}

fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let line = line.get("fields").unwrap_or(&line);
    (line["message"] == "listening").then(|| line["address"].as_str()?.parse().ok())?
}
