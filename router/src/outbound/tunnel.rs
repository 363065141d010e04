//! Upgraded connections: bytes both ways until one side ends, or the router ends them.
//!
//! The router ends a tunnel that idles, whose cell is withdrawn, or when it stops. Both sides of a WebSocket are then sent a
//! Close frame, between two frames; of any other protocol both sides see the end of the connection.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::account::record::{Ending, Record};
use crate::http1::Switched;
use crate::live::cells::InFlight;
use crate::live::drain::{Guard, Signal, Stop};
use crate::live::snapshot::Snapshot;
use crate::registry::{Admission, CellName};
use crate::wire::websocket::{self, Frames};

/// Bytes read at once in each direction.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long the end of a tunnel may take: the frames under way, the Close frames, and the answers to them.
const CLOSING: Duration = Duration::from_secs(5);
/// How much of it the frames under way may take.
const FRAMES: Duration = Duration::from_secs(3);

/// What a tunnel holds and rests on.
#[derive(Debug)]
pub struct Terms {
    /// The cell that it leads to.
    pub cell: CellName,
    /// Whether a WebSocket runs in it.
    pub websocket: bool,
    /// How long it may be silent.
    pub idle: Duration,
    /// Tells of changes of the registry.
    pub changes: watch::Receiver<Arc<Snapshot>>,
    /// Tells of the router's end.
    pub signal: Signal,
    /// Its place among the requests in flight.
    pub in_flight: InFlight,
    /// Counted in before its connection is counted out, or else a drain would find nothing that runs.
    pub running: Guard,
}

/// Joins the two sides of an upgrade and relays until it is over. Runs as a task of its own; the record and both counts are
/// let go with it.
pub async fn run(
    downstream: oneshot::Receiver<Switched>,
    mut cell: Switched,
    record: Rc<Record>,
    terms: Terms,
) {
    record.request_ended.set(Ending::Running);
    record.response_ended.set(Ending::Running);
    let Ok(mut client) = downstream.await else {
        let left = "upgrade: the client left".to_owned();
        record.error.replace(Some(left));
        return;
    };
    let mut up = Pipe::new(terms.websocket, true);
    let mut down = Pipe::new(terms.websocket, false);
    let mut up_first = false;
    let relay = std::future::poll_fn(|context| {
        // Who goes first may use up all that a task may do in one go.
        up_first = !up_first;
        let (up, down) = match up_first {
            true => {
                let up = up.poll(context, &mut client, &mut cell, &record)?;
                (up, down.poll(context, &mut cell, &mut client, &record)?)
            }
            false => {
                let down = down.poll(context, &mut cell, &mut client, &record)?;
                (up.poll(context, &mut client, &mut cell, &record)?, down)
            }
        };
        match (up, down) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok::<_, Broken>(())),
            _ => Poll::Pending,
        }
    });
    let why = tokio::select! {
        ended = relay => {
            let (ending, error) = match ended {
                Ok(()) => (Ending::Complete, None),
                Err((side, error)) => (side, Some(format!("tunnel: {error}"))),
            };
            record.request_ended.set(ending);
            record.response_ended.set(ending);
            record.error.replace(error);
            return;
        }
        () = idles(&record, terms.idle) => format!("no byte for {} ms", terms.idle.as_millis()),
        () = withdrawn(terms.changes, &terms.cell) => "the cell was withdrawn".to_owned(),
        () = terms.signal.reached(Stop::Closing) => "the router stopped".to_owned(),
    };
    record.error.replace(Some(format!("tunnel: {why}")));
    close(client, cell, up, down, &record).await;
}

/// Returns when nothing has gone through for `idle`.
async fn idles(record: &Record, idle: Duration) {
    loop {
        let until = record.last_progress() + idle;
        if Instant::now() >= until {
            return;
        }
        sleep_until(until).await;
    }
}

/// Returns when the registry has no such cell any more, or has it disabled.
async fn withdrawn(mut changes: watch::Receiver<Arc<Snapshot>>, cell: &CellName) {
    let gone = |snapshot: &Arc<Snapshot>| {
        let cell = snapshot.registry.cell(cell.as_str());
        cell.is_none_or(|cell| cell.policy.state == Admission::Disabled)
    };
    if changes.wait_for(gone).await.is_err() {
        // The publisher is gone only with the process.
        std::future::pending().await
    }
}

