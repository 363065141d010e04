//! A soak: cells that fail in every way, clients of every kind, an operator who edits, and books in which every byte is
//! accounted for.
//!
//! Everything is drawn from one seed, so that a soak can be had again: the same requests for the same cells, the same
//! faults, the same edits. Only when each of them happens is the machine's business.

mod cell;
mod client;
mod content;
mod dice;
mod editor;
mod faults;
mod front;
mod isolation;
mod journal;
mod ledger;
mod plan;
mod report;
mod rules;
mod serve;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use self::cell::{Cell, name};
use self::client::Clients;
use self::editor::{APP, Aliases, Editor, machine, variable};
use self::faults::{Addresses, Storm};
use self::front::{Recipe, Router};
use self::journal::Journal;
use self::ledger::Ledger;
use self::plan::World;
pub use self::report::Report;
use self::rules::Rule;
use crate::fly::{Fly, MachineSpec, Options as FlyOptions};

/// App and machine of the router.
const ROUTER: (&str, &str) = ("cell-router", "148e21ea7de400");
/// How often the router is replaced, at most.
const REPLACE_EVERY: Duration = Duration::from_secs(20);
/// How often in a row a new router may refuse to start, a second or so apart.
const REFUSALS_MAX: u64 = 10;
/// How long a cell that is well again may be left alone: longer than any breaker stays open.
const HEALING: Duration = Duration::from_secs(80);
/// How long what is under way may take to end by itself: twice what a client waits for one answer.
const ENDING: Duration = Duration::from_secs(120);
/// How long what is idle may stay open after all is over.
const CALM: Duration = Duration::from_secs(30);

/// What a soak is made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The router's binary.
    pub router: PathBuf,
    /// How long requests are sent.
    pub lasts: Duration,
    /// What all is drawn from.
    pub seed: u64,
    /// How many cells there are; a tenth of them have no faults. At least 20, at most 999.
    pub cells: usize,
    /// How many clients there are.
    pub clients: usize,
    /// Faults that are left out, by name.
    pub without: Vec<String>,
    /// Says how far it is, every few seconds.
    pub talks: bool,
}

/// Runs a soak.
///
/// # Errors
/// It cannot be set up, in words.
pub async fn run(options: &Options) -> Result<Report, String> {
    Soak::start(options).await?.run(options).await
}

/// The names of all faults.
pub fn faults() -> Vec<String> {
    let all = plan::Trouble::ALL.iter();
    all.map(|(_, trouble)| format!("{trouble:?}")).collect()
}

struct Soak {
    ledger: Ledger,
    journal: Journal,
    cells: Arc<Vec<Arc<Cell>>>,
    clients: Arc<Clients>,
    editor: Arc<Editor>,
    storm: Arc<Storm>,
    recipe: Recipe,
    router: Router,
    /// Routers that were replaced, and drain.
    replaced: Vec<Router>,
    replacements: u64,
    /// New routers that did not start, one after the other.
    refusals: u64,
    fly: Arc<Fly>,
    /// Port of the Machines API, to which a router keeps connections.
    api: u16,
    _folder: tempfile::TempDir,
}

