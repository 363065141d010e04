//! Upgraded connections: bytes both ways until one side ends, the tunnel idles, or the router stops.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::account::record::{Ending, Record};
use crate::http1::Switched;
use crate::live::cells::InFlight;
use crate::live::drain::{Guard, Signal, Stop};

/// Bytes read at once in each direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// Joins the two sides of an upgrade and relays until it is over. Runs as a task of its own; the record and
/// both counts are let go with it. It must be counted in before its connection is counted out, or else a drain would
/// find nothing that runs.
pub async fn run(
    downstream: oneshot::Receiver<Switched>,
    upstream: OnUpgrade,
    record: Rc<Record>,
    idle: Duration,
    signal: Signal,
    in_flight: InFlight,
    running: Guard,
) {
    let _counted = (in_flight, running);
    record.request_ended.set(Ending::Running);
    record.response_ended.set(Ending::Running);
    let downstream = async { downstream.await.map_err(|_| "the client left".to_owned()) };
    let upstream = async { upstream.await.map_err(|error| error.to_string()) };
    let (downstream, upstream) = match tokio::try_join!(downstream, upstream) {
        Ok(both) => both,
        Err(error) => {
            record.error.replace(Some(format!("upgrade: {error}")));
            return;
        }
    };
    let broke = Cell::new(Ending::Running);
    let mut client = Counted {
        io: downstream,
        record: &record,
        from_client: true,
        broke: &broke,
    };
    let mut cell = Counted {
        io: TokioIo::new(upstream),
        record: &record,
        from_client: false,
        broke: &broke,
    };
    let relay = tokio::io::copy_bidirectional_with_sizes(
        &mut client,
        &mut cell,
        BUFFER_BYTES,
        BUFFER_BYTES,
    );
    tokio::select! {
        ended = relay => {
            let ending = if ended.is_ok() { Ending::Complete } else { broke.get() };
            record.request_ended.set(ending);
            record.response_ended.set(ending);
            if let Err(error) = ended {
                record.error.replace(Some(format!("tunnel: {error}")));
            }
        }
        () = idles(&record, idle) => {
            record.error.replace(Some(format!("tunnel: no byte for {} ms", idle.as_millis())));
        }
        () = signal.reached(Stop::Now) => {
            record.error.replace(Some("tunnel: the router stopped".to_owned()));
        }
    }
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

/// One side, with what is read from it counted.
struct Counted<'a, I> {
    io: I,
    record: &'a Record,
    from_client: bool,
    /// Which side broke, as the ending that it makes.
    broke: &'a Cell<Ending>,
}

impl<I> Counted<'_, I> {
    fn watch<T>(&self, polled: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if let Poll::Ready(Err(_)) = &polled {
            self.broke.set(if self.from_client {
                Ending::ClientGone
            } else {
                Ending::CellCut
            });
        }
        polled
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<'_, I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        ready!(this.watch(read))?;
        let counter = if this.from_client {
            &this.record.bytes_in
        } else {
            &this.record.bytes_out
        };
        counter.set(counter.get() + (buffer.filled().len() - before) as u64);
        this.record.progress();
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<'_, I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        this.watch(written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(context);
        this.watch(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.io).poll_shutdown(context);
        this.watch(shut)
    }
}
