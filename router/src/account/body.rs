//! Bodies on their way through: counted, watched for progress, and never gathered.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::file::Sent;
use super::pace::Taking;
use super::record::{Ending, Record};
use crate::coalesce;
use crate::http1;
use crate::http1::{AsIs, HasLines, Piece};
use crate::http2;
use crate::registry::SignIn;
use crate::wire::{identity, sign_in};

/// Whose body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's, on its way to the cell.
    Request,
    /// The cell's, on its way to the client.
    Response,
}

/// A body as it comes in.
#[derive(Debug)]
pub enum Incoming {
    /// From a client that speaks HTTP/1.
    Http1(http1::Body),
    /// From a client that speaks HTTP/2.
    Http2(http2::Body),
    /// From a cell that speaks HTTP/1.
    Cell(http1::AnswerBody<Relayed>),
    /// From a cell that speaks HTTP/2.
    Http2Cell(hyper::body::Incoming),
}

impl Incoming {
    /// Whether its client may be sent what is in pipes of the kernel.
    pub fn takes_pipes(&self) -> bool {
        match self {
            Self::Http1(body) => body.takes_pipes(),
            Self::Http2(_) | Self::Cell(_) | Self::Http2Cell(_) => false,
        }
    }

    /// Lets what is to come stay in the kernel where at least `from` bytes of it are to come at once: whoever reads it must
    /// take pipes.
    pub fn pipe(&self, from: u64) {
        match self {
            Self::Http1(body) => body.pipe(from),
            Self::Cell(body) => body.pipe(from),
            Self::Http2(_) | Self::Http2Cell(_) => {}
        }
    }

    /// A way to send interim answers to the client; none where it knows of none.
    pub fn interim(&self) -> Option<Interim> {
        match self {
            Self::Http1(body) => body.interim().map(Interim::Http1),
            Self::Http2(body) => Some(Interim::Http2(body.interim())),
            Self::Cell(_) | Self::Http2Cell(_) => None,
        }
    }
}

/// Sends interim answers to a client (RFC 9110 section 15.2).
#[derive(Debug, Clone)]
pub enum Interim {
    /// Over HTTP/1.1.
    Http1(http1::Interim),
    /// Over HTTP/2.
    Http2(http2::Interim),
}

impl Interim {
    /// Sends one, unless the final answer is on its way already.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        match self {
            Self::Http1(client) => client.send(status, headers),
            Self::Http2(client) => client.send(status, headers),
        }
    }
}

impl Body for Incoming {
    type Data = Piece;
    type Error = Lost;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Lost>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(context).map_err(Lost::Http1),
            Self::Http2(body) => in_memory(ready!(Pin::new(body).poll_frame(context)), Lost::Http2),
            Self::Cell(body) => Pin::new(body).poll_frame(context).map_err(Lost::Http1),
            Self::Http2Cell(body) => match ready!(Pin::new(&mut *body).poll_frame(context)) {
                // So hyper tells of a reset without an error, too (RFC 9113 section 5.4.2).
                None if !body.is_end_stream() => Poll::Ready(Some(Err(Lost::Unended))),
                frame => in_memory(frame, Lost::Http2Cell),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Cell(body) => body.is_end_stream(),
            Self::Http2Cell(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Cell(body) => body.size_hint(),
            Self::Http2Cell(body) => body.size_hint(),
        }
    }
}

fn in_memory<E>(
    frame: Option<Result<Frame<Bytes>, E>>,
    lost: fn(E) -> Lost,
) -> Poll<Option<Result<Frame<Piece>, Lost>>> {
    Poll::Ready(frame.map(|frame| match frame {
        Ok(frame) => Ok(frame.map_data(Piece::from)),
        Err(error) => Err(lost(error)),
    }))
}

/// How the sender of a body was lost.
#[derive(Debug)]
pub enum Lost {
    /// An HTTP/1 client, or such a cell.
    Http1(http1::BodyError),
    /// An HTTP/2 client.
    Http2(http2::BodyError),
    /// An HTTP/2 cell.
    Http2Cell(hyper::Error),
    /// An HTTP/2 cell took back what it had begun, without an error.
    Unended,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
            Self::Http2Cell(error) => error.fmt(f),
            Self::Unended => f.write_str("the stream was reset before its end"),
        }
    }
}

impl std::error::Error for Lost {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Http1(error) => error.source(),
            Self::Http2(error) => error.source(),
            Self::Http2Cell(error) => error.source(),
            Self::Unended => None,
        }
    }
}