impl Soak {
    async fn start(options: &Options) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let world = World {
            seed: options.seed,
            cells: options.cells,
            undisturbed: options.cells / 10,
        };
        let ledger = Ledger::new(world);
        let journal = Journal::new(ledger.clone());
        let addresses = Addresses::new(world.seed).map_err(text)?;
        let cells: Vec<_> = (0..world.cells)
            .map(|number| Cell::new(number, addresses.fresh(), ledger.clone()))
            .collect();
        let cells = Arc::new(cells);
        let folder = tempfile::tempdir().map_err(text)?;
        let file = folder.path().join("registry.json");
        let mut fly = Fly::with(FlyOptions::default()).await.map_err(text)?;
        let edge = fly.listen(ROUTER.0, 80).await.map_err(text)?;
        for cell in cells.iter() {
            match machine(cell.number) {
                Some(id) => {
                    let spec = MachineSpec::cell(APP, &name(cell.number)).id(&id);
                    fly.guest(spec, Arc::clone(cell) as _);
                }
                None => crate::fly::Guest::boot(&**cell).await.map_err(text)?,
            }
        }
        let aliases = Arc::new(Aliases::new(world));
        let editor = Arc::new(Editor {
            world,
            file: file.clone(),
            cells: Arc::clone(&cells),
            aliases: Arc::clone(&aliases),
            stop: AtomicBool::new(false),
        });
        editor.all_active(None);
        let recipe = recipe(options, &fly, &cells, &file);
        let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let router = Router::start(&recipe, any, &journal).await?;
        let attached = fly.attach(ROUTER.0, ROUTER.1, router.address);
        attached.map_err(text)?;
        let fly = Arc::new(fly);
        let without = options.without.clone();
        let storm = Storm::new(Arc::clone(&fly), Arc::clone(&cells), addresses, without);
        let clients = Arc::new(Clients {
            ledger: ledger.clone(),
            edge,
            router: router.address,
            aliases,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            running: AtomicUsize::new(0),
        });
        // Cells that never have a fault are never asleep either: how long they take is not for waking.
        for cell in &cells[..world.undisturbed] {
            storm.rouse(cell).await;
        }
        Ok(Self {
            api: fly.api_addr().port(),
            ledger,
            journal,
            cells,
            clients,
            editor,
            storm,
            recipe,
            router,
            replaced: Vec::new(),
            replacements: 0,
            refusals: 0,
            fly,
            _folder: folder,
        })
    }

    async fn run(mut self, options: &Options) -> Result<Report, String> {
        let began = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..options.clients {
            running.spawn(Arc::clone(&self.clients).run());
        }
        let editor = Arc::clone(&self.editor);
        let editing = tokio::spawn(async move { editor.run().await });
        let storming = tokio::spawn(Arc::clone(&self.storm).run());
        let measuring = isolated(options.lasts);
        let storms = options.lasts - measuring;
        let memory = self.watch(storms, options.talks).await;
        self.storm.stop();
        self.editor.stop.store(true, Ordering::SeqCst);
        self.clients.stop.store(true, Ordering::SeqCst);
        let stormed = within("the storm", storming).await?;
        let edits = within("the editor", editing).await?.unwrap_or(0);
        within("clients", async {
            while running.join_next().await.is_some() {}
        })
        .await?;
        if let Err(error) = stormed {
            return Err(format!("the storm ended early: {error}"));
        }
        let isolation = if measuring.is_zero() {
            None
        } else {
            self.editor.all_active(None);
            let router = self.router.address;
            Some(isolation::measure(&self.cells, &self.ledger, router, measuring).await)
        };
        self.after().await;
        for broken in self.fly.violations() {
            self.ledger.breach(Rule::Platform, broken);
        }
        Ok(Report {
            seed: options.seed,
            lasted: began.elapsed(),
            tally: self.ledger.tally(),
            faults: self.storm.done(),
            edits,
            replacements: self.replacements,
            isolation,
            memory: report::Memory::of(&memory, &self.ledger),
            counts: self.journal.with(std::mem::take),
            verdicts: self.ledger.with_breaches(report::verdicts),
        })
    }

    /// Keeps the books while it storms, and replaces the router in the first half of the time; memory is that of the
    /// last one, which serves the second half.
    async fn watch(&mut self, lasts: Duration, talks: bool) -> Vec<u64> {
        let began = Instant::now();
        let every = REPLACE_EVERY.min(lasts / 6);
        let mut memory = Vec::new();
        let mut ticks = interval(Duration::from_millis(500));
        let mut looks = 0_u64;
        while began.elapsed() < lasts && self.router.runs(&self.journal) {
            ticks.tick().await;
            let replaced = u32::try_from(self.replacements).unwrap_or(u32::MAX);
            let due = every * (replaced + 1);
            if due < lasts / 2 && began.elapsed() >= due {
                self.replace().await;
                memory.clear();
            }
            self.replaced.retain_mut(|old| old.runs(&self.journal));
            memory.extend(self.router.memory());
            self.ledger.settle(false);
            self.fly.take_deliveries();
            for (rule, what) in self.ledger.fresh() {
                if talks {
                    println!("{:5} s  {rule:?}: {what}", began.elapsed().as_secs());
                }
            }
            looks += 1;
            if talks && looks.is_multiple_of(20) {
                println!("{}", self.progress(began.elapsed()));
            }
        }
        memory
    }

    /// Has a new router take the place of the one that serves.
    async fn replace(&mut self) {
        match Router::start(&self.recipe, self.router.address, &self.journal).await {
            Ok(next) => {
                let mut old = std::mem::replace(&mut self.router, next);
                old.asked_to_end();
                self.replaced.push(old);
                self.replacements += 1;
                self.refusals = 0;
            }
            // The file may be broken just now; then the old one serves on.
            Err(why) => {
                self.refusals += 1;
                if self.refusals > REFUSALS_MAX {
                    self.ledger.breach(Rule::Panic, why);
                }
            }
        }
    }

    /// One line that says how far it is.
    fn progress(&self, elapsed: Duration) -> String {
        let tally = self.ledger.tally();
        format!(
            "{:5} s  {:8} requests, {} under way, {:.1} GB up, {:.1} GB down, router {} MiB and {} descriptors, {} breaches",
            elapsed.as_secs(),
            tally.opened,
            self.ledger.unsettled(),
            tally.bytes_up as f64 / 1e9,
            tally.bytes_down as f64 / 1e9,
            self.router.memory().unwrap_or(0) >> 20,
            self.router.descriptors().unwrap_or(0),
            self.ledger.with_breaches(rules::Breaches::count),
        )
    }

    /// When all is over nothing is left: no request in flight, no connection, no descriptor.
    async fn after(&mut self) {
        let idle = async {
            while self.cells.iter().any(|cell| cell.connections() > 0) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let open = timeout(CALM, idle).await.is_err();
        for cell in self.cells.iter().filter(|_| open) {
            if cell.connections() > 0 {
                let what = format!("{} connections", cell.connections());
                cell.breach(Rule::Connections, &what);
            }
        }
        let drained = async {
            for old in &mut self.replaced {
                old.ended(&self.journal).await;
            }
        };
        if timeout(CALM, drained).await.is_err() {
            self.ledger
                .breach(Rule::Panic, "a router that was replaced does not end");
        }
        let closed = async {
            while !self.router.connections(self.api).is_empty() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(CALM, closed).await.is_err() {
            let open = self.router.connections(self.api);
            self.ledger.breach(Rule::Connections, format!("{open:?}"));
        }
        self.none_in_flight().await;
        self.ledger.settle(true);
        self.router.runs(&self.journal);
    }

    /// With one place for each cell, every cell answers one who asks: nothing that is over is still counted.
    async fn none_in_flight(&self) {
        let mut reloads = self.journal.reloads.subscribe();
        let before = *reloads.borrow_and_update();
        self.editor.all_active(Some(1));
        let loaded = reloads.wait_for(|reloads| *reloads > before);
        if !matches!(timeout(CALM, loaded).await, Ok(Ok(_))) {
            self.ledger
                .breach(Rule::InFlight, "the last registry was not loaded");
        }
        for cell in self.cells.iter() {
            let mut last = None;
            // A breaker that still minds an earlier fault closes by itself; a place that is not given back never comes.
            let asking = async {
                loop {
                    let answer = ask(self.clients.router, cell.number).await;
                    if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                        return;
                    }
                    last = Some(answer);
                    sleep(Duration::from_millis(500)).await;
                }
            };
            if timeout(HEALING, asking).await.is_err() {
                cell.breach(Rule::InFlight, &format!("asked in the end: {last:?}"));
            }
        }
    }
}

