//! Owns a running `cell-router`, its registry file, and what it says in its logs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::Binaries;
use crate::fly::Fly;
use crate::process::{Echo, Process};

/// Settings that every router gets from whoever runs the tests: `CELL_ROUTER_SPLICE_FROM=1` runs them with bodies that
/// stay in the kernel.
const THROUGH: [&str; 1] = ["CELL_ROUTER_SPLICE_FROM"];

/// How a router is started.
#[derive(Debug, Default)]
pub struct RouterOptions {
    /// Text of the registry file.
    pub registry: String,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Arguments after those that the harness gives.
    pub args: Vec<String>,
    /// Port on the loopback interface; any when `None`.
    pub listen: Option<SocketAddr>,
    /// Form of the log; `json` when `None`.
    pub log_format: Option<&'static str>,
    /// A place for the registry file; a temporary folder when `None`.
    pub registry_file: Option<PathBuf>,
    /// Shows its output as it comes.
    pub echo: Option<Echo>,
    /// The binary; built on first use when `None`.
    pub binary: Option<PathBuf>,
    /// What runs the binary, a profiler say, with its arguments; nothing when empty.
    pub under: Vec<String>,
}

impl RouterOptions {
    /// A router with this registry, not on Fly.
    pub fn new(registry: impl Into<String>) -> Self {
        Self {
            registry: registry.into(),
            ..Self::default()
        }
    }

    /// On `fly`, as machine `id` of app `app`.
    pub fn on_fly(mut self, fly: &Fly, app: &str, id: &str) -> Self {
        let place = [
            ("FLY_APP_NAME", app),
            ("FLY_MACHINE_ID", id),
            ("FLY_REGION", fly.region()),
            ("CELL_ROUTER_FLY_API_TOKEN", fly.token()),
        ];
        self.env
            .extend(place.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let dns = fly.dns_addr().to_string();
        let flags = [
            "--fly-api-url",
            &fly.api_url(),
            "--dns-server",
            &dns,
            "--trusted-proxies",
            "127.0.0.1/32",
        ];
        self.args.extend(flags.map(str::to_owned));
        self
    }

    /// With this variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With these arguments too.
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }
}

/// A running router; killed on drop.
#[derive(Debug)]
pub struct Router {
    process: Process,
    address: SocketAddr,
    registry: PathBuf,
    folder: TempDir,
}

impl Router {
    /// Starts a router and waits until it listens. When it does not, everything that it wrote is in the panic.
    ///
    /// # Panics
    /// It cannot be started or ends before it listens.
    pub async fn start(options: RouterOptions) -> Self {
        let listen = options.listen;
        let (process, registry, folder) = Self::spawn(options);
        let address = match listen {
            // In text form nothing on the log is for machines, except that it listens.
            Some(address) if address.port() != 0 => {
                let said = process
                    .stderr
                    .find(|line| line.contains("listening").then_some(()));
                said.await
                    .expect("cell-router ended without listening; its log follows");
                address
            }
            _ => {
                let said = process.stderr.find(|line| {
                    let line: Value = serde_json::from_str(line).ok()?;
                    let line = line.get("fields").unwrap_or(&line).clone();
                    (line["message"] == "listening")
                        .then(|| line["address"].as_str()?.parse().ok())?
                });
                said.await
                    .expect("cell-router ended without listening; its log follows")
            }
        };
        Self {
            process,
            address,
            registry,
            folder,
        }
    }

    /// Starts a router that is expected to refuse; returns its exit status and what it wrote to standard error.
    ///
    /// # Panics
    /// It cannot be started at all.
    pub async fn refused(options: RouterOptions) -> (ExitStatus, String) {
        // The folder must stay until the process has read from it.
        let (process, _registry, _folder) = Self::spawn(options);
        let status = process.exited().await;
        // Ends when the output has ended.
        process.stderr.find(|_| None::<()>).await;
        (status, process.stderr.all().join("\n"))
    }

