//! How long requests take at a fixed rate, while the table is changed every second and while it is not.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep_until};

use super::load::{connect, read};
use super::peers::{Given, Peer, host};
use super::{median, trio};

const CLIENTS: usize = 64;
/// Requests of all clients in a second.
const RATE: u64 = 8000;
/// How long they ask.
const LASTS: Duration = Duration::from_secs(6);

/// What requests took, in milliseconds, and how many connections were ended meanwhile.
#[derive(Debug, Default)]
struct Took {
    all: Vec<f64>,
    ended: usize,
}

impl Took {
    fn at(&self, part: f64) -> f64 {
        let last = self.all.len().saturating_sub(1);
        self.all
            .get((last as f64 * part) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    }
}

/// For each proxy what the middle, slow and slowest requests took.
///
/// # Errors
/// A peer answers something else, or ends.
pub async fn run(
    given: &Given,
    router: &Path,
    args: &[String],
    rounds: usize,
) -> io::Result<String> {
    let given = Given {
        changes: true,
        ..given.clone()
    };
    let peers = trio(&given, router, args).await?;
    let mut took: Vec<[Vec<Took>; 2]> = peers.iter().map(|_| Default::default()).collect();
    for round in 0..=rounds {
        for (peer, took) in peers.iter().zip(&mut took) {
            for (changes, took) in took.iter_mut().enumerate() {
                let now = measure(peer, changes == 1).await?;
                // The first round warms up.
                if round > 0 {
                    took.push(now);
                }
            }
        }
    }
    let mut text = format!(
        "| small GET, {RATE}/s, {} cells | p50 | p99 | p99.9 | longest | connections ended |\n|---|---|---|---|---|---|\n",
        given.cells
    );
    for (peer, took) in peers.iter().zip(&took) {
        for (took, state) in took.iter().zip(["unchanged", "changed every second"]) {
            let typical = |part| median(took.iter().map(|took| took.at(part)).collect());
            let ended = median(took.iter().map(|took| took.ended as f64).collect());
            text.push_str(&format!(
                "| {}, {state} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {ended} |\n",
                peer.name,
                typical(0.5),
                typical(0.99),
                typical(0.999),
                typical(1.0),
            ));
        }
    }
    Ok(text)
}

async fn measure(peer: &Peer, changes: bool) -> io::Result<Took> {
    let began = Instant::now();
    let changing = async {
        let second = Duration::from_secs(1);
        let mut seconds = interval_at(began + second / 2, second);
        loop {
            seconds.tick().await;
            if changes && let Err(error) = peer.change() {
                break error;
            }
        }
    };
    let asking = async {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (address, host) = (peer.address(), host(number * peer.cells() / CLIENTS));
            clients.spawn(client(address, host, number, began));
        }
        let mut took = Took::default();
        while let Some(ended) = clients.join_next().await {
            let one = ended.map_err(io::Error::other)??;
            took.all.extend(one.all);
            took.ended += one.ended;
        }
        took.all.sort_by(f64::total_cmp);
        Ok(took)
    };
    let took = tokio::select! {
        took = asking => took,
        error = changing => Err(error),
    };
    // What a change began belongs to it.
    peer.settle(peer.busy()?).await?;
    took.map_err(|error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", peer.name)))
}

/// Asks at its times; a request that could not begin at its time, since the one before took too long, counts from then.
async fn client(
    address: std::net::SocketAddr,
    host: String,
    number: usize,
    began: Instant,
) -> io::Result<Took> {
    let head =
        format!("GET /0 HTTP/1.1\r\nhost: {host}\r\nuser-agent: benchmark\r\naccept: */*\r\n\r\n");
    let every = Duration::from_nanos(1_000_000_000 * CLIENTS as u64 / RATE);
    let mut due = began + every * u32::try_from(number).unwrap_or(0) / CLIENTS as u32;
    let mut socket = connect(address).await?;
    let (mut buffer, mut took) = (Vec::new(), Took::default());
    while due < began + LASTS {
        let late = Instant::now() >= due;
        sleep_until(due).await;
        let since = if late { due } else { Instant::now() };
        loop {
            let asked = socket.write_all(head.as_bytes()).await;
            let answered = match asked {
                Ok(()) => read(&mut socket, &mut buffer, "200").await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                // An idle connection may be ended at any time: clients ask again on another.
                Err(_) => {
                    took.ended += 1;
                    socket = connect(address).await?;
                }
            }
        }
        took.all.push(since.elapsed().as_secs_f64() * 1e3);
        due += every;
    }
    Ok(took)
}
