//! Puts a case to a proxy and observes what comes of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout_at};

use super::judge::judge;
use super::message::{Message, Role, messages, sort};
use super::upstream::{End, Seen, Upstream};
use super::{Case, HOST, Section, Step, Verdict, proxies};

/// Cases that are run at once.
const AT_ONCE: usize = 16;

/// What came of a case.
#[derive(Debug)]
pub struct Observed {
    /// The client's connections.
    pub client: Vec<Got>,
    /// What the cell saw.
    pub cell: Seen,
    /// The client sent `HEAD`.
    pub head_only: bool,
}

/// What a client got over one connection.
#[derive(Debug, Clone, Default)]
pub struct Got {
    /// All that came.
    pub bytes: Vec<u8>,
    /// How it ended; `None` if it did not.
    pub end: Option<End>,
}

impl Observed {
    /// Interim and final answers over all connections, in their order, and bytes that are none.
    pub fn answers(&self) -> (Vec<Message>, Vec<Message>, Vec<u8>) {
        let (mut interim, mut last, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for got in &self.client {
            let (answers, left) = got.answers(self.head_only);
            rest.extend_from_slice(left);
            let (interims, finals) = sort(answers);
            interim.extend(interims);
            last.extend(finals);
        }
        (interim, last, rest)
    }
}

impl Got {
    fn answers(&self, head_only: bool) -> (Vec<Message>, &[u8]) {
        let role = if head_only {
            Role::HeadAnswer
        } else {
            Role::Answer
        };
        messages(&self.bytes, role, self.end == Some(End::Closed))
    }
}

/// How a case went.
#[derive(Debug)]
pub struct Outcome {
    /// What it is worth.
    pub verdict: Verdict,
    /// What is not as it should be.
    pub fault: Option<String>,
    /// What was seen.
    pub observed: Observed,
}

/// Puts `case` to the proxy at `address`, which leads to `upstream` by `host`. Nothing is waited for longer than
/// `patience`.
///
/// # Errors
/// The machine's: the proxy cannot be reached.
pub async fn run(
    case: &Case,
    address: SocketAddr,
    host: &str,
    upstream: &Upstream,
    patience: Duration,
) -> io::Result<Outcome> {
    let mut client = Client {
        now: Wire::connect(address).await?,
        before: Vec::new(),
        head_only: sends_head(case),
        patience,
    };
    for step in &case.client {
        client.step(step, address, host, upstream).await?;
    }
    client.read_on().await;
    upstream.settle().await?;
    let until = Instant::now() + patience;
    let mut changes = upstream.changes();
    let client: Vec<Got> = client
        .before
        .iter()
        .chain([&client.now])
        .map(|wire| wire.got.clone())
        .collect();
    // What has not come yet may be on its way; what has come stays.
    loop {
        changes.mark_unchanged();
        let observed = Observed {
            client: client.clone(),
            cell: upstream.seen(),
            head_only: sends_head(case),
        };
        let (verdict, fault) = judge(case, &observed);
        let outcome = Outcome {
            verdict,
            fault,
            observed,
        };
        if verdict == Verdict::Right
            || !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(())))
        {
            return Ok(outcome);
        }
    }
}

fn sends_head(case: &Case) -> bool {
    case.client
        .iter()
        .any(|step| matches!(step, Step::Send(bytes) if bytes.starts_with(b"HEAD ")))
}

/// `bytes` with the case's host in them.
fn with_host(bytes: &[u8], host: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + host.len());
    let mut rest = bytes;
    while let Some(at) = super::message::find(rest, HOST) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(host.as_bytes());
        rest = &rest[at + HOST.len()..];
    }
    out.extend_from_slice(rest);
    out
}

struct Client {
    now: Wire,
    before: Vec<Wire>,
    head_only: bool,
    patience: Duration,
}

/// One connection.
struct Wire {
    read: Option<OwnedReadHalf>,
    write: Option<OwnedWriteHalf>,
    got: Got,
    /// Nothing is read for now.
    rests: bool,
}

impl Wire {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self {
            read: Some(read),
            write: Some(write),
            got: Got::default(),
            rests: false,
        })
    }

    /// Reads what is there, or waits for it. Cancel safe.
    async fn read(&mut self) {
        let Some(read) = self.read.as_mut().filter(|_| self.got.end.is_none()) else {
            return std::future::pending().await;
        };
        match read.read_buf(&mut self.got.bytes).await {
            Ok(0) => self.got.end = Some(End::Closed),
            Ok(_) => {}
            Err(_) => self.got.end = Some(End::Reset),
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        let Some(mut write) = self.write.take() else {
            return;
        };
        {
            let mut writing = std::pin::pin!(write.write_all(bytes));
            loop {
                tokio::select! {
                    biased;
                    // Nobody reads it any more: what was said before is what counts.
                    _ = &mut writing => break,
                    () = self.read(), if !self.rests => {}
                }
            }
        }
        self.write = Some(write);
    }
}

