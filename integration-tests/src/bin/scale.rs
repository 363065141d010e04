//! What a registry of a million cells costs: time and memory to check and to serve it, to look at it and to edit it by the
//! admin API, and what a reload does to requests.
//!
//! `cargo build --release -p cell-router && cargo run --release -p integration-tests --bin scale`

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::Parser;
use http::Request;
use integration_tests::benchmark::peers::host;
use integration_tests::benchmark::upstream::Upstream;
use integration_tests::client::{self, Error, Http, Raw};
use integration_tests::process::Process;
use integration_tests::{Router, RouterOptions};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Clients that send small requests while the registry is read again, and how often each does.
const CLIENTS: usize = 4;
const EVERY: Duration = Duration::from_millis(2);

/// Cells that are at an address, and are asked; the others are machines.
const ASKED: usize = 100_000;

/// Measures a router with a large registry.
#[derive(Debug, Parser)]
struct Args {
    /// The router's binary.
    #[arg(long, default_value = "target/release/cell-router")]
    router: PathBuf,
    /// Cells in the registry, at least 100,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(ASKED as u64..))]
    cells: u64,
    /// Gives each cell a host of its own, too.
    #[arg(long)]
    hosts: bool,
    /// How often each page of the admin API is asked for.
    #[arg(long, default_value_t = 100)]
    asks: usize,
    /// Rounds with and without reloads.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a round lasts, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let upstream = Upstream::start()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("registry.json");
    let numbers = 0..args.cells as usize;
    std::fs::write(&file, registry(numbers, args.hosts, upstream.address))?;
    let bytes = std::fs::metadata(&file)?.len();
    println!("{} cells, {} MB", args.cells, bytes / 1_000_000);
    check(&args.router, &file).await?;
    let served = Served::start(&args.router, &file).await?;
    served.looks(args.asks).await?;
    served.edits(&args.router).await?;
    let lasts = Duration::from_secs(args.seconds);
    served.reloads(args.rounds, lasts).await
}

/// Cells of which the first hundred thousand are at the upstream, and the others are machines.
fn registry(numbers: impl Iterator<Item = usize>, hosts: bool, upstream: SocketAddr) -> String {
    let entries = numbers.map(|number| {
        let place = if number < ASKED {
            format!("\"address\": \"{upstream}\"")
        } else {
            format!("\"machine\": \"3d8d{number:010}\"")
        };
        let host = format!(", \"hosts\": [\"www.c{number:07}.org\"]");
        let host = if hosts { host.as_str() } else { "" };
        format!("    \"cell-{number}\": {{ {place}{host} }}")
    });
    let mut text = "{\n  \"version\": 1,\n  \"domain\": \"example.org\",\n  \"defaults\": { \"app\": \"cells\" },\n  \"cells\": {\n".to_owned();
    let mut comma = "";
    for entry in entries {
        let _ = write!(text, "{comma}{entry}");
        comma = ",\n";
    }
    text.push_str("\n  }\n}\n");
    text
}

fn mib(bytes: Option<u64>) -> u64 {
    bytes.unwrap_or_default() >> 20
}

async fn check(binary: &Path, file: &Path) -> Result<(), Error> {
    let began = Instant::now();
    let process = Process::spawn("check", Command::new(binary).arg("check").arg(file), None)?;
    let mut peak = None;
    let ended = process.exited();
    tokio::pin!(ended);
    let status = loop {
        tokio::select! {
            status = &mut ended => break status,
            () = tokio::time::sleep(Duration::from_millis(5)) => {
                peak = process.peak_memory_bytes().or(peak);
            }
        }
    };
    let took = began.elapsed();
    if !status.success() {
        return Err(format!("{:?}", process.stdout.all()).into());
    }
    println!("check: {:.2} s, peak {} MiB", took.as_secs_f64(), mib(peak));
    Ok(())
}

/// A router that serves the registry.
struct Served {
    router: Router,
    admin: SocketAddr,
    token: String,
    file: PathBuf,
}

impl Served {
    async fn start(binary: &Path, file: &Path) -> Result<Self, Error> {
        let tokens = file.with_file_name("tokens");
        let made = Command::new(binary)
            .args(["token", "anna", "--role", "edit"])
            .output()?;
        std::fs::write(&tokens, &made.stdout)?;
        let mut options = RouterOptions::new("").args(["--workers", "1"]);
        options = options.args(["--admin-listen", "127.0.0.1:0"]);
        options = options.args(["--admin-tokens", &tokens.display().to_string()]);
        options.registry_file = Some(file.to_owned());
        options.binary = Some(binary.to_owned());
        let began = Instant::now();
        let router = Router::start(options).await;
        let ready = began.elapsed().as_secs_f64();
        let at_first = router.process().memory_bytes();
        let open = router.next_event(|event| event["message"] == "admin listener open");
        let admin = open.await["address"].as_str().unwrap_or_default().parse()?;
        let this = Self {
            router,
            admin,
            token: String::from_utf8(made.stderr)?.trim().to_owned(),
            file: file.to_owned(),
        };
        print!("serve: ready in {ready:.2} s, {} MiB then, ", mib(at_first));
        this.memory_later().await;
        Ok(this)
    }

    async fn memory_later(&self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let process = self.router.process();
        let (now, peak) = (process.memory_bytes(), process.peak_memory_bytes());
        println!("{} MiB 3 s later, peak {} MiB", mib(now), mib(peak));
    }