/// Why a body broke off.
#[derive(Debug)]
pub enum Cut {
    /// Its sender, or the connection to it, broke off.
    Gone(Lost),
    /// Its sender sent nothing for so long.
    Stalled(Duration),
    /// It came at fewer bytes per second than this.
    Slow(u64),
    /// It was taken at fewer bytes per second than this.
    Untaken(u64),
    /// It is longer than so many bytes.
    TooLarge(u64),
    /// It is a file that cannot be read on.
    File(std::io::Error),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(_) => f.write_str("body broke off"),
            Self::Slow(rate) => write!(f, "body slower than {rate} bytes per second"),
            Self::Untaken(rate) => {
                write!(f, "body taken slower than {rate} bytes per second")
            }
            Self::File(_) => f.write_str("the file cannot be read on"),
            Self::TooLarge(most) => write!(f, "body longer than {most} bytes"),
            Self::Stalled(after) => write!(f, "no byte of body for {} ms", after.as_millis()),
        }
    }
}

impl std::error::Error for Cut {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gone(error) => Some(error),
            Self::File(error) => Some(error),
            Self::Stalled(_) | Self::Slow(_) | Self::Untaken(_) | Self::TooLarge(_) => None,
        }
    }
}

/// What must happen before a body is read for the first time.
pub type Gate = Pin<Box<dyn Future<Output = ()>>>;

/// What is asked of a body's sender.
#[derive(Debug, Clone, Copy)]
pub struct Demands {
    /// It pauses for so long at most.
    pub patience: Duration,
    /// It sends at most so many bytes.
    pub most: Option<u64>,
    /// It sends so many bytes, on average over each second that it is waited for; 0 for no matter how slow. Asked for
    /// once it has been waited for as long as it may pause.
    pub rate: u64,
}

impl Demands {
    /// Only that it does not pause for longer.
    pub fn patience(patience: Duration) -> Self {
        Self {
            patience,
            most: None,
            rate: 0,
        }
    }
}

/// A body that is relayed. What its sender cuts is passed on as cut: its error ends the other connection.
pub struct Relayed<G = ()> {
    /// Taken only on drop.
    body: Option<Incoming>,
    side: Side,
    record: Rc<Record>,
    demands: Demands,
    gate: Option<Gate>,
    /// How long the sender has been waited for in all, before `waiting`.
    waited: Duration,
    /// Since when the sender has been waited for, and until when it may be silent.
    waiting: Option<Instant>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// How fast it is taken, if that matters.
    taking: Option<Taking>,
    /// How clients sign in before the cell: its trailers say no more of them than their heads do.
    sign_in: Option<Arc<SignIn>>,
    /// What its trailers must not say, for its head kept that to one connection.
    named: Vec<HeaderName>,
    /// All of it was passed on.
    whole: bool,
    /// Let go when the body is over, whichever way.
    guard: Option<G>,
    at_end: fn(G),
}

impl Relayed {
    /// The client's body. It is not read before `gate` opens.
    pub fn request(
        body: Incoming,
        record: Rc<Record>,
        mut demands: Demands,
        gate: Option<Gate>,
    ) -> Self {
        if body.size_hint().exact().is_none() {
            // What is made while it is sent, such as one half of a conversation, may be slow.
            demands.rate = 0;
        }
        Self::new(body, Side::Request, record, demands, gate, (), |()| ())
    }

    /// As one for a cell before which clients so sign in, if they do.
    pub fn signed_in_by(mut self, sign_in: Option<&Arc<SignIn>>) -> Self {
        self.sign_in = sign_in.cloned();
        self
    }
}

impl Relayed {
    /// Lets what is to come stay in the kernel: see [`Incoming::pipe`].
    pub fn pipe(&self, from: u64) {
        if let Some(body) = &self.body {
            body.pipe(from);
        }
    }

    /// No body at all, in place of one that turned out to be empty.
    pub fn absent(record: Rc<Record>) -> Self {
        Self {
            body: None,
            side: Side::Request,
            record,
            demands: Demands::patience(Duration::MAX),
            gate: None,
            waited: Duration::ZERO,
            waiting: None,
            deadline: None,
            taking: None,
            sign_in: None,
            named: Vec::new(),
            whole: true,
            guard: None,
            at_end: |()| (),
        }
    }
}

impl<G> Relayed<G> {
    /// The cell's body, which may pause for `patience` at most and is to be taken as `taking` says. `at_end` gets the guard when the body ended whole; in
    /// any other case the guard is dropped.
    pub fn response(
        body: Incoming,
        record: Rc<Record>,
        patience: Duration,
        taking: Taking,
        guard: G,
        at_end: fn(G),
    ) -> Self {
        let mut relayed = Self::new(
            body,
            Side::Response,
            record,
            Demands::patience(patience),
            None,
            guard,
            at_end,
        );
        relayed.taking = Some(taking);
        relayed
    }