impl Client {
    async fn step(
        &mut self,
        step: &Step,
        address: SocketAddr,
        host: &str,
        upstream: &Upstream,
    ) -> io::Result<()> {
        let until = Instant::now() + self.patience;
        match step {
            Step::Send(bytes) => {
                let bytes = with_host(bytes, host);
                // A proxy that neither reads nor answers is seen to by whoever waits for the answer.
                let _ = timeout_at(until, self.now.send(&bytes)).await;
            }
            Step::Reached(count) => {
                self.until_seen(upstream, until, |seen| seen.order.len() >= *count)
                    .await
            }
            Step::Done(count) => {
                self.until_seen(upstream, until, |seen| seen.done >= *count)
                    .await
            }
            Step::Answers(count) => {
                let enough = |(_, finals): (Vec<Message>, Vec<Message>)| {
                    finals.iter().filter(|answer| answer.whole).count() >= *count
                };
                self.until_got(until, enough).await;
            }
            Step::Interim(count) => {
                self.until_got(until, |(interims, finals)| {
                    interims.len() >= *count || !finals.is_empty()
                })
                .await;
            }
            Step::Finish => {
                if let Some(write) = &mut self.now.write {
                    // It has ended already: then there is nothing to say.
                    let _ = write.shutdown().await;
                }
            }
            Step::Leave => {
                self.now.write = None;
                self.now.read = None;
                self.now.got.end = Some(End::Ours);
            }
            Step::Connect => {
                let fresh = Wire::connect(address).await?;
                self.before.push(std::mem::replace(&mut self.now, fresh));
            }
            Step::Rest => self.now.rests = true,
        }
        Ok(())
    }

    async fn until_seen(
        &mut self,
        upstream: &Upstream,
        until: Instant,
        enough: impl Fn(&Seen) -> bool,
    ) {
        let mut changes = upstream.changes();
        while !enough(&upstream.seen()) && self.now.got.end.is_none() {
            tokio::select! {
                changed = timeout_at(until, changes.changed()) => if !matches!(changed, Ok(Ok(()))) {
                    return;
                },
                () = self.now.read(), if !self.now.rests => {}
            }
        }
    }

    async fn until_got(
        &mut self,
        until: Instant,
        enough: impl Fn((Vec<Message>, Vec<Message>)) -> bool,
    ) {
        self.now.rests = false;
        while !enough(sort(self.now.got.answers(self.head_only).0)) && self.now.got.end.is_none() {
            if timeout_at(until, self.now.read()).await.is_err() {
                return;
            }
        }
    }

    async fn read_on(&mut self) {
        self.now.rests = false;
        while self.now.got.end.is_none() {
            let until = Instant::now() + self.patience;
            if timeout_at(until, self.now.read()).await.is_err() {
                return;
            }
        }
    }
}

/// A cell for each case of all sections, in their order.
///
/// # Errors
/// There is no free port.
pub async fn cells(sections: &[Section]) -> io::Result<Vec<Upstream>> {
    let mut cells = Vec::new();
    for case in sections.iter().flat_map(|section| &section.cases) {
        cells.push(Upstream::listen(case.cell.clone()).await?);
    }
    Ok(cells)
}

/// Puts every case to the proxy at `address`, some at a time: the outcomes, section by section.
///
/// # Errors
/// As [`run`].
pub async fn all(
    sections: &[Section],
    cells: &[Upstream],
    address: SocketAddr,
    patience: Duration,
) -> io::Result<Vec<Vec<Outcome>>> {
    let cases = sections.iter().flat_map(|section| &section.cases);
    let runs: Vec<_> = cases
        .zip(cells)
        .enumerate()
        .map(|(number, (case, cell))| async move {
            run(case, address, &proxies::host(number), cell, patience).await
        })
        .collect();
    let outcomes: Vec<_> = stream::iter(runs).buffered(AT_ONCE).try_collect().await?;
    let mut outcomes = outcomes.into_iter();
    Ok(sections
        .iter()
        .map(|section| outcomes.by_ref().take(section.cases.len()).collect())
        .collect())
}