/// Ends both sides within bounds.
async fn close(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut cell: impl AsyncRead + AsyncWrite + Unpin,
    mut up: Pipe,
    mut down: Pipe,
    record: &Record,
) {
    let deadline = Instant::now() + CLOSING;
    let finished = std::future::poll_fn(|context| {
        let up = up.poll_finish(context, &mut client, &mut cell, record);
        let down = down.poll_finish(context, &mut cell, &mut client, record);
        if up.is_ready() && down.is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    // What is not between two frames by then gets no Close frame.
    let _ = timeout(FRAMES, finished).await;
    let key = crate::config::seed().to_be_bytes();
    let to_cell = websocket::going_away_masked([key[0], key[1], key[2], key[3]]);
    let to_cell = up.may_say_goodbye().then_some(&to_cell[..]);
    let to_client = down.may_say_goodbye().then_some(&websocket::GOING_AWAY[..]);
    tokio::join!(
        end(&mut client, to_client, up, deadline),
        end(&mut cell, to_cell, down, deadline),
    );
}

/// Says `goodbye` to one side, if there is any to be said, waits for its own, and ends the connection. `from` brought what
/// this side said.
async fn end(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    goodbye: Option<&[u8]>,
    from: Pipe,
    deadline: Instant,
) {
    let exchange = async {
        if let Some(goodbye) = goodbye {
            io.write_all(goodbye).await?;
            io.flush().await?;
            from.hear_goodbye(io).await?;
        }
        io::Result::Ok(())
    };
    // Who says none in time is not waited for.
    let _ = timeout_at(deadline, exchange).await;
    let _ = timeout(Duration::from_millis(500), io.shutdown()).await;
    // A close with something unread would be a reset, and might overtake what was said.
    let _ = timeout_at(deadline, tokio::io::copy(io, &mut tokio::io::sink())).await;
}

/// Which side broke, as the ending that it makes, and how.
type Broken = (Ending, io::Error);

/// How far one direction has come.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Its source may send more.
    Open,
    /// Its source has ended, which its sink has not been told.
    Ended,
    /// Nothing more goes through.
    Over,
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    buffer: Box<[u8]>,
    /// What of the buffer is still to be written.
    waiting: std::ops::Range<usize>,
    /// Where in its frames that is which has been written.
    frames: Option<Frames>,
    from_client: bool,
    unflushed: bool,
    phase: Phase,
}

impl Pipe {
    fn new(websocket: bool, from_client: bool) -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            waiting: 0..0,
            frames: websocket.then(Frames::default),
            from_client,
            unflushed: false,
            phase: Phase::Open,
        }
    }

    /// Relays. Ready when the source has ended and the sink knows.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        record: &Record,
    ) -> Poll<Result<(), Broken>> {
        let (source, sink) = if self.from_client {
            (Ending::ClientGone, Ending::CellCut)
        } else {
            (Ending::CellCut, Ending::ClientGone)
        };
        let broke = |side| move |error| (side, error);
        loop {
            if !self.waiting.is_empty() {
                ready!(self.poll_write(context, &mut to, self.waiting.len()))
                    .map_err(broke(sink))?;
                continue;
            }
            match self.phase {
                Phase::Over => return Poll::Ready(Ok(())),
                Phase::Ended => {
                    ready!(Pin::new(&mut to).poll_shutdown(context)).map_err(broke(sink))?;
                    self.phase = Phase::Over;
                }
                Phase::Open => {
                    let read = self.poll_read(context, &mut from, record);
                    if read.map_err(broke(source))?.is_pending() {
                        ready!(self.poll_flush(context, &mut to)).map_err(broke(sink))?;
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Relays the rest of the frame under way, or what has been read where there are no frames. Ready, too, when that
    /// cannot be done.
    fn poll_finish(
        &mut self,
        context: &mut Context<'_>,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        record: &Record,
    ) -> Poll<()> {
        loop {
            let waiting = &self.buffer[self.waiting.clone()];
            let step = match &self.frames {
                Some(frames) => frames.clone().finish(waiting),
                None => waiting.len(),
            };
            let between = self.frames.as_ref().is_none_or(Frames::between);
            let stepped = if step > 0 {
                self.poll_write(context, &mut to, step)
            } else if between || self.phase != Phase::Open {
                return self.poll_flush(context, &mut to).map(drop);
            } else {
                self.poll_read(context, &mut from, record)
            };
            if ready!(stepped).is_err() {
                self.phase = Phase::Over;
                return Poll::Ready(());
            }
        }
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        record: &Record,
    ) -> Poll<io::Result<()>> {
        let mut into = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(from).poll_read(context, &mut into))?;
        self.waiting = 0..into.filled().len();
        if self.waiting.is_empty() {
            self.phase = Phase::Ended;
        }
        let counter = if self.from_client {
            &record.bytes_in
        } else {
            &record.bytes_out
        };
        counter.set(counter.get() + self.waiting.len() as u64);
        record.progress();
        Poll::Ready(Ok(()))
    }

    /// Writes up to `most` of what waits.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        most: usize,
    ) -> Poll<io::Result<()>> {
        let start = self.waiting.start;
        let bytes = &self.buffer[start..start + most];
        let written = ready!(Pin::new(to).poll_write(context, bytes))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        if let Some(frames) = &mut self.frames {
            frames.pass(&bytes[..written]);
        }
        self.waiting.start += written;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a Close frame may follow what was written.
    fn may_say_goodbye(&self) -> bool {
        let open = |frames: &Frames| frames.between() && !frames.closed();
        self.phase == Phase::Open && self.frames.as_ref().is_some_and(open)
    }

    /// Reads on until the source's Close frame has come, or its end. Nothing of it is relayed any more.
    async fn hear_goodbye(mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let Some(frames) = &mut self.frames else {
            return Ok(());
        };
        frames.pass(&self.buffer[self.waiting]);
        while self.phase == Phase::Open && !frames.closed() {
            match from.read(&mut self.buffer).await? {
                0 => self.phase = Phase::Ended,
                count => frames.pass(&self.buffer[..count]),
            }
        }
        Ok(())
    }
}