    /// Leaves out of its trailers what has these names (RFC 9110 section 7.6.1).
    pub fn leave_out(&mut self, named: Vec<HeaderName>) {
        self.named = named;
    }

    fn new(
        body: Incoming,
        side: Side,
        record: Rc<Record>,
        demands: Demands,
        gate: Option<Gate>,
        guard: G,
        at_end: fn(G),
    ) -> Self {
        let empty = body.is_end_stream();
        let body = Some(body);
        let guard = Some(guard);
        let mut relayed = Self {
            body,
            side,
            record,
            demands,
            gate,
            waited: Duration::ZERO,
            waiting: None,
            deadline: None,
            taking: None,
            sign_in: None,
            named: Vec::new(),
            whole: false,
            guard,
            at_end,
        };
        if empty {
            relayed.complete();
            relayed.set_ending(Ending::None);
            if side == Side::Request {
                relayed.record.expects_nothing();
            }
        } else {
            relayed.set_ending(Ending::Running);
        }
        relayed
    }

    fn set_ending(&self, ending: Ending) {
        match self.side {
            Side::Request => self.record.request_ended.set(ending),
            Side::Response => self.record.response_ended.set(ending),
        }
    }

    fn complete(&mut self) {
        self.set_ending(Ending::Complete);
        self.whole = true;
        if let Some(guard) = self.guard.take() {
            (self.at_end)(guard);
        }
    }

    fn count(&self, bytes: u64) {
        let counter = self.counter();
        let all = counter.get() + bytes;
        counter.set(all);
        if all >= coalesce::LARGE {
            coalesce::moved(bytes);
        }
        self.record.progress();
    }

    fn fail(&mut self, cut: Cut) -> Cut {
        self.set_ending(match (self.side, &cut) {
            (Side::Request, Cut::Gone(_)) => Ending::ClientGone,
            (Side::Request, Cut::TooLarge(_)) => Ending::TooLarge,
            (_, Cut::Untaken(_)) => {
                // The client does not hear of it, and nobody else is told.
                self.record.error.replace(Some(cut.to_string()));
                Ending::ClientStalled
            }
            // No body that is relayed is a file.
            (_, Cut::File(_)) => Ending::Unreadable,
            (Side::Request, Cut::Stalled(_) | Cut::Slow(_)) => Ending::ClientStalled,
            (Side::Response, Cut::Gone(_)) => Ending::CellCut,
            (Side::Response, Cut::Stalled(_) | Cut::Slow(_) | Cut::TooLarge(_)) => {
                Ending::CellStalled
            }
        });
        self.guard = None;
        cut
    }

    /// Whether the sender has been silent for too long. The clock runs only while the body is waited for, so a slow
    /// reader is never mistaken for a slow sender; it costs nothing while bytes flow.
    fn stalled(&mut self, context: &mut Context<'_>) -> bool {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.demands.patience)));
        while deadline.as_mut().poll(context).is_ready() {
            let until = self.record.last_progress().max(since) + self.demands.patience;
            if Instant::now() >= until {
                return true;
            }
            deadline.as_mut().reset(until);
        }
        false
    }

    /// What the sender does wrong by `data` bytes more.
    fn breaks(&self, data: u64) -> Option<Cut> {
        let Demands {
            patience,
            most,
            rate,
        } = self.demands;
        let came = self.counter().get() + data;
        if let Some(most) = most.filter(|most| came > *most) {
            return Some(Cut::TooLarge(most));
        }
        let asked = self.waited.as_secs().saturating_mul(rate);
        (self.waited > patience && came < asked).then_some(Cut::Slow(rate))
    }

    fn counter(&self) -> &std::cell::Cell<u64> {
        match self.side {
            Side::Request => &self.record.bytes_in,
            Side::Response => &self.record.bytes_out,
        }
    }

    fn opened(&mut self, context: &mut Context<'_>) -> bool {
        let open = self
            .gate
            .as_mut()
            .is_none_or(|gate| gate.as_mut().poll(context).is_ready());
        if open {
            self.gate = None;
        }
        open
    }
}

impl<G> Drop for Relayed<G> {
    fn drop(&mut self) {
        // What is left of it is the client's connection's to deal with.
        let running = !self.whole && self.record.request_ended.get() == Ending::Running;
        if self.side == Side::Request && running {
            self.set_ending(Ending::NotWanted);
        }
    }
}

impl<G> fmt::Debug for Relayed<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relayed")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