    async fn ask(&self, method: &str, target: &str, body: &Value) -> Result<client::Answer, Error> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "admin")
            .header("authorization", format!("Bearer {}", self.token))
            .body(client::full(body.to_string()))?;
        let answer = client::send(self.admin, Http::One, request).await?;
        if !answer.status.is_success() {
            return Err(format!("{method} {target}: {}", answer.text()).into());
        }
        Ok(answer)
    }

    /// How long the admin API takes for a page of cells.
    async fn looks(&self, asks: usize) -> Result<(), Error> {
        for (what, target) in [
            ("list", "/v1/cells?limit=100"),
            ("a page amid it", "/v1/cells?limit=100&after=cell-500000"),
            (
                "search for part of a name",
                "/v1/cells?limit=100&search=12345",
            ),
            (
                "search for a host",
                "/v1/cells?limit=100&search=77.example.org",
            ),
            ("search for nobody", "/v1/cells?limit=100&search=nobody"),
            ("all of a state", "/v1/cells?limit=100&state=paused"),
            ("one cell", "/v1/cells/cell-500000"),
            ("its entry", "/v1/cells/cell-500000/entry"),
        ] {
            let mut took = Vec::new();
            for _ in 0..asks {
                let began = Instant::now();
                self.ask("GET", target, &Value::Null).await?;
                took.push(began.elapsed());
            }
            println!("{what}: {}", shown(took));
        }
        Ok(())
    }

    async fn loaded(&self, version: &str) {
        let is_it =
            |event: &Value| event["message"] == "registry loaded" && event["version"] == version;
        self.router.next_event(is_it).await;
    }

    /// One edit through the API and one by a command on the file, each until it is served.
    async fn edits(&self, binary: &Path) -> Result<(), Error> {
        let began = Instant::now();
        let patch = json!({ "max_in_flight": 5 });
        let answer = self.ask("PATCH", "/v1/cells/cell-500000/entry", &patch);
        let version = answer.await?.json()["version"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let done = began.elapsed();
        self.loaded(&version).await;
        let served = began.elapsed();
        println!("an edit by the API: {done:.2?}, served after {served:.2?}");
        let began = Instant::now();
        let mut command = Command::new(binary);
        command.args([
            "cell",
            "set",
            "cell-500000",
            "max_in_flight=6",
            "--json",
            "--registry",
        ]);
        let process = Process::spawn("cell set", command.arg(&self.file), None)?;
        if !process.exited().await.success() {
            return Err(format!("{:?}", process.stderr.all()).into());
        }
        let done = began.elapsed();
        let said = process.stdout.find(|line| {
            Some(
                line.split_once("\"version\":")?
                    .1
                    .split('"')
                    .nth(1)?
                    .to_owned(),
            )
        });
        self.loaded(&said.await.ok_or("an outcome has a version")?)
            .await;
        let served = began.elapsed();
        println!("an edit by a command: {done:.2?}, served after {served:.2?}");
        print!("the router after both: ");
        self.memory_later().await;
        Ok(())
    }

    /// Small requests at a fixed pace, in rounds without and with reloads one after the other.
    async fn reloads(&self, rounds: usize, lasts: Duration) -> Result<(), Error> {
        let mut all: [Vec<[Duration; 3]>; 2] = Default::default();
        for round in 0..rounds {
            for (which, figures) in all.iter_mut().enumerate() {
                let over = AtomicBool::new(false);
                let reloading = async {
                    let mut count = 0;
                    while which == 1 && !over.load(Ordering::SeqCst) {
                        std::fs::File::options()
                            .append(true)
                            .open(&self.file)?
                            .set_modified(SystemTime::now())?;
                        let loaded = |event: &Value| event["message"] == "registry loaded";
                        self.router.next_event(loaded).await;
                        count += 1;
                    }
                    Ok::<_, Error>(count)
                };
                let asking = async {
                    let took = paced(self.router.addr(), lasts).await;
                    over.store(true, Ordering::SeqCst);
                    took
                };
                let (count, took) = tokio::join!(reloading, asking);
                let (count, mut took) = (count?, took?);
                took.sort_unstable();
                let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
                let found = [at(0.5), at(0.999), at(1.0)];
                println!(
                    "round {round}, {count} reloads: {} requests, median {:.2?}, p99.9 {:.2?}, most {:.2?}",
                    took.len(),
                    found[0],
                    found[1],
                    found[2]
                );
                figures.push(found);
            }
        }
        for (what, figures) in std::iter::zip(["without reloads", "with reloads"], &all) {
            let median = |which: usize| {
                let mut values: Vec<_> = figures.iter().map(|found| found[which]).collect();
                values.sort_unstable();
                values.get(values.len() / 2).copied().unwrap_or_default()
            };
            println!(
                "{what}, medians of {rounds} rounds: median {:.2?}, p99.9 {:.2?}, most {:.2?}",
                median(0),
                median(1),
                median(2)
            );
        }
        print!("the router after them: ");
        self.memory_later().await;
        Ok(())
    }
}

/// How long requests took that were sent at a fixed pace.
async fn paced(router: SocketAddr, lasts: Duration) -> Result<Vec<Duration>, Error> {
    let clients = (0..CLIENTS).map(|number| async move {
        let mut client = Raw::connect(router).await?;
        let head = format!("GET /100 HTTP/1.1\r\nhost: {}\r\n\r\n", host(number));
        let (mut took, end) = (Vec::new(), Instant::now() + lasts);
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < end {
            ticks.tick().await;
            let began = Instant::now();
            client.write(&head).await?;
            client.answer().await?;
            took.push(began.elapsed());
        }
        Ok::<_, Error>(took)
    });
    Ok(futures_util::future::try_join_all(clients).await?.concat())
}

fn shown(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let (median, most) = (took.get(took.len() / 2), took.last());
    format!(
        "median {:.1?}, most {:.1?} of {}",
        median.copied().unwrap_or_default(),
        most.copied().unwrap_or_default(),
        took.len()
    )
}