/// Waits for what has to end by itself.
async fn within<T>(what: &str, ending: impl Future<Output = T>) -> Result<T, String> {
    let ended = timeout(ENDING, ending).await;
    ended.map_err(|_| format!("{what}: still running {} s after the end", ENDING.as_secs()))
}

/// Asks a cell something that is not in the books.
async fn ask(router: std::net::SocketAddr, cell: usize) -> Result<crate::client::Answer, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut raw = crate::client::Raw::from(client::connect_as(1, router).await.map_err(text)?);
    let name = name(cell);
    let head = format!(
        "GET /ask HTTP/1.1\r\nhost: {name}.example.com\r\nsoak-cell: {name}\r\nconnection: close\r\n\r\n"
    );
    raw.write(head).await.map_err(text)?;
    raw.answer().await.map_err(|error| error.to_string())
}

/// How much of the time goes to measuring whether ill cells are felt by others: none of a short one.
fn isolated(lasts: Duration) -> Duration {
    if lasts < Duration::from_secs(30) {
        Duration::ZERO
    } else {
        lasts / 5
    }
}

fn recipe(options: &Options, fly: &Fly, cells: &[Arc<Cell>], registry: &std::path::Path) -> Recipe {
    let dns = fly.dns_addr().to_string();
    let api = fly.api_url();
    let takeover = registry.with_file_name("takeover").display().to_string();
    let registry = registry.display().to_string();
    let arguments = [
        ["--registry", &registry],
        ["--takeover", &takeover],
        ["--drain-ms", "20000"],
        ["--log-format", "json"],
        ["--fly-api-url", &api],
        ["--dns-server", &dns],
        // The edge is the only client at this address: it alone is believed.
        ["--trusted-proxies", "127.0.0.1/32"],
        ["--pool-idle-ms", "3000"],
    ];
    let place = [
        ("FLY_APP_NAME", ROUTER.0),
        ("FLY_MACHINE_ID", ROUTER.1),
        ("FLY_REGION", fly.region()),
        ("CELL_ROUTER_FLY_API_TOKEN", fly.token()),
        ("RUST_BACKTRACE", "1"),
    ];
    let secrets = cells
        .iter()
        .map(|cell| (variable(cell.number), cell.secret.clone()));
    Recipe {
        binary: options.router.clone(),
        arguments: arguments.into_iter().flatten().map(str::to_owned).collect(),
        environment: place
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .chain(secrets)
            .collect(),
    }
}