impl<G: Unpin> Body for Relayed<G> {
    type Data = Piece;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Cut>>> {
        let this = self.get_mut();
        if !this.opened(context) {
            return Poll::Pending;
        }
        if let Some(rate) = this.taking.as_mut().and_then(Taking::asked) {
            return Poll::Ready(Some(Err(this.fail(Cut::Untaken(rate)))));
        }
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
            let stalled = this.stalled(context);
            return if stalled {
                Poll::Ready(Some(Err(this.fail(Cut::Stalled(this.demands.patience)))))
            } else {
                Poll::Pending
            };
        };
        if let Some(since) = this.waiting.take() {
            this.waited += since.elapsed();
        }
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    identity::silence_trailers(trailers);
                    if let Some(sign_in) = &this.sign_in {
                        sign_in::silence_trailers(trailers, sign_in);
                    }
                    for name in &this.named {
                        trailers.remove(name);
                    }
                }
                // Who was promised a length does not ask for more once it has come. What an HTTP/2 cell says behind it is
                // to be heard: its trailers, and that it is the end.
                let whole = body.size_hint().exact() == Some(0);
                let last = body.is_end_stream() || whole && !matches!(body, Incoming::Http2Cell(_));
                let data = frame.data_ref().map_or(0, Piece::len) as u64;
                if let Some(cut) = this.breaks(data) {
                    return Poll::Ready(Some(Err(this.fail(cut))));
                }
                this.count(data);
                if let Some(taking) = &mut this.taking {
                    taking.hand(data, this.record.last_progress());
                }
                if last {
                    this.complete();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(this.fail(Cut::Gone(error)))),
            None => {
                this.complete();
                None
            }
        })
    }

    /// Only what has been passed on has ended: an HTTP/2 body may learn of its end between two looks, and whoever
    /// asks would not come for it then.
    fn is_end_stream(&self) -> bool {
        self.body.is_none() || self.whole
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of any answer.
#[derive(Debug)]
pub enum Answer<G = ()> {
    /// The router's own.
    Own(http_body_util::Full<Piece>, Rc<Record>),
    /// A file of the cell's.
    File(Box<Sent>),
    /// The cell's; in a box, for it is moved from hand to hand.
    Relayed(Box<Relayed<G>>),
}

/// A body that is told why nobody reads it on.
pub trait Told {
    /// Its reader takes nothing of it any more.
    fn client_stalled(&self);
}

impl<G> Told for Answer<G> {
    fn client_stalled(&self) {
        let record = match self {
            Self::Own(_, record) => &**record,
            Self::File(body) => body.record(),
            Self::Relayed(body) => &*body.record,
        };
        record.response_ended.set(Ending::ClientStalled);
    }
}

impl<G> Answer<G> {
    /// The router's own words.
    pub fn own(body: Bytes, record: Rc<Record>) -> Self {
        Self::Own(http_body_util::Full::new(body.into()), record)
    }
}

impl<G> HasLines for Answer<G> {
    fn take_lines(&mut self) -> Option<AsIs> {
        match self {
            Self::Relayed(body) => match &mut body.body {
                Some(Incoming::Cell(body)) => body.take_lines(),
                Some(Incoming::Http1(_) | Incoming::Http2(_) | Incoming::Http2Cell(_)) | None => {
                    None
                }
            },
            Self::Own(..) | Self::File(_) => None,
        }
    }
}

impl<G: Unpin> Body for Answer<G> {
    type Data = Piece;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Cut>>> {
        match self.get_mut() {
            Self::Own(body, record) => {
                let frame = ready!(Pin::new(body).poll_frame(context))
                    .map(|frame| frame.unwrap_or_else(|never| match never {}));
                if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                    record
                        .bytes_out
                        .set(record.bytes_out.get() + data.len() as u64);
                }
                Poll::Ready(frame.map(Ok))
            }
            Self::File(body) => Pin::new(&mut **body).poll_frame(context),
            Self::Relayed(body) => Pin::new(&mut **body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body, _) => body.is_end_stream(),
            Self::File(body) => body.is_end_stream(),
            Self::Relayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body, _) => body.size_hint(),
            Self::File(body) => body.size_hint(),
            Self::Relayed(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::record::opened;
    use crate::config::LogFormat;

    #[test]
    fn a_body_is_large_from_so_many_bytes_on() {
        let body = Relayed::absent(opened(LogFormat::Json, None));
        for (bytes, of_large) in [(coalesce::LARGE - 1, 0), (1, 1), (7, 7)] {
            body.count(bytes);
            assert_eq!(coalesce::take_moved(), of_large);
        }
    }
}
