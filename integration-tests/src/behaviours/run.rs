//! Puts a case to a proxy and observes what comes of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::frames::{frames, owed, received};
use super::judge::judge;
use super::message::{Message, Role, find, messages, sort};
use super::proxies::Front;
use super::upstream::{End, Seen, Upstream};
use crate::http2::{ACK, PING};

use super::{AUTHORITY, Case, HOST, PREFACE, Section, Step, Verdict, proxies};

/// Cases that are run at once. Most wait most of the time.
const AT_ONCE: usize = 1024;

/// What came of a case.
#[derive(Debug)]
pub struct Observed {
    /// The client's connections.
    pub client: Vec<Got>,
    /// What the cell saw.
    pub cell: Seen,
}

/// What a client got over one connection.
#[derive(Debug, Clone, Default)]
pub struct Got {
    /// All that came.
    pub bytes: Vec<u8>,
    /// How it ended; `None` if it did not.
    pub end: Option<End>,
    /// It had sent `HEAD`.
    head_only: bool,
    /// It had opened it with HTTP/2.
    pub http2: bool,
}

impl Observed {
    /// Interim and final answers over all connections, in their order, and bytes that are none.
    pub fn answers(&self) -> (Vec<Message>, Vec<Message>, Vec<u8>) {
        let (mut interim, mut last, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for got in &self.client {
            let (answers, left) = got.answers();
            rest.extend_from_slice(left);
            let (interims, finals) = sort(answers);
            interim.extend(interims);
            last.extend(finals);
        }
        (interim, last, rest)
    }
}

impl Got {
    /// The answers, and bytes that are none.
    pub fn answers(&self) -> (Vec<Message>, &[u8]) {
        if self.http2 {
            return (received(&self.bytes, self.head_only).answers, &[]);
        }
        let role = if self.head_only {
            Role::HeadAnswer
        } else {
            Role::Answer
        };
        messages(&self.bytes, role, self.end == Some(End::Closed))
    }

    /// The code with which an HTTP/2 connection was given up.
    pub fn goaway(&self) -> Option<u32> {
        let http2 = self.http2.then(|| received(&self.bytes, self.head_only));
        http2.and_then(|received| received.goaway)
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

/// Puts `case` to the proxy at `front`, which leads to `upstream` by `host`. Nothing is waited for longer than
/// `patience`.
///
/// # Errors
/// The machine's: the proxy cannot be reached.
pub async fn run(
    case: &Case,
    front: Front,
    host: &str,
    upstream: &Upstream,
    patience: Duration,
) -> io::Result<Outcome> {
    let address = if case.speaks_http2() {
        front.http2
    } else {
        front.http1
    };
    let mut client = Client {
        now: Wire::connect(address).await?,
        before: Vec::new(),
        patience,
    };
    for step in &case.client {
        client.step(step, address, host, upstream).await?;
    }
    client.now.read_on(patience).await;
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

/// `bytes` with the case's host in them.
fn with_host(bytes: &[u8], host: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + host.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let stands = [HOST, AUTHORITY.as_bytes()];
        match stands.iter().find_map(|name| rest.strip_prefix(*name)) {
            Some(after) => {
                out.extend_from_slice(host.as_bytes());
                rest = after;
            }
            None => {
                out.push(*first);
                rest = &rest[1..];
            }
        }
    }
    out
}

struct Client {
    now: Wire,
    before: Vec<Wire>,
    patience: Duration,
}

/// One connection.
struct Wire {
    read: Option<OwnedReadHalf>,
    write: Option<OwnedWriteHalf>,
    got: Got,
    /// Nothing is read for now.
    rests: bool,
    /// How much has been looked at for what it asks of an HTTP/2 client.
    seen: usize,
    /// What is owed to the proxy, and not sent yet.
    owed: Vec<u8>,
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
            seen: 0,
            owed: Vec::new(),
        })
    }

    /// Reads what is there, or waits for it. Cancel safe.
    async fn read(&mut self) {
        let Some(read) = self.read.as_mut().filter(|_| self.got.end.is_none()) else {
            return std::future::pending().await;
        };
        match read.read_buf(&mut self.got.bytes).await {
            Ok(0) => self.got.end = Some(End::Closed),
            Ok(_) => self.pay(),
            Err(_) => self.got.end = Some(End::Reset),
        }
    }

    /// Acknowledges what has to be, in HTTP/2, unless something else is being written.
    fn pay(&mut self) {
        if !self.got.http2 {
            return;
        }
        let (frames, read) = frames(&self.got.bytes[self.seen..]);
        self.seen += read;
        self.owed.extend(owed(&frames));
        if let Some(write) = &self.write {
            // Without room for these few bytes the proxy is not waiting for them.
            let sent = write.try_write(&self.owed).unwrap_or_default();
            self.owed.drain(..sent);
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
        self.pay();
    }

    /// Reads until the connection ends, or nothing comes for as long as `patience`.
    async fn read_on(&mut self, patience: Duration) {
        self.rests = false;
        while self.got.end.is_none() {
            if timeout(patience, self.read()).await.is_err() {
                return;
            }
        }
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
                self.now.got.head_only |=
                    bytes.starts_with(b"HEAD ") || find(&bytes, b"\x04HEAD").is_some();
                self.now.got.http2 |= bytes.starts_with(PREFACE);
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
                    finals.iter().filter(|answer| answer.over()).count() >= *count
                };
                self.until_got(until, enough).await;
            }
            Step::End => self.now.read_on(self.patience).await,
            Step::Pong => self.until_pong(until).await,
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
                self.now.got.end.get_or_insert(End::Ours);
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

    async fn until_pong(&mut self, until: Instant) {
        let pong = |bytes: &[u8]| {
            let (frames, _) = frames(bytes);
            let mut pongs = frames.iter().filter(|frame| frame.kind == PING);
            pongs.any(|frame| frame.flags & ACK != 0)
        };
        self.now.rests = false;
        while !pong(&self.now.got.bytes) && self.now.got.end.is_none() {
            if timeout_at(until, self.now.read()).await.is_err() {
                return;
            }
        }
    }

    async fn until_got(
        &mut self,
        until: Instant,
        enough: impl Fn((Vec<Message>, Vec<Message>)) -> bool,
    ) {
        self.now.rests = false;
        while !enough(sort(self.now.got.answers().0)) && self.now.got.end.is_none() {
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

/// Puts every case to the proxy at `front`, all at a time: the outcomes, section by section.
///
/// # Errors
/// As [`run`].
pub async fn all(
    sections: &[Section],
    cells: &[Upstream],
    front: Front,
    patience: Duration,
) -> io::Result<Vec<Vec<Outcome>>> {
    let cases = sections.iter().flat_map(|section| &section.cases);
    let runs: Vec<_> = cases
        .zip(cells)
        .enumerate()
        .map(|(number, (case, cell))| async move {
            run(case, front, &proxies::host(number), cell, patience).await
        })
        .collect();
    let outcomes: Vec<_> = stream::iter(runs).buffered(AT_ONCE).try_collect().await?;
    let mut outcomes = outcomes.into_iter();
    Ok(sections
        .iter()
        .map(|section| outcomes.by_ref().take(section.cases.len()).collect())
        .collect())
}
