//! The run: the same bytes to both, lane by lane, round by round.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::judge::{self, Finding, Less, Reached, Tally};
use super::recorder::Recorder;
use super::requests::made;
use crate::behaviours::proxies;
use crate::numbers::Numbers;
use crate::process::HUNG;
use crate::{Router, RouterOptions};

/// How long an answer may be silent before the client says that it sends no more.
const QUIET: Duration = Duration::from_millis(150);

/// The most lanes.
pub const LANES: usize = 26;

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What all rows of requests follow from.
    pub seed: u64,
    /// For how long; one round only when `None`.
    pub time: Option<Duration>,
    /// How many rows of requests are under way at once, each with cells of its own, 1 to [`LANES`].
    pub lanes: usize,
    /// Rows of requests for each lane before all is started anew, which keeps the log short.
    pub rows: u64,
    /// Whether nginx gets them, too.
    pub nginx: bool,
    /// The router's binary; built on first use when `None`.
    pub router: Option<PathBuf>,
}

/// Sends made-up requests for as long as it is told. The rows of requests follow from the seed; how many there are
/// depends on the time.
///
/// # Errors
/// nginx or the cells cannot be started.
pub async fn run(options: &Options) -> io::Result<Tally> {
    let end = options.time.map(|time| Instant::now() + time);
    let mut tally = Tally::default();
    for round in 0.. {
        tally.add(one_round(options, round, end).await?);
        if end.is_none_or(|end| Instant::now() >= end) {
            break;
        }
    }
    Ok(tally)
}

struct Lane {
    name: String,
    host: String,
    numbers: Numbers,
    router: Recorder,
    nginx: Recorder,
    /// What came through the router, for the log.
    got: Vec<Reached>,
    tally: Tally,
}

async fn one_round(options: &Options, round: u64, end: Option<Instant>) -> io::Result<Tally> {
    let mut lanes = Vec::new();
    for number in 0..options.lanes {
        let name = name(number);
        let own = (options.seed << 32) ^ (round << 12) ^ number as u64;
        lanes.push(Lane {
            host: format!("{name}.example.com"),
            name,
            numbers: Numbers(own),
            router: Recorder::listen().await?,
            nginx: Recorder::listen().await?,
            got: Vec::new(),
            tally: Tally::default(),
        });
    }
    let behind = |lane: &Lane| (lane.host.clone(), lane.nginx.addr());
    let nginx = match options.nginx {
        true => Some(proxies::nginx_at(&lanes.iter().map(behind).collect::<Vec<_>>()).await?),
        false => None,
    };
    let router = start(&lanes, options.router.clone()).await;
    let to = (router.addr(), nginx.as_ref().map(|nginx| nginx.front.http1));
    let (rows, mut running) = (options.rows, JoinSet::new());
    for mut lane in lanes {
        running.spawn(async move {
            for _ in 0..rows {
                if end.is_some_and(|end| Instant::now() >= end) {
                    break;
                }
                lane.row(to.0, to.1).await;
            }
            lane
        });
    }
    let lanes = running.join_all().await;
    router.terminate();
    router.exited().await;
    // The log is whole once its pipe has ended.
    router.process().stdout.find(|_| None::<()>).await;
    let records = router.records();
    let mut tally = Tally::default();
    for mut lane in lanes {
        let own = records.iter().filter(|record| record["cell"] == *lane.name);
        if let Err(why) = judge::logged(own, &lane.got) {
            lane.found(Finding::NotLogged, why, Vec::new());
        }
        tally.add(lane.tally);
    }
    Ok(tally)
}

/// Names that no few changed bytes make each other.
fn name(number: usize) -> String {
    let letter = b'a' + u8::try_from(number % LANES).unwrap_or_default();
    char::from(letter).to_string().repeat(8)
}