    fn spawn(options: RouterOptions) -> (Process, PathBuf, TempDir) {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let registry = options
            .registry_file
            .unwrap_or_else(|| folder.path().join("registry.json"));
        if !options.registry.is_empty() {
            std::fs::write(&registry, &options.registry)
                .expect("the registry's folder can be written");
        }
        let binary = options
            .binary
            .unwrap_or_else(|| Binaries::built().cell_router.clone());
        let listen = options.listen.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let mut words = options
            .under
            .iter()
            .map(OsStr::new)
            .chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("there is at least the binary"));
        command
            .args(words)
            .arg("serve")
            .arg("--registry")
            .arg(&registry)
            .args(["--listen", &listen.to_string()])
            .args(["--log-format", options.log_format.unwrap_or("json")])
            .args(options.args)
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| THROUGH.contains(&name.as_str())))
            .envs(options.env);
        let process = Process::spawn("cell-router", &mut command, options.echo);
        (
            process.expect("cell-router can be started"),
            registry,
            folder,
        )
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it speaks TLS.
    ///
    /// # Panics
    /// It does not, or this was asked before.
    pub async fn tls_addr(&self) -> SocketAddr {
        let listening = self
            .next_event(|event| event["message"] == "listening" && event["tls"] == true)
            .await;
        let address = listening["address"].as_str();
        address
            .and_then(|address| address.parse().ok())
            .expect("an event of listening has an address")
    }

    /// The process, for its output, signals and end.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The next line of the access log that `fits`; waits for it. Each line is handed out once.
    ///
    /// # Panics
    /// None comes.
    pub async fn next_record(&self, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let line = self.process.stdout.take(|line| {
            let record: Value = serde_json::from_str(line).ok()?;
            fits(&record).then_some(record)
        });
        line.await.expect("no such line in the access log")
    }

    /// The next line of the operational log that `fits`; waits for it. Each line is handed out once.
    ///
    /// # Panics
    /// None comes.
    pub async fn next_event(&self, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let line = self.process.stderr.take(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            fits(&event).then_some(event)
        });
        line.await.expect("no such line in the operational log")
    }

    /// All lines of the access log so far.
    pub fn records(&self) -> Vec<Value> {
        let lines = self.process.stdout.all();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Path of the registry file.
    pub fn registry(&self) -> &Path {
        &self.registry
    }

    /// Saves the registry as most editors do: a new file, renamed over the old one.
    ///
    /// # Panics
    /// The folder cannot be written.
    pub fn save(&self, registry: &str) {
        let fresh = self.registry.with_extension("new");
        std::fs::write(&fresh, registry).expect("the registry's folder can be written");
        std::fs::rename(&fresh, &self.registry).expect("a rename within a folder");
    }

    /// Saves the registry in place: the same file, cut and written again.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn save_in_place(&self, registry: &str) {
        std::fs::write(&self.registry, registry).expect("the registry can be written");
    }

    /// Saves the registry as mounted configuration changes: the path is a symlink that is swapped.
    ///
    /// # Panics
    /// The folder cannot be written.
    pub fn save_by_symlink(&self, registry: &str) {
        let target = tempfile::Builder::new()
            .suffix(".json")
            .tempfile_in(self.folder.path());
        let (_, target) = target
            .and_then(|file| Ok(file.keep()?))
            .expect("there is room for temporary files");
        std::fs::write(&target, registry).expect("the new file can be written");
        let link = self.registry.with_extension("link");
        std::os::unix::fs::symlink(&target, &link).expect("links can be made");
        std::fs::rename(&link, &self.registry).expect("a rename within a folder");
    }

    /// Tells it to read its registry again.
    pub fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Tells it to finish its work and end.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub async fn exited(&self) -> ExitStatus {
        self.process.exited().await
    }

    /// Peak resident memory in bytes so far.
    ///
    /// # Panics
    /// The router has ended.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.process.peak_memory_bytes().expect("the router runs")
    }
}