async fn start(lanes: &[Lane], binary: Option<PathBuf>) -> Router {
    let cell = |lane: &Lane| {
        let entry = json!({ "address": lane.router.addr().to_string() });
        (lane.name.clone(), entry)
    };
    let cells: Map<_, _> = lanes.iter().map(cell).collect();
    let registry = json!({ "version": 1, "domain": "example.com", "cells": cells });
    let mut options = RouterOptions::new(registry.to_string()).args(["--workers", "1"]);
    options.binary = binary;
    Router::start(options).await
}

impl Lane {
    async fn row(&mut self, router: SocketAddr, nginx: Option<SocketAddr>) {
        let bytes = made(&mut self.numbers, &self.host);
        self.tally.rows += 1;
        let (by_router, by_nginx) = tokio::join!(send(router, &bytes), async {
            match nginx {
                Some(nginx) => send(nginx, &bytes).await,
                None => None,
            }
        });
        let (through_router, through_nginx) =
            match tokio::join!(self.router.take(), self.nginx.take()) {
                (Ok(router), Ok(nginx)) => (router, nginx),
                (Err(error), _) | (_, Err(error)) => {
                    return self.found(Finding::StaysOpen, error.to_string(), bytes);
                }
            };
        let got = match judge::reached(&through_router) {
            Ok(got) => got,
            Err(why) => return self.found(Finding::NotOneRequest, why, bytes),
        };
        self.got.extend(got.iter().cloned());
        self.tally.reached[0] += got.len() as u64;
        if !judge::within(&got, &judge::sent(&bytes)) {
            return self.found(Finding::NotSent, format!("{got:?}"), bytes);
        }
        let Some(router) = by_router else {
            return self.found(
                Finding::StaysOpen,
                "a client's connection stays open".to_owned(),
                bytes,
            );
        };
        if nginx.is_some() {
            self.compare(
                got,
                (router, by_nginx.unwrap_or_default()),
                &through_nginx,
                bytes,
            );
        }
    }

    fn compare(
        &mut self,
        got: Vec<Reached>,
        statuses: (u16, u16),
        through_nginx: &[Vec<u8>],
        bytes: Vec<u8>,
    ) {
        let less = match judge::reached(through_nginx) {
            Err(_) => Less::Form,
            Ok(others) => {
                self.tally.reached[1] += others.len() as u64;
                match (judge::within(&got, &others), judge::within(&others, &got)) {
                    (true, true) => {
                        self.tally.same += 1;
                        return;
                    }
                    (true, false) => Less::Router,
                    (false, true) => Less::Nginx,
                    (false, false) if judge::within(&others, &judge::sent(&bytes)) => Less::Each,
                    (false, false) => {
                        let why = format!("{got:?}, but {others:?}");
                        return self.found(Finding::Disagreement, why, bytes);
                    }
                }
            }
        };
        self.tally.note((less, statuses.0, statuses.1), 1, bytes);
    }

    fn found(&mut self, finding: Finding, why: String, bytes: Vec<u8>) {
        self.tally.findings.push((finding, why, bytes));
    }
}

/// Sends these bytes and reads all that comes; the status of the last answer, or 0 without one. `None` where the
/// connection does not end.
async fn send(to: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let stream = TcpStream::connect(to).await.ok()?;
    let (mut read, mut write) = stream.into_split();
    let (mut got, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    // A connection that ends early takes what is written with it.
    let _ = timeout(HUNG, write.write_all(bytes)).await;
    let mut finished = false;
    loop {
        let patience = if finished { HUNG } else { QUIET };
        match timeout(patience, read.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return Some(last_status(&got)),
            Ok(Ok(count)) => got.extend_from_slice(&buffer[..count]),
            Err(_) if finished => return None,
            Err(_) => {
                finished = true;
                if write.shutdown().await.is_err() {
                    return Some(last_status(&got));
                }
            }
        }
    }
}

fn last_status(got: &[u8]) -> u16 {
    let mut heads = got
        .windows(12)
        .filter(|part| part.starts_with(b"HTTP/1.1 "));
    let digits = heads.next_back().map(|part| &part[9..]);
    digits
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .unwrap_or_default()
}
